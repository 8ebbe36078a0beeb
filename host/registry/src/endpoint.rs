//! Where a registry is: its authority, its scheme, and the paths of the API below it.

use std::net::IpAddr;
use std::sync::Mutex;

use stepwell_model::{Digest, Reference};
use url::{Host as UrlHost, Url};

use crate::auth::HostAuth;
use crate::error::{ErrorKind, RegistryError, Result};
use crate::options::RegistryOptions;

/// Docker Hub's name in references, and where its API is.
pub(crate) const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Https,
    /// Plain, because it is on loopback or listed; it may turn out to want TLS after all.
    HttpLikely,
    /// Plain HTTP was a guess, and seems to have been wrong.
    HttpsLikely,
    Http,
}

/// One registry, with what has been learnt about it.
pub(crate) struct Host {
    /// As in references, for example `docker.io`.
    pub(crate) name: String,
    authority: String,
    scheme: Mutex<Scheme>,
    pub(crate) auth: tokio::sync::Mutex<HostAuth>,
}

impl Host {
    /// The registry of `reference`.
    pub(crate) fn of(reference: &Reference, options: &RegistryOptions) -> Result<Self> {
        let name = canonical(reference.registry());
        let authority = if name == DOCKER_HUB {
            DOCKER_HUB_API
        } else {
            name
        };
        let bad = || refused(reference, format!("`{name}` is not a host or host:port"));
        let url = Url::parse(&format!("https://{authority}/")).map_err(|_| bad())?;
        if url.path() != "/"
            || !url.username().is_empty()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(bad());
        }
        let plain = is_loopback(&url) || options.plain_http.iter().any(|h| canonical(h) == name);
        let scheme = if plain {
            Scheme::HttpLikely
        } else {
            Scheme::Https
        };
        Ok(Self {
            name: name.to_owned(),
            authority: authority.to_owned(),
            scheme: Mutex::new(scheme),
            auth: tokio::sync::Mutex::default(),
        })
    }

    fn scheme(&self) -> std::sync::MutexGuard<'_, Scheme> {
        self.scheme
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The URL of `path`, which begins with `/` and is made by the functions below.
    pub(crate) fn url(&self, path: &str) -> Result<Url> {
        let scheme = match *self.scheme() {
            Scheme::Https | Scheme::HttpsLikely => "https",
            Scheme::HttpLikely | Scheme::Http => "http",
        };
        let text = format!("{scheme}://{}{path}", self.authority);
        Url::parse(&text).map_err(|e| {
            let what = format!("`{text}`: {e}");
            RegistryError::new(ErrorKind::BadAnswer { what })
        })
    }

    /// Notes that the server answered as it was spoken to.
    pub(crate) fn scheme_works(&self) {
        let mut scheme = self.scheme();
        *scheme = match *scheme {
            Scheme::HttpLikely | Scheme::Http => Scheme::Http,
            Scheme::HttpsLikely | Scheme::Https => Scheme::Https,
        };
    }

    /// Changes to TLS where plain HTTP was only a guess; says whether it was.
    pub(crate) fn turn_to_https(&self) -> bool {
        self.turn(Scheme::HttpLikely, Scheme::HttpsLikely)
    }

    /// Changes back for good where TLS was only a guess; says whether it was.
    pub(crate) fn turn_back_to_http(&self) -> bool {
        self.turn(Scheme::HttpsLikely, Scheme::Http)
    }

    fn turn(&self, from: Scheme, to: Scheme) -> bool {
        let mut scheme = self.scheme();
        let turns = *scheme == from;
        if turns {
            *scheme = to;
        }
        turns
    }
}

/// One name for a registry that has several.
pub(crate) fn canonical(registry: &str) -> &str {
    match registry {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB,
        other => other,
    }
}

/// Says whether two URLs have the same scheme, host and port: credentials do not cross this border.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host() == b.host()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// `host` or `host:port`, for messages.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Says whether the URL's host is this machine by its name or address; nothing is looked up.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(UrlHost::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(UrlHost::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(UrlHost::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

/// The path of a manifest, by digest where `reference` has one.
pub(crate) fn manifest_path(reference: &Reference, prefer_tag: bool) -> Result<String> {
    let wanted = match (reference.digest(), reference.tag(), prefer_tag) {
        (_, Some(tag), true) => tag,
        (Some(digest), _, _) => digest,
        (None, Some(tag), _) => tag,
        (None, None, _) => "latest",
    };
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '+');
    if wanted.starts_with('.') || !wanted.chars().all(fine) {
        return Err(refused(
            reference,
            format!("`{wanted}` is neither a tag nor a digest"),
        ));
    }
    Ok(format!("/v2/{}/manifests/{wanted}", repository(reference)?))
}

