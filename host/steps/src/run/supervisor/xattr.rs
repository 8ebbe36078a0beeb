//! Extended attributes: the supervisor's own are hidden, and those that the kernel keeps from a step (file
//! capabilities and other `security.` and `trusted.` attributes) are emulated together with owners.

use rustix::io::Errno;
use stepwell_sys::meta::{self, Meta, XATTR_PREFIX};

use super::call::{Answer, Call, Stop};
use super::identity::{CAP_FOWNER, Identity};
use super::owner::{Inode, Target, target};
use super::path::{AT_FDCWD, Place, locate};
use super::step::Step;

/// Longest name with its terminating zero (`XATTR_NAME_MAX`).
const MAX_NAME: usize = 256;

/// Longest value that is emulated: all of a file's share one attribute of the file system.
const MAX_VALUE: u64 = 32_768;

const XATTR_CREATE: u32 = 1;
const XATTR_REPLACE: u32 = 2;

/// How the file of a call is given.
#[derive(Clone, Copy)]
enum File {
    Path { follow: bool },
    Descriptor,
}

const FOLLOW: File = File::Path { follow: true };
const NO_FOLLOW: File = File::Path { follow: false };

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident => $common:ident, $file:expr;)*) => {
        $($(#[$doc])* pub fn $name(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
            $common(step, call, $file)
        })*
    };
}

calls! {
    /// setxattr(path, name, value, size, flags)
    setxattr => set, FOLLOW;
    /// lsetxattr(path, name, value, size, flags)
    lsetxattr => set, NO_FOLLOW;
    /// fsetxattr(fd, name, value, size, flags)
    fsetxattr => set, File::Descriptor;
    /// getxattr(path, name, value, size)
    getxattr => get, FOLLOW;
    /// lgetxattr(path, name, value, size)
    lgetxattr => get, NO_FOLLOW;
    /// fgetxattr(fd, name, value, size)
    fgetxattr => get, File::Descriptor;
    /// listxattr(path, list, size)
    listxattr => list, FOLLOW;
    /// llistxattr(path, list, size)
    llistxattr => list, NO_FOLLOW;
    /// flistxattr(fd, list, size)
    flistxattr => list, File::Descriptor;
    /// removexattr(path, name)
    removexattr => remove, FOLLOW;
    /// lremovexattr(path, name)
    lremovexattr => remove, NO_FOLLOW;
    /// fremovexattr(fd, name)
    fremovexattr => remove, File::Descriptor;
}

/// Who is responsible for an attribute.
#[derive(Debug, PartialEq, Eq)]
enum Keeper {
    /// The file system.
    Kernel,
    /// [`Meta::xattrs`].
    Emulated,
    /// The attribute is ours and does not exist for a step.
    Hidden,
}

fn keeper(step: &Step, name: &[u8]) -> Keeper {
    if name.starts_with(XATTR_PREFIX.as_bytes()) {
        Keeper::Hidden
    } else if step.emulates() && emulated(name) {
        Keeper::Emulated
    } else {
        Keeper::Kernel
    }
}

fn emulated(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"trusted.")
}

/// Finds the file; `None` where it has no attributes, or where a call on a graft should fail like that.
fn inode(step: &mut Step, call: &Call<'_>, file: File) -> Result<Option<Box<Inode>>, Stop> {
    let found = match file {
        File::Path { follow } => target(step, call, AT_FDCWD, &call.path(0)?, follow)?,
        File::Descriptor => target(step, call, call.int(0), b"", true)?,
    };
    match found {
        Target::Tree(inode) => Ok(Some(inode)),
        Target::Elsewhere => Ok(None),
    }
}

/// Says whether a call that the kernel could answer has to be answered here, because it is about a graft.
fn in_graft(step: &mut Step, call: &Call<'_>, file: File) -> Result<bool, Stop> {
    match file {
        File::Descriptor => Ok(false),
        File::Path { follow } => match locate(step, call, AT_FDCWD, &call.path(0)?, follow)? {
            Place::Graft(place) => match place.node {
                super::nodes::Node::Native => Ok(false),
                super::nodes::Node::Missing => Err(Errno::NOENT.into()),
                // What an open file has is asked of the file itself.
                _ => Ok(true),
            },
            Place::Tree(place) => Ok(place.redirected),
            Place::Descriptor(_) => Ok(false),
        },
    }
}

