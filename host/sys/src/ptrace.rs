//! ptrace(2), as far as following forks and changing an execve(2) takes it: stops are waited for, registers read and
//! set, system calls put into a stopped thread.
//!
//! All requests about a thread come from the thread that seized it, or from which it was forked while seized: that
//! is why a [`Tracer`] stays on its thread.  What a stop means is in `stepwell-steps`, `run/supervisor/mediated`.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;

use crate::error::{SysError, SysResult};

#[cfg(target_arch = "x86_64")]
mod registers;
#[cfg(not(target_arch = "x86_64"))]
#[path = "ptrace/no_registers.rs"]
mod registers;

pub use registers::Registers;

/// Options of every traced thread: it dies with its tracer, its children are traced from their start, and it stops at
/// execve and where a filter says so.
const OPTIONS: i32 = libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP;

/// What a wait brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The thread has ended.
    Gone,
    /// A signal is about to be delivered.
    Signal(i32),
    /// At the entry of or the exit from a system call.
    Call,
    /// It has made another process, or a thread: [`Tracer::message`] says which.
    Forked,
    /// It runs a new program; [`Tracer::message`] is the number the thread had before.
    Executed,
    /// The filter stopped it before a system call.
    Filtered,
    /// A new thread, before its first instruction; or the end of a stop by signals.
    Started,
    /// Stopped by this signal, until it is continued.
    Stopped,
    /// Something that was not asked for.
    Other,
}

/// How a stopped thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Until something happens.
    Freely,
    /// Until the next entry or exit of a system call.
    ToCall,
    /// For one instruction.
    OneStep,
}

/// The tracer's side; it belongs to its thread.
#[derive(Debug, Default)]
pub struct Tracer(PhantomData<*const ()>);

impl Tracer {
    /// Begins to trace a thread without stopping it.
    ///
    /// # Errors
    /// `EPERM` where it may not be traced.
    pub fn seize(&self, tid: u32) -> SysResult<()> {
        self.request(libc::PTRACE_SEIZE, "PTRACE_SEIZE", tid, 0, OPTIONS as u64)
            .map(drop)
    }

    /// Waits for any traced thread; none when there is no more.
    ///
    /// # Errors
    /// What wait4(2) answers.
    pub fn wait(&self) -> SysResult<Option<(u32, Status)>> {
        self.wait_on(-1)
    }

