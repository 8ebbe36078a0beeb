//! What this process may do here, found out by trying it in throw-away children, never guessed from versions.
//!
//! [`probe_build`] is for a build and makes no system call of the mount family; [`doctor`] tries those too, for
//! people who want to know.  What follows from the facts is decided in `stepwell-steps` (`run/plan.rs`).

pub mod doctor;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Context, SysError, SysResult, errno_name};
use crate::namespace::{IdRange, Namespaces};
use crate::process::{Forked, status_field};
use crate::seccomp::{Action, Filter, OtherAbi, Rule};
use crate::{capability, chroot, landlock, namespace, process, seccomp};

/// What came of trying something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Attempt {
    /// It works.
    Works,
    /// It does not.
    Refused {
        /// The system call that failed.
        call: String,
        /// What it was called on.
        subject: String,
        /// The kernel's answer.
        errno: i32,
    },
}

impl Attempt {
    /// Returns whether it works.
    pub fn works(&self) -> bool {
        *self == Self::Works
    }

    /// Returns the number of the error, where it does not work.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Works => None,
            Self::Refused { errno, .. } => Some(*errno),
        }
    }

    /// Returns `unshare CLONE_NEWUSER: EPERM`, or `works`.
    pub fn text(&self) -> String {
        match self {
            Self::Works => "works".to_owned(),
            Self::Refused { call, subject, errno } if subject.is_empty() => format!("{call}: {}", errno_name(*errno)),
            Self::Refused { call, subject, errno } => format!("{call} {subject}: {}", errno_name(*errno)),
        }
    }
}

impl<T> From<SysResult<T>> for Attempt {
    fn from(result: SysResult<T>) -> Self {
        match result {
            Ok(_) => Self::Works,
            Err(error) => Self::Refused {
                call: error.call.into_owned(),
                subject: error.subject,
                errno: error.errno.raw_os_error(),
            },
        }
    }
}

/// What a build has to know of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Release of the kernel, for people.
    pub kernel: String,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// User ids there are in this user namespace.
    pub users: Vec<IdRange>,
    /// Group ids there are in this user namespace.
    pub groups: Vec<IdRange>,
    /// Names of the effective capabilities.
    pub capabilities: Vec<String>,
    /// Whether programs executed from here gain no privileges any more.
    pub no_new_privs: bool,
    /// Whether this process is under a seccomp filter already.
    pub seccomp_filtered: bool,
    /// Security profile of this process (AppArmor, SELinux), where one is told.
    pub profile: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    pub apparmor_restricts_userns: Option<bool>,
    /// `kernel.unprivileged_userns_clone` (Debian).
    pub unprivileged_userns_clone: Option<bool>,
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// A user namespace with one id, and in it pid, ipc and uts namespaces.
    pub user_namespace: Attempt,
    /// chroot(2) in a user namespace.
    pub user_namespace_chroot: Attempt,
    /// A network namespace in a user namespace.
    pub user_namespace_network: Attempt,
    /// A user namespace that maps all ids of this one.
    pub full_id_map: Attempt,
    /// chroot(2) as this process is.
    pub chroot: Attempt,
    /// pid, ipc and uts namespaces without a user namespace.
    pub pid_namespace: Attempt,
    /// A network namespace without a user namespace.
    pub network_namespace: Attempt,
    /// A seccomp filter with a notification descriptor.
    pub listener: Attempt,
    /// The same without `no_new_privs`.
    pub listener_with_privileges: Attempt,
    /// Version of Landlock.
    pub landlock: Option<u32>,
    /// Whether confining a process with Landlock works.
    pub landlock_confines: Attempt,
    /// openat2(2) with RESOLVE_IN_ROOT.
    pub openat2: Attempt,
    /// pidfd_open(2) and pidfd_send_signal(2).
    pub pidfd: Attempt,
    /// Reading the memory of a child.
    pub read_memory: Attempt,
    /// Tracing a child.
    pub ptrace: Attempt,
    /// Giving files of the store to other users.
    pub chown: Attempt,
    /// Making and opening device nodes in the store.
    pub device_nodes: Attempt,
    /// Extended attributes `user.*` in the store.
    pub user_xattr: Attempt,
    /// Whether parts of `/proc` are covered, as container runtimes do.
    pub proc_masked: bool,
}

