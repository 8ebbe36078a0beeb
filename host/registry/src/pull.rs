//! Pulls blobs: verified while they stream, taken up again where a connection broke.

use std::io::{self, Write};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use stepwell_model::digest::Hasher;
use stepwell_model::{Digest, Reference};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::auth::Scopes;
use crate::endpoint::{Host, blob_path, repository};
use crate::error::{ErrorKind, RegistryError, Result};
use crate::registry::{Call, Progress, Registry, no_progress};
use crate::transport::Answer;

/// Pieces between the network and the sink; they bound the memory of a pull (a piece has at most some 100 KiB).
const PIECES: usize = 16;

/// After so much new content, earlier failures of a pull are forgotten.
const REAL_PROGRESS: u64 = 4 << 20;

/// A blob that is being received.
struct Transfer<'a> {
    size: u64,
    received: u64,
    sink: mpsc::Sender<Bytes>,
    progress: &'a Progress,
}

/// Why a try to receive ended early.
enum Stop {
    /// The sink takes no more; it knows why.
    Sink,
    Error(RegistryError),
}

impl From<RegistryError> for Stop {
    fn from(error: RegistryError) -> Self {
        Stop::Error(error)
    }
}

impl Registry {
    /// Streams a blob into `sink` and gives the sink back when the digest *and* the size are right.
    ///
    /// The sink is written on a thread of its own and may block.  It has been given unverified bytes by the
    /// time of an error, so what it made of them has to be thrown away then.
    ///
    /// # Errors
    /// [`ErrorKind::DigestMismatch`], [`ErrorKind::SizeMismatch`], [`ErrorKind::Sink`], and what the network
    /// brings after it was tried often enough.
    pub async fn pull_blob<W: Write + Send + 'static>(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        sink: W,
        progress: Progress,
    ) -> Result<W> {
        let host = self.host(reference)?;
        let repository = repository(reference)?;
        let call = Call::new(
            Method::GET,
            blob_path(reference, digest)?,
            repository,
            Scopes::pull(repository),
        );
        let (sender, receiver) = mpsc::channel(PIECES);
        let writer = tokio::task::spawn_blocking(move || write_all(receiver, sink));
        let mut transfer = Transfer {
            size,
            received: 0,
            sink: sender,
            progress: &progress,
        };
        let fetched = self.fetch(&host, call, &mut transfer).await;
        // Ends the writer.
        drop(transfer);
        let written = finish(writer, *digest).await;
        match fetched {
            Err(Stop::Error(error)) => Err(error),
            // Without an error of its own, a writer that left early has panicked, which `finish` reports.
            Err(Stop::Sink) => written.map(|(sink, _)| sink),
            Ok(()) => {
                let (sink, actual) = written?;
                if actual == *digest {
                    return Ok(sink);
                }
                let kind = ErrorKind::DigestMismatch {
                    expected: *digest,
                    actual,
                };
                let url = host.url(&blob_path(reference, digest)?)?;
                Err(RegistryError::of(&Method::GET, &url, kind))
            }
        }
    }

    /// Fetches a small blob, such as an image's configuration, into memory.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] where `size` is more than `limit`, and those of [`Registry::pull_blob`].
    pub async fn blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        limit: u64,
    ) -> Result<Vec<u8>> {
        if size > limit {
            return Err(RegistryError::new(ErrorKind::TooLarge { limit }));
        }
        self.pull_blob(reference, digest, size, Vec::new(), no_progress())
            .await
    }

    /// Says whether the repository of `reference` has the blob.
    pub async fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool> {
        let host = self.host(reference)?;
        let repository = repository(reference)?;
        let call = Call::new(
            Method::HEAD,
            blob_path(reference, digest)?,
            repository,
            Scopes::pull(repository),
        );
        Ok(self.call(&host, &call, &[200, 404]).await?.status() == 200)
    }

    /// Receives until all has come, beginning again where a connection broke.
    async fn fetch(
        &self,
        host: &Host,
        mut call: Call,
        transfer: &mut Transfer<'_>,
    ) -> std::result::Result<(), Stop> {
        let mut backoff = self.backoff();
        loop {
            let before = transfer.received;
            set_range(&mut call, before);
            let error = match self.call_once(host, &call, &[200, 206]).await {
                Ok(answer) => match transfer.receive(answer).await {
                    Ok(()) => return Ok(()),
                    Err(Stop::Sink) => return Err(Stop::Sink),
                    Err(Stop::Error(error)) => error,
                },
                Err(error) => error,
            };
            if transfer.received - before >= REAL_PROGRESS {
                backoff.progressed();
            }
            backoff.pause(error).await?;
        }
    }
}

