//! Names made, removed and moved: mkdir, rmdir, unlink, rename, link, symlink, mknod; chdir and getcwd.
//!
//! Every call is made on the handle of the directory that holds the name, and none of them follows it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use stepwell_sys::resolve;

use super::super::call::{Answer, Call, Stop};
use super::super::path::AT_FDCWD;
use super::super::step::Step;
use super::ways::{self, Entry};

/// Longest path that getcwd(2) gives.
const MAX_CWD: usize = 4096;

fn done(result: Result<(), Errno>) -> Result<Answer, Stop> {
    result.map(|()| Answer::Value(0)).map_err(Stop::Fail)
}

/// Calls `work` on an entry, as root where that is what the caller is.
fn on_entry(
    step: &Step,
    call: &Call<'_>,
    entry: &Entry,
    work: impl Fn(&OwnedFd, &OsStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    ways::as_root_in(step, call, &[&entry.parent], || {
        work(&entry.parent, entry.name())
    })
}

/// mkdir(path, mode)
pub fn mkdir(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    make_directory(step, call, AT_FDCWD, &ways::path(call, 0)?, call.uint(1))
}

/// mkdirat(dirfd, path, mode)
pub fn mkdirat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    make_directory(step, call, call.int(0), &ways::path(call, 1)?, call.uint(2))
}

fn make_directory(
    step: &Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    mode: u32,
) -> Result<Answer, Stop> {
    const ALLOWED: u32 = 0o1777;
    let mode = mode & ALLOWED & !step.umask(call.tid());
    make(step, call, (dirfd, path), mode, |parent, name| {
        fs::mkdirat(parent, name, Mode::from_raw_mode(mode))
    })
}

/// mknod(path, mode, device)
pub fn mknod(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    make_node(step, call, AT_FDCWD, &ways::path(call, 0)?, call.uint(1))
}

/// mknodat(dirfd, path, mode, device)
pub fn mknodat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    make_node(step, call, call.int(0), &ways::path(call, 1)?, call.uint(2))
}

/// Devices are emulated before it comes to this.
fn make_node(
    step: &Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    kind: u32,
) -> Result<Answer, Stop> {
    let mode = kind & 0o7777 & !step.umask(call.tid());
    let kind = match FileType::from_raw_mode(kind) {
        FileType::Unknown => FileType::RegularFile,
        kind @ (FileType::RegularFile | FileType::Fifo | FileType::Socket) => kind,
        FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM.into()),
        _ => return Err(Errno::INVAL.into()),
    };
    make(step, call, (dirfd, path), mode, |parent, name| {
        fs::mknodat(parent, name, kind, Mode::from_raw_mode(mode), 0)
    })
}

/// Makes an inode and gives it the mode that this process's own mask took away.
fn make(
    step: &Step,
    call: &Call<'_>,
    (dirfd, path): (i32, &[u8]),
    mode: u32,
    work: impl Fn(&OwnedFd, &OsStr) -> Result<(), Errno>,
) -> Result<Answer, Stop> {
    let entry = ways::entry(step, call, dirfd, path)?;
    if entry.fixed {
        return Err(Errno::EXIST.into());
    }
    on_entry(step, call, &entry, work)?;
    if mode & step.builder_umask() != 0 {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = fs::openat(&entry.parent, entry.name(), flags, Mode::empty())?;
        let inherited = fs::fstat(&made)?.st_mode & 0o2000;
        ways::change_mode(std::os::fd::AsFd::as_fd(&made), mode | inherited)?;
    }
    Ok(Answer::Value(0))
}

/// symlink(target, path)
pub fn symlink(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    make_link(step, call, AT_FDCWD, 1)
}

/// symlinkat(target, dirfd, path)
pub fn symlinkat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    make_link(step, call, call.int(1), 2)
}

fn make_link(step: &Step, call: &Call<'_>, dirfd: i32, index: usize) -> Result<Answer, Stop> {
    let target = ways::path(call, 0)?;
    let path = ways::path(call, index)?;
    // A mode that no mask takes anything from.
    make(step, call, (dirfd, &path), 0, |parent, name| {
        fs::symlinkat(&target[..], parent, name)
    })
}

/// unlink(path)
pub fn unlink(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    remove(
        step,
        call,
        AT_FDCWD,
        &ways::path(call, 0)?,
        AtFlags::empty(),
    )
}

/// rmdir(path)
pub fn rmdir(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    remove(
        step,
        call,
        AT_FDCWD,
        &ways::path(call, 0)?,
        AtFlags::REMOVEDIR,
    )
}

/// unlinkat(dirfd, path, flags)
pub fn unlinkat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let flags = AtFlags::from_bits_retain(call.uint(2));
    if flags != AtFlags::REMOVEDIR && !flags.is_empty() {
        return Err(Errno::INVAL.into());
    }
    remove(step, call, call.int(0), &ways::path(call, 1)?, flags)
}

fn remove(
    step: &Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    flags: AtFlags,
) -> Result<Answer, Stop> {
    let entry = ways::entry(step, call, dirfd, path)?;
    if entry.fixed {
        let directory = flags == AtFlags::REMOVEDIR;
        return Err(match entry.name().as_encoded_bytes() {
            _ if !directory => Errno::ISDIR,
            b"." | b"./" => Errno::INVAL,
            b".." | b"../" => Errno::NOTEMPTY,
            _ => Errno::BUSY,
        }
        .into());
    }
    done(on_entry(step, call, &entry, |parent, name| {
        fs::unlinkat(parent, name, flags)
    }))
}

