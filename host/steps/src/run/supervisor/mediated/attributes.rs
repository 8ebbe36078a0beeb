//! What is known of an inode, read and changed: stat, access, readlink, chmod, times, extended attributes, statfs.
//!
//! Owners, and attributes that the kernel keeps from a step, are emulated before it comes to this.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, Access, AtFlags, FileType, StatxFlags, Timestamps, XattrFlags};
use rustix::io::Errno;
use stepwell_sys::resolve;

use super::super::call::{Answer, Call, Stop};
use super::super::layout::{encode_stat, encode_statx};
use super::super::path::AT_FDCWD;
use super::super::stat::{apply, full_stat, own_foreign};
use super::super::statfs::give_statfs;
use super::super::step::Step;
use super::ways;
use crate::run::narrow::Form;

const EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;
const NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;

/// Longest name of an attribute with its zero, longest value (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX`).
const MAX_NAME: usize = 256;
const MAX_VALUE: u64 = 65_536;

/// Opens what a call with flags is about: an empty path may mean the descriptor.
fn target(
    step: &Step,
    call: &Call<'_>,
    dirfd: i32,
    index: usize,
    flags: u32,
) -> Result<OwnedFd, Stop> {
    let empty = flags & EMPTY_PATH != 0;
    let path = if empty && call.arg(index) == 0 {
        Vec::new()
    } else {
        ways::path(call, index)?
    };
    if path.is_empty() && empty {
        return Ok(if dirfd == AT_FDCWD {
            ways::directory(step, call.tid(), dirfd)?
                .try_clone()
                .map_err(|_| Errno::MFILE)?
        } else {
            ways::descriptor(call, dirfd)?
        });
    }
    Ok(ways::inode(
        step,
        call,
        dirfd,
        &path,
        flags & NOFOLLOW == 0,
    )?)
}

/// stat(path, buffer)
pub fn stat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, AT_FDCWD, 0, 0)?;
    give_stat(step, call, &handle, 1)
}

/// lstat(path, buffer)
pub fn lstat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, AT_FDCWD, 0, NOFOLLOW)?;
    give_stat(step, call, &handle, 1)
}

/// newfstatat(dirfd, path, buffer, flags)
pub fn newfstatat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, call.int(0), 1, call.uint(3))?;
    give_stat(step, call, &handle, 2)
}

/// fstat(fd, buffer)
pub fn fstat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = ways::descriptor(call, call.int(0))?;
    give_stat(step, call, &handle, 1)
}

fn give_stat(
    step: &Step,
    call: &Call<'_>,
    handle: &OwnedFd,
    buffer: usize,
) -> Result<Answer, Stop> {
    let mut stat = full_stat(handle)?;
    step.show_owner(handle, &mut stat);
    call.write(call.arg(buffer), &encode_stat(&stat, call.form())?)?;
    Ok(Answer::Value(0))
}

/// statx(dirfd, path, flags, mask, buffer)
pub fn statx(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, call.int(0), 1, call.uint(2))?;
    let mut stat = full_stat(&handle)?;
    step.show_owner(&handle, &mut stat);
    call.write(call.arg(4), &encode_statx(&stat))?;
    Ok(Answer::Value(0))
}

impl Step {
    /// Shows an inode as belonging to whom the step thinks it does.
    pub fn show_owner(&self, handle: impl AsFd, stat: &mut fs::Statx) {
        if (stat.stx_dev_major, stat.stx_dev_minor) == self.device {
            let meta = self.meta(handle.as_fd()).unwrap_or_default();
            apply(self, stat, &meta);
        } else {
            self.show_foreign_owner(stat);
        }
    }

    /// Shows what is not the tree's as root's, whose process it is.
    pub fn show_foreign_owner(&self, stat: &mut fs::Statx) {
        own_foreign(stat);
        if let Some(mediated) = &self.mediated {
            for (id, own) in [
                (&mut stat.stx_uid, mediated.own.0),
                (&mut stat.stx_gid, mediated.own.1),
            ] {
                if *id == own {
                    *id = 0;
                }
            }
        }
    }
}

