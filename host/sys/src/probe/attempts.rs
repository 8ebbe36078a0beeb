//! The attempts themselves, each in a child of its own or on a file of its own, so that whatever it changes is gone
//! afterwards.  What they mean is in [`super`].

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::error::{Context, SysError, SysResult};
use crate::mount::{self, Limits};
use crate::namespace::{IdRange, Namespaces};
use crate::process::Forked;
use crate::ptrace::{Resume, Status, Tracer};
use crate::seccomp::{Action, Filter, OtherAbi, Rule};
use crate::{chroot, landlock, namespace, process, seccomp};

/// Runs `attempt` in a child of its own, so that whatever it changes is gone afterwards.
pub fn in_child(attempt: impl FnOnce() -> SysResult<()>) -> SysResult<()> {
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe2", "")?;
    match process::fork()? {
        Forked::Child => {
            drop(read);
            let text = match attempt() {
                Ok(()) => "ok".to_owned(),
                Err(e) => format!("{}\n{}\n{}", e.errno.raw_os_error(), e.call, e.subject),
            };
            // The parent tells an empty pipe from an answer, so a failure to write is not lost.
            let _ = rustix::io::write(&write, text.as_bytes());
            process::exit_now(0)
        }
        Forked::Parent(pid) => {
            drop(write);
            let answer = read_all(&read);
            process::wait_for(pid)?;
            parse_answer(&answer)
        }
    }
}

pub(super) fn read_all(fd: &OwnedFd) -> String {
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

pub(super) fn parse_answer(answer: &str) -> SysResult<()> {
    if answer == "ok" {
        return Ok(());
    }
    let mut lines = answer.splitn(3, '\n');
    let errno = lines
        .next()
        .and_then(|n| n.parse().ok())
        .map(Errno::from_raw_os_error);
    match (errno, lines.next(), lines.next()) {
        (Some(errno), Some(call), Some(subject)) => {
            Err(SysError::new(call.to_owned(), subject, errno))
        }
        // No answer: something killed the child, as a seccomp filter may.
        _ => Err(SysError::new(
            "the attempt",
            "its process was killed",
            Errno::NOTRECOVERABLE,
        )),
    }
}

/// A pid namespace is entered by the next child only, so it takes one to know.
pub(super) fn grandchild() -> SysResult<()> {
    in_child(|| Ok(()))
}

pub(super) fn try_chroot() -> SysResult<()> {
    let here = open_path(Path::new("/"))?;
    chroot::enter(here)
}

pub(super) fn open_path(path: &Path) -> SysResult<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .context("open", path.to_string_lossy())
}

/// Attaches another mount of the directory `store` to it, a proc and what the machine has in `/dev` and `/sys`, as is done for a
/// step; all of it is gone with the child.
pub(super) fn try_own_file_systems(store: &Path) -> SysResult<()> {
    in_own_namespaces(|| {
        let limits = Limits {
            read_only: true,
            ..Limits::default()
        };
        let tree = mount::another_mount_at(store)?;
        mount::attach(&tree, open_path(store)?)?;
        mount::attach(mount::file_system("proc", &[], limits)?, &tree)?;
        let sys = mount::another_mount_at(Path::new("/sys"))?;
        mount::limit(&sys, limits)?;
        mount::attach(sys, &tree)?;
        mount::another_mount_at(Path::new("/dev/null")).map(drop)
    })
}

/// Makes the directory `store` the root of a mount namespace, and forbids user namespaces, as is done for a step.
pub(super) fn try_own_root(store: &Path) -> SysResult<()> {
    in_own_namespaces(|| {
        let tree = mount::another_mount_at(store)?;
        mount::attach(&tree, open_path(store)?)?;
        namespace::forbid_user_namespaces(mount::file_system("proc", &[], Limits::default())?)?;
        chroot::take_over(tree)
    })
}

/// Runs `attempt` in user, mount, pid and ipc namespaces of its own.
fn in_own_namespaces(attempt: impl FnOnce() -> SysResult<()>) -> SysResult<()> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    in_child(|| {
        namespace::unshare(
            Namespaces::NEWUSER | Namespaces::NEWNS | Namespaces::NEWPID | Namespaces::NEWIPC,
        )?;
        namespace::map_single_id(uid, gid)?;
        in_child(attempt)
    })
}

