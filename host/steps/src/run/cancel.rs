//! Giving up a running step from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use stepwell_sys::SysError;
use stepwell_sys::error::Context;

/// Says to all who hold a copy that the work is to be given up.  Once said it cannot be taken back.
#[derive(Debug, Clone)]
pub struct CancelToken(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cancelled: Arc<AtomicBool>,
    event: OwnedFd,
}

impl CancelToken {
    /// Makes a token; it fails only where no descriptor is to be had.
    pub fn new() -> Result<Self, SysError> {
        let event =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("eventfd2", "")?;
        Ok(Self(Arc::new(Inner {
            cancelled: Arc::default(),
            event,
        })))
    }

    /// Gives the work up.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        // The counter cannot overflow by ones in the life of a program; the flag above is what counts anyway.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
    }

    /// Returns the flag that is set once the work was given up, for those who only look at it.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.cancelled.clone()
    }

    /// Returns whether the work was given up.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }
}

impl AsFd for CancelToken {
    /// Is readable once the work was given up.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
