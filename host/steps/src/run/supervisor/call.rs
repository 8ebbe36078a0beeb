//! One system call of a step, as its handler sees it: arguments, memory, and the ways to answer.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use stepwell_sys::memory;
use stepwell_sys::notify::{Listener, Notification};

use super::step::Step;
use crate::run::narrow::{self, Form};

/// Answers the calls of one row of the table.
pub type Handler = fn(&mut Step, &Call<'_>) -> Result<Answer, Stop>;

/// How a call is answered.
#[derive(Debug)]
pub enum Answer {
    /// The kernel carries it out.
    CarryOn,
    /// It returned this.
    Value(i64),
    /// Another thread will answer.
    Later,
    /// It opened this file.
    Inject {
        /// The open file, of which the task gets a copy.
        file: OwnedFd,
        /// Whether the copy is closed on exec.
        close_on_exec: bool,
    },
    /// It opened these files, and tells their numbers in memory.
    InjectTwo {
        /// The open files.
        files: [OwnedFd; 2],
        /// Whether the copies are closed on exec.
        close_on_exec: bool,
        /// Where two numbers are written.
        numbers: u64,
    },
}

/// Why a handler did not get to an answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The call fails.
    Fail(Errno),
    /// The kernel knows better, for instance because an address is bad.
    CarryOn,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Fail(errno)
    }
}

/// A call that waits.
pub struct Call<'a> {
    notification: Notification,
    form: Form,
    /// None for a call at which the tracer has stopped the task, which cannot go on meanwhile.
    listener: Option<&'a Listener>,
}

impl<'a> Call<'a> {
    /// Takes a notification and the listener that it came from; a call of a 32-bit program is the native one from here on.
    pub fn new(notification: Notification, listener: &'a Listener) -> Self {
        let (notification, form) = narrow::widen(notification);
        Self {
            notification,
            form,
            listener: Some(listener),
        }
    }

    /// Takes a call at which the tracer has stopped a thread.
    pub fn stopped(tid: u32, nr: i32, args: [u64; 6]) -> Self {
        let notification = Notification {
            id: 0,
            tid,
            nr,
            arch: 0,
            args,
        };
        Self {
            notification,
            form: Form::Same,
            listener: None,
        }
    }

    /// Returns the notification.
    pub fn notification(&self) -> Notification {
        self.notification
    }

    /// Returns another end of the listener, for an answer that has to wait.
    ///
    /// # Errors
    /// `ENOSYS` for a call that did not come from one, `EMFILE` and the like.
    pub fn share_listener(&self) -> Result<Listener, Errno> {
        let listener = self.listener.ok_or(Errno::NOSYS)?;
        listener.share().map_err(|error| error.errno)
    }

    /// Returns the calling thread, by its outer number.
    pub fn tid(&self) -> u32 {
        self.notification.tid
    }

    /// Returns the number of the system call.
    pub fn number(&self) -> i32 {
        self.notification.nr
    }

    /// Returns in what the call differs from the native one, where a 32-bit program makes it.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns an argument as it is.
    pub fn arg(&self, index: usize) -> u64 {
        self.notification.args[index]
    }

    /// Returns an argument of type `int`.
    pub fn int(&self, index: usize) -> i32 {
        self.arg(index) as i32
    }

    /// Returns an argument of type `unsigned int`: flags, modes, ids.
    pub fn uint(&self, index: usize) -> u32 {
        self.arg(index) as u32
    }

    /// Says whether the task still waits, so that its numbers still mean it.
    ///
    /// # Errors
    /// It does not; nobody will see any answer.
    pub fn check(&self) -> Result<(), Stop> {
        match self.listener {
            Some(listener) if !listener.is_valid(self.notification.id) => Err(Stop::CarryOn),
            _ => Ok(()),
        }
    }

    /// Reads the path that an argument points to.
    ///
    /// # Errors
    /// It cannot be read: the kernel says why.
    pub fn path(&self, index: usize) -> Result<Vec<u8>, Stop> {
        self.string(self.arg(index), memory::MAX_PATH)
    }

    /// Reads a string of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Self::path`].
    pub fn string(&self, address: u64, max: usize) -> Result<Vec<u8>, Stop> {
        memory::read_string(self.tid(), address, max).map_err(|_| Stop::CarryOn)
    }

    /// Fills a buffer from the task's memory.
    ///
    /// # Errors
    /// As [`Self::path`].
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Stop> {
        memory::read(self.tid(), address, buffer).map_err(|_| Stop::CarryOn)
    }

    /// Writes to the task's memory, if it still waits.
    ///
    /// # Errors
    /// `EFAULT`, as the kernel would say.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Stop> {
        self.check()?;
        memory::write(self.tid(), address, bytes).map_err(|_| Stop::Fail(Errno::FAULT))
    }
}