/// access(path, mode)
pub fn access(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, AT_FDCWD, 0, 0)?;
    may_access(step, call, &handle, call.uint(1))
}

/// faccessat(dirfd, path, mode)
pub fn faccessat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, call.int(0), 1, 0)?;
    may_access(step, call, &handle, call.uint(2))
}

/// faccessat2(dirfd, path, mode, flags)
pub fn faccessat2(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, call.int(0), 1, call.uint(3))?;
    may_access(step, call, &handle, call.uint(2))
}

fn may_access(step: &Step, call: &Call<'_>, handle: &OwnedFd, mode: u32) -> Result<Answer, Stop> {
    const ALL: u32 = 7;
    const EXECUTE: u32 = 1;
    const CAP_DAC_OVERRIDE: u32 = 1;
    if mode & !ALL != 0 {
        return Err(Errno::INVAL.into());
    }
    let stat = fs::fstat(handle)?;
    let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    if link || mode == 0 {
        return Ok(Answer::Value(0));
    }
    if step.identity(call.tid()).can(CAP_DAC_OVERRIDE) {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let executable = directory || stat.st_mode & 0o111 != 0;
        return if mode & EXECUTE != 0 && !executable {
            Err(Errno::ACCESS.into())
        } else {
            Ok(Answer::Value(0))
        };
    }
    // Every process of the step is the same user in truth.
    fs::accessat(
        fs::CWD,
        ways::own_link(handle),
        Access::from_bits_retain(mode),
        AtFlags::empty(),
    )?;
    Ok(Answer::Value(0))
}

/// readlink(path, buffer, size)
pub fn readlink(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, AT_FDCWD, 0, NOFOLLOW)?;
    give_link(call, &handle, 1)
}

/// readlinkat(dirfd, path, buffer, size): an empty path means the descriptor
pub fn readlinkat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, call.int(0), 1, NOFOLLOW | EMPTY_PATH)?;
    give_link(call, &handle, 2)
}

fn give_link(call: &Call<'_>, handle: &OwnedFd, buffer: usize) -> Result<Answer, Stop> {
    let size = call.int(buffer + 1);
    if size <= 0 {
        return Err(Errno::INVAL.into());
    }
    let text = match fs::readlinkat(handle, c"", Vec::new()) {
        Ok(text) => text.into_bytes(),
        // It is there and no link.
        Err(Errno::NOENT) => return Err(Errno::INVAL.into()),
        Err(errno) => return Err(errno.into()),
    };
    let length = text.len().min(size as usize);
    call.write(call.arg(buffer), &text[..length])?;
    Ok(Answer::Value(length as i64))
}

/// chmod(path, mode)
pub fn chmod(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, AT_FDCWD, 0, 0)?;
    set_mode(&handle, call.uint(1))
}

/// fchmodat(dirfd, path, mode)
pub fn fchmodat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, call.int(0), 1, 0)?;
    set_mode(&handle, call.uint(2))
}

/// fchmodat2(dirfd, path, mode, flags)
pub fn fchmodat2(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, call.int(0), 1, call.uint(3))?;
    if FileType::from_raw_mode(fs::fstat(&handle)?.st_mode) == FileType::Symlink {
        return Err(Errno::OPNOTSUPP.into());
    }
    set_mode(&handle, call.uint(2))
}

fn set_mode(handle: &OwnedFd, mode: u32) -> Result<Answer, Stop> {
    ways::change_mode(handle.as_fd(), mode & 0o7777)?;
    Ok(Answer::Value(0))
}

/// chown(2) and its kin: their emulation has looked at it, and it is about a descriptor that is none.
pub fn chown(_: &mut Step, _: &Call<'_>) -> Result<Answer, Stop> {
    Err(Errno::BADF.into())
}

const OMIT: i64 = 0x3fff_fffe;
const NOW: i64 = 0x3fff_ffff;

