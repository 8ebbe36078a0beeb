//! chown(2) and its kin while owners are emulated: the owner is written beside the file's content
//! (`stepwell_sys::meta`), and everybody but root is held to the rules of chown(2).

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Statx, Uid};
use rustix::io::Errno;
use std::sync::Arc;
use stepwell_sys::meta::{self, InodeId, Meta, MetaError};
use stepwell_sys::{memory, resolve};

use super::call::{Answer, Call, Stop};
use super::identity::{CAP_CHOWN, Identity, KEEP};
use super::nodes::{self, Node};
use super::open::reopen;
use super::path::{AT_FDCWD, Place, TreePlace, locate, split};
use super::step::Step;

const S_ISVTX: u32 = 0o1000;

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
    // The kernel takes file capabilities away even where the owner stays.
    if new != old || !step.keeps_owners() {
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
    /// What the link leads to.
    handle: std::os::fd::OwnedFd,
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
        handle,
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
        if !step.keeps_owners() {
            return Ok(step.owner_of(&self.stat));
        }
        let meta =
            meta::load_path(&self.link, &self.stat, &step.side).map_err(|error| errno(&error))?;
        Ok(meta.unwrap_or_default())
    }

    /// Keeps something else of the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, step: &mut Step, meta: &Meta) -> Result<(), Errno> {
        if !step.keeps_owners() && !self.is_held() {
            step.side.remove(InodeId::of(&self.stat));
            return give(&self.handle, c"", meta);
        }
        if !step.keeps_owners() {
            give(&self.handle, c"", &Meta::default())?;
        }
        step.room_for_side_entry()?;
        meta::save_path(&self.link, &self.stat, meta, &mut step.side)
            .map_err(|error| errno(&error))?;
        if let Some(names) = &mut step.names {
            let path = fs::readlink(&self.link, Vec::new()).ok();
            names.keep_known(path.as_ref().map(|path| path.to_bytes()), &self.stat);
        }
        Ok(())
    }

    /// Says whether the owner of an inode of a container's root is kept although owners are real: see [`is_shared`].
    fn is_held(&self) -> bool {
        takes_no_attribute(&self.stat) && is_among_strangers(self.handle.as_fd())
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

/// Makes an inode on the disk belong to whom `meta` says; an empty name means what `dir` is a handle on.
///
/// # Errors
/// What the kernel answers.
pub fn give(dir: impl AsFd, name: impl rustix::path::Arg, meta: &Meta) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    fs::chownat(dir, name, Some(uid), Some(gid), flags)
}

/// Says whether a directory of this mode is one that strangers share.  In it the kernel lets nobody follow links, nor open pipes with
/// O_CREAT, but who owns them (proc_sys_fs(5), `protected_symlinks`, `protected_fifos`), and everybody in a step is root for it:
/// so links and pipes are root's on the disk there, and their owners are kept.
pub fn is_shared(mode: u32) -> bool {
    mode & S_ISVTX != 0 && mode & 0o022 != 0
}

/// Says whether a file lies in such a directory.
pub fn is_among_strangers(handle: BorrowedFd<'_>) -> bool {
    let parent = || {
        let path = resolve::path_of(handle)?;
        let (directory, _) = split(&path)?;
        fs::stat(directory).ok()
    };
    parent().is_some_and(|parent| is_shared(parent.st_mode))
}

/// Says whether an inode is a link or a pipe.
fn takes_no_attribute(stat: &Statx) -> bool {
    matches!(
        FileType::from_raw_mode(stat.stx_mode.into()),
        FileType::Symlink | FileType::Fifo
    )
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

    /// Returns who owns an inode of the tree, and what else is known of it; none where all is as on disk, and root's.
    pub fn meta(&self, handle: BorrowedFd<'_>) -> Option<Meta> {
        if self.keeps_owners() {
            return self.kept(handle);
        }
        let stat = fs::statx(handle, c"", AtFlags::EMPTY_PATH, InodeId::STATX).ok()?;
        Some(self.owner_of(&stat))
    }

    /// Returns who owns an inode where owners are real.
    fn owner_of(&self, stat: &Statx) -> Meta {
        let on_disk = || Meta {
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            ..Meta::default()
        };
        self.side
            .get(InodeId::of(stat))
            .cloned()
            .unwrap_or_else(on_disk)
    }

    /// Returns what is kept of an inode of the tree beside the disk; none where all is as on disk.
    pub fn kept(&self, handle: BorrowedFd<'_>) -> Option<Meta> {
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
