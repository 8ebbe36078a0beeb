//! Sends one request: connections, redirections, time limits, and the answer's body in bounded pieces.
//!
//! Credentials go to the origin they belong to and nowhere else; TLS is never left by a redirection.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use oci_distribution::secrets::RegistryAuth;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use crate::auth::Identity;
use crate::endpoint::same_origin;
use crate::error::{ErrorKind, RegistryError, Result, parse_codes};
use crate::options::{RegistryOptions, Timeouts};
use crate::upload::Upload;
use crate::{hint, retry, text, tls};

/// A content network may redirect once or twice; more is a loop.
const MAX_REDIRECTIONS: usize = 8;

/// How much of a failure's body is read: error lists are short, and pages are of no use.
const ERROR_BODY_LIMIT: u64 = 64 << 10;

/// One request, as often as it is sent.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) target: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
}

impl Request {
    pub(crate) fn new(method: Method, target: Url) -> Self {
        Self {
            method,
            target,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
        }
    }
}

/// A request's body.
#[derive(Clone)]
pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    Stream(Arc<Upload>),
}

/// The head of an answer, with the body still to be read.
pub(crate) struct Answer {
    pub(crate) method: Method,
    /// Where the answer came from, after redirections.
    pub(crate) url: Url,
    /// Who the request was made as.
    pub(crate) identity: Identity,
    response: reqwest::Response,
    permit: Option<OwnedSemaphorePermit>,
    timeouts: Timeouts,
    waited: Duration,
    in_window: u64,
    received: u64,
}

/// Connections to all registries.
pub(crate) struct Transport {
    options: RegistryOptions,
    permits: Arc<Semaphore>,
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
}

impl Transport {
    pub(crate) fn new(options: RegistryOptions) -> Self {
        let permits = Arc::new(Semaphore::new(options.max_connections.max(1)));
        Self {
            options,
            permits,
            plain: OnceLock::new(),
            tls: OnceLock::new(),
        }
    }

    pub(crate) fn options(&self) -> &RegistryOptions {
        &self.options
    }

    /// Sends `request`, with `auth` as long as it goes to the origin of `owner`, and follows redirections.
    pub(crate) async fn send(
        &self,
        owner: &Url,
        auth: &RegistryAuth,
        request: &Request,
    ) -> Result<Answer> {
        // The semaphore is never closed, so there is a permit always, in the end.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let mut url = request.target.clone();
        for _ in 0..=MAX_REDIRECTIONS {
            let auth = if same_origin(owner, &url) {
                auth
            } else {
                &RegistryAuth::Anonymous
            };
            let response = self.send_once(&url, auth, request).await?;
            match redirection(request, &url, &response)? {
                Some(next) => url = next,
                None => {
                    return Ok(Answer::new(
                        request.method.clone(),
                        url,
                        response,
                        permit,
                        self.options.timeouts,
                    ));
                }
            }
        }
        let kind = ErrorKind::Redirect {
            to: text::redact(&url),
            why: "there were too many before it",
        };
        Err(RegistryError::of(&request.method, &request.target, kind))
    }

