//! Paths of a step, resolved by the kernel as if the tree's root were `/` (openat2(2), `RESOLVE_IN_ROOT`), and
//! the way back: which path of the tree a handle stands for.
//!
//! Nothing here follows a path out of the tree, however its links and `..` lie.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, SysResult};

/// How often a resolution is tried again when something was renamed meanwhile (`EAGAIN`).
const RETRIES: usize = 64;

/// What becomes of symbolic links on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// All are followed, inside the tree.
    Follow,
    /// All but the last name's are.
    FollowButLast,
    /// There must be none: `ELOOP` where there is one.
    None,
}

/// Opens `path`, absolute or relative to the root, with `O_PATH`.
///
/// # Errors
/// What the kernel answers.
pub fn handle(root: impl AsFd, path: &[u8], links: Links) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::PATH, links)
}

/// Opens `path`, absolute or relative to the root; descriptors are closed on exec, terminals never taken over.
///
/// # Errors
/// What the kernel answers.
pub fn open(root: impl AsFd, path: &[u8], flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
    create(root, path, flags, Mode::empty(), links)
}

/// Like [`open`], with the mode of a file that may be made.
///
/// # Errors
/// What the kernel answers.
pub fn create(
    root: impl AsFd,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
    links: Links,
) -> Result<OwnedFd, Errno> {
    let mut flags = flags | OFlags::CLOEXEC;
    if !flags.contains(OFlags::PATH) {
        flags |= OFlags::NOCTTY;
    }
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match links {
        Links::Follow => {}
        Links::FollowButLast => flags |= OFlags::NOFOLLOW,
        Links::None => resolve |= ResolveFlags::NO_SYMLINKS,
    }
    for _ in 0..RETRIES {
        match fs::openat2(root.as_fd(), path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Returns the path that a handle has as this process sees it; `None` for what has no path any more or never
/// had one (a deleted file, a pipe).
pub fn path_of(handle: impl AsFd) -> Option<Vec<u8>> {
    read_magic(&format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())).ok()
}

/// Reads a link of `/proc` such as `/proc/7/cwd`.
///
/// # Errors
/// The process is gone, or there is no such link.
pub fn read_magic(link: &str) -> SysResult<Vec<u8>> {
    let target = fs::readlink(link, Vec::with_capacity(256)).context("readlink", link)?;
    Ok(target.into_bytes())
}

/// Returns the part of `path` below `root` as an absolute path, `/` for the root itself; `None` when `path` lies
/// outside.
pub fn below<'a>(path: &'a [u8], root: &[u8]) -> Option<&'a [u8]> {
    match path.strip_prefix(root)? {
        b"" => Some(b"/"),
        rest if rest[0] == b'/' => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("directory");
        std::fs::create_dir_all(dir.path().join("etc/deep")).expect("directories");
        std::fs::write(dir.path().join("etc/passwd"), "inside").expect("file");
        for (link, target) in [
            ("abs", "/etc/passwd"),
            ("up", "../../../../etc/passwd"),
            ("etc/deep/l", "../passwd"),
        ] {
            symlink(target, dir.path().join(link)).expect("link");
        }
        let root = std::fs::File::open(dir.path()).expect("root");
        let top = path_of(&root).expect("path");
        for path in ["/abs", "up", "/etc/deep/l", "/../../etc/passwd"] {
            let fd = handle(&root, path.as_bytes(), Links::Follow).expect(path);
            let full = path_of(&fd).expect("path");
            assert_eq!(below(&full, &top), Some(&b"/etc/passwd"[..]), "{path}");
        }
        assert_eq!(
            handle(&root, b"abs", Links::None).expect_err("a link"),
            Errno::LOOP
        );
        let link = handle(&root, b"abs", Links::FollowButLast).expect("the link itself");
        assert_eq!(
            below(&path_of(&link).expect("path"), &top),
            Some(&b"/abs"[..])
        );
        assert_eq!(below(b"/tree-2/x", b"/tree"), None);
        assert_eq!(below(b"/tree", b"/tree"), Some(&b"/"[..]));
    }
}
