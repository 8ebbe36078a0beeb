//! Tells ext4 to put the directories below one into block groups of their own (the `T` attribute of chattr(1)).
//!
//! Why that matters: `docs/decisions/0030-trees-in-block-groups-of-their-own.md`.  Other file systems have no such
//! attribute; not being able to set it is no failure.

use std::fs::File;
use std::path::Path;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// Has directories that will be made in `dir` spread over the disk.
pub(crate) fn spread(dir: &Path) {
    let Ok(handle) = File::open(dir) else { return };
    if let Ok(flags) = ioctl_getflags(&handle) {
        let _ = ioctl_setflags(&handle, flags | IFlags::TOPDIR);
    }
}
