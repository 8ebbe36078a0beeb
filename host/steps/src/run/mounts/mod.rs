//! Mounts of a step, without a mount: what the step is to see at a target is put there before it runs and taken out
//! afterwards; what the image has there lies aside meanwhile.
//!
//! | kind | what stands at the target |
//! | --- | --- |
//! | bind, cache | a directory or file of the caller's own, moved in ([`What::Lent`]) and back |
//! | tmpfs | an empty directory that is removed with all that is in it |
//! | secret | an empty file; its content is in memory, and given out by the supervisor ([`super::supervisor`]) |
//! | ssh | a socket on which [`agent`] listens |
//!
//! Where something stands is looked up in [`place`], by handles, beneath the tree's root.  No content of a secret is ever
//! written to a file system.  What is only to be read is defended twice: the supervisor answers EROFS, and the caller, to whom
//! security must not depend on that, lends nothing but private copies and looks at them when they come back.

mod agent;
mod error;
mod place;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Statx, Uid};
use rustix::io::Errno;
use stepwell_model::request::SecretValue;
use stepwell_sys::error::Context;
use stepwell_sys::meta::{InodeId, Meta, SideTable};
use stepwell_sys::resolve;
use stepwell_sys::{SysError, SysResult};

pub use self::error::MountError;

use self::agent::Agent;
use self::place::Place;
use super::supervisor::keeping_times;
use super::supervisor::remove::remove_tree;
use super::types::Ids;
use super::world::InMemory;

/// Something that is mounted in a step.
#[derive(Debug)]
pub struct StepMount {
    /// Absolute path in the step.
    pub target: String,
    /// Whether the step must not change it.
    pub read_only: bool,
    /// What it is.
    pub what: What,
}

/// What is mounted.
#[derive(Debug)]
pub enum What {
    /// A directory or file on the tree's file system, which nobody else uses: moved in, and back afterwards.
    Lent {
        /// A directory outside the tree: the root below which `source` is looked up.
        root: PathBuf,
        /// Absolute path below it.
        source: String,
        /// A directory on the same file system in which is kept, and written down, what other mounts hide in it, so that
        /// it is not lost where the builder dies.  None where what is lent may be thrown away then.
        keep: Option<PathBuf>,
    },
    /// An empty directory.
    Empty {
        /// Its permission bits.
        mode: u32,
        /// What fits in, in bytes, which the kernel keeps ([`super::world`]) or the builder looks after ([`super::rooms`]).
        size: Option<u64>,
    },
    /// A file whose content stays in memory.
    Secret {
        /// The content.
        content: SecretValue,
        /// Mode, user and group.
        owner: Owner,
    },
    /// The socket of an agent.
    Agent {
        /// Where the agent listens.
        socket: PathBuf,
        /// Mode, user and group.
        owner: Owner,
    },
}

/// Whose a file is, and who may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Ending of a note's name: something lies aside under the name without it, and belongs where the note says.
pub const HIDES: &str = "hides";
/// Ending of a note's name: where the note says there was nothing.
pub const STANDS: &str = "stands";

/// A secret's file, as the supervisor knows it.
#[derive(Debug, Clone)]
pub struct SecretFile {
    /// The file that stands for it.
    pub inode: InodeId,
    /// What is read from it.
    pub content: SecretValue,
    /// Whose it is.
    pub owner: Owner,
}

/// A place where something is mounted, as the supervisor knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Absolute path in the step, without links.
    pub path: Vec<u8>,
    /// Whether nothing may be changed from there on.
    pub read_only: bool,
    /// Whether it is a file.
    pub is_file: bool,
}

/// The mounts of a running step; [`Mounts::remove`] has to be called when nothing of the step is alive.
#[derive(Debug)]
pub(super) struct Mounts {
    root: OwnedFd,
    /// What the image has at the targets, by number.
    own: OwnedFd,
    placed: Vec<Placed>,
    agents: Vec<Agent>,
    secrets: Vec<SecretFile>,
    /// Owners of what takes no attribute.
    side: SideTable,
}

/// Where what a mount hides is kept meanwhile.
#[derive(Debug)]
struct Aside {
    dir: OwnedFd,
    /// Its name there, and whether there is anything.
    name: String,
    hides: bool,
    /// The file that says where it belongs, for whoever comes after us.
    note: Option<String>,
}

/// One mount that stands in its place.
#[derive(Debug)]
struct Placed {
    place: Place,
    /// What stands there.
    handle: OwnedFd,
    inode: InodeId,
    is_dir: bool,
    /// Where what it hides is kept.
    aside: Aside,
    /// Where what other mounts hide in it is kept.
    keep: Option<OwnedFd>,
    /// Where it goes back to; none where it is removed.
    home: Option<(OwnedFd, Vec<u8>)>,
    read_only: bool,
    /// Mode and size, where it is to be in memory.
    in_memory: Option<(u32, Option<u64>)>,
}

