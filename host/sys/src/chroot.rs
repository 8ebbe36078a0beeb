//! chroot(2): entering a tree by an open handle, so that no path can be exchanged on the way.
//!
//! Whoever enters must hold no other directory handle and give up `CAP_SYS_CHROOT` afterwards: with both, a
//! process can walk out again.  That is the work of the plan that calls this.

use std::os::fd::AsFd;

use crate::error::{Context, SysResult};

/// Makes the directory `root` the root and the working directory of this process.
pub fn enter(root: impl AsFd) -> SysResult<()> {
    rustix::process::fchdir(root).context("fchdir", "tree root")?;
    rustix::process::chroot(".").context("chroot", "tree root")?;
    rustix::process::chdir("/").context("chdir", "/")
}

/// Changes the working directory, seen from inside the root.
pub fn change_directory(path: &str) -> SysResult<()> {
    rustix::process::chdir(path).context("chdir", path)
}
