//! The supervisor's end of a seccomp filter: notifications are taken, and answered by a result, by an error,
//! by an injected descriptor, or by letting the kernel carry on (seccomp_unotify(2)).
//!
//! It must not know what a system call means: `stepwell-steps`, `run/supervisor` does.  A task may die, or be
//! interrupted, at any moment: every answer says whether anybody was still there to take it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::error::{Context, SysError, SysResult};

/// Wake the supervisor on the CPU of the task that waits for it (Linux 6.6).
const SYNC_WAKE_UP: u64 = 1;

/// Bytes that a kernel newer than this program may write after the part of a notification that is known.
const MAX_NOTIFICATION: usize = 4096;

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// The notification; answers name it.
    pub id: u64,
    /// The calling thread, as this process's pid namespace numbers it; 0 when it has no number there.
    pub tid: u32,
    /// Number of the system call.
    pub nr: i32,
    /// Architecture (`AUDIT_ARCH_*`) whose numbers those are.
    pub arch: u32,
    /// The arguments.
    pub args: [u64; 6],
}

/// What waiting for a notification brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A call that waits for an answer.
    Call(Notification),
    /// The task is gone, or a signal came; wait again.
    Nothing,
    /// No task has the filter any more.
    AllGone,
    /// The other descriptor became readable.
    Stopped,
}

/// A notification descriptor.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    buffer: Vec<u64>,
    answer: Vec<u64>,
}