/// Finds out what a build may do here; `store` is a directory on the file system of the store.
///
/// This process must have one thread; without that, every attempt that takes a child is told as refused by fork.
pub fn probe_build(store: &Path) -> Facts {
    let user = Namespaces::NEWUSER;
    let others = Namespaces::NEWPID | Namespaces::NEWIPC | Namespaces::NEWUTS;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let in_user_namespace = |also: Namespaces| {
        namespace::unshare(user | also)?;
        namespace::map_single_id(uid, gid)
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Facts {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        uid,
        gid,
        users: namespace::id_map("uid_map").unwrap_or_default(),
        groups: namespace::id_map("gid_map").unwrap_or_default(),
        capabilities: capability::effective().map(capability::names).unwrap_or_default(),
        no_new_privs: rustix::thread::no_new_privs().unwrap_or(false),
        seccomp_filtered: status_field(&status, "Seccomp").is_some_and(|mode| mode == "2"),
        profile: profile(),
        apparmor_restricts_userns: sysctl("kernel/apparmor_restrict_unprivileged_userns").map(|n| n != 0),
        unprivileged_userns_clone: sysctl("kernel/unprivileged_userns_clone").map(|n| n != 0),
        max_user_namespaces: sysctl("user/max_user_namespaces"),
        user_namespace: in_child(|| {
            in_user_namespace(others)?;
            grandchild()
        })
        .into(),
        user_namespace_chroot: in_child(|| in_user_namespace(Namespaces::empty()).and_then(|()| try_chroot())).into(),
        user_namespace_network: in_child(|| {
            in_user_namespace(Namespaces::NEWNET)?;
            namespace::bring_up_loopback()
        })
        .into(),
        full_id_map: try_full_id_map().into(),
        chroot: in_child(try_chroot).into(),
        pid_namespace: in_child(|| {
            namespace::unshare(others)?;
            grandchild()
        })
        .into(),
        network_namespace: in_child(|| {
            namespace::unshare(Namespaces::NEWNET)?;
            namespace::bring_up_loopback()
        })
        .into(),
        listener: in_child(|| {
            seccomp::set_no_new_privs()?;
            try_listener()
        })
        .into(),
        listener_with_privileges: in_child(try_listener).into(),
        landlock: landlock::abi().ok().filter(|version| *version > 0),
        landlock_confines: in_child(try_landlock).into(),
        openat2: try_openat2(store).into(),
        pidfd: with_sleeping_child(|pid| process::kill_by_handle(process::pidfd(pid)?)).into(),
        read_memory: with_sleeping_child(try_read_memory).into(),
        ptrace: with_sleeping_child(try_ptrace).into(),
        chown: with_scratch_file(store, try_chown).into(),
        device_nodes: try_device_node(store).into(),
        user_xattr: with_scratch_file(store, try_user_xattr).into(),
        proc_masked: proc_is_masked(),
    }
}

/// Runs `attempt` in a child of its own, so that whatever it changes is gone afterwards.
pub fn in_child(attempt: impl FnOnce() -> SysResult<()>) -> SysResult<()> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe2", "")?;
    match process::fork()? {
        Forked::Child => {
            drop(read);
            let text = match attempt() {
                Ok(()) => "ok".to_owned(),
                Err(e) => format!("{}\n{}\n{}", e.errno.raw_os_error(), e.call, e.subject),
            };
            // The parent tells an empty pipe from an answer, so a failure to write is not lost.
            let _ = rustix::io::write(&write, text.as_bytes());
            exit_now()
        }
        Forked::Parent(pid) => {
            drop(write);
            let answer = read_all(&read);
            process::wait_for(pid)?;
            parse_answer(&answer)
        }
    }
}