/// Asks for the rest from `received` on.
fn set_range(call: &mut Call, received: u64) {
    if received > 0 {
        let range = HeaderValue::from_str(&format!("bytes={received}-"));
        call.headers
            .insert(RANGE, range.expect("digits are a header value"));
    }
}

impl Transfer<'_> {
    /// Receives one answer's body, which is the blob or the rest of it.
    async fn receive(&mut self, mut answer: Answer) -> std::result::Result<(), Stop> {
        let mut skip = self.check_head(&answer)?;
        while let Some(mut chunk) = answer.chunk().await? {
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            let _ = chunk.split_to(skipped as usize);
            if chunk.is_empty() {
                continue;
            }
            self.received += chunk.len() as u64;
            if self.received > self.size {
                let kind = ErrorKind::SizeMismatch {
                    expected: self.size,
                    actual: self.received,
                };
                return Err(answer.error(kind).into());
            }
            (self.progress)(self.received);
            self.sink.send(chunk).await.map_err(|_| Stop::Sink)?;
        }
        if self.received < self.size {
            let cause = format!(
                "{} bytes of {} are missing",
                self.size - self.received,
                self.size
            );
            return Err(answer
                .error(ErrorKind::Cut {
                    received: self.received,
                    cause,
                })
                .into());
        }
        Ok(())
    }

    /// Checks that the answer is about the blob as it should be, and says how much of it is known already.
    fn check_head(&self, answer: &Answer) -> Result<u64> {
        let length = answer
            .header(CONTENT_LENGTH)
            .and_then(|l| l.parse::<u64>().ok());
        if answer.status() == 206 {
            let range = answer.header(CONTENT_RANGE).unwrap_or("");
            let begin = range
                .strip_prefix("bytes ")
                .and_then(|r| r.split('-').next())
                .and_then(|b| b.parse::<u64>().ok());
            if self.received == 0 || begin != Some(self.received) {
                let what = format!(
                    "bytes from {} were asked for, not `{}`",
                    self.received,
                    crate::text::clean(range)
                );
                return Err(answer.error(ErrorKind::BadAnswer { what }));
            }
            return Ok(0);
        }
        match length {
            Some(actual) if actual != self.size => Err(answer.error(ErrorKind::SizeMismatch {
                expected: self.size,
                actual,
            })),
            // A server that does not know ranges begins again.
            _ => Ok(self.received),
        }
    }
}

/// Hashes and writes what comes, until the sender is gone.
fn write_all<W: Write>(
    mut receiver: mpsc::Receiver<Bytes>,
    mut sink: W,
) -> io::Result<(W, Digest)> {
    let mut hasher = Hasher::new();
    while let Some(piece) = receiver.blocking_recv() {
        hasher.update(&piece);
        sink.write_all(&piece)?;
    }
    sink.flush()?;
    Ok((sink, hasher.finish()))
}

async fn finish<W>(
    writer: JoinHandle<io::Result<(W, Digest)>>,
    digest: Digest,
) -> Result<(W, Digest)> {
    let written = writer
        .await
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    written.map_err(|cause| RegistryError::new(ErrorKind::Sink { digest, cause }))
}
