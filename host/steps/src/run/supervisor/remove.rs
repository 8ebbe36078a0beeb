//! Removing what a step left behind, however deep or wide it made it.
//!
//! A directory's subdirectories are moved to the top before they are emptied, so that neither the stack nor the
//! number of open descriptors depends on the depth.  Links are removed, never followed.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use stepwell_sys::error::{Context, SysError, SysResult};

/// The directory beneath `trash` that subdirectories are moved to.
const HEAP: &CStr = c".heap";

/// Removes `name` in `dir` and all that is in it; nothing being there is fine.  `trash` is a directory on the same
/// file system that nobody else uses.
///
/// # Errors
/// A system call that failed.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &CStr, trash: &OwnedFd) -> SysResult<()> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(SysError::new("unlinkat", name.to_string_lossy(), errno)),
    }
    let heap = open_heap(trash)?;
    let mut heaped = 0_u64;
    empty(&open(dir, name)?, &heap, &mut heaped)?;
    remove_dir(dir, name)?;
    let mut done = 0;
    while done < heaped {
        let name = entry_name(done);
        empty(&open(heap.as_fd(), &name)?, &heap, &mut heaped)?;
        remove_dir(heap.as_fd(), &name)?;
        done += 1;
    }
    remove_dir(trash.as_fd(), HEAP)
}

/// Removes what is in `dir`, and moves its subdirectories to the heap.
fn empty(dir: &OwnedFd, heap: &OwnedFd, heaped: &mut u64) -> SysResult<()> {
    for entry in Dir::read_from(dir).context("getdents64", "directory of a step")? {
        let entry = entry.context("getdents64", "directory of a step")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(SysError::new("unlinkat", name.to_string_lossy(), errno)),
            }
        }
        fs::renameat(dir, name, heap, &*entry_name(*heaped))
            .context("renameat", name.to_string_lossy())?;
        *heaped += 1;
    }
    Ok(())
}

fn entry_name(number: u64) -> std::ffi::CString {
    std::ffi::CString::new(number.to_string()).unwrap_or_default()
}

fn open_heap(trash: &OwnedFd) -> SysResult<OwnedFd> {
    match fs::mkdirat(trash, HEAP, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => open(trash.as_fd(), HEAP),
        Err(errno) => Err(SysError::new("mkdirat", HEAP.to_string_lossy(), errno)),
    }
}

/// Opens a directory of a step, which may have taken all rights from it.
fn open(dir: BorrowedFd<'_>, name: &CStr) -> SysResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())
                .context("fchmodat", name.to_string_lossy())?;
            fs::openat(dir, name, flags, Mode::empty())
        }
        other => other,
    }
    .context("openat", name.to_string_lossy())
}

fn remove_dir(dir: BorrowedFd<'_>, name: &CStr) -> SysResult<()> {
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR).context("unlinkat", name.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn depth_and_links_do_no_harm() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("directory");
        for name in ["trash", "outside", "tree"] {
            std::fs::create_dir(dir.path().join(name)).expect("directory");
        }
        std::fs::write(dir.path().join("outside/file"), "x").expect("file");
        symlink("../outside", dir.path().join("tree/link")).expect("link");
        let mut handle = std::fs::File::open(dir.path().join("tree")).expect("open");
        for _ in 0..3000 {
            fs::mkdirat(&handle, c"down", Mode::RWXU).expect("mkdir");
            handle = open(handle.as_fd(), c"down").expect("open").into();
        }
        let top = std::fs::File::open(dir.path()).expect("open");
        let trash: OwnedFd = std::fs::File::open(dir.path().join("trash"))
            .expect("open")
            .into();
        remove_tree(top.as_fd(), c"tree", &trash).expect("remove");
        remove_tree(top.as_fd(), c"missing", &trash).expect("nothing to remove");
        assert!(!dir.path().join("tree").exists() && dir.path().join("outside/file").exists());
        assert_eq!(
            std::fs::read_dir(dir.path().join("trash"))
                .expect("list")
                .count(),
            0
        );
    }
}