/// The path of a blob.
pub(crate) fn blob_path(reference: &Reference, digest: &Digest) -> Result<String> {
    Ok(format!("/v2/{}/blobs/{digest}", repository(reference)?))
}

/// The path that begins an upload.
pub(crate) fn uploads_path(reference: &Reference) -> Result<String> {
    Ok(format!("/v2/{}/blobs/uploads/", repository(reference)?))
}

/// The repository's name, checked: a reference need not come from the parser.
pub(crate) fn repository(reference: &Reference) -> Result<&str> {
    let name = reference.repository();
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let part = |p: &str| !p.is_empty() && !p.starts_with('.') && p.chars().all(fine);
    if name.split('/').all(part) {
        Ok(name)
    } else {
        Err(refused(
            reference,
            format!("`{name}` is not a repository's name"),
        ))
    }
}

/// The digest that `reference` is pinned to.
pub(crate) fn pinned(reference: &Reference) -> Result<Option<Digest>> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|e: stepwell_model::DigestError| refused(reference, e.to_string()))
    };
    reference.digest().map(parse).transpose()
}

pub(crate) fn refused(reference: &Reference, why: String) -> RegistryError {
    RegistryError::new(ErrorKind::Reference {
        reference: reference.to_string(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_of(text: &str, options: &RegistryOptions) -> String {
        let reference: Reference = text.parse().unwrap();
        let host = Host::of(&reference, options).unwrap();
        host.url(&manifest_path(&reference, false).unwrap())
            .unwrap()
            .to_string()
    }

    #[test]
    fn finds_the_api() {
        let options = RegistryOptions {
            plain_http: vec!["inside:5000".into()],
            ..RegistryOptions::default()
        };
        let pin = format!("sha256:{}", "0".repeat(64));
        for (text, want) in [
            (
                "debian",
                "https://registry-1.docker.io/v2/library/debian/manifests/latest".to_owned(),
            ),
            (
                "index.docker.io/a/b:c",
                "https://registry-1.docker.io/v2/a/b/manifests/c".into(),
            ),
            (
                "localhost:5000/a:b",
                "http://localhost:5000/v2/a/manifests/b".into(),
            ),
            (
                "127.0.0.1:5000/a:b",
                "http://127.0.0.1:5000/v2/a/manifests/b".into(),
            ),
            (
                "inside:5000/a:b",
                "http://inside:5000/v2/a/manifests/b".into(),
            ),
            (
                "outside:5000/a:b",
                "https://outside:5000/v2/a/manifests/b".into(),
            ),
            (
                &format!("r.example/a:b@{pin}"),
                format!("https://r.example/v2/a/manifests/{pin}"),
            ),
        ] {
            assert_eq!(url_of(text, &options), want);
        }
    }

    #[test]
    fn refuses_names_that_lead_elsewhere() {
        let with = |host: &str, repo: &str, tag: &str| {
            Reference::with_tag(host.into(), repo.into(), tag.into())
        };
        for host in ["evil.example@good.example", "a/b", "h:port", "h?x", ""] {
            assert!(
                Host::of(&with(host, "a", "b"), &RegistryOptions::default()).is_err(),
                "{host}"
            );
        }
        for (repo, tag) in [
            ("../x", "t"),
            ("a//b", "t"),
            ("a?b", "t"),
            ("a", "../../x"),
            ("a", "t?x"),
        ] {
            assert!(
                manifest_path(&with("h", repo, tag), false).is_err(),
                "{repo}:{tag}"
            );
        }
    }

    #[test]
    fn only_a_guess_at_plain_http_is_given_up() {
        let reference: Reference = "localhost:1/a".parse().unwrap();
        let host = || Host::of(&reference, &RegistryOptions::default()).unwrap();
        let proved = host();
        proved.scheme_works();
        assert!(!proved.turn_to_https());
        let turned = host();
        assert!(turned.turn_to_https());
        assert_eq!(turned.url("/v2/").unwrap().scheme(), "https");
        assert!(turned.turn_back_to_http() && !turned.turn_to_https());
        assert_eq!(turned.url("/v2/").unwrap().scheme(), "http");
    }
}