/// rename(old, new)
pub fn rename(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    move_name(step, call, (AT_FDCWD, 0), (AT_FDCWD, 1), 0)
}

/// renameat(olddirfd, old, newdirfd, new)
pub fn renameat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    move_name(step, call, (call.int(0), 1), (call.int(2), 3), 0)
}

/// renameat2(olddirfd, old, newdirfd, new, flags)
pub fn renameat2(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    move_name(step, call, (call.int(0), 1), (call.int(2), 3), call.uint(4))
}

fn move_name(
    step: &Step,
    call: &Call<'_>,
    (old_dir, old_path): (i32, usize),
    (new_dir, new_path): (i32, usize),
    flags: u32,
) -> Result<Answer, Stop> {
    let old = ways::entry(step, call, old_dir, &ways::path(call, old_path)?)?;
    let new = ways::entry(step, call, new_dir, &ways::path(call, new_path)?)?;
    if old.fixed || new.fixed {
        return Err(Errno::BUSY.into());
    }
    let flags = RenameFlags::from_bits_retain(flags);
    done(ways::as_root_in(
        step,
        call,
        &[&old.parent, &new.parent],
        || fs::renameat_with(&old.parent, old.name(), &new.parent, new.name(), flags),
    ))
}

/// link(old, new)
pub fn link(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    add_name(step, call, (AT_FDCWD, 0), (AT_FDCWD, 1), 0)
}

/// linkat(olddirfd, old, newdirfd, new, flags)
pub fn linkat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    add_name(step, call, (call.int(0), 1), (call.int(2), 3), call.uint(4))
}

fn add_name(
    step: &Step,
    call: &Call<'_>,
    (old_dir, old_path): (i32, usize),
    (new_dir, new_path): (i32, usize),
    flags: u32,
) -> Result<Answer, Stop> {
    let flags = AtFlags::from_bits_retain(flags);
    if !(AtFlags::SYMLINK_FOLLOW | AtFlags::EMPTY_PATH).contains(flags) {
        return Err(Errno::INVAL.into());
    }
    let path = ways::path(call, old_path)?;
    let old = if path.is_empty() && flags.contains(AtFlags::EMPTY_PATH) {
        ways::descriptor(call, old_dir)?
    } else {
        let follow = flags.contains(AtFlags::SYMLINK_FOLLOW);
        ways::inode(step, call, old_dir, &path, follow)?
    };
    if path.ends_with(b"/") && !is_directory(&old) {
        return Err(Errno::NOTDIR.into());
    }
    let new = ways::entry(step, call, new_dir, &ways::path(call, new_path)?)?;
    if new.fixed {
        return Err(Errno::EXIST.into());
    }
    let link = ways::own_link(&old);
    done(on_entry(step, call, &new, |parent, name| {
        fs::linkat(fs::CWD, &link, parent, name, AtFlags::SYMLINK_FOLLOW)
    }))
}

fn is_directory(handle: &OwnedFd) -> bool {
    fs::fstat(handle).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}

/// chdir(path)
pub fn chdir(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let path = ways::path(call, 0)?;
    let way = ways::way(step, call, AT_FDCWD, &path)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = ways::as_root(step, call, &way, || {
        ways::open(step, &way, flags, Mode::empty(), true)
    })?;
    enter(step, call, Arc::new(directory))
}

/// fchdir(fd)
pub fn fchdir(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    if call.int(0) < 0 {
        return Err(Errno::BADF.into());
    }
    let directory = ways::directory(step, call.tid(), call.int(0))?;
    // One too deep to have a path was reached from inside.
    if let Some(text) = resolve::path_of(&directory) {
        step.inside(&text).ok_or(Errno::ACCESS)?;
    }
    enter(step, call, directory)
}

fn enter(step: &mut Step, call: &Call<'_>, directory: Arc<OwnedFd>) -> Result<Answer, Stop> {
    call.check()?;
    super::state(step)?.processes.of_mut(call.tid()).cwd = directory;
    Ok(Answer::Value(0))
}

/// getcwd(buffer, size)
pub fn getcwd(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let cwd = ways::directory(step, call.tid(), AT_FDCWD)?;
    if fs::fstat(&cwd)?.st_nlink == 0 {
        return Err(Errno::NOENT.into());
    }
    let text = resolve::path_of(&cwd).ok_or(Errno::NAMETOOLONG)?;
    let mut path = step.inside(&text).ok_or(Errno::NOENT)?.to_vec();
    path.push(0);
    if path.len() > MAX_CWD {
        return Err(Errno::NAMETOOLONG.into());
    }
    if path.len() as u64 > call.arg(1) {
        return Err(Errno::RANGE.into());
    }
    call.write(call.arg(0), &path)?;
    Ok(Answer::Value(path.len() as i64))
}

/// umask(mask)
pub fn umask(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let process = super::state(step)?.processes.of_mut(call.tid());
    let old = process.umask;
    process.umask = call.uint(0) & 0o777;
    Ok(Answer::Value(old.into()))
}
