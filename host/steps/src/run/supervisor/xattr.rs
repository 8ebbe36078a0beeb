//! Extended attributes: the supervisor's own are hidden, and those that the kernel keeps from a step (file
//! capabilities and other `security.` and `trusted.` attributes) are emulated together with owners.

use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;
use stepwell_sys::meta::{self, Meta, XATTR_PREFIX};

use super::call::{Answer, Call, Stop};
use super::identity::{CAP_FOWNER, Identity};
use super::owner::{Inode, Target, target, target_of};
use super::path::{AT_FDCWD, Place, locate};
use super::step::Step;
use crate::run::types::Ids;

/// Longest name with its terminating zero (`XATTR_NAME_MAX`).
const MAX_NAME: usize = 256;

/// Longest value that is emulated: all of a file's share one attribute of the file system.
const MAX_VALUE: u64 = 32_768;

/// Longest value of any (`XATTR_SIZE_MAX`).
const MAX_READ: usize = 65_536;

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
    } else if step.keeps_owners() && emulated(name) {
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

/// Who can answer a call about an attribute that the file system keeps.
enum Way {
    /// The kernel.
    Kernel,
    /// Nobody: it is about a graft.
    Nobody,
    /// The supervisor: a path through a graft leads back into the tree, as C libraries and `tar` say a name beneath a
    /// descriptor.
    Here(Box<Inode>),
}

fn way(step: &mut Step, call: &Call<'_>, file: File) -> Result<Way, Stop> {
    let File::Path { follow } = file else {
        return Ok(Way::Kernel);
    };
    let path = call.path(0)?;
    if step.is_plain(call, &path) {
        return Ok(Way::Kernel);
    }
    let place = locate(step, call, AT_FDCWD, &path, follow)?;
    match &place {
        Place::Graft(graft) => match graft.node {
            super::nodes::Node::Native => return Ok(Way::Kernel),
            super::nodes::Node::Missing => return Err(Errno::NOENT.into()),
            // An open file is one of the tree's, or has none.
            super::nodes::Node::Magic(_) => {}
            _ => return Ok(Way::Nobody),
        },
        Place::Tree(tree) if tree.redirected => {}
        _ => return Ok(Way::Kernel),
    }
    Ok(match target_of(step, call, place)? {
        Target::Tree(inode) => Way::Here(inode),
        Target::Elsewhere => Way::Nobody,
    })
}

/// Attributes that mean the same whoever asks; lists of access have ids in them, which the supervisor would say otherwise where
/// it is not in the step's namespace.
fn is_plain(step: &Step, name: &[u8]) -> bool {
    name.starts_with(b"user.") || step.ids == Ids::RealOwners
}

fn set(step: &mut Step, call: &Call<'_>, file: File) -> Result<Answer, Stop> {
    let name = call.string(call.arg(1), MAX_NAME)?;
    match keeper(step, &name) {
        Keeper::Kernel => {
            if step.emulates() && emulated(&name) {
                may_set(&step.identity(call.tid()), &Meta::default())?;
            }
            return match way(step, call, file)? {
                Way::Kernel => Ok(Answer::CarryOn),
                Way::Here(inode) if is_plain(step, &name) => {
                    let (value, flags) = (value(call)?, XattrFlags::from_bits_retain(call.uint(4)));
                    call.check()?;
                    fs::setxattr(inode.link(), &name[..], &value, flags)?;
                    Ok(Answer::Value(0))
                }
                // By its link in `/proc/self/fd` a file takes no lists of access: programs do without them then.
                _ => Err(Errno::OPNOTSUPP.into()),
            };
        }
        Keeper::Hidden => return Err(Errno::PERM.into()),
        Keeper::Emulated => {}
    }
    let (value, flags) = (value(call)?, call.uint(4));
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

/// Reads what an attribute is to be.
fn value(call: &Call<'_>) -> Result<Vec<u8>, Stop> {
    let size = call.arg(3);
    if size > MAX_VALUE {
        return Err(Errno::NOSPC.into());
    }
    let mut value = vec![0; size as usize];
    call.read(call.arg(2), &mut value)?;
    Ok(value)
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
        Keeper::Kernel => {
            return match way(step, call, file)? {
                Way::Kernel => Ok(Answer::CarryOn),
                Way::Here(inode) if is_plain(step, &name) => {
                    let mut value = vec![0; MAX_READ];
                    let length = fs::getxattr(inode.link(), &name[..], &mut value[..])?;
                    give(call, call.arg(2), call.arg(3), &value[..length])
                }
                _ => Err(Errno::NODATA.into()),
            };
        }
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
        Keeper::Kernel => {
            if step.emulates() && emulated(&name) {
                may_set(&step.identity(call.tid()), &Meta::default())?;
            }
            return match way(step, call, file)? {
                Way::Kernel => Ok(Answer::CarryOn),
                Way::Here(inode) if is_plain(step, &name) => {
                    call.check()?;
                    fs::removexattr(inode.link(), &name[..])?;
                    Ok(Answer::Value(0))
                }
                _ => Err(Errno::NODATA.into()),
            };
        }
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
    let (inode, is_redirected) = match way(step, call, file)? {
        Way::Nobody => return Ok(Answer::Value(0)),
        Way::Here(inode) => (inode, true),
        Way::Kernel if !step.keeps_owners() => return Ok(Answer::CarryOn),
        Way::Kernel => match inode(step, call, file)? {
            Some(inode) => (inode, false),
            None => return Ok(Answer::CarryOn),
        },
    };
    let mut names = Vec::new();
    let on_disk = inode.list().map_err(Stop::Fail)?;
    let shown = |name: &&[u8]| {
        let hidden = name.is_empty() || name.starts_with(XATTR_PREFIX.as_bytes());
        !hidden && (!is_redirected || is_plain(step, name))
    };
    for name in on_disk.split(|byte| *byte == 0).filter(shown) {
        names.extend(name);
        names.push(0);
    }
    let emulated = if step.keeps_owners() {
        inode.meta(step)?.xattrs
    } else {
        Default::default()
    };
    for name in emulated.keys() {
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
