//! Namespaces (namespaces(7)): leaving the old ones, id maps, the host name and the loopback interface.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use serde::{Deserialize, Serialize};

use crate::error::{Context, SysError, SysResult};
use crate::process::thread_count;
use crate::subordinate::{Mapper, SubordinateIds};

/// Kinds of namespaces that a process can get new ones of.  Of these flags only the `NEW…` ones for users, pids,
/// ipc, host name, network and mounts are for use here.
pub use rustix::thread::UnshareFlags as Namespaces;

/// Gives this process new namespaces.
///
/// With a new one for mounts the kernel gives the calling thread a working directory of its own, too, so it takes
/// a process of one thread.
pub fn unshare(which: Namespaces) -> SysResult<()> {
    let harmless = Namespaces::NEWUSER
        | Namespaces::NEWPID
        | Namespaces::NEWIPC
        | Namespaces::NEWUTS
        | Namespaces::NEWNET
        | Namespaces::NEWNS;
    if !harmless.contains(which) {
        return Err(SysError::new("unshare", names(which), Errno::INVAL));
    }
    if which.contains(Namespaces::NEWNS) {
        single_threaded()?;
    }
    // SAFETY: none of the flags let through makes this thread's descriptors its own, or, in a process of several threads,
    // its working directory, which is what would break the assumptions of safe code.
    unsafe { rustix::thread::unshare_unsafe(which) }.context("unshare", names(which))
}

fn names(which: Namespaces) -> String {
    which
        .iter_names()
        .map(|(name, _)| format!("CLONE_{name}"))
        .collect::<Vec<_>>()
        .join("|")
}

/// A line of an id map: `count` ids from `inside` on are the ids from `outside` on in the parent namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id in the namespace.
    pub inside: u32,
    /// First id in the parent namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Writes the id maps of the process `pid`, which has a new user namespace.  Several ids, or ids other than its
/// own, take CAP_SETUID and CAP_SETGID in the parent namespace.
pub fn write_id_maps(pid: u32, users: &[IdRange], groups: &[IdRange]) -> SysResult<()> {
    write_map(&format!("/proc/{pid}/uid_map"), users)?;
    write_map(&format!("/proc/{pid}/gid_map"), groups)
}

/// Maps user and group 0 of the new user namespace of this process to the ids that it had outside.
pub fn map_single_id(uid: u32, gid: u32) -> SysResult<()> {
    let one = |outside| {
        [IdRange {
            inside: 0,
            outside,
            count: 1,
        }]
    };
    // A helper may have mapped the users and failed on the groups.
    if id_map("uid_map")?.is_empty() {
        write_text("/proc/self/uid_map", &map_text(&one(uid)))?;
    }
    // Without privilege a group may be mapped only after giving up setgroups(2) (user_namespaces(7)).
    write_text("/proc/self/setgroups", "deny")?;
    write_text("/proc/self/gid_map", &map_text(&one(gid)))
}

fn write_map(path: &str, ranges: &[IdRange]) -> SysResult<()> {
    write_text(path, &map_text(ranges))
}

fn map_text(ranges: &[IdRange]) -> String {
    ranges
        .iter()
        .map(|r| format!("{} {} {}\n", r.inside, r.outside, r.count))
        .collect()
}

fn write_text(path: &str, text: &str) -> SysResult<()> {
    fs::write(path, text).context("write", path)
}

/// Reads the id map of this process (`uid_map` or `gid_map`).
pub fn id_map(file: &str) -> SysResult<Vec<IdRange>> {
    let path = format!("/proc/self/{file}");
    Ok(parse_id_map(
        &fs::read_to_string(&path).context("read", path)?,
    ))
}

/// Parses the text of an id map; lines that are none are left out.
pub fn parse_id_map(text: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut fields = line.split_whitespace().map(|field| field.parse().ok());
        Some(IdRange {
            inside: fields.next()??,
            outside: fields.next()??,
            count: fields.next()??,
        })
    };
    text.lines().filter_map(range).collect()
}

