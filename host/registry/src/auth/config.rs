//! Docker's `config.json`: which entry or helper belongs to a repository.  Pure, but for reading the file.
//!
//! Keys are hosts (`r.example:5000`), URLs as docker writes them (`https://index.docker.io/v1/`), or paths as
//! podman does (`r.example/team/app`); the most specific one wins.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use serde::Deserialize;

use crate::endpoint::{DOCKER_HUB, canonical};
use crate::error::{ErrorKind, RegistryError, Result};

/// The key under which docker keeps Docker Hub, in files and in helpers.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a registry accepts from us.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Password {
        user: String,
        password: String,
    },
    /// A refresh token, exchanged for bearer tokens.
    IdentityToken(String),
    /// A bearer token as it is.
    Bearer(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Login::Password { user, .. } => write!(f, "Password({user}, <redacted>)"),
            Login::IdentityToken(_) => f.write_str("IdentityToken(<redacted>)"),
            Login::Bearer(_) => f.write_str("Bearer(<redacted>)"),
        }
    }
}

#[derive(Deserialize, Default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Contents {
    auths: HashMap<String, Entry>,
    creds_store: String,
    cred_helpers: HashMap<String, String>,
}

/// One configuration file.
pub(crate) struct ConfigFile {
    path: PathBuf,
    contents: Contents,
}

/// Where a login is to be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// In the file itself, under the key.
    Entry { key: String, login: Login },
    /// From the helper, asked about the server.
    Helper { helper: String, server: String },
}

