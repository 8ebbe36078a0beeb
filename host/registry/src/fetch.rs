//! Files behind plain web addresses (ADD, remote contexts): the same connections, proxies, authorities and time limits as for
//! registries, and nothing of their protocol.
//!
//! What becomes of the bytes is the caller's business, and so is when to begin anew.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED,
};
use url::Url;

use crate::endpoint::authority;
use crate::error::{ErrorKind, RegistryError, Result};
use crate::options::RegistryOptions;
use crate::registry::Registry;
use crate::text;
use crate::transport::{Answer, Request};

pub use oci_distribution::secrets::RegistryAuth as FetchAuth;

/// Tries of one download: a server that fails is told of sooner than a registry, of which there is no other one.
pub const FETCH_ATTEMPTS: u32 = 3;

/// What is to be fetched.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// The address.
    pub url: String,
    /// What the file was when it was fetched before: an answer may be that it still is.
    pub known: Validators,
    /// Credentials; they go to the origin of `url` and nowhere else.
    pub auth: FetchAuth,
    /// Most bytes that it may have.
    pub limit: u64,
}

/// What a server calls a version of a file (RFC 9110, 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`, as the server wrote it.
    pub last_modified: Option<String>,
}

/// The answer.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each file, on its way to who reads it"
)]
pub enum Fetched {
    /// The file is what it was.
    Unchanged,
    /// Here it comes.
    Body(Download),
}

/// A file that is being fetched.
pub struct Download {
    answer: Answer,
    limit: u64,
    received: u64,
}

impl Registry {
    /// How servers are spoken to.
    pub fn options(&self) -> &RegistryOptions {
        self.transport().options()
    }

    /// Asks for a file, once.
    pub async fn fetch_file(&self, fetch: &Fetch) -> Result<Fetched> {
        let url = address(&fetch.url)?;
        let mut request = Request::new(Method::GET, url.clone());
        let mut set = |name: HeaderName, value: &Option<String>| {
            // A server that sent something that cannot be sent back gets nothing.
            let value = value.as_deref().map(HeaderValue::from_str);
            if let Some(Ok(value)) = value {
                request.headers.insert(name, value);
            }
        };
        set(ACCEPT_ENCODING, &Some("identity".to_owned()));
        set(IF_NONE_MATCH, &fetch.known.etag);
        set(IF_MODIFIED_SINCE, &fetch.known.last_modified);
        let answer = self.transport().send(&url, &fetch.auth, &request).await?;
        let known = fetch.known != Validators::default();
        match answer.status() {
            304 if known => Ok(Fetched::Unchanged),
            200 | 203 => {
                let download = Download {
                    answer,
                    limit: fetch.limit,
                    received: 0,
                };
                match download.length() {
                    Some(length) if length > fetch.limit => Err(download.too_large()),
                    _ => Ok(Fetched::Body(download)),
                }
            }
            _ => {
                let place = authority(&answer.url);
                Err(answer.failure(&place).await)
            }
        }
    }

    /// Waits before a download is begun anew, where `error` may pass; else gives it back.  `tried` counts from 1.
    pub async fn wait_to_fetch(&self, tried: u32, error: RegistryError) -> Result<()> {
        if tried >= FETCH_ATTEMPTS {
            return Err(error.with_attempts(tried));
        }
        let mut backoff = self.backoff();
        backoff.failed_before(tried - 1);
        backoff.pause(error).await
    }
}

fn address(text: &str) -> Result<Url> {
    Url::parse(text).map_err(|error| {
        RegistryError::new(ErrorKind::BadAnswer {
            what: format!("`{}` is no address: {error}", text::clean(text)),
        })
    })
}

impl Download {
    /// What the server calls this version.
    pub fn validators(&self) -> Validators {
        Validators {
            etag: self.answer.header(ETAG).map(str::to_owned),
            last_modified: self.answer.header(LAST_MODIFIED).map(str::to_owned),
        }
    }

    /// When the server says that it was changed last, in seconds since 1970.
    pub fn modified(&self) -> Option<i64> {
        let text = self.answer.header(LAST_MODIFIED)?;
        let time = jiff::fmt::rfc2822::parse(text).ok()?;
        Some(time.timestamp().as_second())
    }

    /// Announced length.
    pub fn length(&self) -> Option<u64> {
        self.answer.header(CONTENT_LENGTH)?.parse().ok()
    }

    /// Reads the next piece; nothing at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let chunk = self.answer.chunk().await?;
        self.received += chunk.as_ref().map_or(0, |c| c.len() as u64);
        if self.received > self.limit {
            return Err(self.too_large());
        }
        Ok(chunk)
    }

    fn too_large(&self) -> RegistryError {
        self.answer.error(ErrorKind::TooLarge { limit: self.limit })
    }
}