    /// Waits until a traced thread has stopped or ended, and returns all that have by then; none when there is none any more.
    ///
    /// The kernel looks at those first that came last, so whoever asks for one at a time never hears of the older ones where
    /// the younger stop all the time.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_for_all(&self) -> SysResult<Vec<(u32, Status)>> {
        let mut all: Vec<_> = self.wait()?.into_iter().collect();
        let mut places: HashMap<u32, usize> = all.iter().map(|(tid, _)| (*tid, 0)).collect();
        while let Some((tid, status)) = self.poll(-1, libc::WNOHANG)? {
            // Nobody goes on meanwhile, so that a thread comes twice only where it was killed, or where another one has
            // executed a program and has its number now.
            match places.insert(tid, all.len()) {
                Some(place) => {
                    all[place].1 = status;
                    places.insert(tid, place);
                }
                None => all.push((tid, status)),
            }
        }
        Ok(all)
    }

    /// Says whether a thread is stopped because it executed a program.
    pub fn is_at_exec(&self, tid: u32) -> bool {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let data = info.as_mut_ptr() as u64;
        let asked = self.request(libc::PTRACE_GETSIGINFO, "PTRACE_GETSIGINFO", tid, 0, data);
        // SAFETY: zeroes are a siginfo, and the kernel has written one over them if it said so.
        let code = unsafe { info.assume_init() }.si_code;
        asked.is_ok() && code == libc::SIGTRAP | libc::PTRACE_EVENT_EXEC << 8
    }

    /// Waits for one traced thread.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_for(&self, tid: u32) -> SysResult<Status> {
        Ok(self.wait_on(tid as i32)?.map_or(Status::Gone, |(_, s)| s))
    }

    fn wait_on(&self, pid: i32) -> SysResult<Option<(u32, Status)>> {
        self.poll(pid, 0)
    }

    fn poll(&self, pid: i32, how: libc::c_int) -> SysResult<Option<(u32, Status)>> {
        let mut status = 0;
        loop {
            // Children of the other threads are theirs to wait for, so that nobody takes an ending away.
            let flags = libc::__WALL | libc::__WNOTHREAD | how;
            // SAFETY: the kernel writes one number to `status`, and nothing elsewhere.
            match unsafe { libc::wait4(pid, &raw mut status, flags, ptr::null_mut()) } {
                -1 => match SysError::last("wait4", "traced threads") {
                    error if error.errno == Errno::INTR => {}
                    error if error.errno == Errno::CHILD => return Ok(None),
                    error => return Err(error),
                },
                // Nobody yet, for who does not wait.
                0 => return Ok(None),
                tid => return Ok(Some((tid.unsigned_abs(), decode(status)))),
            }
        }
    }

    /// Lets a stopped thread go on, with a signal or 0.
    ///
    /// # Errors
    /// `ESRCH` when it was killed meanwhile.
    pub fn resume(&self, tid: u32, how: Resume, signal: i32) -> SysResult<()> {
        let request = match how {
            Resume::Freely => libc::PTRACE_CONT,
            Resume::ToCall => libc::PTRACE_SYSCALL,
            Resume::OneStep => libc::PTRACE_SINGLESTEP,
        };
        self.request(request, "PTRACE_CONT", tid, 0, signal as u64)
            .map(drop)
    }

    /// Leaves a thread stopped that signals have stopped, but lets it be continued by them.
    ///
    /// # Errors
    /// `ESRCH` when it was killed meanwhile.
    pub fn listen(&self, tid: u32) -> SysResult<()> {
        self.request(libc::PTRACE_LISTEN, "PTRACE_LISTEN", tid, 0, 0)
            .map(drop)
    }

    /// Returns the number that came with the event at which a thread stopped.
    ///
    /// # Errors
    /// `ESRCH` when it was killed meanwhile.
    pub fn message(&self, tid: u32) -> SysResult<u32> {
        let mut message: libc::c_ulong = 0;
        self.request(
            libc::PTRACE_GETEVENTMSG,
            "PTRACE_GETEVENTMSG",
            tid,
            0,
            (&raw mut message) as u64,
        )?;
        Ok(message as u32)
    }

    /// Reads a word of a stopped thread's memory.
    ///
    /// # Errors
    /// `EIO` where there is none.
    pub fn peek(&self, tid: u32, address: u64) -> SysResult<u64> {
        let mut word = [0; 8];
        crate::memory::read(tid, address, &mut word)?;
        Ok(u64::from_ne_bytes(word))
    }

    /// Writes a word of a stopped thread's memory, even where the thread itself may only execute.
    ///
    /// # Errors
    /// `EIO` where there is none.
    pub fn poke(&self, tid: u32, address: u64, word: u64) -> SysResult<()> {
        self.request(libc::PTRACE_POKEDATA, "PTRACE_POKEDATA", tid, address, word)
            .map(drop)
    }

    /// Makes a request whose address is in the traced thread, nowhere, or the size of what is at `data`; `data` is a number, or the address of
    /// something of the caller's that is large enough for the request.
    fn request(
        &self,
        request: libc::c_uint,
        name: &'static str,
        tid: u32,
        address: u64,
        data: u64,
    ) -> SysResult<i64> {
        // SAFETY: the requests of this file write to nothing of ours but to what `data` points to, which their
        // callers keep alive and which has the type that the request is documented to fill.
        let result = unsafe { libc::ptrace(request, tid as libc::pid_t, address, data) };
        if result < 0 {
            Err(SysError::last("ptrace", format!("{name} {tid}")))
        } else {
            Ok(result)
        }
    }
}

fn decode(status: i32) -> Status {
    if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
        return Status::Gone;
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Status::Call,
        0 => Status::Signal(signal),
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
            Status::Forked
        }
        libc::PTRACE_EVENT_EXEC => Status::Executed,
        libc::PTRACE_EVENT_SECCOMP => Status::Filtered,
        libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Status::Started,
        libc::PTRACE_EVENT_STOP => Status::Stopped,
        _ => Status::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_told_apart() {
        let stop = |signal: i32, event: i32| (event << 16) | (signal << 8) | 0x7f;
        assert_eq!(decode(0), Status::Gone);
        assert_eq!(decode(libc::SIGKILL), Status::Gone);
        assert_eq!(
            decode(stop(libc::SIGCHLD, 0)),
            Status::Signal(libc::SIGCHLD)
        );
        assert_eq!(decode(stop(libc::SIGTRAP | 0x80, 0)), Status::Call);
        assert_eq!(
            decode(stop(libc::SIGTRAP, libc::PTRACE_EVENT_EXEC)),
            Status::Executed
        );
        assert_eq!(
            decode(stop(libc::SIGTRAP, libc::PTRACE_EVENT_STOP)),
            Status::Started
        );
        assert_eq!(
            decode(stop(libc::SIGTSTP, libc::PTRACE_EVENT_STOP)),
            Status::Stopped
        );
    }

    #[test]
    fn what_is_not_ours_cannot_be_traced() {
        let error = Tracer::default().seize(u32::MAX / 4).expect_err("nobody");
        assert_eq!(error.errno, Errno::SRCH);
    }
}
