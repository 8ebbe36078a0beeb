//! chown(2) and its kin while owners are emulated: the owner is written beside the file's content
//! (`stepwell_sys::meta`), and everybody but root is held to the rules of chown(2).

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Statx};
use rustix::io::Errno;
use std::sync::Arc;
use stepwell_sys::memory;
use stepwell_sys::meta::{self, InodeId, Meta, MetaError};

use super::call::{Answer, Call, Stop};
use super::identity::{CAP_CHOWN, Identity, KEEP};
use super::nodes::{self, Node};
use super::open::reopen;
use super::path::{AT_FDCWD, Place, TreePlace, locate};
use super::step::Step;

/// Longest list of attribute names (`XATTR_LIST_MAX`).
const MAX_LIST: usize = 65_536;

/// chown(path, uid, gid)
#[cfg(target_arch = "x86_64")]
pub fn chown(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(
        step,
        call,
        AT_FDCWD,
        &call.path(0)?,
        true,
        (call.uint(1), call.uint(2)),
    )
}

/// lchown(path, uid, gid)
#[cfg(target_arch = "x86_64")]
pub fn lchown(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(
        step,
        call,
        AT_FDCWD,
        &call.path(0)?,
        false,
        (call.uint(1), call.uint(2)),
    )
}

/// fchown(fd, uid, gid)
pub fn fchown(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(
        step,
        call,
        call.int(0),
        b"",
        true,
        (call.uint(1), call.uint(2)),
    )
}

/// fchownat(dirfd, path, uid, gid, flags)
pub fn fchownat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let follow = call.uint(4) & libc::AT_SYMLINK_NOFOLLOW as u32 == 0;
    let path = call.path(1)?;
    if path.is_empty() && call.uint(4) & libc::AT_EMPTY_PATH as u32 == 0 {
        return Err(Errno::NOENT.into());
    }
    change(
        step,
        call,
        call.int(0),
        &path,
        follow,
        (call.uint(2), call.uint(3)),
    )
}

fn change(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    follow: bool,
    ids: (u32, u32),
) -> Result<Answer, Stop> {
    let file = match target(step, call, dirfd, path, follow)? {
        Target::Tree(file) => file,
        // Devices and the like are not the step's to give away; programs want to hear that it went well.
        Target::Elsewhere => return Ok(Answer::Value(0)),
    };
    let old = file.meta(step)?;
    let identity = step.identity(call.tid());
    if !may_change(&identity, &old, ids) {
        return Err(Errno::PERM.into());
    }
    call.check()?;
    let (uid, gid) = ids;
    let mut new = old.clone();
    new.uid = if uid == KEEP { old.uid } else { uid };
    new.gid = if gid == KEEP { old.gid } else { gid };
    file.drop_privileges(&mut new)?;
    if new != old {
        file.save(step, &new)?;
    }
    Ok(Answer::Value(0))
}

/// The rules of chown(2).
fn may_change(identity: &Identity, old: &Meta, (uid, gid): (u32, u32)) -> bool {
    let owns = identity.uid.fs == old.uid;
    identity.can(CAP_CHOWN)
        || (owns
            && (uid == KEEP || uid == old.uid)
            && (gid == KEEP || gid == old.gid || identity.in_group(gid)))
}

/// What a call that changes a file's metadata is about.
pub enum Target {
    /// A file of the tree.
    Tree(Box<Inode>),
    /// Something that the step does not own: a graft, a pipe, a terminal.
    Elsewhere,
}

/// A file of the tree, reached by a link that leads to it and nowhere else.
pub struct Inode {
    link: PathBuf,
    /// Keeps the link alive.
    _handle: std::os::fd::OwnedFd,
    stat: Statx,
}

/// Finds the file that a call is about.
///
/// # Errors
/// As the kernel's resolution.
pub fn target(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    follow: bool,
) -> Result<Target, Stop> {
    let place = locate(step, call, dirfd, path, follow)?;
    target_of(step, call, place)
}

/// Finds the file at a place.
///
/// # Errors
/// There is none, or only the kernel knows.
pub fn target_of(step: &Step, call: &Call<'_>, place: Place) -> Result<Target, Stop> {
    // A handle, because what a number of a process or a descriptor means may change between the look and the deed.
    let handle = match place {
        Place::Descriptor(fd) => {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let link = step.descriptor_link(call.tid(), fd);
            // Only the kernel knows what a bad descriptor is.
            let handle = fs::open(link, flags, Mode::empty()).map_err(|_| Stop::CarryOn)?;
            call.check()?;
            handle
        }
        Place::Tree(TreePlace {
            handle: Ok(handle), ..
        }) => handle,
        Place::Tree(TreePlace {
            handle: Err(errno), ..
        }) => return Err(errno.into()),
        Place::Graft(place) => match place.node {
            Node::Missing => return Err(Errno::NOENT.into()),
            Node::Magic(magic) => nodes::follow(step, &magic.link).map_err(|_| Stop::CarryOn)?,
            _ => return Ok(Target::Elsewhere),
        },
    };
    let stat =
        fs::statx(&handle, c"", AtFlags::EMPTY_PATH, InodeId::STATX).map_err(|_| Stop::CarryOn)?;
    if (stat.stx_dev_major, stat.stx_dev_minor) != step.device {
        return Ok(Target::Elsewhere);
    }
    Ok(Target::Tree(Box::new(Inode {
        link: own_link(handle.as_fd()),
        _handle: handle,
        stat,
    })))
}

