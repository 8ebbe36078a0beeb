//! stat(2) and its kin, access(2), readlink(2): what names in grafts are, and whom files belong to.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use stepwell_sys::meta::{self, DeviceKind, InodeId, Meta};

use super::call::{Answer, Call, Stop};
use super::layout::{encode_stat, encode_statx};
use super::names::Names;
use super::nodes::{HostFile, Magic, Node, Within, open_host};
use super::path::{AT_FDCWD, GraftPlace, Place, TreePlace, locate, near};
use super::step::Step;
use super::{pids, secrets, stubs};

const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;
const AT_SYMLINK_NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;

/// What the kernel shows for an id that has no number in the namespace (`/proc/sys/kernel/overflowuid`).
const OVERFLOW_ID: u32 = 65_534;

/// stat(path, buffer)
#[cfg(target_arch = "x86_64")]
pub fn stat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    answer_stat(
        step,
        call,
        AT_FDCWD,
        &call.path(0)?,
        true,
        Shape::Stat(call.arg(1)),
    )
}

/// lstat(path, buffer)
#[cfg(target_arch = "x86_64")]
pub fn lstat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    answer_stat(
        step,
        call,
        AT_FDCWD,
        &call.path(0)?,
        false,
        Shape::Stat(call.arg(1)),
    )
}

/// newfstatat(dirfd, path, buffer, flags)
pub fn newfstatat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let follow = call.uint(3) & AT_SYMLINK_NOFOLLOW == 0;
    let path = path_or_descriptor(call, 1, call.uint(3))?;
    answer_stat(
        step,
        call,
        call.int(0),
        &path,
        follow,
        Shape::Stat(call.arg(2)),
    )
}

/// fstat(fd, buffer)
pub fn fstat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    answer_stat(step, call, call.int(0), b"", true, Shape::Stat(call.arg(1)))
}

/// statx(dirfd, path, flags, mask, buffer)
pub fn statx(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let follow = call.uint(2) & AT_SYMLINK_NOFOLLOW == 0;
    let path = path_or_descriptor(call, 1, call.uint(2))?;
    answer_stat(
        step,
        call,
        call.int(0),
        &path,
        follow,
        Shape::Statx(call.arg(4)),
    )
}

/// Reads a path; an empty one is taken only together with AT_EMPTY_PATH.
fn path_or_descriptor(call: &Call<'_>, index: usize, flags: u32) -> Result<Vec<u8>, Stop> {
    let empty_allowed = flags & AT_EMPTY_PATH != 0;
    if empty_allowed && call.arg(index) == 0 {
        return Ok(Vec::new());
    }
    let path = call.path(index)?;
    if path.is_empty() && !empty_allowed {
        Err(Stop::CarryOn)
    } else {
        Ok(path)
    }
}

/// Which structure is filled, and where.
#[derive(Clone, Copy)]
enum Shape {
    Stat(u64),
    Statx(u64),
}

fn answer_stat(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    follow: bool,
    shape: Shape,
) -> Result<Answer, Stop> {
    if step.is_plain(call, path) {
        return Ok(Answer::CarryOn);
    }
    let stat = if let Some(entry) = near(step, call, dirfd, path, follow) {
        stat_near(step, &entry)
    } else {
        stat_located(step, call, dirfd, path, follow)?
    };
    let Some(stat) = stat else {
        return Ok(Answer::CarryOn);
    };
    match shape {
        Shape::Stat(address) => call.write(address, &encode_stat(&stat, call.form())?)?,
        Shape::Statx(address) => call.write(address, &encode_statx(&stat))?,
    }
    Ok(Answer::Value(0))
}

/// Looks at an entry that is no link, or is not to be followed; `None` where the kernel's answer is right.
fn stat_near(step: &Step, entry: &Path) -> Option<Statx> {
    if !step.emulates() {
        return None;
    }
    let meta = meta::load_entry(entry, &step.side).ok()?;
    // Where no path is left to the kernel it shows no owner either.
    let meta = meta.or_else(|| step.mediated.is_some().then(Meta::default))?;
    let mask = InodeId::STATX | StatxFlags::MNT_ID;
    let mut stat = fs::statx(fs::CWD, entry, AtFlags::SYMLINK_NOFOLLOW, mask).ok()?;
    apply(step, &mut stat, &meta);
    Some(stat)
}

