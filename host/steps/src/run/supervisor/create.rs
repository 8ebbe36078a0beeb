//! Calls that make inodes, while owners are emulated: what the kernel would give to the one mapped id belongs to
//! whoever the caller is thought to be, or to the group of a set-group-ID directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use stepwell_sys::meta::{self, Device, DeviceKind, InodeId, Meta};
use stepwell_sys::resolve::{self, Links};

use super::call::{Answer, Call, Stop};
use super::identity::CAP_MKNOD;
use super::open::OpenHow;
use super::owner::is_shared;
use super::path::{self, AT_FDCWD, Place, TreePlace, locate};
use super::pids::Status;
use super::step::Step;

const S_ISGID: u32 = 0o2000;

/// mkdir(path, mode)
#[cfg(target_arch = "x86_64")]
pub fn mkdir(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    make(
        step,
        call,
        AT_FDCWD,
        &call.path(0)?,
        &What::Directory,
        call.uint(1),
    )
}

/// mkdirat(dirfd, path, mode)
pub fn mkdirat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    make(
        step,
        call,
        call.int(0),
        &call.path(1)?,
        &What::Directory,
        call.uint(2),
    )
}

/// symlink(target, path)
#[cfg(target_arch = "x86_64")]
pub fn symlink(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    make(
        step,
        call,
        AT_FDCWD,
        &call.path(1)?,
        &What::Link(call.path(0)?),
        0o777,
    )
}

/// symlinkat(target, dirfd, path)
pub fn symlinkat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    make(
        step,
        call,
        call.int(1),
        &call.path(2)?,
        &What::Link(call.path(0)?),
        0o777,
    )
}

/// mknod(path, mode, device)
#[cfg(target_arch = "x86_64")]
pub fn mknod(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let what = What::node(call.uint(1), call.arg(2));
    make(step, call, AT_FDCWD, &call.path(0)?, &what, call.uint(1))
}

/// mknodat(dirfd, path, mode, device)
pub fn mknodat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let what = What::node(call.uint(2), call.arg(3));
    make(step, call, call.int(0), &call.path(1)?, &what, call.uint(2))
}

/// What is made.
enum What {
    Directory,
    Link(Vec<u8>),
    Node(FileType),
    Device(Device),
}

impl What {
    fn node(mode: u32, number: u64) -> Self {
        let kind = match FileType::from_raw_mode(mode) {
            FileType::CharacterDevice => DeviceKind::Char,
            FileType::BlockDevice => DeviceKind::Block,
            FileType::Fifo => return Self::Node(FileType::Fifo),
            FileType::Socket => return Self::Node(FileType::Socket),
            _ => return Self::Node(FileType::RegularFile),
        };
        // The kernel takes 32 bits of it.
        let number = u64::from(number as u32);
        Self::Device(Device {
            kind,
            major: fs::major(number),
            minor: fs::minor(number),
        })
    }
}

/// Who a new inode belongs to, and in what directory it is made.
struct Birth {
    parent: OwnedFd,
    name: Vec<u8>,
    meta: Meta,
    /// Whether the directory hands its group on.
    group_is_inherited: bool,
    /// Whether strangers share the directory.
    is_shared: bool,
}

impl Birth {
    /// Finds out where a path that does not exist yet would be made; `None` where only the kernel can say.
    fn at(step: &Step, call: &Call<'_>, absolute: &[u8]) -> Result<Option<Self>, Stop> {
        let Some((directory, name)) = path::split(absolute) else {
            return Ok(None);
        };
        let Ok(parent) = resolve::handle(&step.root, directory, Links::Follow) else {
            return Ok(None);
        };
        let stat = fs::statx(&parent, c"", AtFlags::EMPTY_PATH, InodeId::STATX)?;
        if (stat.stx_dev_major, stat.stx_dev_minor) != step.device {
            return Ok(None);
        }
        let identity = step.identity(call.tid());
        let group_is_inherited = u32::from(stat.stx_mode) & S_ISGID != 0;
        let gid = if group_is_inherited {
            step.meta(parent.as_fd()).unwrap_or_default().gid
        } else {
            identity.gid.fs
        };
        let meta = Meta {
            uid: identity.uid.fs,
            gid,
            ..Meta::default()
        };
        Ok(Some(Self {
            parent,
            name: name.to_vec(),
            meta,
            group_is_inherited,
            is_shared: is_shared(stat.stx_mode.into()),
        }))
    }

    fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// Writes the owner of what was just made; the mode is set after that, because changing an owner takes bits of it away.
    fn own(&self, what: &What, step: &mut Step) -> Result<(), Errno> {
        if !step.keeps_owners() {
            let is_held =
                self.is_shared && matches!(what, What::Link(_) | What::Node(FileType::Fifo));
            if !is_held {
                super::owner::give(&self.parent, self.name(), &self.meta)?;
            }
            if !is_held && self.meta.device.is_none() {
                return Ok(());
            }
        }
        step.room_for_side_entry()?;
        meta::save_at(&self.parent, self.name(), &self.meta, &mut step.side)
            .map_err(|error| super::owner::errno(&error))?;
        step.remember(&self.parent, self.name())
    }
}

impl Step {
    /// Returns the file mode mask of a task.
    pub fn umask(&self, tid: u32) -> u32 {
        match &self.mediated {
            Some(mediated) => mediated.processes.of(tid).umask,
            None => Status::of(tid).map_or(0o022, |status| status.umask),
        }
    }
}

