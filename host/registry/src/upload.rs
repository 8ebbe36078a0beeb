//! The body of a push: a blocking source, read on a thread of its own, as a stream of bounded pieces.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use stepwell_model::Digest;
use tokio::sync::mpsc;

use crate::error::ErrorKind;
use crate::options::Timeouts;
use crate::push::BlobSource;
use crate::registry::Progress;

/// One piece; a few of them are in flight, which bounds the memory of an upload.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// A blob on its way to a registry; each try opens the source anew.
pub(crate) struct Upload {
    digest: Digest,
    size: u64,
    source: BlobSource,
    progress: Progress,
    sent: AtomicU64,
    failure: Mutex<Option<io::Error>>,
}

impl Upload {
    pub(crate) fn new(
        digest: Digest,
        size: u64,
        source: BlobSource,
        progress: Progress,
    ) -> Arc<Self> {
        Arc::new(Self {
            digest,
            size,
            source,
            progress,
            sent: AtomicU64::new(0),
            failure: Mutex::default(),
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Starts reading from the beginning.
    pub(crate) fn body(self: &Arc<Self>) -> reqwest::Body {
        self.sent.store(0, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
        let upload = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = upload.read(&sender) {
                let copy = io::Error::new(error.kind(), error.to_string());
                // Kept first: whoever sees the copy fail looks for the original.
                *upload.failure() = Some(error);
                let _ = sender.blocking_send(Err(copy));
            }
        });
        let counted = Arc::clone(self);
        let stream = futures_util::stream::unfold(receiver, move |mut receiver| {
            let upload = Arc::clone(&counted);
            async move {
                let piece = receiver.recv().await?;
                if let Ok(bytes) = &piece {
                    let sent = upload.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed)
                        + bytes.len() as u64;
                    (upload.progress)(sent);
                }
                Some((piece, receiver))
            }
        });
        reqwest::Body::wrap_stream(stream)
    }

    /// Reads the source and checks that it is as long as it was said to be.
    fn read(&self, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let mut source = (self.source)()?;
        let mut left = self.size;
        while left > 0 {
            let piece = read_piece(&mut source, left.min(PIECE as u64) as usize)?;
            left -= piece.len() as u64;
            if sender.blocking_send(Ok(piece)).is_err() {
                // The request has ended; why is told there.
                return Ok(());
            }
        }
        match source.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is longer than {} bytes", self.size),
            )),
        }
    }

    /// Comes back when the upload stands still.
    pub(crate) async fn watch(&self, timeouts: &Timeouts) -> ErrorKind {
        loop {
            let before = self.sent.load(Ordering::Relaxed);
            let stalled = if before >= self.size {
                tokio::time::sleep(timeouts.response).await;
                ErrorKind::Stalled {
                    what: "the answer to the upload",
                    after: timeouts.response,
                }
            } else {
                tokio::time::sleep(timeouts.idle).await;
                ErrorKind::Stalled {
                    what: "the upload",
                    after: timeouts.idle,
                }
            };
            let now = self.sent.load(Ordering::Relaxed);
            if now < before.saturating_add(timeouts.min_bytes)
                && (before >= self.size || now < self.size)
            {
                return stalled;
            }
        }
    }

    /// What the source failed with, if it did.
    pub(crate) fn take_failure(&self) -> Option<ErrorKind> {
        self.failure().take().map(|cause| ErrorKind::Source {
            digest: self.digest,
            cause,
        })
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<io::Error>> {
        self.failure
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Reads exactly `len` bytes.
pub(crate) fn read_piece(source: &mut impl Read, len: usize) -> io::Result<Bytes> {
    let mut piece = vec![0; len];
    let short = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(e.kind(), "it is shorter than it was said to be")
        }
        _ => e,
    };
    source.read_exact(&mut piece).map_err(short)?;
    Ok(piece.into())
}
