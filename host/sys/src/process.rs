//! Processes: fork, exec, wait, signals, pidfds, and how a process holds on to its descendants.
//!
//! What a step's processes do in which order is in `stepwell-steps` (`run/init.rs`).

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{self, DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};

use crate::error::{Context, SysError, SysResult};

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old process, with the number of the new one.
    Parent(Pid),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Signalled(i32),
}

/// Duplicates this process; refused with EBUSY where it has more than one thread, because the child would
/// inherit locks that nobody will ever release.
pub fn fork() -> SysResult<Forked> {
    let threads = thread_count().unwrap_or(1);
    if threads != 1 {
        return Err(SysError::new(
            "fork",
            format!("a process of {threads} threads"),
            Errno::BUSY,
        ));
    }
    // SAFETY: there is one thread only, so the child's copy of the memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(SysError::last("fork", "")),
        0 => Ok(Forked::Child),
        pid => match Pid::from_raw(pid) {
            Some(pid) => Ok(Forked::Parent(pid)),
            None => Err(SysError::new("fork", "", Errno::INVAL)),
        },
    }
}

/// Returns how many threads this process has, or none where `/proc` does not say.
pub fn thread_count() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status_field(&status, "Threads")?.parse().ok()
}

/// Returns the value of a field of a `/proc/<pid>/status` text.
pub fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// Replaces this process by `program`; returns only where that fails.
pub fn exec(program: &CStr, args: &[CString], env: &[CString]) -> SysError {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts
            .iter()
            .map(|text| text.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: all three point to NUL-terminated strings, the arrays end with a null pointer, and all outlive
    // the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    SysError::last("execve", program.to_string_lossy())
}

/// Gives every signal its default meaning again and unblocks all: Rust's runtime ignores SIGPIPE, and what a
/// program finds ignored or blocked at its start stays so.
pub fn reset_signals() {
    // SAFETY: sigaction is a plain structure for which all zeroes is valid: SIG_DFL, no flags, empty mask.
    let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the pointer is valid; a signal that cannot be changed answers EINVAL, which does no harm.
        unsafe { libc::sigaction(signal, &default, ptr::null_mut()) };
    }
    change_mask(libc::SIG_SETMASK, &empty_set());
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set it is given.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn change_mask(how: c_int, set: &libc::sigset_t) {
    // SAFETY: the set is initialised; only the mask of this thread changes.
    unsafe { libc::sigprocmask(how, set, ptr::null_mut()) };
}

/// A descriptor that becomes readable when a child ends.  SIGCHLD stays blocked from its making on; see
/// [`reset_signals`] for what is executed later.
#[derive(Debug)]
pub struct ChildSignals(OwnedFd);

impl ChildSignals {
    /// Blocks SIGCHLD and opens the descriptor.
    pub fn open() -> SysResult<Self> {
        let mut set = empty_set();
        // SAFETY: the set is initialised and the signal number is a valid one.
        unsafe { libc::sigaddset(&mut set, libc::SIGCHLD) };
        change_mask(libc::SIG_BLOCK, &set);
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(SysError::last("signalfd", "SIGCHLD"));
        }
        // SAFETY: the descriptor is new and belongs to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes what is pending, so that the descriptor is readable only at the next ending.
    pub fn drain(&self) {
        let mut buffer = [0; 1024];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|n| n > 0) {}
    }
}

impl AsFd for ChildSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes the ending of any child that has ended.  `Ok(None)`: there are children, none has ended.  ECHILD: there
/// are none, which for a subreaper means that nothing descends from it any more.
pub fn reap() -> SysResult<Option<(Pid, Ending)>> {
    Ok(process::wait(WaitOptions::NOHANG)
        .context("wait4", "any child")?
        .map(|(pid, status)| (pid, ending(status))))
}

/// Waits until the child `pid` has ended.
pub fn wait_for(pid: Pid) -> SysResult<Ending> {
    loop {
        match process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ending(status)),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(SysError::new("wait4", pid.to_string(), errno)),
        }
    }
}

fn ending(status: WaitStatus) -> Ending {
    match status.terminating_signal() {
        Some(signal) => Ending::Signalled(signal),
        None => Ending::Exited(status.exit_status().unwrap_or(0)),
    }
}

/// Opens a handle on the process `pid`, which cannot come to mean another process.
pub fn pidfd(pid: Pid) -> SysResult<OwnedFd> {
    process::pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open", pid.to_string())
}

/// Kills the process behind a handle; one that is gone already is fine.
pub fn kill_by_handle(pidfd: impl AsFd) -> SysResult<()> {
    match process::pidfd_send_signal(pidfd, Signal::KILL) {
        Err(Errno::SRCH) => Ok(()),
        other => other.context("pidfd_send_signal", "SIGKILL"),
    }
}

/// Makes this process the parent of all its orphaned descendants.
pub fn become_subreaper() -> SysResult<()> {
    process::set_child_subreaper(Some(process::getpid())).context("prctl", "PR_SET_CHILD_SUBREAPER")
}