fn stat_located(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    follow: bool,
) -> Result<Option<Statx>, Stop> {
    Ok(match locate(step, call, dirfd, path, follow)? {
        Place::Descriptor(fd) => stat_descriptor(step, call, fd)?,
        Place::Tree(place) => stat_tree(step, &place)?,
        Place::Graft(place) => Some(stat_graft(step, &place, follow)?),
    })
}

/// Everything that a caller may ask for.
///
/// # Errors
/// What the kernel answers.
pub fn full_stat(handle: &impl AsFd) -> Result<Statx, Errno> {
    fs::statx(
        handle,
        c"",
        AtFlags::EMPTY_PATH,
        InodeId::STATX | StatxFlags::MNT_ID,
    )
}

/// `None` where the kernel's answer is right.
fn stat_tree(step: &Step, place: &TreePlace) -> Result<Option<Statx>, Stop> {
    let handle = match &place.handle {
        Ok(handle) => handle,
        Err(errno) if place.redirected => return Err(Stop::Fail(*errno)),
        Err(_) => return Ok(None),
    };
    if let Some(stat) = secrets::stat(step, handle) {
        return Ok(Some(stat));
    }
    if step.mediated.is_some() {
        let mut stat = full_stat(handle)?;
        step.show_owner(handle, &mut stat);
        return Ok(Some(stat));
    }
    if !step.emulates() {
        return if place.redirected {
            Ok(Some(full_stat(handle)?))
        } else {
            Ok(None)
        };
    }
    match step.kept(handle.as_fd()) {
        Some(meta) => {
            let mut stat = full_stat(handle)?;
            apply(step, &mut stat, &meta);
            Ok(Some(stat))
        }
        None if place.redirected => Ok(Some(full_stat(handle)?)),
        None => Ok(None),
    }
}

fn stat_descriptor(step: &Step, call: &Call<'_>, fd: i32) -> Result<Option<Statx>, Stop> {
    if !step.keeps_owners() {
        return Ok(None);
    }
    let link = step.descriptor_link(call.tid(), fd);
    let link = Path::new(&link);
    let mask = InodeId::STATX | StatxFlags::MNT_ID;
    let Ok(mut stat) = fs::statx(fs::CWD, link, AtFlags::empty(), mask) else {
        return Ok(None);
    };
    if (stat.stx_dev_major, stat.stx_dev_minor) != step.device {
        let foreign = stat.stx_uid == OVERFLOW_ID || stat.stx_gid == OVERFLOW_ID;
        step.show_foreign_owner(&mut stat);
        return Ok((foreign || step.mediated.is_some()).then_some(stat));
    }
    let has_nothing = |names: &Names| names.has_nothing(stat.stx_ino);
    if step.names.as_ref().is_some_and(has_nothing) {
        return Ok(None);
    }
    match meta::load_path(link, &stat, &step.side) {
        Ok(None) if step.mediated.is_some() => {
            apply(step, &mut stat, &Meta::default());
            Ok(Some(stat))
        }
        Ok(Some(meta)) => {
            apply(step, &mut stat, &meta);
            Ok(Some(stat))
        }
        _ => Ok(None),
    }
}

/// Shows what is kept of an inode.
pub fn apply(step: &Step, stat: &mut Statx, meta: &Meta) {
    // The owner of what stands for a device is on the disk where owners are real.
    if step.keeps_owners() || meta.device.is_none() {
        (stat.stx_uid, stat.stx_gid) = (meta.uid, meta.gid);
    }
    if let Some(device) = meta.device {
        let kind = match device.kind {
            DeviceKind::Char => FileType::CharacterDevice,
            DeviceKind::Block => FileType::BlockDevice,
        };
        stat.stx_mode = (stat.stx_mode & 0o7777) | kind.as_raw_mode() as u16;
        (stat.stx_rdev_major, stat.stx_rdev_minor) = (device.major, device.minor);
    }
}

