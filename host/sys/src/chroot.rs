//! chroot(2) and pivot_root(2): entering a tree by an open handle, so that no path can be exchanged on the way.
//!
//! Whoever enters by [`enter`] must hold no other directory handle and give up `CAP_SYS_CHROOT` afterwards: with both, a
//! process can walk out again.  After [`take_over`] there is nothing to walk to.  That is the work of the plan that calls this.

use std::os::fd::AsFd;

use crate::error::{Context, SysResult};

/// Makes the directory `root` the root and the working directory of this process.
pub fn enter(root: impl AsFd) -> SysResult<()> {
    rustix::process::fchdir(root).context("fchdir", "tree root")?;
    rustix::process::chroot(".").context("chroot", "tree root")?;
    rustix::process::chdir("/").context("chdir", "/")
}

/// Makes `root`, a mount in this process's own mount namespace, the root of that namespace, and of all processes in it; what was mounted
/// there before is gone from it.
pub fn take_over(root: impl AsFd) -> SysResult<()> {
    rustix::process::fchdir(root).context("fchdir", "tree root")?;
    // Old and new root lie at the same place for a moment, the old one above (pivot_root(2), "pivot_root(".", ".")").
    rustix::process::pivot_root(".", ".").context("pivot_root", "tree root")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)
        .context("umount2", "old root")?;
    rustix::process::chdir("/").context("chdir", "/")
}

/// Changes the working directory, seen from inside the root.
pub fn change_directory(path: &str) -> SysResult<()> {
    rustix::process::chdir(path).context("chdir", path)
}
