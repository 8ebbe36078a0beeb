//! Logins of repositories, out of configuration files and credential helpers, asked for once each.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::config::{ConfigFile, Found, Login};
use super::helper;
use crate::error::Result;

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

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
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
                    helper::ask(&helper, &server)
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
