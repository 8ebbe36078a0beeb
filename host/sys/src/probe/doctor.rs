//! What only `stepwell doctor` tries: the system calls of the mount family, and the helpers for subordinate ids.
//!
//! Nothing here may be called on the way of a build.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags};
use serde::{Deserialize, Serialize};

use super::{Attempt, Facts, in_child, probe_build};
use crate::error::{Context, SysError, SysResult};
use crate::namespace;

/// What a person may want to know of the machine, on top of what a build needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorFacts {
    /// What a build goes by.
    pub build: Facts,
    /// mount(2) in a user and mount namespace.
    pub mount: Attempt,
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
    let find = |program: &str| {
        path.iter()
            .map(|dir| dir.join(program))
            .find(|file| file.is_file())
    };
    let id_helpers = find("newuidmap").zip(find("newgidmap"));
    let users = subordinate(Path::new("/etc/subuid"), user);
    let groups = subordinate(Path::new("/etc/subgid"), user);
    DoctorFacts {
        build: probe_build(store),
        mount: in_child(|| in_mount_namespace().and_then(|()| try_mount())).into(),
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

/// Maps this user's id and the first subordinate range in a child's new user namespace.
fn try_subordinate_ids(
    helpers: Option<&(PathBuf, PathBuf)>,
    users: &[(u32, u32)],
    groups: &[(u32, u32)],
) -> SysResult<()> {
    let missing = |what: &str| SysError::new("newuidmap", what, Errno::NOENT);
    let (newuidmap, newgidmap) = helpers.ok_or_else(|| missing("the helpers are not installed"))?;
    let users = users
        .first()
        .ok_or_else(|| missing("no range in /etc/subuid"))?;
    let groups = groups
        .first()
        .ok_or_else(|| missing("no range in /etc/subgid"))?;
    let (uid, gid) = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    super::attempts::with_new_user_namespace(|pid| {
        let run = |helper: &Path, own: u32, (first, count): &(u32, u32)| {
            let numbers = [pid, 0, own, 1, 1, *first, *count].map(|n| n.to_string());
            let output = Command::new(helper)
                .args(numbers)
                .output()
                .context("execve", helper.to_string_lossy())?;
            let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if output.status.success() {
                Ok(())
            } else {
                Err(SysError::new("newuidmap", told, Errno::PERM))
            }
        };
        run(newuidmap, uid, users)?;
        run(newgidmap, gid, groups)
    })
}

fn subordinate(file: &Path, user: &[String]) -> Vec<(u32, u32)> {
    parse_subordinate(&fs::read_to_string(file).unwrap_or_default(), user)
}

/// Parses `/etc/subuid` (subuid(5)): the ranges of the user that has one of these names or numbers.
pub fn parse_subordinate(text: &str, user: &[String]) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        user.iter().any(|u| u == name).then_some(())?;
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_of_one_user() {
        let text = "root:1:2\ntester:100000:65536\n4242:300000:10\nbad\n";
        let who = ["tester".to_owned(), "4242".to_owned()];
        assert_eq!(
            parse_subordinate(text, &who),
            [(100_000, 65_536), (300_000, 10)]
        );
    }
}
