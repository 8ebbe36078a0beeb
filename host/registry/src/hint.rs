//! Turns the failures of the layers below into kinds of ours, and says what a user can do about them.

use std::error::Error;
use std::io;

use reqwest::Method;
use url::Url;

use crate::auth::Identity;
use crate::error::{ErrorKind, RegistryError};
use crate::text;

/// The messages of an error and of all its causes, without repetitions.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in causes(error) {
        let message = text::clean(&cause.to_string());
        if !parts.iter().any(|p| p.contains(&message)) {
            parts.push(message);
        }
    }
    // The outermost says only that a request failed, and where, which the caller says better.
    if parts.len() > 1 {
        parts.remove(0);
    }
    parts.join(": ")
}

/// An error and its causes; `io::Error` hides what it wraps from `source`.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut out: Vec<&'a (dyn Error + 'static)> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        out.push(cause);
        let inner = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = inner
            .map(|e| e as &(dyn Error + 'static))
            .or_else(|| cause.source());
    }
    out
}

fn find<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    causes(error)
        .into_iter()
        .find_map(|cause| cause.downcast_ref::<T>())
}

/// What a failure of the connection to `url` means, after `received` bytes of the body.
pub(crate) fn of_failure(error: &reqwest::Error, url: &Url, received: u64) -> RegistryError {
    let cause = chain(error);
    let host = url.host_str().unwrap_or("");
    if let Some(tls) = find::<rustls::Error>(error) {
        return of_tls(tls, cause, host);
    }
    if error.is_connect() || (error.is_timeout() && received == 0) {
        return RegistryError::new(ErrorKind::Connect { cause });
    }
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) && received == 0 {
        return RegistryError::new(ErrorKind::NotHttp { cause });
    }
    RegistryError::new(ErrorKind::Cut { received, cause })
}

fn of_tls(error: &rustls::Error, cause: String, host: &str) -> RegistryError {
    use rustls::{CertificateError, Error as Tls, InvalidMessage};
    match error {
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => {
            let hint =
                format!("if `{host}` really speaks plain http, list it as an insecure registry");
            RegistryError::new(ErrorKind::NotTls).with_hint(Some(hint))
        }
        Tls::InvalidCertificate(CertificateError::UnknownIssuer) => {
            let hint = format!(
                "if `{host}` has a certificate authority of its own, add its certificate (a PEM file) to the trusted ones"
            );
            RegistryError::new(ErrorKind::Tls { cause }).with_hint(Some(hint))
        }
        _ => RegistryError::new(ErrorKind::Tls { cause }),
    }
}

/// Says whether requests of this method change something in the registry.
pub(crate) fn writes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

/// What can be done about a failure, where no more is known than its kind, and whether it is one of a push.
pub(crate) fn of_kind(kind: &ErrorKind, pushes: bool) -> Option<&'static str> {
    match kind {
        ErrorKind::DigestMismatch { .. } if pushes => Some(
            "the registry took something else than was sent; a proxy in front of it may change content",
        ),
        ErrorKind::DigestMismatch { .. } | ErrorKind::SizeMismatch { .. } => Some(
            "nothing of it was kept; the registry, or a proxy in front of it, damages or replaces content",
        ),
        ErrorKind::Connect { .. } => {
            Some("check the registry's name and port, and whether the network lets you there")
        }
        ErrorKind::Cut { .. } | ErrorKind::Stalled { .. } => Some(
            "the network, or a proxy in front of the registry, ends transfers; building again takes up what is finished",
        ),
        ErrorKind::TooLarge { .. } => {
            Some("no sensible registry sends so much here; check its name")
        }
        _ => None,
    }
}

/// What a web page in the place of an answer means.
pub(crate) fn of_page(media_type: &str) -> Option<String> {
    media_type.starts_with("text/html").then(|| {
        "the answer is a web page: check the registry's name, and whether a proxy or a login page answers in its place"
            .to_owned()
    })
}

/// What can be done about a status.
pub(crate) fn of_status(
    status: u16,
    method: &Method,
    url: &Url,
    registry: &str,
    identity: &Identity,
) -> Option<String> {
    let writes = writes(method);
    match (status, identity) {
        (400..=499, Identity::Elsewhere { host }) => Some(format!(
            "`{registry}` sent the request on to `{host}`, which refused it; such permissions expire: try again"
        )),
        (404, _) if !writes && url.path().contains("/blobs/") => Some(
            "the image is incomplete in its registry: its manifest names this blob; push the image again"
                .to_owned(),
        ),
        (413, _) => Some(
            "the registry, or a proxy in front of it, limits the size of an upload; smaller layers or a higher limit help"
                .to_owned(),
        ),
        (507, _) => Some(format!("`{registry}` has no room left; make some there")),
        (500..=599, _) => Some(format!(
            "`{registry}` itself has a problem; try again later, or tell whoever runs it"
        )),
        (403, Identity::Unasked) => Some(format!(
            "`{registry}` did not ask for a login: the repository, your network or this program may be shut out there"
        )),
        (401, Identity::Known { source }) => Some(format!(
            "{source} was used and not accepted; log in again with `docker login {registry}`"
        )),
        (401 | 403, Identity::Nobody { places }) => Some(no_login(registry, places)),
        (401, Identity::Unasked) => Some(format!(
            "`{registry}` does not say how it wants to be authenticated to"
        )),
        (403, Identity::Known { source }) => {
            let what = if writes { "push to" } else { "read" };
            Some(format!(
                "{source} was used; it may lack the right to {what} this repository"
            ))
        }
        (404, Identity::Nobody { .. } | Identity::Unasked) if !writes => Some(
            "check the name and the tag; some registries also answer this to who is not logged in"
                .to_owned(),
        ),
        (404, _) if writes => Some("the repository may have to be created first".to_owned()),
        (404, _) => Some("check the name and the tag".to_owned()),
        (429, Identity::Known { .. }) => Some(format!(
            "`{registry}` limits requests; try again later, or use a mirror"
        )),
        (429, _) => Some(format!(
            "`{registry}` limits requests; a login may raise the limit"
        )),
        _ => None,
    }
}

fn no_login(registry: &str, places: &str) -> String {
    let looked = if places.is_empty() {
        "no credential file was given".to_owned()
    } else {
        format!("there is none in {places}")
    };
    format!(
        "a login for `{registry}` is needed, {looked}; or the image does not exist; log in with `docker login {registry}`"
    )
}