/// utimensat(dirfd, path, times, flags); without a path it is about the descriptor, and the kernel's
pub fn utimensat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let times = match call.arg(2) {
        0 => [(0, NOW), (0, NOW)],
        address => pairs(call, address)?,
    };
    let handle = target(step, call, call.int(0), 1, call.uint(3))?;
    set_times(&handle, times)
}

/// utimes(path, times)
pub fn utimes(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let times = micro_times(call, 1)?;
    let handle = target(step, call, AT_FDCWD, 0, 0)?;
    set_times(&handle, times)
}

/// futimesat(dirfd, path, times)
pub fn futimesat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let times = micro_times(call, 2)?;
    let handle = if call.arg(1) == 0 {
        ways::descriptor(call, call.int(0))?
    } else {
        target(step, call, call.int(0), 1, 0)?
    };
    set_times(&handle, times)
}

/// utime(path, times)
pub fn utime(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let times = match call.arg(1) {
        0 => [(0, NOW), (0, NOW)],
        address => numbers(call, address)?.map(|seconds: i64| (seconds, 0)),
    };
    let handle = target(step, call, AT_FDCWD, 0, 0)?;
    set_times(&handle, times)
}

/// Reads numbers as a C library of the caller's has them in its structures of times.
fn numbers<const N: usize>(call: &Call<'_>, address: u64) -> Result<[i64; N], Stop> {
    if call.form() == Form::Times {
        let mut bytes = vec![0; 4 * N];
        call.read(address, &mut bytes)?;
        let number = |at: usize| i32::from_ne_bytes(std::array::from_fn(|i| bytes[4 * at + i]));
        return Ok(std::array::from_fn(|at| number(at).into()));
    }
    let mut bytes = vec![0; 8 * N];
    call.read(address, &mut bytes)?;
    let number = |at: usize| i64::from_ne_bytes(std::array::from_fn(|i| bytes[8 * at + i]));
    Ok(std::array::from_fn(number))
}

fn pairs(call: &Call<'_>, address: u64) -> Result<[(i64, i64); 2], Stop> {
    let [first, mut part, second, mut other] = numbers(call, address)?;
    if call.form() == Form::LongTimes {
        // The rest is room that nobody has filled.
        (part, other) = (part & 0xffff_ffff, other & 0xffff_ffff);
    }
    Ok([(first, part), (second, other)])
}

fn micro_times(call: &Call<'_>, index: usize) -> Result<[(i64, i64); 2], Stop> {
    if call.arg(index) == 0 {
        return Ok([(0, NOW), (0, NOW)]);
    }
    let pairs = pairs(call, call.arg(index))?;
    if pairs
        .iter()
        .any(|(_, micro)| !(0..1_000_000).contains(micro))
    {
        return Err(Errno::INVAL.into());
    }
    Ok(pairs.map(|(seconds, micro)| (seconds, micro * 1000)))
}

fn set_times(handle: &OwnedFd, times: [(i64, i64); 2]) -> Result<Answer, Stop> {
    let valid = |nano: i64| (0..1_000_000_000).contains(&nano) || nano == OMIT || nano == NOW;
    if times.iter().any(|(_, nano)| !valid(*nano)) {
        return Err(Errno::INVAL.into());
    }
    let [last_access, last_modification] = times.map(|(tv_sec, tv_nsec)| rustix::time::Timespec {
        tv_sec,
        tv_nsec: tv_nsec as _,
    });
    let times = Timestamps {
        last_access,
        last_modification,
    };
    fs::utimensat(handle, c"", &times, AtFlags::EMPTY_PATH)
        .or_else(|_| fs::utimensat(fs::CWD, ways::own_link(handle), &times, AtFlags::empty()))?;
    Ok(Answer::Value(0))
}

/// statfs(path, buffer)
pub fn statfs(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let handle = target(step, call, AT_FDCWD, 0, 0)?;
    let stat = fs::fstatfs(&handle)?;
    let words = [
        stat.f_type as u64,
        stat.f_bsize as u64,
        stat.f_blocks,
        stat.f_bfree,
        stat.f_bavail,
        stat.f_files,
        stat.f_ffree,
        // The identity tells nothing that a step could use.
        0,
        stat.f_namelen as u64,
        stat.f_frsize as u64,
        stat.f_flags as u64,
    ];
    give_statfs(call, words)
}