/// Shows the machine's files as root's.
pub fn own_foreign(stat: &mut Statx) {
    for id in [&mut stat.stx_uid, &mut stat.stx_gid] {
        if *id == OVERFLOW_ID {
            *id = 0;
        }
    }
}

fn stat_graft(step: &mut Step, place: &GraftPlace, follow: bool) -> Result<Statx, Stop> {
    let mut stat = match &place.node {
        Node::Missing | Node::Native => return Err(Errno::NOENT.into()),
        Node::Directory => {
            let mut stat = full_stat(&stubs::open(step, &place.path, OFlags::PATH)?)?;
            stat.stx_nlink = links(step, &place.path).unwrap_or(stat.stx_nlink);
            stat
        }
        _ if place.slash => return Err(Errno::NOTDIR.into()),
        Node::File(HostFile { within, path, .. }) => {
            full_stat(&open_host(step, *within, path, OFlags::PATH)?)?
        }
        Node::Text(_) => made_up(step, &place.path, FileType::RegularFile, 0o444, 0)?,
        Node::Link(target) => made_up(step, &place.path, FileType::Symlink, 0o777, target.len())?,
        Node::Magic(magic) if follow => return stat_magic(step, magic),
        Node::Magic(_) => made_up(step, &place.path, FileType::Symlink, 0o777, 64)?,
        Node::PtyMaster => device(step, &place.path, 5, 2)?,
        Node::Terminal => device(step, &place.path, 5, 0)?,
    };
    step.show_foreign_owner(&mut stat);
    Ok(stat)
}

/// Number of links of a directory of `/proc` where programs look at it: sandboxes ask whether they have a single thread.
fn links(step: &mut Step, path: &[u8]) -> Option<u32> {
    let process = path.strip_prefix(b"/proc/")?.strip_suffix(b"/task")?;
    let inner = std::str::from_utf8(process).ok()?.parse().ok()?;
    let threads = pids::threads(step.pids.outer(inner)?).len();
    u32::try_from(threads + 2).ok()
}

fn stat_magic(step: &Step, magic: &Magic) -> Result<Statx, Stop> {
    let mask = InodeId::STATX | StatxFlags::MNT_ID;
    let mut stat = fs::statx(&step.host.proc, &*magic.link, AtFlags::empty(), mask)?;
    if (stat.stx_dev_major, stat.stx_dev_minor) != step.device {
        step.show_foreign_owner(&mut stat);
    } else if step.keeps_owners() {
        let link = format!("/proc/{}", magic.link);
        let meta = meta::load_path(Path::new(&link), &stat, &step.side).ok();
        let meta = meta.flatten();
        if let Some(meta) = meta.or_else(|| step.mediated.is_some().then(Meta::default)) {
            apply(step, &mut stat, &meta);
        }
    }
    Ok(stat)
}

/// Makes up an inode; what it does not say is as in the machine's `/proc`.
fn made_up(
    step: &Step,
    path: &[u8],
    kind: FileType,
    mode: u16,
    size: usize,
) -> Result<Statx, Errno> {
    let mut stat = full_stat(&step.host.proc)?;
    // FNV-1a: the same name has the same number for as long as it is looked at.
    let hash = path.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    stat.stx_ino = hash >> 16;
    stat.stx_mode = kind.as_raw_mode() as u16 | mode;
    (stat.stx_nlink, stat.stx_size, stat.stx_blocks) = (1, size as u64, 0);
    Ok(stat)
}

fn device(step: &Step, path: &[u8], major: u32, minor: u32) -> Result<Statx, Errno> {
    let mut stat = made_up(step, path, FileType::CharacterDevice, 0o666, 0)?;
    (stat.stx_rdev_major, stat.stx_rdev_minor) = (major, minor);
    Ok(stat)
}

