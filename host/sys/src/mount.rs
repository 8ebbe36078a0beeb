//! File systems of a step's own (fsopen(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2)), in a mount
//! namespace of its own (mount_namespaces(7)).
//!
//! Nothing of a build depends on them: where a policy denies one of these calls, the supervisor of `stepwell-steps` does
//! without.  They are made as detached mounts first and attached when they are as they have to be, so that there
//! is no moment in which something could be written through a mount that is to be read-only.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::error::{Context, SysError, SysResult};

/// What may not be done through a mount; set-user-id programs never count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Nothing can be changed.
    pub read_only: bool,
    /// Device nodes cannot be opened.
    pub no_devices: bool,
    /// No program can be executed.
    pub no_programs: bool,
}

impl Limits {
    fn flags(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID;
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.no_devices);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.no_programs);
        flags
    }
}

/// Makes a file system of its own, attached nowhere; `options` are those of its kind (tmpfs(5), proc(5)).
pub fn file_system(kind: &str, options: &[(String, String)], limits: Limits) -> SysResult<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen", kind)?;
    // What `/proc/mounts` shows.
    fsconfig_set_string(context.as_fd(), "source", kind).context("fsconfig", kind)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), &**key, &**value)
            .context("fsconfig", format!("{kind} {key}={value}"))?;
    }
    fsconfig_create(context.as_fd()).context("fsconfig", kind)?;
    fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        limits.flags(),
    )
    .context("fsmount", kind)
}

/// Makes a mount of what is at the handle `place`, with all that is mounted below it; it is attached nowhere.
pub fn another_mount_of(place: impl AsFd) -> SysResult<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(place, c"", flags).context("open_tree", "a place of the step")
}

/// The same of what is at `path`.
pub fn another_mount_at(path: &Path) -> SysResult<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).context("open_tree", path.to_string_lossy())
}

/// Limits a mount that is attached nowhere, with all that is mounted below it (Linux 5.12).
pub fn limit(mount: impl AsFd, limits: Limits) -> SysResult<()> {
    let attributes = libc::mount_attr {
        attr_set: limits.flags().bits().into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the kernel reads a path of no length and the structure, whose size it is told; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(SysError::last("mount_setattr", format!("{limits:?}"))),
    }
}

/// Attaches a mount to the directory or file `place`, which has to be in this process's mount namespace.
pub fn attach(mount: impl AsFd, place: impl AsFd) -> SysResult<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", place, c"", flags).context("move_mount", "a place of the step")
}
