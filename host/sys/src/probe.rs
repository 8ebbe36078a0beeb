//! What this process may do here, found out by trying it in throw-away children, never guessed from versions.
//!
//! [`probe_build`] is for a build, and makes system calls of the mount family only where a step could use what they
//! give; [`doctor`] tries them anyway, for people who want to know.  What follows from the facts is decided in `stepwell-steps` (`run/plan.rs`).

mod attempts;
pub mod doctor;

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::error::{SysResult, errno_name};
use crate::namespace::{IdRange, Namespaces};
use crate::process::status_field;
use crate::{capability, landlock, namespace, process, seccomp, subordinate};

pub use attempts::in_child;
use attempts::{
    grandchild, try_chown, try_chroot, try_device_node, try_file_capability, try_full_id_map,
    try_landlock, try_listener, try_openat2, try_own_file_systems, try_own_root, try_ptrace,
    try_read_memory, try_user_xattr, with_scratch_file, with_sleeping_child,
};

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
            Self::Refused {
                call,
                subject,
                errno,
            } if subject.is_empty() => format!("{call}: {}", errno_name(*errno)),
            Self::Refused {
                call,
                subject,
                errno,
            } => format!("{call} {subject}: {}", errno_name(*errno)),
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
    /// `kernel.yama.ptrace_scope`.
    pub ptrace_scope: Option<u64>,
    /// Whether `/` of this process is another directory than that of its mounts, where it can be told.
    pub chrooted: Option<bool>,
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
    /// Tracing a child that a filter stops.
    pub ptrace: Attempt,
    /// Giving files of the store to other users.
    pub chown: Attempt,
    /// What [`holds_real_ids`] says.
    pub real_ids: bool,
    /// What [`holds_real_owners`] says; of interest where `real_ids` does not hold.
    pub real_owners: bool,
    /// Making and opening device nodes in the store.
    pub device_nodes: Attempt,
    /// Extended attributes `user.*` in the store.
    pub user_xattr: Attempt,
    /// Whether parts of `/proc` are covered, as container runtimes do.
    pub proc_masked: bool,
    /// File systems of its own, attached in a mount namespace of its own, in a user namespace; tried only where steps have
    /// real ids and the ids of the machine's own root are not among them.
    pub own_file_systems: Option<Attempt>,
    /// Making a directory the root of such a mount namespace, and forbidding user namespaces below; tried where the former is.
    pub own_root: Option<Attempt>,
}