/// Ends a throw-away child without running what the parent registered for its own exit.
fn exit_now() -> ! {
    // SAFETY: _exit ends the process at once; nothing of Rust's runs afterwards.
    unsafe { libc::_exit(0) }
}

fn read_all(fd: &OwnedFd) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    loop {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => break,
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn parse_answer(answer: &str) -> SysResult<()> {
    if answer == "ok" {
        return Ok(());
    }
    let mut lines = answer.splitn(3, '\n');
    let errno = lines.next().and_then(|n| n.parse().ok()).map(Errno::from_raw_os_error);
    match (errno, lines.next(), lines.next()) {
        (Some(errno), Some(call), Some(subject)) => Err(SysError::new(call.to_owned(), subject, errno)),
        // No answer: something killed the child, as a seccomp filter may.
        _ => Err(SysError::new("the attempt", "its process was killed", Errno::NOTRECOVERABLE)),
    }
}

/// A pid namespace is entered by the next child only, so it takes one to know.
fn grandchild() -> SysResult<()> {
    in_child(|| Ok(()))
}

fn try_chroot() -> SysResult<()> {
    let here = open_path(Path::new("/"))?;
    chroot::enter(here)
}

fn open_path(path: &Path) -> SysResult<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).context("open", path.to_string_lossy())
}

/// Maps every id of this namespace in a child's new one.
fn try_full_id_map() -> SysResult<()> {
    let identity = |map: Vec<IdRange>| -> Vec<IdRange> {
        map.into_iter().map(|range| IdRange { outside: range.inside, ..range }).collect()
    };
    let users = identity(namespace::id_map("uid_map")?);
    let groups = identity(namespace::id_map("gid_map")?);
    let (ready, tell) = rustix::pipe::pipe().context("pipe2", "")?;
    let (release, done) = rustix::pipe::pipe().context("pipe2", "")?;
    match process::fork()? {
        Forked::Child => {
            drop((ready, done));
            if namespace::unshare(Namespaces::NEWUSER).is_ok() {
                let _ = rustix::io::write(&tell, b"x");
            }
            drop(tell);
            read_all(&release);
            exit_now()
        }
        Forked::Parent(pid) => {
            drop((tell, release));
            let unshared = read_all_once(&ready);
            let result = if unshared {
                namespace::write_id_maps(pid.as_raw_nonzero().get() as u32, &users, &groups)
            } else {
                Err(SysError::new("unshare", "CLONE_NEWUSER", Errno::PERM))
            };
            drop(done);
            process::wait_for(pid)?;
            result
        }
    }
}

fn read_all_once(fd: &OwnedFd) -> bool {
    matches!(rustix::io::read(fd, &mut [0; 1]), Ok(1))
}

fn try_listener() -> SysResult<()> {
    // Any call that nobody makes here will do.
    let rule = Rule::new(libc::SYS_acct, "acct", Action::Notify, "probe");
    seccomp::install_with_listener(&Filter { rules: vec![rule], other_abi: OtherAbi::Allow }).map(drop)
}

fn try_landlock() -> SysResult<()> {
    seccomp::set_no_new_privs()?;
    match landlock::confine_beneath(open_path(Path::new("/"))?)? {
        true => Ok(()),
        false => Err(SysError::new("landlock_restrict_self", "", Errno::NOSYS)),
    }
}

fn try_openat2(dir: &Path) -> SysResult<()> {
    let dir = open_path(dir)?;
    rustix::fs::openat2(dir, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).context("openat2", ".").map(drop)
}

/// Calls `attempt` on a child that only waits, and ends the child.
fn with_sleeping_child(attempt: impl FnOnce(Pid) -> SysResult<()>) -> SysResult<()> {
    match process::fork()? {
        Forked::Child => loop {
            std::thread::park();
        },
        Forked::Parent(pid) => {
            let result = attempt(pid);
            // It may be gone already, which is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            process::wait_for(pid)?;
            result
        }
    }
}