impl Mounts {
    /// Puts everything in its place, what lies highest first.  `scratch` is a private directory outside the tree.
    ///
    /// # Errors
    /// What is wrong with a mount; everything is as before then.
    pub fn install(
        root: impl AsFd,
        scratch: &Path,
        ids: Ids,
        mounts: Vec<StepMount>,
    ) -> Result<Self, MountError> {
        let in_general = |error: SysError| MountError::System {
            target: "/".to_owned(),
            error,
        };
        let open = || -> SysResult<Self> {
            let path = scratch.join("mounts");
            fs::mkdir(&path, Mode::RWXU).context("mkdir", path.to_string_lossy())?;
            Ok(Self {
                root: open_dir(root.as_fd(), c".")?,
                own: open_dir(fs::CWD, &path)?,
                placed: Vec::new(),
                agents: Vec::new(),
                secrets: Vec::new(),
                side: SideTable::default(),
            })
        };
        let mut all = open().map_err(in_general)?;
        let mut sorted = mounts;
        // A mount must not hide one that lies in it; of two at the same depth the order is the user's.
        sorted.sort_by_key(|m| m.target.split('/').filter(|name| !name.is_empty()).count());
        for mount in sorted {
            if let Err(error) = all.put(mount, ids) {
                all.remove().map_err(in_general)?;
                return Err(error);
            }
        }
        Ok(all)
    }

    /// Returns what the supervisor has to know of the places.
    pub fn points(&self) -> Vec<MountPoint> {
        let point = |placed: &Placed| MountPoint {
            path: placed.place.path(),
            read_only: placed.read_only,
            is_file: !placed.is_dir,
        };
        self.placed.iter().map(point).collect()
    }

    /// Returns what is to be in memory where the kernel makes it; none where a path is not text.
    pub fn in_memory(&self) -> Option<Vec<InMemory>> {
        let memory = |placed: &Placed| {
            let (mode, size) = placed.in_memory?;
            let path = String::from_utf8(placed.place.path()).ok();
            Some(path.map(|path| InMemory { path, mode, size }))
        };
        self.placed.iter().filter_map(memory).collect()
    }

    /// Returns where something is in memory, and what fits in, as far as that was said.
    pub fn in_memory_sizes(&self) -> Vec<(Vec<u8>, Option<u64>)> {
        let size = |placed: &Placed| Some((placed.place.path(), placed.in_memory?.1));
        self.placed.iter().filter_map(size).collect()
    }

    /// Returns the secrets that are files.
    pub fn secrets(&self) -> Vec<SecretFile> {
        self.secrets.clone()
    }

    /// Returns the owners of what takes no attribute.
    pub fn side(&self) -> &SideTable {
        &self.side
    }

    /// Takes everything out again and puts back what the image has.
    ///
    /// # Errors
    /// A system call that failed; the tree has to be thrown away then.
    pub fn remove(mut self) -> SysResult<()> {
        self.agents.clear();
        while let Some(placed) = self.placed.pop() {
            self.take_out(placed)?;
        }
        Ok(())
    }

    fn put(&mut self, mount: StepMount, ids: Ids) -> Result<(), MountError> {
        let target = mount.target.clone();
        let system = |error| MountError::System {
            target: target.clone(),
            error,
        };
        let place = Place::find(&self.root, target.as_bytes()).map_err(system)?;
        if place.is_made_up() {
            return Err(MountError::MadeUp { target });
        }
        let (from, is_dir) = match &mount.what {
            What::Lent { root, source, .. } => {
                let (dir, name, is_dir) = self.source(root, source, &target)?;
                (Some((dir, name)), is_dir)
            }
            What::Empty { .. } => (None, true),
            What::Secret { .. } | What::Agent { .. } => (None, false),
        };
        self.check_kind(&place, is_dir, &target)?;
        self.stand(place, from, is_dir, mount, ids).map_err(system)
    }