    async fn send_once(
        &self,
        url: &Url,
        auth: &RegistryAuth,
        request: &Request,
    ) -> Result<reqwest::Response> {
        let at = |error: RegistryError| error.at(&request.method, url);
        let client = self.client(url)?;
        let mut builder = client
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone());
        builder = match auth {
            RegistryAuth::Anonymous => builder,
            RegistryAuth::Basic(user, password) => builder.basic_auth(user, Some(password)),
            RegistryAuth::Bearer(token) => builder.bearer_auth(token),
        };
        let timeouts = &self.options.timeouts;
        let sent = match &request.payload {
            Payload::Empty if matches!(request.method, Method::GET | Method::HEAD) => {
                within(timeouts, builder).await
            }
            Payload::Empty => within(timeouts, builder.header(CONTENT_LENGTH, 0)).await,
            Payload::Bytes(bytes) => within(timeouts, builder.body(bytes.clone())).await,
            Payload::Stream(upload) => {
                let builder = builder.header(CONTENT_LENGTH, HeaderValue::from(upload.size()));
                let result = tokio::select! {
                    sent = builder.body(upload.body()).send() => sent.map_err(Failure::Http),
                    kind = upload.watch(timeouts) => Err(Failure::Stalled(kind)),
                };
                if let Some(failure) = upload.take_failure() {
                    return Err(at(RegistryError::new(failure)));
                }
                result
            }
        };
        sent.map_err(|failure| match failure {
            Failure::Stalled(kind) => at(RegistryError::new(kind)),
            Failure::Http(error) => at(hint::of_failure(&error, url, 0)),
        })
    }

    /// The client for a scheme; reading the system's authorities waits until TLS is wanted.
    fn client(&self, url: &Url) -> Result<&Client> {
        let (cell, make): (_, fn(&RegistryOptions) -> _) = match url.scheme() {
            "https" => (&self.tls, tls::trusting),
            _ => (&self.plain, |_| tls::trusting_nobody()),
        };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = self.build(make(&self.options)?)?;
        Ok(cell.get_or_init(|| client))
    }

    fn build(&self, tls: rustls::ClientConfig) -> Result<Client> {
        let setup = |e: reqwest::Error| {
            RegistryError::new(ErrorKind::Setup {
                why: hint::chain(&e),
            })
        };
        let proxy = &self.options.proxy;
        let direct = format!(
            "localhost,127.0.0.0/8,::1,{}",
            proxy.no_proxy.as_deref().unwrap_or("")
        );
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(&self.options.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(self.options.timeouts.connect)
            .tcp_keepalive(Duration::from_secs(30))
            // Without this, reqwest takes proxies from the environment.
            .no_proxy();
        if let Some(http) = &proxy.http {
            builder = builder.proxy(
                reqwest::Proxy::http(http)
                    .map_err(setup)?
                    .no_proxy(reqwest::NoProxy::from_string(&direct)),
            );
        }
        if let Some(https) = &proxy.https {
            builder = builder.proxy(
                reqwest::Proxy::https(https)
                    .map_err(setup)?
                    .no_proxy(reqwest::NoProxy::from_string(&direct)),
            );
        }
        builder.build().map_err(setup)
    }
}

/// Why no head of an answer came.
enum Failure {
    Stalled(ErrorKind),
    Http(reqwest::Error),
}

async fn within(
    timeouts: &Timeouts,
    builder: reqwest::RequestBuilder,
) -> std::result::Result<reqwest::Response, Failure> {
    let limit = timeouts.connect + timeouts.response;
    match tokio::time::timeout(limit, builder.send()).await {
        Ok(sent) => sent.map_err(Failure::Http),
        Err(_) => Err(Failure::Stalled(ErrorKind::Stalled {
            what: "the answer",
            after: limit,
        })),
    }
}

/// Where the answer sends the request, if it does and may.
fn redirection(request: &Request, from: &Url, response: &reqwest::Response) -> Result<Option<Url>> {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    let followed = match response.status() {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => reads,
        _ => false,
    };
    match response.headers().get(LOCATION).filter(|_| followed) {
        None => Ok(None),
        Some(location) => match next(from, location) {
            Ok(next) => Ok(Some(next)),
            Err(kind) => Err(RegistryError::of(&request.method, from, kind)),
        },
    }
}

/// The target of a redirection, which has to stay on the web and within TLS.
fn next(from: &Url, location: &HeaderValue) -> std::result::Result<Url, ErrorKind> {
    let Some(next) = location.to_str().ok().and_then(|l| from.join(l).ok()) else {
        let to = text::clean(&String::from_utf8_lossy(location.as_bytes()));
        return Err(ErrorKind::Redirect {
            to,
            why: "it is not a url",
        });
    };
    let to = text::redact(&next);
    match (from.scheme(), next.scheme()) {
        ("https", "http") => Err(ErrorKind::Redirect {
            to,
            why: "it leaves tls",
        }),
        (_, "http" | "https") => Ok(next),
        _ => Err(ErrorKind::Redirect {
            to,
            why: "it leaves the web",
        }),
    }
}