impl Inode {
    /// Returns the link that leads to the file.
    pub fn link(&self) -> &Path {
        &self.link
    }

    /// Returns what is kept of the file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn meta(&self, step: &Step) -> Result<Meta, Errno> {
        let meta =
            meta::load_path(&self.link, &self.stat, &step.side).map_err(|error| errno(&error))?;
        Ok(meta.unwrap_or_default())
    }

    /// Keeps something else of the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, step: &mut Step, meta: &Meta) -> Result<(), Errno> {
        step.room_for_side_entry()?;
        meta::save_path(&self.link, &self.stat, meta, &mut step.side)
            .map_err(|error| errno(&error))?;
        if let Some(names) = &mut step.names {
            let path = fs::readlink(&self.link, Vec::new()).ok();
            names.keep_known(path.as_ref().map(|path| path.to_bytes()), &self.stat);
        }
        Ok(())
    }

    /// Returns the names of the attributes on disk, each ended by a zero.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn list(&self) -> Result<Vec<u8>, Errno> {
        let mut names = vec![0; MAX_LIST];
        match fs::listxattr(&self.link, &mut names[..]) {
            Ok(length) => names.truncate(length),
            Err(Errno::OPNOTSUPP) => names.clear(),
            Err(errno) => return Err(errno),
        }
        Ok(names)
    }

    /// Says whether the file is a symbolic link.
    pub fn is_link(&self) -> bool {
        FileType::from_raw_mode(self.stat.stx_mode.into()) == FileType::Symlink
    }

    /// A change of owner takes set-user-ID, set-group-ID and file capabilities away, root's change too.
    fn drop_privileges(&self, meta: &mut Meta) -> Result<(), Errno> {
        let mode = u32::from(self.stat.stx_mode);
        let kind = FileType::from_raw_mode(mode);
        if matches!(kind, FileType::Directory | FileType::Symlink) {
            return Ok(());
        }
        meta.xattrs.remove(&b"security.capability"[..]);
        // Without the group's right to execute, the bit meant locking, and stays.
        let group = if mode & 0o2010 == 0o2010 { 0o2000 } else { 0 };
        let dropped = mode & (0o4000 | group);
        if dropped == 0 {
            return Ok(());
        }
        fs::chmodat(
            fs::CWD,
            &self.link,
            Mode::from_raw_mode(mode & 0o7777 & !dropped),
            AtFlags::empty(),
        )
    }
}

/// File capabilities do not outlive what the file held.  Writes are not asked about, so this is for who opens it to write it anew, and
/// may: a program that runs may not be written to, for one.
///
/// # Errors
/// What is kept of the file cannot be written.
pub fn lose_capabilities(step: &mut Step, handle: BorrowedFd<'_>) -> Result<(), Errno> {
    let Some(mut meta) = step.meta(handle) else {
        return Ok(());
    };
    if meta.xattrs.remove(&b"security.capability"[..]).is_some()
        && reopen(handle, OFlags::WRONLY).is_ok()
    {
        let stat = fs::statx(handle, c"", AtFlags::EMPTY_PATH, InodeId::STATX)?;
        meta::save_path(&own_link(handle), &stat, &meta, &mut step.side)
            .map_err(|error| errno(&error))?;
    }
    Ok(())
}

pub fn own_link(handle: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// Returns the error number that a step sees.
pub fn errno(error: &MetaError) -> Errno {
    match error {
        MetaError::Sys(error) => error.errno,
        MetaError::Malformed { .. } => Errno::IO,
        MetaError::TooLarge { .. } => Errno::NOSPC,
    }
}

impl Step {
    /// Returns who a process is.
    pub fn identity(&self, tid: u32) -> Arc<Identity> {
        if self.identities.only_root() {
            return self.identities.get(None);
        }
        // A process that is gone, or whose limit cannot be read, is nobody special.
        self.identities.get(memory::tag(tid).unwrap_or(None))
    }

    /// Returns what is kept of an inode of the tree; none where all is as on disk.
    pub fn meta(&self, handle: BorrowedFd<'_>) -> Option<Meta> {
        meta::load_handle(handle, &self.side).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::types::Credentials;

    #[test]
    fn owners_give_files_only_to_their_groups() {
        let user = Identity::new(&Credentials {
            uid: 5,
            gid: 5,
            groups: vec![5, 7],
        });
        let own = Meta {
            uid: 5,
            gid: 5,
            ..Meta::default()
        };
        assert!(may_change(&user, &own, (KEEP, 7)) && may_change(&user, &own, (5, KEEP)));
        assert!(!may_change(&user, &own, (6, KEEP)) && !may_change(&user, &own, (KEEP, 8)));
        assert!(!may_change(&user, &Meta::default(), (KEEP, 7)));
        assert!(may_change(
            &Identity::new(&Credentials::default()),
            &own,
            (9, 9)
        ));
    }
}