fn try_read_memory(pid: Pid) -> SysResult<()> {
    let (secret, mut copy) = (0x5e11_u64, 0_u64);
    let remote = libc::iovec { iov_base: (&raw const secret).cast_mut().cast(), iov_len: 8 };
    let local = libc::iovec { iov_base: (&raw mut copy).cast(), iov_len: 8 };
    // SAFETY: the local vector is to eight bytes of ours; the remote one is only read by the kernel.
    let read = unsafe { libc::process_vm_readv(pid.as_raw_nonzero().get(), &local, 1, &remote, 1, 0) };
    if read == 8 { Ok(()) } else { Err(SysError::last("process_vm_readv", "a child")) }
}

fn try_ptrace(pid: Pid) -> SysResult<()> {
    // SAFETY: PTRACE_SEIZE takes no pointers; the child is ours and is killed afterwards.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw_nonzero().get(), 0usize, 0usize) };
    if result == 0 { Ok(()) } else { Err(SysError::last("ptrace", "PTRACE_SEIZE")) }
}

/// Name of the file that attempts in the store are made on; it is private to this process.
fn scratch_name(dir: &Path) -> std::path::PathBuf {
    dir.join(format!(".probe-{}", std::process::id()))
}

fn with_scratch_file(dir: &Path, attempt: impl FnOnce(&Path) -> SysResult<()>) -> SysResult<()> {
    let path = scratch_name(dir);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).context("open", path.to_string_lossy())?;
    let result = attempt(&path);
    rustix::fs::unlink(&path).context("unlink", path.to_string_lossy())?;
    result
}

fn try_chown(path: &Path) -> SysResult<()> {
    // Nobody's number in particular; a map of one id does not hold it.
    const SOMEBODY: u32 = 1234;
    let (uid, gid) = (rustix::fs::Uid::from_raw(SOMEBODY), rustix::fs::Gid::from_raw(SOMEBODY));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).context("fchownat", "store")
}

fn try_user_xattr(path: &Path) -> SysResult<()> {
    rustix::fs::setxattr(path, "user.stepwell.probe", b"1", rustix::fs::XattrFlags::CREATE).context("setxattr", "store")
}

fn try_device_node(dir: &Path) -> SysResult<()> {
    let path = scratch_name(dir);
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, null).context("mknodat", "store")?;
    // A file system mounted `nodev` lets nodes be made, not opened.
    let opened = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).context("open", "device node in the store");
    rustix::fs::unlink(&path).context("unlink", path.to_string_lossy())?;
    opened.map(drop)
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

fn profile() -> Option<String> {
    let paths = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];
    let text = paths.iter().find_map(|path| fs::read_to_string(path).ok())?;
    let text = text.trim_end_matches(['\0', '\n']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// Container runtimes cover files of `/proc` with mounts; then the kernel refuses a fresh proc in a user namespace.
fn proc_is_masked() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| {
        point.strip_prefix("/proc/").is_some_and(|below| below != "sys/fs/binfmt_misc")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_children_are_read_back() {
        assert_eq!(parse_answer("ok"), Ok(()));
        let error = parse_answer("1\nunshare\nCLONE_NEWUSER").unwrap_err();
        assert_eq!((error.call.as_ref(), error.subject.as_str(), error.errno), ("unshare", "CLONE_NEWUSER", Errno::PERM));
        assert_eq!(parse_answer("").unwrap_err().errno, Errno::NOTRECOVERABLE);
    }

    #[test]
    fn attempts_say_what_was_refused() {
        let refused: Attempt = Err::<(), _>(SysError::new("chroot", "", Errno::PERM)).into();
        assert_eq!(refused.text(), "chroot: EPERM");
        assert_eq!(refused.errno(), Some(libc::EPERM));
        assert!(Attempt::from(Ok(())).works());
    }
}