impl Answer {
    fn new(
        method: Method,
        url: Url,
        response: reqwest::Response,
        permit: Option<OwnedSemaphorePermit>,
        timeouts: Timeouts,
    ) -> Self {
        let identity = Identity::Unasked;
        Self {
            method,
            url,
            identity,
            response,
            permit,
            timeouts,
            waited: Duration::ZERO,
            in_window: 0,
            received: 0,
        }
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// A header as text.
    pub(crate) fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// Lets another request begin, though the body has not been read.
    pub(crate) fn release(&mut self) {
        self.permit = None;
    }

    /// An error about this answer.
    pub(crate) fn error(&self, kind: ErrorKind) -> RegistryError {
        let media_type = self.header(reqwest::header::CONTENT_TYPE).unwrap_or("");
        RegistryError::of(&self.method, &self.url, kind).with_hint(hint::of_page(media_type))
    }

    /// Reads the next piece of the body.  A server that sends less than the least amount in a window of
    /// waiting is given up; the time that the caller takes between the pieces does not count.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let Timeouts {
            idle, min_bytes, ..
        } = self.timeouts;
        let began = Instant::now();
        let next =
            tokio::time::timeout(idle.saturating_sub(self.waited), self.response.chunk()).await;
        let Ok(next) = next else {
            return Err(self.error(ErrorKind::Stalled {
                what: "the answer's body",
                after: idle,
            }));
        };
        let chunk = next.map_err(|e| {
            hint::of_failure(&e, &self.url, self.received).at(&self.method, &self.url)
        })?;
        let len = chunk.as_ref().map_or(0, |c| c.len() as u64);
        self.received += len;
        self.in_window += len;
        self.waited += began.elapsed();
        if self.in_window >= min_bytes {
            (self.in_window, self.waited) = (0, Duration::ZERO);
        }
        Ok(chunk)
    }

    /// Reads the whole body, which may have `limit` bytes.
    pub(crate) async fn bytes(mut self, limit: u64) -> Result<Bytes> {
        let mut out = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if out.len() as u64 + chunk.len() as u64 > limit {
                return Err(self.error(ErrorKind::TooLarge { limit }));
            }
            out.extend_from_slice(&chunk);
        }
        Ok(out.into())
    }

    /// Returns the answer if its status is one of `wanted`, else what the server says is wrong.
    pub(crate) async fn expect(self, wanted: &[u16], registry: &str) -> Result<Self> {
        if wanted.contains(&self.status()) {
            Ok(self)
        } else {
            Err(self.failure(registry).await)
        }
    }

    /// Turns an answer into the error it stands for.
    pub(crate) async fn failure(mut self, registry: &str) -> RegistryError {
        let mut body = Vec::new();
        // What can be read of the explanation is good enough.
        while let Ok(Some(chunk)) = self.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > ERROR_BODY_LIMIT {
                body.truncate(ERROR_BODY_LIMIT as usize);
                break;
            }
        }
        let status = self.status();
        let kind = ErrorKind::Status {
            status,
            codes: parse_codes(&body),
            retry_after: retry::retry_after(self.headers()),
        };
        let hint = hint::of_status(status, &self.method, &self.url, registry, &self.identity);
        self.error(kind).with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_does_not_leave_tls() {
        let from = Url::parse("https://r.example/v2/a/blobs/b").unwrap();
        let to = |text: &'static str| next(&from, &HeaderValue::from_static(text));
        assert_eq!(to("/x").unwrap().as_str(), "https://r.example/x");
        assert!(to("https://cdn.example/x").is_ok());
        for refused in ["http://cdn.example/x", "file:///etc/passwd", "https://["] {
            assert!(
                matches!(to(refused), Err(ErrorKind::Redirect { .. })),
                "{refused}"
            );
        }
    }
}
