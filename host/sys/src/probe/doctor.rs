//! What only `stepwell doctor` tries: the system calls of the mount family, and the helpers for subordinate ids.
//!
//! Nothing here may be called on the way of a build.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags};
use serde::{Deserialize, Serialize};

use super::{Attempt, Facts, in_child, probe_build};
use crate::error::{Context, SysError, SysResult};
use crate::namespace::{self, Namespaces};
use crate::subordinate::{self, SubordinateIds};

/// What a person may want to know of the machine, on top of what a build needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorFacts {
    /// What a build goes by.
    pub build: Facts,
    /// mount(2) in a user and mount namespace.
    pub mount: Attempt,
    /// A fresh proc in user, pid and mount namespaces.
    pub fresh_proc: Attempt,
    /// A file system made by fsopen(2) and fsmount(2), attached nowhere.
    pub detached_tmpfs: Attempt,
    /// open_tree(2) with OPEN_TREE_CLONE.
    pub open_tree: Attempt,
    /// Whether overlayfs is to be had, detached.
    pub overlay: Attempt,
    /// `newuidmap` and `newgidmap`, where they are found.
    pub id_helpers: Option<(PathBuf, PathBuf)>,
    /// Mapping subordinate ids with those helpers.
    pub subordinate_ids: Attempt,
    /// Ranges of subordinate user ids of this user: first and count.
    pub subordinate_users: Vec<(u32, u32)>,
    /// Ranges of subordinate group ids of this user: first and count.
    pub subordinate_groups: Vec<(u32, u32)>,
}

/// Finds out everything; `store` as in [`probe_build`], `user` is the name or number of the caller as
/// `/etc/subuid` has it, `path` the directories that programs are looked for in.
pub fn probe_doctor(store: &Path, user: &[String], path: &[PathBuf]) -> DoctorFacts {
    let id_helpers = subordinate::helpers(path);
    let users = subordinate::ranges(Path::new("/etc/subuid"), user);
    let groups = subordinate::ranges(Path::new("/etc/subgid"), user);
    DoctorFacts {
        build: probe_build(store),
        mount: in_child(|| in_mount_namespace().and_then(|()| try_mount())).into(),
        fresh_proc: in_child(|| {
            in_mount_namespace()?;
            namespace::unshare(Namespaces::NEWPID)?;
            in_child(try_fresh_proc)
        })
        .into(),
        detached_tmpfs: in_child(|| in_mount_namespace().and_then(|()| try_detached(c"tmpfs")))
            .into(),
        open_tree: in_child(|| in_mount_namespace().and_then(|()| try_open_tree())).into(),
        overlay: in_child(|| in_mount_namespace().and_then(|()| try_fsopen(c"overlay").map(drop)))
            .into(),
        subordinate_ids: try_subordinate_ids(id_helpers.as_ref(), &users, &groups).into(),
        id_helpers,
        subordinate_users: users,
        subordinate_groups: groups,
    }
}

fn in_mount_namespace() -> SysResult<()> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    // SAFETY: a new user and mount namespace change neither this thread's descriptors nor its memory; this is
    // a throw-away process of one thread.
    match unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) } {
        0 => namespace::map_single_id(uid, gid),
        _ => Err(SysError::last("unshare", "CLONE_NEWUSER|CLONE_NEWNS")),
    }
}

fn try_mount() -> SysResult<()> {
    rustix::mount::mount("none", "/tmp", "tmpfs", MountFlags::empty(), None)
        .context("mount", "tmpfs")
}

fn try_fresh_proc() -> SysResult<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", flags, None).context("mount", "proc")
}

fn try_fsopen(kind: &std::ffi::CStr) -> SysResult<std::os::fd::OwnedFd> {
    rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .context("fsopen", kind.to_string_lossy())
}

fn try_detached(kind: &std::ffi::CStr) -> SysResult<()> {
    let context = try_fsopen(kind)?;
    rustix::mount::fsconfig_create(&context).context("fsconfig", kind.to_string_lossy())?;
    rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .context("fsmount", kind.to_string_lossy())
    .map(drop)
}

fn try_open_tree() -> SysResult<()> {
    let path = CString::from(c"/dev");
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(rustix::fs::CWD, &path, flags)
        .context("open_tree", "/dev")
        .map(drop)
}

/// Maps this user's id and its subordinate ranges in a child's new user namespace.
fn try_subordinate_ids(
    helpers: Option<&(PathBuf, PathBuf)>,
    users: &[(u32, u32)],
    groups: &[(u32, u32)],
) -> SysResult<()> {
    let missing = |what: &str| Err(SysError::new("newuidmap", what, Errno::NOENT));
    let Some(helpers) = helpers.cloned() else {
        return missing("the helpers are not installed");
    };
    if users.is_empty() || groups.is_empty() {
        return missing("no range in /etc/subuid and /etc/subgid");
    }
    let own = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let (users, groups) = (users.to_vec(), groups.to_vec());
    let ids = SubordinateIds {
        helpers,
        users,
        groups,
    };
    super::attempts::with_new_user_namespace(|pid| ids.map(pid, own))
}