/// What came of [`enter_user_namespace`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entered {
    /// This process is user 0 of a namespace of its own; outside it was `uid`:`gid`.
    Entered {
        /// User outside.
        uid: u32,
        /// Group outside.
        gid: u32,
        /// Whether the namespace has the user's subordinate ids, too.
        subordinate: bool,
    },
    /// It is root already, so there is nothing to gain.
    AlreadyRoot,
    /// The kernel or a policy does not let it.
    Refused(SysError),
}

/// Puts an ordinary user's process into a user namespace in which its one id is 0, so that its own files are
/// its to handle whatever their modes are.  For the start of a program, while there is one thread.  With `subordinate`
/// ids there are those as well, where the helpers may do their work.
///
/// A refusal leaves the process as it was: the namespace is tried in a child first.
pub fn enter_user_namespace(subordinate: Option<&SubordinateIds>) -> Entered {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if uid == 0 {
        return Entered::AlreadyRoot;
    }
    let trial = || {
        enter((uid, gid), None)?;
        crate::capability::is_usable()
    };
    match crate::probe::in_child(trial)
        .and_then(|()| single_threaded())
        .and_then(|()| enter((uid, gid), subordinate))
    {
        Ok(subordinate) => Entered::Entered {
            uid,
            gid,
            subordinate,
        },
        Err(error) => Entered::Refused(error),
    }
}

/// Enters a new user namespace, and says whether it has subordinate ids.
fn enter(own: (u32, u32), subordinate: Option<&SubordinateIds>) -> SysResult<bool> {
    // With no_new_privs the helpers have no rights to do it with.
    let useful = subordinate.filter(|_| !crate::process::no_new_privs());
    let mapper = useful.map(|ids| ids.mapper(own)).transpose()?;
    if let Err(error) = unshare(Namespaces::NEWUSER) {
        mapper.map(Mapper::end).transpose()?;
        return Err(error);
    }
    match mapper.map(Mapper::map).transpose()? {
        Some(true) => Ok(true),
        _ => map_single_id(own.0, own.1).map(|()| false),
    }
}

fn single_threaded() -> SysResult<()> {
    match thread_count() {
        Some(1) | None => Ok(()),
        Some(n) => Err(SysError::new(
            "unshare",
            format!("a process of {n} threads"),
            Errno::INVAL,
        )),
    }
}

/// Lets nobody make a user namespace below this process's own; `proc` is the root of a proc that can be written.
///
/// The number is the namespace's, and who has no `CAP_SYS_RESOURCE` in it cannot raise it again.
pub fn forbid_user_namespaces(proc: impl AsFd) -> SysResult<()> {
    const PATH: &str = "sys/user/max_user_namespaces";
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, PATH, flags, Mode::empty()).context("openat", PATH)?;
    rustix::io::write(&file, b"0")
        .map(drop)
        .context("write", PATH)
}

/// Names the host of this uts namespace.
pub fn set_host_name(name: &str) -> SysResult<()> {
    rustix::system::sethostname(name.as_bytes()).context("sethostname", name)
}

/// Switches on the loopback interface of this network namespace.
pub fn bring_up_loopback() -> SysResult<()> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
        .context("socket", "AF_INET")?;
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which the pointer is to and which outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } {
        0 => Ok(()),
        _ => Err(SysError::last("ioctl", "SIOCSIFFLAGS lo")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_maps_are_read_and_written_alike() {
        let map = parse_id_map(
            "         0       4242          1\n         1     100000      65536\nnonsense\n",
        );
        assert_eq!(
            map,
            [
                IdRange {
                    inside: 0,
                    outside: 4242,
                    count: 1
                },
                IdRange {
                    inside: 1,
                    outside: 100_000,
                    count: 65_536
                }
            ]
        );
        assert_eq!(map_text(&map), "0 4242 1\n1 100000 65536\n");
    }

    #[test]
    fn names_what_was_asked_for() {
        assert_eq!(
            names(Namespaces::NEWPID | Namespaces::NEWUSER),
            "CLONE_NEWPID|CLONE_NEWUSER"
        );
    }
}