/// Maps every id of this namespace in a child's new one.
pub(super) fn try_full_id_map() -> SysResult<()> {
    let identity = |map: Vec<IdRange>| -> Vec<IdRange> {
        map.into_iter()
            .map(|range| IdRange {
                outside: range.inside,
                ..range
            })
            .collect()
    };
    let users = identity(namespace::id_map("uid_map")?);
    let groups = identity(namespace::id_map("gid_map")?);
    with_new_user_namespace(|pid| namespace::write_id_maps(pid, &users, &groups))
}

/// Calls `attempt` with the number of a child that has a new user namespace without id maps.
pub(super) fn with_new_user_namespace(attempt: impl FnOnce(u32) -> SysResult<()>) -> SysResult<()> {
    let (ready, tell) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe2", "")?;
    let (release, done) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe2", "")?;
    match process::fork()? {
        Forked::Child => {
            drop((ready, done));
            if namespace::unshare(Namespaces::NEWUSER).is_ok() {
                let _ = rustix::io::write(&tell, b"x");
            }
            drop(tell);
            read_all(&release);
            process::exit_now(0)
        }
        Forked::Parent(pid) => {
            drop((tell, release));
            let result = match read_all_once(&ready) {
                true => attempt(pid.as_raw_nonzero().get().unsigned_abs()),
                false => Err(SysError::new("unshare", "CLONE_NEWUSER", Errno::PERM)),
            };
            drop(done);
            process::wait_for(pid)?;
            result
        }
    }
}

pub(super) fn read_all_once(fd: &OwnedFd) -> bool {
    matches!(rustix::io::read(fd, &mut [0; 1]), Ok(1))
}

pub(super) fn try_listener() -> SysResult<()> {
    // Any call that nobody makes here will do.
    let rule = Rule::new(libc::SYS_acct, "acct", Action::Notify, "probe");
    seccomp::install_with_listener(&Filter {
        rules: vec![rule],
        other_abi: OtherAbi::Allow,
    })
    .map(drop)
}

pub(super) fn try_landlock() -> SysResult<()> {
    seccomp::set_no_new_privs()?;
    match landlock::confine_beneath(open_path(Path::new("/"))?)? {
        true => Ok(()),
        false => Err(SysError::new("landlock_restrict_self", "", Errno::NOSYS)),
    }
}