    /// Finds what is lent: its directory, its name there, and whether it is a directory.
    fn source(
        &self,
        root: &Path,
        source: &str,
        target: &str,
    ) -> Result<(OwnedFd, Vec<u8>, bool), MountError> {
        let missing = || MountError::NoSource {
            target: target.to_owned(),
            source_path: source.to_owned(),
        };
        let find = || -> SysResult<Option<(OwnedFd, Vec<u8>)>> {
            if source == "/" {
                let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
                    return Ok(None);
                };
                let name = std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec();
                return Ok(Some((open_dir(fs::CWD, parent)?, name)));
            }
            let place = Place::find(&open_dir(fs::CWD, root)?, source.as_bytes())?;
            Ok(place.parent().map(|dir| (dir, place.name().to_vec())))
        };
        let found = find().map_err(|error| MountError::System {
            target: target.to_owned(),
            error,
        })?;
        let (dir, name) = found.ok_or_else(missing)?;
        let stat = stat_at(&dir, &name).map_err(|_| missing())?;
        let is_dir = is_dir(&stat);
        Ok((dir, name, is_dir))
    }

    fn check_kind(&self, place: &Place, is_dir: bool, target: &str) -> Result<(), MountError> {
        let word = |dir: bool| if dir { "directory" } else { "file" };
        match place
            .parent()
            .and_then(|dir| stat_at(&dir, place.name()).ok())
        {
            Some(stat) if self::is_dir(&stat) != is_dir => Err(MountError::Kind {
                target: target.to_owned(),
                what: word(is_dir),
                there: word(!is_dir),
            }),
            _ => Ok(()),
        }
    }

    /// Moves aside what is there, and puts the mount in its place.
    fn stand(
        &mut self,
        mut place: Place,
        from: Option<(OwnedFd, Vec<u8>)>,
        is_dir: bool,
        mount: StepMount,
        ids: Ids,
    ) -> SysResult<()> {
        let dir = place.make_parents()?;
        let name = place.name().to_vec();
        let aside = self.aside(&place, stat_at(&dir, &name).is_ok())?;
        if aside.hides {
            keeping_times(dir.as_fd(), || {
                fs::renameat(&dir, &name[..], &aside.dir, &*aside.name)
                    .context("renameat", mount.target.clone())
            })?;
        }
        let read_only = mount.read_only;
        let in_memory = match mount.what {
            What::Empty { mode, size } => Some((mode, size)),
            _ => None,
        };
        let keep = match &mount.what {
            What::Lent {
                keep: Some(keep), ..
            } => Some(open_dir(fs::CWD, keep)?),
            _ => None,
        };
        let made = keeping_times(dir.as_fd(), || match &from {
            Some((home, source)) => keeping_times(home.as_fd(), || {
                fs::renameat(home, &source[..], &dir, &name[..])
                    .context("renameat", mount.target.clone())
            }),
            None => self.make(&dir, &name, mount, ids),
        });
        let placed = made.and_then(|()| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle =
                fs::openat(&dir, &name[..], flags, Mode::empty()).context("openat", "mount")?;
            let stat = stat_fd(&handle)?;
            Ok((handle, InodeId::of(&stat)))
        });
        match placed {
            Ok((handle, inode)) => {
                self.placed.push(Placed {
                    place,
                    handle,
                    inode,
                    is_dir,
                    aside,
                    keep,
                    home: from,
                    read_only,
                    in_memory,
                });
                Ok(())
            }
            Err(error) => {
                self.restore(&place, &dir, &aside)?;
                place.remove_parents()?;
                Err(error)
            }
        }
    }

    /// Makes what is lent by nobody.
    fn make(&mut self, dir: &OwnedFd, name: &[u8], mount: StepMount, ids: Ids) -> SysResult<()> {
        match mount.what {
            What::Lent { .. } => Ok(()),
            What::Empty { mode, .. } => {
                fs::mkdirat(dir, name, Mode::RWXU).context("mkdirat", &*mount.target)?;
                fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())
                    .context("fchmodat", &*mount.target)
            }
            What::Secret { content, owner } => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file =
                    fs::openat(dir, name, flags, Mode::RUSR).context("openat", &*mount.target)?;
                if ids.owners_are_real() {
                    fs::fchown(
                        &file,
                        Some(Uid::from_raw(owner.uid)),
                        Some(Gid::from_raw(owner.gid)),
                    )
                    .context("fchown", &*mount.target)?;
                }
                fs::fchmod(&file, Mode::from_raw_mode(owner.mode))
                    .context("fchmod", &*mount.target)?;
                let inode = InodeId::of(&stat_fd(&file)?);
                self.secrets.push(SecretFile {
                    inode,
                    content,
                    owner,
                });
                Ok(())
            }
            What::Agent { socket, owner } => {
                let agent = Agent::listen(dir, name, &socket)?;
                self.agents.push(agent);
                self.own_socket(dir, name, owner, ids)
                    .context("chown", &*mount.target)
            }
        }
    }

    fn own_socket(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        owner: Owner,
        ids: Ids,
    ) -> Result<(), Errno> {
        fs::chmodat(dir, name, Mode::from_raw_mode(owner.mode), AtFlags::empty())?;
        match ids {
            Ids::Real | Ids::RealOwners => fs::chownat(
                dir,
                name,
                Some(Uid::from_raw(owner.uid)),
                Some(Gid::from_raw(owner.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            ),
            Ids::Emulated => {
                let kept = Meta {
                    uid: owner.uid,
                    gid: owner.gid,
                    ..Meta::default()
                };
                self.side.set(InodeId::of(&stat_at(dir, name)?), kept);
                Ok(())
            }
        }
    }

    fn take_out(&self, placed: Placed) -> SysResult<()> {
        if let Some((home, name)) = &placed.home {
            self.send_home(&placed, home, name)?;
        }
        let Some(dir) = placed.place.parent() else {
            return Ok(());
        };
        self.restore(&placed.place, &dir, &placed.aside)?;
        placed.place.remove_parents()
    }

    /// Moves what was lent back, wherever the step moved it; what the step removed is gone.
    fn send_home(&self, placed: &Placed, home: &OwnedFd, name: &[u8]) -> SysResult<()> {
        let is_it = |dir: &OwnedFd, name: &[u8]| {
            stat_at(dir, name).is_ok_and(|stat| InodeId::of(&stat) == placed.inode)
        };
        let dir = placed.place.parent();
        if let Some(dir) = dir.filter(|dir| is_it(dir, placed.place.name())) {
            return keeping_times(dir.as_fd(), || {
                keeping_times(home.as_fd(), || {
                    fs::renameat(&dir, placed.place.name(), home, name).context("renameat", "mount")
                })
            });
        }
        let Some(path) = resolve::path_of(&placed.handle) else {
            return Ok(());
        };
        let moved =
            PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(path));
        let (Some(parent), Some(last)) = (moved.parent(), moved.file_name()) else {
            return Ok(());
        };
        // A file that was removed has a path that names nothing.
        let Ok(parent) = open_dir(fs::CWD, parent) else {
            return Ok(());
        };
        let last = std::os::unix::ffi::OsStrExt::as_bytes(last);
        if !is_it(&parent, last) {
            return Ok(());
        }
        keeping_times(home.as_fd(), || {
            fs::renameat(&parent, last, home, name).context("renameat", "mount")
        })
    }

    /// Removes what is left at a place, and puts the image's own back.
    fn restore(&self, place: &Place, dir: &OwnedFd, aside: &Aside) -> SysResult<()> {
        keeping_times(dir.as_fd(), || {
            let name = std::ffi::CString::new(place.name()).unwrap_or_default();
            remove_tree(dir.as_fd(), &name, &self.own)?;
            if !aside.hides {
                return Ok(());
            }
            match fs::renameat(&aside.dir, &*aside.name, dir, place.name()) {
                // The step removed the directory that it lay in, and so what it could not see there too.
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(SysError::new("renameat", "what a mount hid", errno)),
            }
        })?;
        match &aside.note {
            Some(note) => {
                fs::unlinkat(&aside.dir, &**note, AtFlags::empty()).context("unlinkat", "note")
            }
            None => Ok(()),
        }
    }

    /// Says where what lies at a place is kept meanwhile; within something that is lent for good, that is its own
    /// directory, in which it is noted first.
    fn aside(&self, place: &Place, hides: bool) -> SysResult<Aside> {
        let name = self.placed.len().to_string();
        let around = self
            .placed
            .iter()
            .filter_map(|p| Some((place.below(&p.place)?, p.keep.as_ref()?)))
            .min_by_key(|(below, _)| below.len());
        let Some((below, dir)) = around else {
            return Ok(Aside {
                dir: self.own.try_clone().context("dup", "directory")?,
                name,
                hides,
                note: None,
            });
        };
        let note = format!("{name}.{}", if hides { HIDES } else { STANDS });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file =
            fs::openat(dir, &*note, flags, Mode::RUSR | Mode::WUSR).context("openat", "note")?;
        rustix::io::write(&file, &below).context("write", "note")?;
        Ok(Aside {
            dir: dir.try_clone().context("dup", "directory")?,
            name,
            hides,
            note: Some(note),
        })
    }
}

fn open_dir(dir: impl AsFd, path: impl rustix::path::Arg) -> SysResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, path, flags, Mode::empty()).context("openat", "directory of a mount")
}

fn stat_at(dir: &OwnedFd, name: &[u8]) -> Result<Statx, Errno> {
    fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, InodeId::STATX)
}

fn stat_fd(fd: &OwnedFd) -> SysResult<Statx> {
    fs::statx(fd, c"", AtFlags::EMPTY_PATH, InodeId::STATX).context("statx", "mount")
}

fn is_dir(stat: &Statx) -> bool {
    fs::FileType::from_raw_mode(stat.stx_mode.into()) == fs::FileType::Directory
}

#[cfg(test)]
mod tests;