/// access(path, mode)
#[cfg(target_arch = "x86_64")]
pub fn access(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    answer_access(step, call, AT_FDCWD, &call.path(0)?, call.uint(1), true)
}

/// faccessat(dirfd, path, mode) and faccessat2(dirfd, path, mode, flags)
pub fn faccessat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let has_flags = i64::from(call.number()) == libc::SYS_faccessat2;
    let follow = !has_flags || call.uint(3) & AT_SYMLINK_NOFOLLOW == 0;
    answer_access(
        step,
        call,
        call.int(0),
        &call.path(1)?,
        call.uint(2),
        follow,
    )
}

fn answer_access(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    mode: u32,
    follow: bool,
) -> Result<Answer, Stop> {
    const WRITE: u32 = 2;
    const EXECUTE: u32 = 1;
    if step.is_plain(call, path) || near(step, call, dirfd, path, follow).is_some() {
        return Ok(Answer::CarryOn);
    }
    let place = match locate(step, call, dirfd, path, follow)? {
        Place::Graft(place) => place,
        Place::Tree(TreePlace {
            handle: Err(errno),
            redirected: true,
            ..
        }) => return Err(errno.into()),
        Place::Tree(TreePlace {
            redirected: true, ..
        }) => return Ok(Answer::Value(0)),
        _ => return Ok(Answer::CarryOn),
    };
    match &place.node {
        Node::Native => Ok(Answer::CarryOn),
        Node::Missing => Err(Errno::NOENT.into()),
        Node::Directory => Ok(Answer::Value(0)),
        _ if place.slash => Err(Errno::NOTDIR.into()),
        Node::File(file) if mode & WRITE != 0 && !file.writable => {
            Err(if file.within == Within::Proc {
                Errno::ACCESS
            } else {
                Errno::ROFS
            }
            .into())
        }
        Node::Text(_) if mode & WRITE != 0 => Err(Errno::ACCESS.into()),
        Node::File(_) | Node::Text(_) if mode & EXECUTE != 0 => Err(Errno::ACCESS.into()),
        _ => Ok(Answer::Value(0)),
    }
}

/// readlink(path, buffer, size)
#[cfg(target_arch = "x86_64")]
pub fn readlink(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    answer_readlink(
        step,
        call,
        AT_FDCWD,
        &call.path(0)?,
        (call.arg(1), call.arg(2)),
    )
}

/// readlinkat(dirfd, path, buffer, size)
pub fn readlinkat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    answer_readlink(
        step,
        call,
        call.int(0),
        &call.path(1)?,
        (call.arg(2), call.arg(3)),
    )
}

fn answer_readlink(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    (address, size): (u64, u64),
) -> Result<Answer, Stop> {
    if step.is_plain(call, path) || near(step, call, dirfd, path, false).is_some() {
        return Ok(Answer::CarryOn);
    }
    let text = match locate(step, call, dirfd, path, false)? {
        Place::Graft(place) => match place.node {
            Node::Native => return Ok(Answer::CarryOn),
            Node::Link(target) => target,
            Node::Magic(magic) => magic.text,
            Node::Missing => return Err(Errno::NOENT.into()),
            _ => return Err(Errno::INVAL.into()),
        },
        Place::Tree(TreePlace {
            handle: Ok(handle),
            redirected: true,
            ..
        }) => read_link(&handle)?,
        Place::Tree(TreePlace {
            handle: Err(errno),
            redirected: true,
            ..
        }) => return Err(errno.into()),
        _ => return Ok(Answer::CarryOn),
    };
    if size as i32 <= 0 {
        return Err(Errno::INVAL.into());
    }
    let length = text.len().min(size as usize);
    call.write(address, &text[..length])?;
    Ok(Answer::Value(length as i64))
}

fn read_link(handle: &OwnedFd) -> Result<Vec<u8>, Errno> {
    match fs::readlinkat(handle, c"", Vec::new()) {
        Ok(target) => Ok(target.into_bytes()),
        Err(Errno::NOENT) => Err(Errno::INVAL),
        Err(errno) => Err(errno),
    }
}
