//! The client itself: a request with authentication, and with repetition.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use reqwest::Method;
use reqwest::header::HeaderMap;
use stepwell_model::Reference;
use url::Url;

use crate::auth::{Applied, Authenticator, Identity, Scopes};
use crate::endpoint::{Host, authority, same_origin};
use crate::error::{ErrorKind, Result};
use crate::options::RegistryOptions;
use crate::retry::{Backoff, RetryListener};
use crate::transport::{Answer, Payload, Request, Transport};

/// Told the number of bytes of a transfer that are done so far; it goes back when a push begins anew.  Called
/// often and from any thread, so it must be quick.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// A [`Progress`] for those who do not want to know.
pub fn no_progress() -> Progress {
    Arc::new(|_| {})
}

/// A client of registries.  Clones share connections, logins and tokens; it has to be used in a tokio runtime
/// with time and I/O enabled.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    transport: Arc<Transport>,
    authenticator: Authenticator,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    listener: Mutex<Option<RetryListener>>,
}

/// Where a call goes.
#[derive(Clone)]
pub(crate) enum Target {
    /// A path of the API.
    Path(String),
    /// A place that the registry named.
    Location(Url),
}

/// One call of the API.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) repository: String,
    pub(crate) scopes: Scopes,
}

impl Call {
    pub(crate) fn new(method: Method, path: String, repository: &str, scopes: Scopes) -> Self {
        let target = Target::Path(path);
        let repository = repository.to_owned();
        Self {
            method,
            target,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            repository,
            scopes,
        }
    }
}

impl Registry {
    /// Creates a client; nothing is read and nobody is spoken to yet.
    pub fn new(options: RegistryOptions) -> Self {
        let transport = Arc::new(Transport::new(options));
        let authenticator = Authenticator::new(Arc::clone(&transport));
        Self(Arc::new(Inner {
            transport,
            authenticator,
            hosts: Mutex::default(),
            listener: Mutex::default(),
        }))
    }

    /// From now on tells `listener` of each failure that is waited out; it must be quick.
    pub fn on_retry(&self, listener: RetryListener) {
        *self.listener() = Some(listener);
    }

    fn listener(&self) -> std::sync::MutexGuard<'_, Option<RetryListener>> {
        self.0
            .listener
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.0.transport.options().retry, self.listener().clone())
    }

    /// What is known about the registry of `reference`.
    pub(crate) fn host(&self, reference: &Reference) -> Result<Arc<Host>> {
        let fresh = Host::of(reference, self.0.transport.options())?;
        let mut hosts = self
            .0
            .hosts
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok(Arc::clone(
            hosts
                .entry(fresh.name.clone())
                .or_insert_with(|| Arc::new(fresh)),
        ))
    }

    /// Makes a call until it has one of the `wanted` statuses, or an error that stays.
    pub(crate) async fn call(&self, host: &Host, call: &Call, wanted: &[u16]) -> Result<Answer> {
        let mut backoff = self.backoff();
        loop {
            match self.call_once(host, call, wanted).await {
                Ok(answer) => return Ok(answer),
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    /// Makes a call, once but for authentication.
    pub(crate) async fn call_once(
        &self,
        host: &Host,
        call: &Call,
        wanted: &[u16],
    ) -> Result<Answer> {
        self.exchange(host, call)
            .await?
            .expect(wanted, &host.name)
            .await
    }

    /// Sends a call as whoever the registry wants, and hands back its answer of whatever status.
    async fn exchange(&self, host: &Host, call: &Call) -> Result<Answer> {
        let mut applied = self
            .0
            .authenticator
            .apply(host, &call.repository, &call.scopes)
            .await?;
        let mut answered = false;
        loop {
            let Some(mut answer) = self.send(host, call, &applied).await? else {
                continue;
            };
            let asks = answer.status() == 401 || insufficient(&answer);
            let ours = same_origin(&answer.url, &host.url("/")?);
            answer.identity = applied.identity.clone();
            if !ours {
                answer.identity = Identity::Elsewhere {
                    host: authority(&answer.url),
                };
            }
            if !asks || !ours || answered {
                return Ok(answer);
            }
            // Fetching a token is a request of its own.
            answer.release();
            let authenticator = &self.0.authenticator;
            if !authenticator
                .learn(host, &call.repository, answer.headers(), &applied)
                .await
            {
                return Ok(answer);
            }
            let better = authenticator
                .apply(host, &call.repository, &call.scopes)
                .await?;
            answer.identity = better.identity.clone();
            if better.auth == applied.auth {
                return Ok(answer);
            }
            (applied, answered) = (better, true);
        }
    }

    /// Sends a call once; `None` where the registry turned out to want TLS, so that it has to be sent again.
    async fn send(&self, host: &Host, call: &Call, applied: &Applied) -> Result<Option<Answer>> {
        let target = match &call.target {
            Target::Path(path) => host.url(path)?,
            Target::Location(url) => url.clone(),
        };
        let owner = host.url("/")?;
        let (method, headers, payload) = (
            call.method.clone(),
            call.headers.clone(),
            call.payload.clone(),
        );
        let request = Request {
            method,
            target,
            headers,
            payload,
        };
        match self.0.transport.send(&owner, &applied.auth, &request).await {
            Ok(answer) if answer.status() == 400 && host.turn_to_https() => Ok(None),
            Ok(answer) => {
                host.scheme_works();
                Ok(Some(answer))
            }
            Err(error) => match error.kind() {
                // A TLS server asked in plain HTTP answers 400 (as Go's and nginx do) or a TLS alert.
                ErrorKind::NotHttp { .. } if host.turn_to_https() => Ok(None),
                // A plain server makes nothing of a TLS greeting.
                ErrorKind::NotTls | ErrorKind::Connect { .. } if host.turn_back_to_http() => {
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }
}

/// Some registries answer 403 to a token whose scope is too small (RFC 6750, 3.1).
fn insufficient(answer: &Answer) -> bool {
    let challenge = answer
        .header(reqwest::header::WWW_AUTHENTICATE)
        .unwrap_or("");
    answer.status() == 403 && challenge.contains("insufficient_scope")
}