fn make(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    what: &What,
    mode: u32,
) -> Result<Answer, Stop> {
    if !matches!(what, What::Device(_)) && step.makes_plain(call, path) {
        return Ok(Answer::CarryOn);
    }
    let bare = path::without_slash(path);
    if bare.is_empty() || (bare.len() < path.len() && !matches!(what, What::Directory)) {
        // Nothing will come of it, and the kernel knows why.
        return Ok(Answer::CarryOn);
    }
    let (absolute, redirected) = match locate(step, call, dirfd, bare, false)? {
        Place::Tree(TreePlace {
            handle: Err(Errno::NOENT),
            path,
            redirected,
        }) => (path, redirected),
        Place::Tree(_) | Place::Descriptor(_) => return Ok(Answer::CarryOn),
        Place::Graft(place) => {
            return match place.node {
                super::nodes::Node::Native => Ok(Answer::CarryOn),
                super::nodes::Node::Missing => Err(Errno::NOENT.into()),
                _ => Err(Errno::EXIST.into()),
            };
        }
    };
    let Some(mut birth) = Birth::at(step, call, &absolute)? else {
        return Ok(Answer::CarryOn);
    };
    match what {
        What::Device(device) => {
            if !step.identity(call.tid()).can(CAP_MKNOD) {
                return Err(Errno::PERM.into());
            }
            birth.meta.device = Some(*device);
        }
        // The kernel's own way gives the same.
        _ if birth.meta.is_default() && !redirected => return Ok(Answer::CarryOn),
        _ => {}
    }
    call.check()?;
    make_inode(&birth, what)?;
    birth.own(what, step)?;
    set_mode(&birth, what, mode & !step.umask(call.tid()))?;
    Ok(Answer::Value(0))
}

fn make_inode(birth: &Birth, what: &What) -> Result<(), Errno> {
    let (parent, name) = (&birth.parent, birth.name());
    match what {
        What::Link(target) => fs::symlinkat(&target[..], parent, name),
        What::Directory => fs::mkdirat(parent, name, Mode::RWXU),
        What::Node(kind) => fs::mknodat(parent, name, *kind, Mode::RUSR | Mode::WUSR, 0),
        What::Device(_) => fs::mknodat(
            parent,
            name,
            FileType::RegularFile,
            Mode::RUSR | Mode::WUSR,
            0,
        ),
    }
}

fn set_mode(birth: &Birth, what: &What, mode: u32) -> Result<(), Errno> {
    // mkdir(2) takes neither set-user-ID nor set-group-ID; the latter comes from the directory above.
    let mode = match what {
        What::Link(_) => return Ok(()),
        What::Directory if birth.group_is_inherited => mode & 0o1777 | S_ISGID,
        What::Directory => mode & 0o1777,
        _ => mode & 0o7777,
    };
    let mode = Mode::from_raw_mode(mode);
    fs::chmodat(&birth.parent, birth.name(), mode, AtFlags::empty())
}

/// Opens a file that does not exist yet, if its owner is not the one the kernel would give it.
///
/// # Errors
/// What the file system answers.
pub fn open_new(
    step: &mut Step,
    call: &Call<'_>,
    place: &TreePlace,
    how: OpenHow,
) -> Result<Option<OwnedFd>, Stop> {
    if how.flags.contains(OFlags::TMPFILE) {
        return open_unnamed(step, call, place, how);
    }
    if !matches!(place.handle, Err(Errno::NOENT)) || place.path.ends_with(b"/") {
        return Ok(None);
    }
    let Some(birth) = Birth::at(step, call, &place.path)? else {
        return Ok(None);
    };
    if birth.meta.is_default() && !place.redirected {
        return Ok(None);
    }
    call.check()?;
    let flags = how.flags | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match fs::openat(&birth.parent, birth.name(), flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::EXIST) if !how.flags.contains(OFlags::EXCL) => return Ok(None),
        other => other?,
    };
    birth.own(&What::Node(FileType::RegularFile), step)?;
    fs::fchmod(
        &file,
        Mode::from_raw_mode(how.mode & !step.umask(call.tid())),
    )?;
    Ok(Some(file))
}

/// Opens a file without a name in a directory.
fn open_unnamed(
    step: &mut Step,
    call: &Call<'_>,
    place: &TreePlace,
    how: OpenHow,
) -> Result<Option<OwnedFd>, Stop> {
    let inside = [place.path.strip_suffix(b"/").unwrap_or(&place.path), b"/x"].concat();
    let Some(birth) = Birth::at(step, call, &inside)? else {
        return Ok(None);
    };
    if birth.meta.is_default() {
        return Ok(None);
    }
    let file = fs::openat(
        &birth.parent,
        c".",
        how.flags | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )?;
    if step.keeps_owners() {
        let stat = fs::statx(&file, c"", AtFlags::EMPTY_PATH, InodeId::STATX)?;
        step.room_for_side_entry()?;
        meta::save(file.as_fd(), &stat, &birth.meta, &mut step.side)
            .map_err(|error| super::owner::errno(&error))?;
        if let Some(names) = &mut step.names {
            names.keep(None, stat.stx_ino);
        }
    } else {
        super::owner::give(&file, c"", &birth.meta)?;
    }
    fs::fchmod(
        &file,
        Mode::from_raw_mode(how.mode & !step.umask(call.tid())),
    )?;
    Ok(Some(file))
}
