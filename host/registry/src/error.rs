//! The one error type of this crate: what was asked of whom, what came of it, whether trying again may help,
//! and what the user can do.

use std::fmt;
use std::io;
use std::time::Duration;

use reqwest::Method;
use stepwell_model::{Digest, Platform};
use url::Url;

use crate::text;

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, RegistryError>;

/// Why an operation on a registry failed.
#[derive(Debug)]
pub struct RegistryError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    method: Option<Method>,
    url: Option<String>,
    kind: ErrorKind,
    hint: Option<String>,
    attempts: u32,
}

/// One entry of the error list in a registry's answer (distribution-spec, error codes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorCode {
    /// For example `MANIFEST_UNKNOWN`; empty where the server gave only text.
    pub code: String,
    /// The server's words, without control characters.
    pub message: String,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// The server answered with a status that means failure.
    #[error("{}", status_text(*status, codes))]
    Status {
        /// The HTTP status.
        status: u16,
        /// What the server said about it.
        codes: Vec<ErrorCode>,
        /// The server's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No connection could be made.
    #[error("cannot connect: {cause}")]
    Connect {
        /// The chain of causes.
        cause: String,
    },
    /// The server's certificate is not trusted, or TLS failed otherwise.
    #[error("tls failed: {cause}")]
    Tls {
        /// The chain of causes.
        cause: String,
    },
    /// The other side of a TLS connection does not speak TLS.
    #[error("the server does not speak tls")]
    NotTls,
    /// The other side of a plain connection does not speak HTTP, or wants TLS.
    #[error("the server does not speak plain http: {cause}")]
    NotHttp {
        /// The chain of causes.
        cause: String,
    },
    /// The connection broke before the answer was complete.
    #[error("the connection broke after {received} bytes: {cause}")]
    Cut {
        /// Bytes of the body that had arrived.
        received: u64,
        /// The chain of causes.
        cause: String,
    },
    /// The transfer, or the answer, stood still.
    #[error("{what} stood still for {}", seconds(*after))]
    Stalled {
        /// The part that stood still.
        what: &'static str,
        /// The limit that passed.
        after: Duration,
    },
    /// What arrived has another digest than it must have.
    #[error("the content has the digest `{actual}` instead of `{expected}`")]
    DigestMismatch {
        /// The digest asked for or announced.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// What arrived has another size than it must have.
    #[error("the content has {actual} bytes instead of {expected}")]
    SizeMismatch {
        /// The size of the descriptor.
        expected: u64,
        /// The size of what came or was announced; a lower bound where reading was given up.
        actual: u64,
    },
    /// An answer that has to fit in memory is too long.
    #[error("the answer is longer than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// A redirection that is not followed.
    #[error("the redirection to `{to}` is not followed: {why}")]
    Redirect {
        /// The target, redacted.
        to: String,
        /// The rule it broke.
        why: &'static str,
    },
    /// An answer that breaks the protocol.
    #[error("the answer is not understood: {what}")]
    BadAnswer {
        /// What is wrong with it.
        what: String,
    },
    /// The server's way of authentication cannot be followed.
    #[error("cannot authenticate: {what}")]
    Auth {
        /// What is wrong.
        what: String,
    },
    /// A file with credentials cannot be used.
    #[error("cannot use the credentials in `{path}`: {why}")]
    CredentialFile {
        /// The file.
        path: String,
        /// Why not.
        why: String,
    },
    /// A credential helper failed.
    #[error("the credential helper `docker-credential-{helper}` failed for `{server}`: {why}")]
    CredentialHelper {
        /// Its name without the prefix.
        helper: String,
        /// The registry it was asked about.
        server: String,
        /// What it said.
        why: String,
    },
    /// A file with certificates cannot be used.
    #[error("cannot use the certificates in `{path}`: {why}")]
    CaFile {
        /// The file.
        path: String,
        /// Why not.
        why: String,
    },
    /// The client itself cannot be set up.
    #[error("cannot set up the http client: {why}")]
    Setup {
        /// Why not.
        why: String,
    },
    /// The reference cannot be used for this.
    #[error("the reference `{reference}` cannot be used: {why}")]
    Reference {
        /// The reference.
        reference: String,
        /// Why not.
        why: String,
    },
    /// The image has no manifest for the platform.
    #[error(
        "`{reference}` has no image for `{wanted}`, only for {}",
        list(available)
    )]
    NoPlatform {
        /// The image.
        reference: String,
        /// The platform asked for.
        wanted: Platform,
        /// The platforms there are.
        available: Vec<Platform>,
    },
    /// The caller's sink failed.
    #[error("cannot write blob `{digest}`: {cause}")]
    Sink {
        /// The blob.
        digest: Digest,
        /// The failure.
        cause: io::Error,
    },
    /// The caller's source failed.
    #[error("cannot read blob `{digest}` to push it: {cause}")]
    Source {
        /// The blob.
        digest: Digest,
        /// The failure.
        cause: io::Error,
    },
}

/// A `Retry-After` from here on is told.
const LONG: Duration = Duration::from_secs(60);

