//! Pushes blobs: not where they are already, by a mount where the registry has them elsewhere, in one piece
//! where it takes one, and in chunks where it does not.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use stepwell_model::{Digest, Reference};
use url::Url;

use crate::auth::Scopes;
use crate::endpoint::{Host, canonical, repository, uploads_path};
use crate::error::{ErrorKind, RegistryError, Result};
use crate::registry::{Call, Progress, Registry, Target};
use crate::transport::{Answer, Payload};
use crate::upload::{Upload, read_piece};

/// Opens a blob for reading from its beginning; called again for every try.
pub type BlobSource = Arc<dyn Fn() -> std::io::Result<Box<dyn Read + Send>> + Send + Sync>;

/// The size of a chunk where the registry does not ask for more, and the most that is held in memory.
const CHUNK: u64 = 8 << 20;
const CHUNK_MAX: u64 = 64 << 20;

const DIGEST_HEADER: &str = "docker-content-digest";
const CHUNK_MIN_HEADER: &str = "oci-chunk-min-length";

/// How a blob came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// It was there.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was sent.
    Sent,
}

/// Where an upload goes on.
struct Session {
    location: Url,
    /// What the registry wants a chunk to have at least.
    chunk: u64,
}

/// What a registry makes of the begin of an upload.
enum Begun {
    Mounted,
    Session(Session),
}

impl Registry {
    /// Makes sure that the repository of `reference` has the blob, which `source` gives and which has `size`
    /// bytes.  `mount_from` names repositories that may have it; those on other registries are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] where the source fails or has another size, and what the network brings after it
    /// was tried often enough.
    pub async fn push_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        source: BlobSource,
        mount_from: &[Reference],
        progress: Progress,
    ) -> Result<PushOutcome> {
        let host = self.host(reference)?;
        if self.has_blob_to_push(&host, reference, digest).await? {
            return Ok(PushOutcome::Present);
        }
        let upload = Upload::new(*digest, size, Arc::clone(&source), Arc::clone(&progress));
        let push = Push {
            registry: self,
            host: &host,
            reference,
            digest,
            size,
            source,
            progress,
        };
        let mut mounts = mount_from.iter().filter(|from| push.can_mount(from));
        let mut mount = mounts.next();
        let (mut backoff, mut chunked) = (self.backoff(), false);
        loop {
            let tried = match push.begin(mount).await {
                Ok(Begun::Mounted) => return Ok(PushOutcome::Mounted),
                Ok(Begun::Session(session)) if chunked => push.in_chunks(session).await,
                Ok(Begun::Session(session)) => push.at_once(session, &upload).await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(()) => return Ok(PushOutcome::Sent),
                // A source that may not be read is no reason not to send the blob.
                Err(error) if mount.is_some() && matches!(error.status(), Some(400..=499)) => {
                    mount = mounts.next()
                }
                Err(error) if !chunked && wants_chunks(&error) => chunked = true,
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    /// Like [`Registry::has_blob`], but with the rights of a push, so that one token serves the whole push.
    async fn has_blob_to_push(
        &self,
        host: &Host,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool> {
        let repository = repository(reference)?;
        let path = crate::endpoint::blob_path(reference, digest)?;
        let call = Call::new(Method::HEAD, path, repository, Scopes::push(repository));
        Ok(self.call(host, &call, &[200, 404]).await?.status() == 200)
    }
}

/// A proxy or a registry that does not take a blob in one request says so in one of these ways.
fn wants_chunks(error: &RegistryError) -> bool {
    matches!(error.status(), Some(405 | 411 | 413 | 415 | 501)) && error.method() == Some("PUT")
}

/// One blob being pushed.
struct Push<'a> {
    registry: &'a Registry,
    host: &'a Host,
    reference: &'a Reference,
    digest: &'a Digest,
    size: u64,
    source: BlobSource,
    progress: Progress,
}

impl Push<'_> {
    fn can_mount(&self, from: &Reference) -> bool {
        canonical(from.registry()) == self.host.name
            && from.repository() != self.reference.repository()
    }

    fn call(&self, method: Method, target: Target, payload: Payload) -> Result<Call> {
        let repository = repository(self.reference)?;
        let mut call = Call::new(method, String::new(), repository, Scopes::push(repository));
        call.target = target;
        if !matches!(payload, Payload::Empty) {
            call.headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            );
        }
        call.payload = payload;
        Ok(call)
    }

    /// Begins an upload, or has the registry take the blob from the repository of `mount`.
    async fn begin(&self, mount: Option<&Reference>) -> Result<Begun> {
        let mut path = uploads_path(self.reference)?;
        if let Some(from) = mount {
            let from = repository(from)?;
            path = format!(
                "{path}?mount={}&from={}",
                self.digest,
                from.replace('/', "%2F")
            );
        }
        let mut call = self.call(Method::POST, Target::Path(path), Payload::Empty)?;
        if let Some(from) = mount {
            call.scopes = call.scopes.and(from.repository(), &["pull"]);
        }
        let answer = self
            .registry
            .call_once(self.host, &call, &[201, 202])
            .await?;
        if answer.status() == 201 && mount.is_some() {
            self.check(&answer)?;
            return Ok(Begun::Mounted);
        }
        Ok(Begun::Session(session(&answer)?))
    }

    /// Sends the blob in one request.
    async fn at_once(&self, session: Session, upload: &Arc<Upload>) -> Result<()> {
        let target = Target::Location(with_digest(session.location, self.digest));
        let call = self.call(Method::PUT, target, Payload::Stream(Arc::clone(upload)))?;
        let answer = self
            .registry
            .call_once(self.host, &call, &[201, 204])
            .await?;
        self.check(&answer)
    }

    /// Sends the blob in pieces that each fit in memory and can be sent again by themselves.
    async fn in_chunks(&self, mut session: Session) -> Result<()> {
        let chunk = session.chunk.clamp(CHUNK, CHUNK_MAX);
        let source = Arc::clone(&self.source);
        let mut reader = self.blocking(move || source()).await?;
        let mut begin = 0;
        while begin < self.size {
            let len = chunk.min(self.size - begin);
            let read = move || read_piece(&mut reader, len as usize).map(|piece| (piece, reader));
            let piece;
            (piece, reader) = self.blocking(read).await?;
            session = self.send_chunk(session, begin, piece).await?;
            begin += len;
            (self.progress)(begin);
        }
        let target = Target::Location(with_digest(session.location, self.digest));
        let call = self.call(Method::PUT, target, Payload::Empty)?;
        let answer = self.registry.call(self.host, &call, &[201, 204]).await?;
        self.check(&answer)
    }

    /// Sends one chunk; after a failure the registry is asked whether it has it all the same.
    async fn send_chunk(&self, session: Session, begin: u64, piece: Bytes) -> Result<Session> {
        let end = begin + piece.len() as u64 - 1;
        let mut call = self.call(
            Method::PATCH,
            Target::Location(session.location.clone()),
            Payload::Bytes(piece),
        )?;
        let range =
            HeaderValue::from_str(&format!("{begin}-{end}")).expect("digits are a header value");
        call.headers.insert(CONTENT_RANGE, range);
        let mut backoff = self.registry.backoff();
        loop {
            let error = match self.registry.call_once(self.host, &call, &[202, 204]).await {
                Ok(answer) => return session_after(&answer, session.chunk),
                Err(error) => error,
            };
            if error.status() != Some(416) {
                backoff.pause(error).await?;
                continue;
            }
            return match self.state(&session).await? {
                (last, session) if last == Some(end) => Ok(session),
                _ => Err(error),
            };
        }
    }

    /// Asks for the last byte of an upload that has arrived, and where it goes on.
    async fn state(&self, session: &Session) -> Result<(Option<u64>, Session)> {
        let target = Target::Location(session.location.clone());
        let call = self.call(Method::GET, target, Payload::Empty)?;
        let answer = self.registry.call(self.host, &call, &[204]).await?;
        let last = answer
            .header(RANGE)
            .and_then(|r| r.rsplit('-').next()?.parse().ok());
        Ok((last, session_after(&answer, session.chunk)?))
    }

    /// Runs a read of the source off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|e| Err(std::io::Error::other(e)));
        done.map_err(|cause| {
            RegistryError::new(ErrorKind::Source {
                digest: *self.digest,
                cause,
            })
        })
    }

    /// Compares the digest that the registry gives with the one pushed.
    fn check(&self, answer: &Answer) -> Result<()> {
        match answer
            .header(DIGEST_HEADER)
            .and_then(|d| d.parse::<Digest>().ok())
        {
            Some(actual) if actual != *self.digest => {
                Err(answer.error(ErrorKind::DigestMismatch {
                    expected: *self.digest,
                    actual,
                }))
            }
            _ => Ok(()),
        }
    }
}