/// Finds out what a build may do here; `store` is a directory on the file system of the store.
///
/// This process must have one thread; without that, every attempt that takes a child is told as refused by fork.
pub fn probe_build(store: &Path) -> Facts {
    let user = Namespaces::NEWUSER;
    let others = Namespaces::NEWPID | Namespaces::NEWIPC | Namespaces::NEWUTS;
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let in_user_namespace = |also: Namespaces| {
        namespace::unshare(user | also)?;
        namespace::map_single_id(uid, gid)
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let real_ids = holds_real_ids(store);
    Facts {
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        uid,
        gid,
        users: namespace::id_map("uid_map").unwrap_or_default(),
        groups: namespace::id_map("gid_map").unwrap_or_default(),
        capabilities: capability::effective()
            .map(capability::names)
            .unwrap_or_default(),
        no_new_privs: rustix::thread::no_new_privs().unwrap_or(false),
        seccomp_filtered: status_field(&status, "Seccomp").is_some_and(|mode| mode == "2"),
        profile: profile(),
        apparmor_restricts_userns: sysctl("kernel/apparmor_restrict_unprivileged_userns")
            .map(|n| n != 0),
        unprivileged_userns_clone: sysctl("kernel/unprivileged_userns_clone").map(|n| n != 0),
        max_user_namespaces: sysctl("user/max_user_namespaces"),
        ptrace_scope: sysctl("kernel/yama/ptrace_scope"),
        chrooted: fs::read_to_string("/proc/self/mountinfo")
            .ok()
            .map(|mounts| !mount_points(&mounts).any(|point| point == "/")),
        user_namespace: in_child(|| {
            in_user_namespace(others)?;
            capability::is_usable()?;
            grandchild()
        })
        .into(),
        user_namespace_chroot: in_child(|| {
            in_user_namespace(Namespaces::empty()).and_then(|()| try_chroot())
        })
        .into(),
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
        ptrace: try_ptrace().into(),
        chown: with_scratch_file(store, try_chown).into(),
        real_ids,
        real_owners: holds_real_owners(store),
        device_nodes: try_device_node(store).into(),
        user_xattr: with_scratch_file(store, try_user_xattr).into(),
        proc_masked: proc_is_masked(),
        own_file_systems: (real_ids && !holds_the_machines_root())
            .then(|| try_own_file_systems(store).into()),
        own_root: (real_ids && !holds_the_machines_root()).then(|| try_own_root(store).into()),
    }
}

/// Says whether owners and ids can be the kernel's business here: files of the store can be given to anybody, steps
/// can become anybody, and the memory of whoever they became can still be read, which docker's default capabilities
/// do not allow.  Where not, [`holds_real_owners`] may say that of files alone, or all of it is emulated.
///
/// Forks nothing, so it may be asked at any time.  The store and the steps must be given the same answer.
pub fn holds_real_ids(store: &Path) -> bool {
    holds(
        OWNERS | Capabilities::SETUID | Capabilities::SETGID | Capabilities::SYS_PTRACE,
        store,
    )
}

/// Says whether at least the owners of files can be the kernel's business, as in a container under docker's defaults: the steps are in
/// a chroot there, or in a user namespace that has as many ids.
///
/// Forks nothing.  The store and the steps must be given the same answer.
pub fn holds_real_owners(store: &Path) -> bool {
    let also = Capabilities::FSETID | Capabilities::SETFCAP | Capabilities::SYS_CHROOT;
    holds(OWNERS | also, store) && with_scratch_file(store, try_file_capability).is_ok()
}

/// What it takes to give files to others, and to work with them afterwards.
const OWNERS: Capabilities = Capabilities::CHOWN
    .union(Capabilities::DAC_OVERRIDE)
    .union(Capabilities::FOWNER);

fn holds(needed: Capabilities, store: &Path) -> bool {
    let count = |file: &str| -> u64 {
        let map = namespace::id_map(file).unwrap_or_default();
        map.iter().map(|range| u64::from(range.count)).sum()
    };
    rustix::process::geteuid().is_root()
        && capability::effective().is_ok_and(|held| held.contains(needed))
        && count("uid_map") >= subordinate::ENOUGH
        && count("gid_map") >= subordinate::ENOUGH
        && with_scratch_file(store, try_chown).is_ok()
}

/// Says whether the owner of the machine's settings is one of the ids of this user namespace, which is the case for root, and in
/// user namespaces of root's.
fn holds_the_machines_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/sys/kernel").map_or(true, |settings| settings.uid() == 0)
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{name}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn profile() -> Option<String> {
    let paths = [
        "/proc/self/attr/apparmor/current",
        "/proc/self/attr/current",
    ];
    let text = paths
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())?;
    let text = text.trim_end_matches(['\0', '\n']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// Container runtimes cover files of `/proc` with mounts; then the kernel refuses a fresh proc in a user namespace.
fn proc_is_masked() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&mounts).any(|point| {
        point
            .strip_prefix("/proc/")
            .is_some_and(|below| below != "sys/fs/binfmt_misc")
    })
}

/// What mounts are on, seen from this process's root; mounts that cannot be seen from there are not listed by the kernel.
fn mount_points(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::error::SysError;

    #[test]
    fn attempts_say_what_was_refused() {
        let refused: Attempt = Err::<(), _>(SysError::new("chroot", "", Errno::PERM)).into();
        assert_eq!(refused.text(), "chroot: EPERM");
        assert_eq!(refused.errno(), Some(libc::EPERM));
        assert!(Attempt::from(Ok(())).works());
    }
}