impl ConfigFile {
    /// Reads a file; `None` where there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unusable(path, e.to_string())),
        };
        // The position is enough; the text around it may be a password.
        let place = |e: serde_json::Error| {
            unusable(
                path,
                format!(
                    "line {}, column {}: not what docker writes",
                    e.line(),
                    e.column()
                ),
            )
        };
        Ok(Some(Self {
            path: path.to_owned(),
            contents: serde_json::from_slice(&text).map_err(place)?,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Finds what the file has for `repository` on `registry`.
    pub(crate) fn find(&self, registry: &str, repository: &str) -> Result<Option<Found>> {
        let registry = canonical(registry);
        for wanted in scopes(registry, repository) {
            if let Some((key, helper)) = lookup(&self.contents.cred_helpers, &wanted)
                && !helper.is_empty()
            {
                return Ok(Some(Found::Helper {
                    helper: helper.clone(),
                    server: server_name(key),
                }));
            }
            if let Some((key, entry)) = lookup(&self.contents.auths, &wanted)
                && let Some(login) = self.login(key, entry)?
            {
                return Ok(Some(Found::Entry {
                    key: key.clone(),
                    login,
                }));
            }
        }
        let store = &self.contents.creds_store;
        let helper = || Found::Helper {
            helper: store.clone(),
            server: server_name(registry),
        };
        Ok((!store.is_empty()).then(helper))
    }

    /// The login of an entry; docker leaves empty entries where a credential store has the secret.
    fn login(&self, key: &str, entry: &Entry) -> Result<Option<Login>> {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        if let Some(token) = given(&entry.identitytoken) {
            return Ok(Some(Login::IdentityToken(token)));
        }
        if let Some(token) = given(&entry.registrytoken) {
            return Ok(Some(Login::Bearer(token)));
        }
        if let Some(auth) = given(&entry.auth) {
            let bad = || {
                unusable(
                    &self.path,
                    format!("`auth` of `{key}` is not `user:password` in base64"),
                )
            };
            return decode(&auth).map(Some).ok_or_else(bad);
        }
        let pair = given(&entry.username).zip(given(&entry.password));
        Ok(pair.map(|(user, password)| Login::Password { user, password }))
    }
}

/// The most specific name first: `host/a/b`, `host/a`, `host`.
fn scopes(registry: &str, repository: &str) -> Vec<String> {
    let full = format!("{registry}/{repository}");
    let ends = full
        .match_indices('/')
        .map(|(n, _)| n)
        .filter(|n| *n >= registry.len());
    let mut out: Vec<String> = ends.map(|n| full[..n].to_owned()).collect();
    out.push(full.clone());
    out.reverse();
    out
}

/// Finds `wanted` as it is, or under a key that means the same.
fn lookup<'a, T>(map: &'a HashMap<String, T>, wanted: &str) -> Option<(&'a String, &'a T)> {
    map.get_key_value(wanted).or_else(|| {
        // Sorted, so that of two keys with one meaning it is always the same that wins.
        let mut same: Vec<_> = map
            .iter()
            .filter(|(key, _)| normal(key) == wanted)
            .collect();
        same.sort_by_key(|(key, _)| key.as_str());
        same.first().copied()
    })
}

/// A key without scheme and API version; of a key that is a URL only the host counts, as docker has it.
fn normal(key: &str) -> String {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let (host, path) = bare
        .unwrap_or(key)
        .split_once('/')
        .unwrap_or((bare.unwrap_or(key), ""));
    let path = path.trim_matches('/');
    let host = canonical(host);
    if bare.is_some() || path.is_empty() || matches!(path, "v1" | "v2") {
        host.to_owned()
    } else {
        format!("{host}/{path}")
    }
}

/// What a helper is asked about.
fn server_name(key: &str) -> String {
    if normal(key) == DOCKER_HUB {
        DOCKER_HUB_KEY.to_owned()
    } else {
        key.to_owned()
    }
}

fn decode(auth: &str) -> Option<Login> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let text = String::from_utf8(engine.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    let password = password.trim_end_matches('\0');
    Some(Login::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

fn unusable(path: &Path, why: String) -> RegistryError {
    RegistryError::new(ErrorKind::CredentialFile {
        path: path.display().to_string(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> ConfigFile {
        ConfigFile {
            path: "config.json".into(),
            contents: serde_json::from_str(json).unwrap(),
        }
    }

    fn user(config: &ConfigFile, registry: &str, repository: &str) -> Option<String> {
        match config.find(registry, repository).unwrap()? {
            Found::Entry {
                login: Login::Password { user, .. },
                ..
            } => Some(user),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn finds_the_most_specific_entry() {
        // "a:1", "b:2", "c:3" and "hub:x" in base64.
        let config = file(
            r#"{"auths":{"r.example":{"auth":"YToxCg=="},"r.example/team":{"auth":"Yjoy"},"r.example/team/app":{"auth":"Yzoz"},
                "https://index.docker.io/v1/":{"auth":"aHViOng="},"https://old.example/v1/":{"username":"o","password":"p"}}}"#,
        );
        assert_eq!(user(&config, "r.example", "other").as_deref(), Some("a"));
        assert_eq!(
            user(&config, "r.example", "teamwork/app").as_deref(),
            Some("a")
        );
        assert_eq!(
            user(&config, "r.example", "team/else").as_deref(),
            Some("b")
        );
        assert_eq!(user(&config, "r.example", "team/app").as_deref(), Some("c"));
        assert_eq!(
            user(&config, "docker.io", "library/debian").as_deref(),
            Some("hub")
        );
        assert_eq!(user(&config, "old.example", "x").as_deref(), Some("o"));
        assert_eq!(user(&config, "r.example:5000", "x"), None);
        assert_eq!(user(&config, "r.example.evil", "x"), None);
    }

    #[test]
    fn a_helper_before_an_entry_and_the_store_last() {
        let config = file(
            r#"{"auths":{"a.example":{"auth":"YTox"},"b.example":{}},"credHelpers":{"a.example":"special","docker.io":"hub"},"credsStore":"desktop"}"#,
        );
        let helper = |helper: &str, server: &str| {
            Some(Found::Helper {
                helper: helper.into(),
                server: server.into(),
            })
        };
        assert_eq!(
            config.find("a.example", "x").unwrap(),
            helper("special", "a.example")
        );
        assert_eq!(
            config.find("b.example", "x").unwrap(),
            helper("desktop", "b.example")
        );
        assert_eq!(
            config.find("docker.io", "library/x").unwrap(),
            helper("hub", DOCKER_HUB_KEY)
        );
    }

    #[test]
    fn an_identity_token_wins_over_the_password_beside_it() {
        let config = file(r#"{"auths":{"r":{"auth":"PHRva2VuPjp4","identitytoken":"refresh"}}}"#);
        let Some(Found::Entry { login, .. }) = config.find("r", "x").unwrap() else {
            panic!()
        };
        assert_eq!(login, Login::IdentityToken("refresh".into()));
        assert!(!format!("{login:?}").contains("refresh"));
    }

    #[test]
    fn a_broken_file_is_an_error_that_keeps_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(ConfigFile::read(&path).unwrap().is_none());
        std::fs::write(&path, r#"{"auths":{"r":{"auth":["hunter2"]}}}"#).unwrap();
        let text = ConfigFile::read(&path).err().unwrap().to_string();
        assert!(
            text.contains("config.json") && !text.contains("hunter2"),
            "{text}"
        );
        let error = file(r#"{"auths":{"r":{"auth":"aHVudGVyMg"}}}"#)
            .find("r", "x")
            .unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