fn session(answer: &Answer) -> Result<Session> {
    let wanted = answer.header(CHUNK_MIN_HEADER).and_then(|c| c.parse().ok());
    session_after(answer, wanted.unwrap_or(0))
}

/// The next place of an upload: a `Location` may be relative, and its query is the server's own.
fn session_after(answer: &Answer, chunk: u64) -> Result<Session> {
    let bad = |what: &str| {
        answer.error(ErrorKind::BadAnswer {
            what: what.to_owned(),
        })
    };
    let location = answer
        .header(LOCATION)
        .ok_or_else(|| bad("there is no `Location` to upload to"))?;
    let location = answer
        .url
        .join(location)
        .map_err(|_| bad("the `Location` to upload to is not a url"))?;
    match (answer.url.scheme(), location.scheme()) {
        (from, to) if from == to => {}
        ("http", "https") => {}
        _ => return Err(bad("the `Location` to upload to leaves tls")),
    }
    Ok(Session { location, chunk })
}

/// Adds the digest to whatever query there is, which is kept byte for byte.
fn with_digest(mut location: Url, digest: &Digest) -> Url {
    let query = match location.query() {
        Some(query) if !query.is_empty() => format!("{query}&digest={digest}"),
        _ => format!("digest={digest}"),
    };
    location.set_query(Some(&query));
    location
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_query_is_kept() {
        let digest = Digest::of(b"");
        let with = |text: &str| with_digest(Url::parse(text).unwrap(), &digest).to_string();
        assert_eq!(
            with("http://h/u?_state=a%2Fb%3D%3D"),
            format!("http://h/u?_state=a%2Fb%3D%3D&digest={digest}")
        );
        assert_eq!(with("http://h/u"), format!("http://h/u?digest={digest}"));
    }
}