pub(super) fn try_openat2(dir: &Path) -> SysResult<()> {
    let dir = open_path(dir)?;
    rustix::fs::openat2(
        dir,
        ".",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
    .context("openat2", ".")
    .map(drop)
}

/// Calls `attempt` on a child that only waits, and ends the child.
pub(super) fn with_sleeping_child(attempt: impl FnOnce(Pid) -> SysResult<()>) -> SysResult<()> {
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

pub(super) fn try_read_memory(pid: Pid) -> SysResult<()> {
    let (secret, mut copy) = (0x5e11_u64, 0_u64);
    let remote = libc::iovec {
        iov_base: (&raw const secret).cast_mut().cast(),
        iov_len: 8,
    };
    let local = libc::iovec {
        iov_base: (&raw mut copy).cast(),
        iov_len: 8,
    };
    // SAFETY: the local vector is to eight bytes of ours; the remote one is only read by the kernel.
    let read =
        unsafe { libc::process_vm_readv(pid.as_raw_nonzero().get(), &local, 1, &remote, 1, 0) };
    if read == 8 {
        Ok(())
    } else {
        Err(SysError::last("process_vm_readv", "a child"))
    }
}

/// Traces a child as steps are traced: a filter stops it before a call, which then gets another result.
pub(super) fn try_ptrace() -> SysResult<()> {
    let (ready, go) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe2", "")?;
    match process::fork()? {
        Forked::Child => {
            drop(go);
            read_all(&ready);
            // Nobody else answers this call with that number.
            let answered = stop_by_filter().is_ok()
                && process::exec(c"/", &[], &[]).errno == Errno::from_raw_os_error(TRACED);
            process::exit_now(i32::from(!answered))
        }
        Forked::Parent(pid) => {
            drop(ready);
            let result = trace(pid.as_raw_nonzero().get().unsigned_abs(), go);
            // It may be gone already, which is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            // The tracer has taken its ending, or this does.
            let _ = process::wait_for(pid);
            result
        }
    }
}

/// The error number that a tracer gives here.
const TRACED: i32 = libc::EDQUOT;

fn stop_by_filter() -> SysResult<()> {
    seccomp::set_no_new_privs()?;
    // The call that steps are stopped at; an outer filter's refusal of another one would win over this.
    let rule = Rule::new(libc::SYS_execve, "execve", Action::Trace, "probe");
    seccomp::install(&Filter {
        rules: vec![rule],
        other_abi: OtherAbi::Allow,
    })
}

fn trace(tid: u32, go: OwnedFd) -> SysResult<()> {
    let tracer = Tracer::default();
    tracer.seize(tid)?;
    drop(go);
    let unanswered = || SysError::new("ptrace", "SECCOMP_RET_TRACE", Errno::NOSYS);
    loop {
        match tracer.wait_for(tid)? {
            Status::Filtered => {
                let mut registers = tracer.registers(tid)?;
                registers.fail(TRACED);
                tracer.set_registers(tid, &registers)?;
                tracer.resume(tid, Resume::Freely, 0)?;
                return match process::wait_for(
                    rustix::process::Pid::from_raw(tid as i32).ok_or_else(unanswered)?,
                )? {
                    process::Ending::Exited(0) => Ok(()),
                    _ => Err(unanswered()),
                };
            }
            Status::Gone => return Err(unanswered()),
            Status::Signal(signal) => tracer.resume(tid, Resume::Freely, signal)?,
            _ => tracer.resume(tid, Resume::Freely, 0)?,
        }
    }
}

/// Name of the file that attempts in the store are made on; it is private to this process.
pub(super) fn scratch_name(dir: &Path) -> std::path::PathBuf {
    // More than one thread may ask.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    dir.join(format!(".probe-{}-{number}", std::process::id()))
}

pub(super) fn with_scratch_file(
    dir: &Path,
    attempt: impl FnOnce(&Path) -> SysResult<()>,
) -> SysResult<()> {
    let path = scratch_name(dir);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .context("open", path.to_string_lossy())?;
    let result = attempt(&path);
    rustix::fs::unlink(&path).context("unlink", path.to_string_lossy())?;
    result
}

pub(super) fn try_chown(path: &Path) -> SysResult<()> {
    // Nobody's number in particular; a map of one id does not hold it.
    const SOMEBODY: u32 = 1234;
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(SOMEBODY),
        rustix::fs::Gid::from_raw(SOMEBODY),
    );
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .context("fchownat", "store")
}

/// Sets what setcap(8) would: a file system may know owners and none of this.
pub(super) fn try_file_capability(path: &Path) -> SysResult<()> {
    // VFS_CAP_REVISION_2, nothing in the sets (capabilities(7)).
    let mut value = [0; 20];
    value[3] = 2;
    let flags = rustix::fs::XattrFlags::CREATE;
    rustix::fs::setxattr(path, "security.capability", &value, flags).context("setxattr", "store")
}

pub(super) fn try_user_xattr(path: &Path) -> SysResult<()> {
    rustix::fs::setxattr(
        path,
        "user.stepwell.probe",
        b"1",
        rustix::fs::XattrFlags::CREATE,
    )
    .context("setxattr", "store")
}

pub(super) fn try_device_node(dir: &Path) -> SysResult<()> {
    let path = scratch_name(dir);
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        CWD,
        &path,
        FileType::CharacterDevice,
        Mode::RUSR | Mode::WUSR,
        null,
    )
    .context("mknodat", "store")?;
    // A file system mounted `nodev` lets nodes be made, not opened.
    let opened = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .context("open", "device node in the store");
    rustix::fs::unlink(&path).context("unlink", path.to_string_lossy())?;
    opened.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_children_are_read_back() {
        assert_eq!(parse_answer("ok"), Ok(()));
        let error = parse_answer("1\nunshare\nCLONE_NEWUSER").unwrap_err();
        assert_eq!(
            (error.call.as_ref(), error.subject.as_str(), error.errno),
            ("unshare", "CLONE_NEWUSER", Errno::PERM)
        );
        assert_eq!(parse_answer("").unwrap_err().errno, Errno::NOTRECOVERABLE);
    }
}