fn set(step: &mut Step, call: &Call<'_>, file: File) -> Result<Answer, Stop> {
    let name = call.string(call.arg(1), MAX_NAME)?;
    match keeper(step, &name) {
        // By its link in `/proc/self/fd` a file takes no lists of access: programs do without them then.
        Keeper::Kernel if in_graft(step, call, file)? => return Err(Errno::OPNOTSUPP.into()),
        Keeper::Kernel => return Ok(Answer::CarryOn),
        Keeper::Hidden => return Err(Errno::PERM.into()),
        Keeper::Emulated => {}
    }
    let (size, flags) = (call.arg(3), call.uint(4));
    if size > MAX_VALUE {
        return Err(Errno::NOSPC.into());
    }
    let mut value = vec![0; size as usize];
    call.read(call.arg(2), &mut value)?;
    let inode = inode(step, call, file)?.ok_or(Errno::OPNOTSUPP)?;
    let mut meta = inode.meta(step)?;
    may_set(&step.identity(call.tid()), &meta)?;
    let there = meta.xattrs.contains_key(&name);
    match flags {
        XATTR_CREATE if there => return Err(Errno::EXIST.into()),
        XATTR_REPLACE if !there => return Err(Errno::NODATA.into()),
        _ => {}
    }
    if inode.is_link() && name == b"security.capability" {
        return Err(Errno::PERM.into());
    }
    meta.xattrs.insert(name, value);
    if meta.encode().len() > meta::MAX_ENCODED {
        return Err(Errno::NOSPC.into());
    }
    call.check()?;
    inode.save(step, &meta)?;
    Ok(Answer::Value(0))
}

/// These attributes are root's to set.
fn may_set(identity: &Identity, meta: &Meta) -> Result<(), Errno> {
    if identity.can(CAP_FOWNER) || (identity.uid.fs == 0 && meta.uid == 0) {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

fn get(step: &mut Step, call: &Call<'_>, file: File) -> Result<Answer, Stop> {
    let name = call.string(call.arg(1), MAX_NAME)?;
    match keeper(step, &name) {
        Keeper::Kernel if in_graft(step, call, file)? => return Err(Errno::NODATA.into()),
        Keeper::Kernel => return Ok(Answer::CarryOn),
        Keeper::Hidden => return Err(Errno::NODATA.into()),
        Keeper::Emulated => {}
    }
    let inode = inode(step, call, file)?.ok_or(Errno::NODATA)?;
    let meta = inode.meta(step)?;
    let value = meta.xattrs.get(&name).ok_or(Errno::NODATA)?;
    give(call, call.arg(2), call.arg(3), value)
}

fn remove(step: &mut Step, call: &Call<'_>, file: File) -> Result<Answer, Stop> {
    let name = call.string(call.arg(1), MAX_NAME)?;
    match keeper(step, &name) {
        Keeper::Kernel => return Ok(Answer::CarryOn),
        Keeper::Hidden => return Err(Errno::NODATA.into()),
        Keeper::Emulated => {}
    }
    let inode = inode(step, call, file)?.ok_or(Errno::NODATA)?;
    let mut meta = inode.meta(step)?;
    may_set(&step.identity(call.tid()), &meta)?;
    meta.xattrs.remove(&name).ok_or(Errno::NODATA)?;
    call.check()?;
    inode.save(step, &meta)?;
    Ok(Answer::Value(0))
}

fn list(step: &mut Step, call: &Call<'_>, file: File) -> Result<Answer, Stop> {
    if in_graft(step, call, file)? {
        return Ok(Answer::Value(0));
    }
    if !step.emulates() {
        return Ok(Answer::CarryOn);
    }
    let Some(inode) = inode(step, call, file)? else {
        return Ok(Answer::CarryOn);
    };
    let meta = inode.meta(step)?;
    let mut names = Vec::new();
    let on_disk = inode.list().map_err(Stop::Fail)?;
    let shown = |name: &&[u8]| !name.is_empty() && !name.starts_with(XATTR_PREFIX.as_bytes());
    for name in on_disk.split(|byte| *byte == 0).filter(shown) {
        names.extend(name);
        names.push(0);
    }
    for name in meta.xattrs.keys() {
        names.extend(name);
        names.push(0);
    }
    give(call, call.arg(1), call.arg(2), &names)
}

/// Writes a result, or says how long it is.
fn give(call: &Call<'_>, address: u64, size: u64, bytes: &[u8]) -> Result<Answer, Stop> {
    if size != 0 {
        if (size as usize) < bytes.len() {
            return Err(Errno::RANGE.into());
        }
        call.write(address, bytes)?;
    }
    Ok(Answer::Value(bytes.len() as i64))
}