impl Listener {
    /// Takes over a descriptor made with `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
    ///
    /// # Errors
    /// A kernel whose sizes cannot be asked for, or are beyond reason.
    pub fn new(fd: OwnedFd) -> SysResult<Self> {
        let mut sizes = libc::seccomp_notif_sizes {
            seccomp_notif: 0,
            seccomp_notif_resp: 0,
            seccomp_data: 0,
        };
        // SAFETY: the kernel writes three 16-bit sizes to `sizes`, which lives until the call is over.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_NOTIF_SIZES,
                0,
                &raw mut sizes,
            )
        };
        if result != 0 {
            return Err(SysError::last("seccomp", "SECCOMP_GET_NOTIF_SIZES"));
        }
        let request = usize::from(sizes.seccomp_notif).max(size_of::<libc::seccomp_notif>());
        let answer =
            usize::from(sizes.seccomp_notif_resp).max(size_of::<libc::seccomp_notif_resp>());
        if request.max(answer) > MAX_NOTIFICATION {
            return Err(SysError::new(
                "seccomp",
                "SECCOMP_GET_NOTIF_SIZES",
                Errno::TOOBIG,
            ));
        }
        Ok(Self {
            fd,
            buffer: vec![0; request.div_ceil(8)],
            answer: vec![0; answer.div_ceil(8)],
        })
    }

    /// Returns another end of the same filter, by which a call can be answered from another thread.
    ///
    /// # Errors
    /// `EMFILE` and the like.
    pub fn share(&self) -> SysResult<Self> {
        Ok(Self {
            fd: self.fd.try_clone().context("fcntl", "seccomp listener")?,
            buffer: self.buffer.clone(),
            answer: self.answer.clone(),
        })
    }

    /// Asks for the supervisor to be woken on the CPU of the waiting task.
    ///
    /// # Errors
    /// `EINVAL` where the kernel is older than 6.6; nothing is lost but speed.
    pub fn wake_on_same_cpu(&self) -> SysResult<()> {
        // SAFETY: this request takes its flags by value and touches no memory of ours.
        let result = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                SYNC_WAKE_UP,
            )
        };
        check(result, "SECCOMP_IOCTL_NOTIF_SET_FLAGS").map(drop)
    }

    /// Waits for a call, for the end of all tasks, or for `stop` to become readable.
    ///
    /// # Errors
    /// The descriptor is no listener.
    pub fn receive(&mut self, stop: Option<BorrowedFd<'_>>) -> SysResult<Received> {
        let flags = {
            let mut fds = [
                PollFd::from_borrowed_fd(self.fd.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(stop.unwrap_or(self.fd.as_fd()), PollFlags::IN),
            ];
            let used = if stop.is_some() { 2 } else { 1 };
            match poll(&mut fds[..used], None) {
                Err(Errno::INTR | Errno::AGAIN) => return Ok(Received::Nothing),
                other => other.context("poll", "seccomp listener")?,
            };
            if stop.is_some() && !fds[1].revents().is_empty() {
                return Ok(Received::Stopped);
            }
            fds[0].revents()
        };
        if flags.contains(PollFlags::IN) {
            return self.take();
        }
        if flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Ok(Received::AllGone);
        }
        Ok(Received::Nothing)
    }

    /// Takes the call that poll(2) announced.
    fn take(&mut self) -> SysResult<Received> {
        self.buffer.fill(0);
        // SAFETY: the buffer is zeroed, aligned to 8 and at least as long as the kernel says it writes.
        let result = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                self.buffer.as_mut_ptr(),
            )
        };
        match check(result, "SECCOMP_IOCTL_NOTIF_RECV") {
            Ok(_) => {}
            Err(e) if matches!(e.errno, Errno::NOENT | Errno::INTR) => {
                return Ok(Received::Nothing);
            }
            Err(e) => return Err(e),
        }
        // Layout of `struct seccomp_notif`: id, pid, flags, then `struct seccomp_data`: nr, arch,
        // instruction pointer, arguments.
        let word = |index: usize| self.buffer[index];
        Ok(Received::Call(Notification {
            id: word(0),
            tid: low(word(1)),
            nr: low(word(2)) as i32,
            arch: high(word(2)),
            args: std::array::from_fn(|i| word(4 + i)),
        }))
    }

    /// Says whether the call still waits, so that what its process number named is still its.
    pub fn is_valid(&self, id: u64) -> bool {
        // SAFETY: the kernel reads one 64-bit number.
        let result = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                &raw const id,
            )
        };
        result == 0
    }

    /// Lets the kernel carry the call out as if there were no filter.
    pub fn carry_on(&mut self, id: u64) -> bool {
        self.send(id, 0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    /// Answers the call with a result.
    pub fn succeed(&mut self, id: u64, value: i64) -> bool {
        self.send(id, value, 0, 0)
    }

    /// Answers the call with an error.
    pub fn fail(&mut self, id: u64, errno: Errno) -> bool {
        self.send(id, 0, -errno.raw_os_error(), 0)
    }

    /// Gives the task a copy of `file` as its lowest free descriptor and answers the call with its number.
    ///
    /// # Errors
    /// `EMFILE` and the like, the task's own trouble; `ENOENT` when it is gone.  The call still waits then.
    pub fn inject(
        &mut self,
        id: u64,
        file: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> SysResult<RawFd> {
        let answers = libc::SECCOMP_ADDFD_FLAG_SEND as u32;
        match self.add(id, file, close_on_exec, answers) {
            // Linux before 5.14 cannot answer in the same call.
            Err(e) if e.errno == Errno::INVAL => {
                let number = self.add(id, file, close_on_exec, 0)?;
                self.succeed(id, number.into());
                Ok(number)
            }
            other => other,
        }
    }

    /// Gives the task a copy of `file` as its lowest free descriptor and returns the number; the call still waits.
    ///
    /// # Errors
    /// As [`Self::inject`].
    pub fn give(&self, id: u64, file: BorrowedFd<'_>, close_on_exec: bool) -> SysResult<RawFd> {
        self.add(id, file, close_on_exec, 0)
    }

    /// As [`Self::inject`], and the task goes on only when this process has its own copy no more: whoever looks at it from then on finds
    /// no other end of a pipe, no writer and no lock but the task's.
    ///
    /// # Errors
    /// As [`Self::inject`].
    pub fn hand_over(&mut self, id: u64, file: OwnedFd, close_on_exec: bool) -> SysResult<()> {
        let number = self.add(id, file.as_fd(), close_on_exec, 0)?;
        drop(file);
        self.succeed(id, number.into());
        Ok(())
    }

    fn add(
        &self,
        id: u64,
        file: BorrowedFd<'_>,
        close_on_exec: bool,
        flags: u32,
    ) -> SysResult<RawFd> {
        let request = libc::seccomp_notif_addfd {
            id,
            flags,
            srcfd: file.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: if close_on_exec {
                libc::O_CLOEXEC as u32
            } else {
                0
            },
        };
        // SAFETY: the kernel reads `request`; the descriptor in it is open for as long as it is borrowed.
        let result = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ADDFD,
                &raw const request,
            )
        };
        check(result, "SECCOMP_IOCTL_NOTIF_ADDFD")
    }

    /// Sends an answer; false when nobody waits for it any more.
    fn send(&mut self, id: u64, value: i64, error: i32, flags: u32) -> bool {
        // Layout of `struct seccomp_notif_resp`: id, val, error, flags.
        self.answer.fill(0);
        self.answer[0] = id;
        self.answer[1] = value as u64;
        self.answer[2] = join(error as u32, flags);
        // SAFETY: the buffer is aligned to 8 and at least as long as the kernel reads.
        let result = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                self.answer.as_mut_ptr(),
            )
        };
        result == 0
    }
}

fn check(result: i32, request: &'static str) -> SysResult<i32> {
    if result < 0 {
        Err(SysError::last("ioctl", request))
    } else {
        Ok(result)
    }
}

/// Returns the first of the two 32-bit numbers that lie in a word of memory.
fn low(word: u64) -> u32 {
    let bytes = word.to_ne_bytes();
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Returns the second of the two 32-bit numbers that lie in a word of memory.
fn high(word: u64) -> u32 {
    let bytes = word.to_ne_bytes();
    u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// Lays two 32-bit numbers into a word of memory.
fn join(first: u32, second: u32) -> u64 {
    let (a, b) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(std::mem::offset_of!(libc::seccomp_notif, pid), 8);
        assert_eq!(std::mem::offset_of!(libc::seccomp_notif, data), 16);
        assert_eq!(std::mem::offset_of!(libc::seccomp_data, arch), 4);
        assert_eq!(std::mem::offset_of!(libc::seccomp_data, args), 16);
        assert_eq!(std::mem::offset_of!(libc::seccomp_notif_resp, error), 16);
        assert_eq!(std::mem::offset_of!(libc::seccomp_notif_resp, flags), 20);
        assert_eq!((low(join(7, 9)), high(join(7, 9))), (7, 9));
    }
}