/// How the inode of a call on attributes is given.
fn attributed(step: &Step, call: &Call<'_>, follow: bool) -> Result<OwnedFd, Stop> {
    target(step, call, AT_FDCWD, 0, if follow { 0 } else { NOFOLLOW })
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident => $common:ident, $follow:literal;)*) => {
        $($(#[$doc])* pub fn $name(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
            let handle = attributed(step, call, $follow)?;
            $common(call, &handle)
        })*
    };
}

calls! {
    /// setxattr(path, name, value, size, flags)
    setxattr => set_attribute, true;
    /// lsetxattr(path, name, value, size, flags)
    lsetxattr => set_attribute, false;
    /// getxattr(path, name, value, size)
    getxattr => get_attribute, true;
    /// lgetxattr(path, name, value, size)
    lgetxattr => get_attribute, false;
    /// listxattr(path, list, size)
    listxattr => list_attributes, true;
    /// llistxattr(path, list, size)
    llistxattr => list_attributes, false;
    /// removexattr(path, name)
    removexattr => remove_attribute, true;
    /// lremovexattr(path, name)
    lremovexattr => remove_attribute, false;
}

fn set_attribute(call: &Call<'_>, handle: &OwnedFd) -> Result<Answer, Stop> {
    let name = call.string(call.arg(1), MAX_NAME)?;
    if call.arg(3) > MAX_VALUE {
        return Err(Errno::TOOBIG.into());
    }
    let mut value = vec![0; call.arg(3) as usize];
    call.read(call.arg(2), &mut value)?;
    let flags = XattrFlags::from_bits_retain(call.uint(4));
    fs::setxattr(ways::own_link(handle), &name[..], &value, flags)?;
    Ok(Answer::Value(0))
}

fn get_attribute(call: &Call<'_>, handle: &OwnedFd) -> Result<Answer, Stop> {
    let name = call.string(call.arg(1), MAX_NAME)?;
    let mut value = vec![0; call.arg(3).min(MAX_VALUE) as usize];
    let length = fs::getxattr(ways::own_link(handle), &name[..], &mut value[..])?;
    if !value.is_empty() {
        call.write(call.arg(2), &value[..length])?;
    }
    Ok(Answer::Value(length as i64))
}

fn list_attributes(call: &Call<'_>, handle: &OwnedFd) -> Result<Answer, Stop> {
    let mut names = vec![0; call.arg(2).min(MAX_VALUE) as usize];
    let length = fs::listxattr(ways::own_link(handle), &mut names[..])?;
    if !names.is_empty() {
        call.write(call.arg(1), &names[..length])?;
    }
    Ok(Answer::Value(length as i64))
}

fn remove_attribute(call: &Call<'_>, handle: &OwnedFd) -> Result<Answer, Stop> {
    let name = call.string(call.arg(1), MAX_NAME)?;
    fs::removexattr(ways::own_link(handle), &name[..])?;
    Ok(Answer::Value(0))
}

/// Says whether an open handle is the inode that these numbers mean.
pub fn is_inode(link: &str, numbers: (u32, u32, u64)) -> bool {
    let mask = StatxFlags::BASIC_STATS;
    fs::statx(fs::CWD, link, AtFlags::empty(), mask)
        .is_ok_and(|s| (s.stx_dev_major, s.stx_dev_minor, s.stx_ino) == numbers)
}

/// Returns the numbers by which an inode is known.
pub fn inode_numbers(handle: &OwnedFd) -> Result<(u32, u32, u64), Errno> {
    let stat = full_stat(handle)?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

/// Returns the path that a handle has in the tree.
pub fn path_inside(step: &Step, handle: &OwnedFd) -> Option<Vec<u8>> {
    let text = resolve::path_of(handle)?;
    step.inside(&text).map(<[u8]>::to_vec)
}
