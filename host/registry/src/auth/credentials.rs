//! Logins of repositories, out of configuration files and credential helpers, asked for once each.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};

use super::config::{ConfigFile, Found, Login};
use crate::error::{ErrorKind, RegistryError, Result};
use crate::text;

/// A helper may ask a cloud's API, but not a person.
const HELPER_TIME: Duration = Duration::from_secs(60);

/// What helpers say on standard output when they know nothing (docker-credential-helpers).
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A login and where it came from, for messages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) login: Login,
    pub(crate) source: String,
}

/// By registry and repository; also that there is none.
type Known = HashMap<(String, String), Option<Arc<Credential>>>;

/// Finds logins.
pub(crate) struct Credentials {
    files: Vec<PathBuf>,
    known: Mutex<Known>,
}

impl Credentials {
    pub(crate) fn new(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            known: Mutex::default(),
        }
    }

    /// The files that were looked at, for messages.
    pub(crate) fn places(&self) -> String {
        let names: Vec<String> = self
            .files
            .iter()
            .map(|f| format!("`{}`", f.display()))
            .collect();
        names.join(", ")
    }

    /// The login for `repository` on `registry`, if there is one.
    pub(crate) async fn find(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Arc<Credential>>> {
        let key = (registry.to_owned(), repository.to_owned());
        if let Some(known) = self.known().get(&key) {
            return Ok(known.clone());
        }
        let found = self.search(registry, repository).await?.map(Arc::new);
        self.known().insert(key, found.clone());
        Ok(found)
    }

    /// Forgets a login that was refused: a helper's may have run out.
    pub(crate) fn forget(&self, registry: &str, repository: &str) {
        self.known()
            .remove(&(registry.to_owned(), repository.to_owned()));
    }

    fn known(
        &self,
    ) -> std::sync::MutexGuard<'_, Known> {
        self.known
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn search(&self, registry: &str, repository: &str) -> Result<Option<Credential>> {
        for path in &self.files {
            let Some(file) = ConfigFile::read(path)? else {
                continue;
            };
            let place = file.path().display().to_string();
            let found = match file.find(registry, repository)? {
                None => None,
                Some(Found::Entry { key, login }) => Some(Credential {
                    login,
                    source: format!("the entry `{key}` of `{place}`"),
                }),
                Some(Found::Helper { helper, server }) => {
                    let source =
                        format!("the helper `docker-credential-{helper}`, named in `{place}`");
                    ask(helper, server)
                        .await?
                        .map(|login| Credential { login, source })
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// Runs a helper, off the async threads.
async fn ask(helper: String, server: String) -> Result<Option<Login>> {
    let (name, about) = (helper.clone(), server.clone());
    let run = tokio::task::spawn_blocking(move || run(&name, &about));
    let failed = |why: String| {
        let (helper, server) = (helper.clone(), server.clone());
        RegistryError::new(ErrorKind::CredentialHelper {
            helper,
            server,
            why,
        })
    };
    let answer = match tokio::time::timeout(HELPER_TIME, run).await {
        Err(_) => {
            return Err(failed(format!(
                "no answer within {} s",
                HELPER_TIME.as_secs()
            )));
        }
        Ok(Err(panicked)) => return Err(failed(panicked.to_string())),
        Ok(Ok(answer)) => answer,
    };
    match answer {
        Ok(DockerCredential::UsernamePassword(user, password))
            if user.is_empty() && password.is_empty() =>
        {
            Ok(None)
        }
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Login::Password { user, password }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Login::IdentityToken(token))),
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.trim() == NOT_FOUND =>
        {
            Ok(None)
        }
        // Standard output may hold half a secret; helpers report errors on either, so stderr comes first.
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. }) => {
            let said = if stderr.trim().is_empty() {
                stdout
            } else {
                stderr
            };
            Err(failed(text::clean(&said)))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            Err(failed("it cannot be run; is it in PATH?".to_owned()))
        }
        Err(other) => Err(failed(other.to_string().to_lowercase())),
    }
}

/// Speaks the helper protocol through docker_credential, which takes a configuration.
fn run(
    helper: &str,
    server: &str,
) -> std::result::Result<DockerCredential, CredentialRetrievalError> {
    let config = serde_json::json!({ "credHelpers": { server: helper } }).to_string();
    docker_credential::get_credential_from_reader(config.as_bytes(), server)
}
