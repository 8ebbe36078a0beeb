//! Giving up long work: whoever opened the store lends it a flag, and what reads or writes much looks at it now and then.
//!
//! Work that is given up fails, and leaves behind what any failure does: no half blob, no tree that is not what it says.
//! Removing and locking pay no heed, so that what failed can still be put away.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Result, StoreError};
use crate::store::Store;

/// The flag that work looks at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

/// What an [`io::Error`] holds where work was given up.
#[derive(Debug, thiserror::Error)]
#[error("the work was given up")]
pub(crate) struct GivenUp;

impl Interrupt {
    /// Fails once the flag is set.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_set() {
            Err(StoreError::Interrupted)
        } else {
            Ok(())
        }
    }

    /// The same in the middle of reading or writing.
    pub(crate) fn check_io(&self) -> io::Result<()> {
        // Not `ErrorKind::Interrupted`: the standard library's loops try again at that.
        if self.is_set() {
            Err(io::Error::other(GivenUp))
        } else {
            Ok(())
        }
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Reads from `inner` until the flag is set.
    pub(crate) fn reader<R>(&self, inner: R) -> Heeding<R> {
        Heeding {
            inner,
            interrupt: self.clone(),
        }
    }
}

/// Says whether an error is that the work was given up.
pub(crate) fn was_given_up(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<GivenUp>())
}

/// A reader that heeds the flag.
#[derive(Debug)]
pub(crate) struct Heeding<R> {
    inner: R,
    interrupt: Interrupt,
}

impl<R: Read> Read for Heeding<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.interrupt.check_io()?;
        self.inner.read(buf)
    }
}

impl Store {
    /// Has all long work that begins from now on end with [`StoreError::Interrupted`] soon after `flag` is set; it takes the
    /// place of an earlier flag.
    pub fn heed(&self, flag: Arc<AtomicBool>) {
        let mut interrupt = self.interrupt.lock().unwrap_or_else(|e| e.into_inner());
        *interrupt = Interrupt(flag);
    }

    pub(crate) fn interrupt(&self) -> Interrupt {
        self.interrupt
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .clone()
    }
}
