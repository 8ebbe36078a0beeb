//! Answers a registry's challenges: nobody, user and password, or a bearer token of a token server.
//!
//! A request goes out with what is known; a 401 teaches the challenge of the repository, and the request is
//! repeated once.  There is no probe beforehand: a permission that nobody needs is not asked for.

mod challenge;
mod config;
mod credentials;
mod helper;
mod scope;
mod token;

use std::collections::HashMap;
use std::sync::Arc;

use oci_distribution::secrets::RegistryAuth;
use reqwest::header::HeaderMap;

use crate::endpoint::Host;
use crate::error::Result;
use crate::transport::Transport;
use challenge::{Bearer, Challenge};
use config::Login;
use credentials::{Credential, Credentials};
pub(crate) use scope::Scopes;
use token::Token;

/// What has been learnt about one registry.
#[derive(Default)]
pub(crate) struct HostAuth {
    /// By repository: some servers have a token server for each.
    challenges: HashMap<String, Challenge>,
    tokens: HashMap<TokenKey, Token>,
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct TokenKey {
    realm: String,
    /// Whose token it is.
    source: Option<String>,
    scopes: Scopes,
}

/// Who a request was made as, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The server has not asked.
    Unasked,
    /// There is no login for the repository in these places.
    Nobody { places: String },
    /// The login of this source.
    Known { source: String },
    /// Nobody, because the registry sent the request on to this host, which gets no login.
    Elsewhere { host: String },
}

/// What a request is sent with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Applied {
    pub(crate) auth: RegistryAuth,
    pub(crate) identity: Identity,
}

/// Authenticates requests.
pub(crate) struct Authenticator {
    transport: Arc<Transport>,
    credentials: Credentials,
}

impl Authenticator {
    pub(crate) fn new(transport: Arc<Transport>) -> Self {
        let credentials = Credentials::new(transport.options().credential_files.clone());
        Self {
            transport,
            credentials,
        }
    }

    /// Says what to send a request with, fetching a token where the repository is known to want one.
    pub(crate) async fn apply(
        &self,
        host: &Host,
        repository: &str,
        scopes: &Scopes,
    ) -> Result<Applied> {
        // Held while a token is fetched, so that ten requests at once fetch one token.
        let mut state = host.auth.lock().await;
        let Some(challenge) = state.challenges.get(repository).cloned() else {
            return Ok(Applied {
                auth: RegistryAuth::Anonymous,
                identity: Identity::Unasked,
            });
        };
        let credential = self.credentials.find(&host.name, repository).await?;
        let identity = self.identity(credential.as_deref());
        let auth = match (challenge, credential.as_ref().map(|c| &c.login)) {
            (_, Some(Login::Bearer(token))) => RegistryAuth::Bearer(token.clone()),
            (Challenge::Basic, Some(Login::Password { user, password })) => {
                RegistryAuth::Basic(user.clone(), password.clone())
            }
            // An identity token is only good for a token server.
            (Challenge::Basic, _) => RegistryAuth::Anonymous,
            (Challenge::Bearer(bearer), _) => {
                let token = self
                    .token(
                        host,
                        &mut state,
                        &bearer,
                        scopes,
                        credential.as_deref(),
                        &identity,
                    )
                    .await?;
                RegistryAuth::Bearer(token)
            }
        };
        Ok(Applied { auth, identity })
    }

    async fn token(
        &self,
        host: &Host,
        state: &mut HostAuth,
        bearer: &Bearer,
        scopes: &Scopes,
        credential: Option<&Credential>,
        identity: &Identity,
    ) -> Result<String> {
        let scopes = scopes.clone().with_challenged(&bearer.scopes);
        let source = credential.map(|c| c.source.clone());
        let key = TokenKey {
            realm: bearer.realm.clone(),
            source,
            scopes,
        };
        if let Some(token) = state.tokens.get(&key).filter(|t| t.is_fresh()) {
            return Ok(token.value.clone());
        }
        let wanted = token::Wanted {
            bearer,
            scopes: &key.scopes,
            login: credential.map(|c| &c.login),
            identity,
        };
        let token = token::fetch(&self.transport, host, &wanted).await?;
        let value = token.value.clone();
        state.tokens.insert(key, token);
        Ok(value)
    }

    fn identity(&self, credential: Option<&Credential>) -> Identity {
        match credential {
            Some(c) => Identity::Known {
                source: c.source.clone(),
            },
            None => Identity::Nobody {
                places: self.credentials.places(),
            },
        }
    }

    /// Learns from a refusal of what was `applied`; says whether there is a challenge to answer at all.
    pub(crate) async fn learn(
        &self,
        host: &Host,
        repository: &str,
        headers: &HeaderMap,
        applied: &Applied,
    ) -> bool {
        let Some(challenge) = challenge::best(headers) else {
            return false;
        };
        let mut state = host.auth.lock().await;
        match &applied.auth {
            RegistryAuth::Bearer(refused) => {
                state.tokens.retain(|_, token| token.value != *refused)
            }
            RegistryAuth::Basic(..) => self.credentials.forget(&host.name, repository),
            RegistryAuth::Anonymous => {}
        }
        state.challenges.insert(repository.to_owned(), challenge);
        true
    }
}