impl RegistryError {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            method: None,
            url: None,
            kind,
            hint: None,
            attempts: 1,
        }))
    }

    /// An error of one request.
    pub(crate) fn of(method: &Method, url: &Url, kind: ErrorKind) -> Self {
        Self::new(kind).at(method, url)
    }

    /// Names the request, unless one is named already (the one further down is the more precise).
    pub(crate) fn at(mut self, method: &Method, url: &Url) -> Self {
        if self.0.url.is_none() {
            self.0.method = Some(method.clone());
            self.0.url = Some(text::redact(url));
        }
        self
    }

    pub(crate) fn with_hint(mut self, hint: Option<String>) -> Self {
        self.0.hint = hint.or(self.0.hint);
        self
    }

    pub(crate) fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The request's method, where there was a request.
    pub fn method(&self) -> Option<&str> {
        self.0.method.as_ref().map(Method::as_str)
    }

    /// The request's URL without secrets, where there was a request.
    pub fn url(&self) -> Option<&str> {
        self.0.url.as_deref()
    }

    /// The HTTP status, where the server answered with a failure.
    pub fn status(&self) -> Option<u16> {
        match self.0.kind {
            ErrorKind::Status { status, .. } => Some(status),
            _ => None,
        }
    }

    /// The registry's own error codes, where it sent any.
    pub fn codes(&self) -> &[ErrorCode] {
        match &self.0.kind {
            ErrorKind::Status { codes, .. } => codes,
            _ => &[],
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        let pushes = self.0.method.as_ref().is_some_and(crate::hint::writes);
        self.0
            .hint
            .as_deref()
            .or(crate::hint::of_kind(&self.0.kind, pushes))
    }

    /// How often the request was tried.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Says whether the same request may succeed soon: the network's failures, 408, 425, 429, and of 5xx those that
    /// mean a failure in passing (509 and 520 and above are those of content networks) and not, as 507 does, a state.
    pub fn is_temporary(&self) -> bool {
        match &self.0.kind {
            ErrorKind::Status { status, .. } => {
                matches!(status, 408 | 425 | 429 | 500 | 502..=504 | 509 | 520..=599)
            }
            ErrorKind::Connect { .. } | ErrorKind::Cut { .. } | ErrorKind::Stalled { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.0.kind {
            ErrorKind::Status { retry_after, .. } => retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(method), Some(url)) = (&self.0.method, &self.0.url) {
            write!(f, "`{method} {url}`: ")?;
        }
        write!(f, "{}", self.0.kind)?;
        if let Some(asked) = self.retry_after().filter(|a| *a >= LONG) {
            write!(f, " and asks to wait for {} s", asked.as_secs())?;
        }
        match self.0.attempts {
            0 | 1 => Ok(()),
            n => write!(f, " (tried {n} times)"),
        }
    }
}

impl std::error::Error for RegistryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            ErrorKind::Sink { cause, .. } | ErrorKind::Source { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// Parses the error list of an answer's body; a body that is none becomes one entry without a code.
pub(crate) fn parse_codes(body: &[u8]) -> Vec<ErrorCode> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        errors: Vec<serde_json::Value>,
    }
    let field = |v: &serde_json::Value, name: &str| {
        text::clean(v.get(name).and_then(|v| v.as_str()).unwrap_or(""))
    };
    if let Ok(envelope) = serde_json::from_slice::<Envelope>(body) {
        let entry = |v| ErrorCode {
            code: field(v, "code"),
            message: field(v, "message"),
        };
        return envelope.errors.iter().take(8).map(entry).collect();
    }
    // Token servers answer `{"details": "…"}` or `{"error": …}`; web servers answer a page, which helps nobody.
    if let Ok(value @ serde_json::Value::Object(_)) = serde_json::from_slice(body) {
        let found = ["details", "error_description", "message", "error"]
            .iter()
            .map(|name| field(&value, name));
        return found
            .filter(|m| !m.is_empty())
            .take(1)
            .map(|message| ErrorCode {
                code: String::new(),
                message,
            })
            .collect();
    }
    let message = text::clean(&String::from_utf8_lossy(body));
    if message.is_empty() || message.starts_with('<') {
        return Vec::new();
    }
    vec![ErrorCode {
        code: String::new(),
        message,
    }]
}

fn status_text(status: u16, codes: &[ErrorCode]) -> String {
    let reason = reqwest::StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason());
    let mut out = format!("{status} {}", reason.unwrap_or("").to_lowercase())
        .trim_end()
        .to_owned();
    for ErrorCode { code, message } in codes {
        let parts: Vec<&str> = [code.as_str(), message.as_str()]
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect();
        out.push_str(": ");
        out.push_str(&parts.join(": "));
    }
    out
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none at all".to_owned();
    }
    platforms
        .iter()
        .map(|p| format!("`{p}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_error_list_and_what_stands_in_for_it() {
        let listed = parse_codes(
            br#"{"errors":[{"code":"DENIED","message":"no\u001b[1m"},{"code":"NEW_ONE"}]}"#,
        );
        assert_eq!(
            listed[0],
            ErrorCode {
                code: "DENIED".into(),
                message: "no [1m".into()
            }
        );
        assert_eq!(listed[1].code, "NEW_ONE");
        assert_eq!(
            parse_codes(br#"{"details":"incorrect username or password"}"#)[0].message,
            "incorrect username or password"
        );
        assert!(parse_codes(b"<html>504</html>").is_empty());
    }

    #[test]
    fn says_what_was_asked_and_what_came() {
        let url = Url::parse("https://r.example/v2/a/manifests/b").unwrap();
        let codes = vec![ErrorCode {
            code: "MANIFEST_UNKNOWN".into(),
            message: "manifest unknown".into(),
        }];
        let error = RegistryError::of(
            &Method::GET,
            &url,
            ErrorKind::Status {
                status: 404,
                codes,
                retry_after: None,
            },
        );
        assert_eq!(
            error.with_attempts(2).to_string(),
            "`GET https://r.example/v2/a/manifests/b`: 404 not found: MANIFEST_UNKNOWN: manifest unknown (tried 2 times)"
        );
    }
}