/// Has the kernel kill this process when the thread that made it ends.  Changing ids takes this back.
pub fn die_with_parent() -> SysResult<()> {
    process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("prctl", "PR_SET_PDEATHSIG")
}

/// Says whether other processes of the same user may read and trace this one.
pub fn set_tracing(allowed: bool) -> SysResult<()> {
    let behaviour = if allowed {
        DumpableBehavior::Dumpable
    } else {
        DumpableBehavior::NotDumpable
    };
    process::set_dumpable_behavior(behaviour).context("prctl", "PR_SET_DUMPABLE")
}

/// Ends a throw-away child without running what its parent registered for its own exit.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit ends the process at once; nothing of Rust's runs afterwards.
    unsafe { libc::_exit(code) }
}

/// Says whether programs executed from here gain no privileges any more (PR_SET_NO_NEW_PRIVS(2const)).
pub fn no_new_privs() -> bool {
    rustix::thread::no_new_privs().unwrap_or(false)
}

/// Starts a session and a process group of its own, without a terminal.
pub fn new_session() -> SysResult<()> {
    process::setsid().context("setsid", "").map(drop)
}

/// Kills everything that descends from this process, until nothing does; this process must be a subreaper.
///
/// Each round stops all descendants first, so that none forks while the others are killed.  A process that
/// double-forked, started a session, or was stopped descends from here as well.  Ends only when wait4(2) says
/// ECHILD, which proves it.
pub fn kill_descendants() -> SysResult<()> {
    let myself = process::getpid();
    loop {
        let all = descendants(myself);
        for signal in [Signal::STOP, Signal::KILL] {
            for pid in &all {
                // Whoever is gone already needs no signal; whoever came since is found in the next round.
                let _ = process::kill_process(*pid, signal);
            }
        }
        loop {
            match reap() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if error.errno == Errno::CHILD => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Lists the processes that descend from `root`, as `/proc` shows them now.
pub fn descendants(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in processes().filter_map(|pid| Some((pid, parent_of(pid)?))) {
        children.entry(parent).or_default().push(pid);
    }
    let mut found = vec![root.as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        // Each is found once, whatever numbers were given anew while `/proc` was read.
        found.extend(children.remove(parent).unwrap_or_default());
        next += 1;
    }
    found
        .into_iter()
        .skip(1)
        .filter_map(Pid::from_raw)
        .collect()
}

/// Kills, until none is found, every process whose root directory is `root` or below it, as far as `/proc` lets
/// this process know.
pub fn kill_rooted_in(root: &std::path::Path) {
    // A process takes a moment to end; the bound is for one that cannot be signalled at all.
    for _ in 0..1000 {
        let rooted = |pid: &i32| {
            fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|link| link.starts_with(root))
        };
        let found: Vec<Pid> = processes()
            .filter(rooted)
            .filter_map(Pid::from_raw)
            .collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            // Whoever is gone already needs no signal.
            let _ = process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, so the fields are counted from the last bracket.
    stat[stat.rfind(')')? + 1..]
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Raises or lowers the soft limit of open files to the hard one's at most, for programs that size tables by it.
pub fn limit_open_files(soft: u64) -> SysResult<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let current = now.maximum.map_or(soft, |hard| hard.min(soft));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(current),
            maximum: now.maximum,
        },
    )
    .context("setrlimit", "RLIMIT_NOFILE")
}

/// Sets a limit of this process, by the name that docker has for it; none means unlimited.
///
/// # Errors
/// `EPERM` for more than the hard limit without CAP_SYS_RESOURCE outside of any namespace, `EINVAL` for a name that there is not.
pub fn set_limit(name: &str, soft: Option<u64>, hard: Option<u64>) -> SysResult<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let text = |value: Option<u64>| value.map_or("unlimited".to_owned(), |v| v.to_string());
    let subject = || format!("{name}={}:{}", text(soft), text(hard));
    let resource = match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return Err(SysError::new("setrlimit", subject(), Errno::INVAL)),
    };
    let limit = Rlimit {
        current: soft,
        maximum: hard,
    };
    setrlimit(resource, limit).context("setrlimit", subject())
}

/// Returns the raw number of a descriptor, for messages between processes.
pub fn raw(fd: impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_of_a_status_text() {
        let text = "Name:\tsh\nThreads:\t3\nNSpid:\t7\t1\n";
        assert_eq!(status_field(text, "Threads"), Some("3"));
        assert_eq!(status_field(text, "NSpid"), Some("7\t1"));
        assert_eq!(status_field(text, "Thread"), None);
    }

    #[test]
    fn refuses_to_fork_a_process_of_many_threads() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert_eq!(fork().unwrap_err().errno, Errno::BUSY);
        drop(stop);
        assert!(other.join().is_ok());
    }

    #[test]
    fn finds_children_of_this_process() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = descendants(process::getpid());
        assert!(
            found
                .iter()
                .any(|pid| pid.as_raw_nonzero().get() == child.id() as i32)
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
