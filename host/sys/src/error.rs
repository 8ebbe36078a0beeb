//! The one error of this crate: which system call failed, on what, and how.
//!
//! It carries the number of the error, so that a caller can tell "not permitted here" from "went wrong".

use std::borrow::Cow;
use std::fmt;

use rustix::io::Errno;

/// A system call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysError {
    /// Name of the system call, for example `openat2`.
    pub call: Cow<'static, str>,
    /// What it was called on: a path, a process, an option; may be empty.
    pub subject: String,
    /// What the kernel answered.
    pub errno: Errno,
}

/// The result of a system call.
pub type SysResult<T> = Result<T, SysError>;

impl SysError {
    /// Makes the error of `call` on `subject`.
    pub fn new(
        call: impl Into<Cow<'static, str>>,
        subject: impl Into<String>,
        errno: Errno,
    ) -> Self {
        Self {
            call: call.into(),
            subject: subject.into(),
            errno,
        }
    }

    /// Makes the error of `call` on `subject` from what the last libc call left behind.
    pub fn last(call: &'static str, subject: impl Into<String>) -> Self {
        let raw = std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO);
        Self::new(call, subject, Errno::from_raw_os_error(raw))
    }

    /// Returns the symbolic name of the error number, for example `EPERM`, or the bare number.
    pub fn name(&self) -> String {
        errno_name(self.errno.raw_os_error())
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = std::io::Error::from_raw_os_error(self.errno.raw_os_error()).to_string();
        let reason = reason
            .split(" (os error")
            .next()
            .unwrap_or_default()
            .to_lowercase();
        let name = self.name();
        match self.subject.as_str() {
            "" => write!(f, "{}: {reason} ({name})", self.call),
            subject => write!(f, "{} `{subject}`: {reason} ({name})", self.call),
        }
    }
}

impl std::error::Error for SysError {}

/// Gives a result of rustix or std the name of its system call and its subject.
pub trait Context<T> {
    /// Names the call and what it was called on.
    fn context(self, call: &'static str, subject: impl Into<String>) -> SysResult<T>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn context(self, call: &'static str, subject: impl Into<String>) -> SysResult<T> {
        self.map_err(|errno| SysError::new(call, subject, errno))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, call: &'static str, subject: impl Into<String>) -> SysResult<T> {
        self.map_err(|e| {
            SysError::new(call, subject, Errno::from_io_error(&e).unwrap_or(Errno::IO))
        })
    }
}

/// Returns the symbolic name of an error number, or the number itself where it is not one that set-up meets.
pub fn errno_name(errno: i32) -> String {
    const NAMES: &[(i32, &str)] = &[
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::EINTR, "EINTR"),
        (libc::EIO, "EIO"),
        (libc::E2BIG, "E2BIG"),
        (libc::ENOEXEC, "ENOEXEC"),
        (libc::EBADF, "EBADF"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EXDEV, "EXDEV"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::EMFILE, "EMFILE"),
        (libc::ENFILE, "ENFILE"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::EPIPE, "EPIPE"),
        (libc::ERANGE, "ERANGE"),
        (libc::ENAMETOOLONG, "ENAMETOOLONG"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ENOTEMPTY, "ENOTEMPTY"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENODATA, "ENODATA"),
        (libc::EOVERFLOW, "EOVERFLOW"),
        (libc::EUSERS, "EUSERS"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
        (libc::ECONNRESET, "ECONNRESET"),
        (libc::EDQUOT, "EDQUOT"),
    ];
    let known = NAMES.iter().find(|(number, _)| *number == errno);
    known.map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_failed_on_what_and_why() {
        let error = SysError::new("chroot", "/tree", Errno::PERM);
        assert_eq!(
            error.to_string(),
            "chroot `/tree`: operation not permitted (EPERM)"
        );
        assert_eq!(
            SysError::new("fork", "", Errno::from_raw_os_error(3999)).name(),
            "errno 3999"
        );
    }
}
