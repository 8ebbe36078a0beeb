//! What the supervisor knows of its step: handles, processes, identities.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use stepwell_sys::error::{Context, SysError, SysResult};
use stepwell_sys::meta::SideTable;
use stepwell_sys::resolve;

use super::identity::Identities;
use super::mediated::Mediated;
use super::names::Names;
use super::pids::Pids;
use crate::run::mounts::{MountPoint, SecretFile};
use crate::run::rooms::Told;
use crate::run::types::{Counters, Ids, SupervisorReport, SupervisorSpec, Tier};

/// Stops a step that makes symlinks of other owners without end from filling memory.
const MAX_SIDE_ENTRIES: usize = 1_000_000;

/// Handles on the machine's own directories; only what [`super::nodes`] names is opened beneath them.
#[derive(Debug)]
pub struct Host {
    /// `/proc`.
    pub proc: OwnedFd,
    /// `/sys`, where there is one.
    pub sys: Option<OwnedFd>,
    /// `/dev`, where there is one.
    pub dev: Option<OwnedFd>,
}

/// A step and its tree.
#[derive(Debug)]
pub struct Step {
    /// Handle on the tree's root.
    pub root: OwnedFd,
    /// The root's path, as links in `/proc` show it.
    pub root_text: Vec<u8>,
    /// Device number (major, minor) of the tree's file system.
    pub device: (u32, u32),
    /// The machine's directories.
    pub host: Host,
    /// Private directory on the tree's file system.
    pub scratch: OwnedFd,
    /// Who holds owners and ids.
    pub ids: Ids,
    /// Whether `/proc`, `/dev` and `/sys` are the kernel's own, so that nothing is to be answered there.
    pub kernel_world: bool,
    /// Whether the tree is the root of a mount namespace of the step's: links in `/proc` then show paths in the tree.
    pub own_root: bool,
    /// Whether `/dev` holds real device nodes.
    pub real_devices: bool,
    /// The processes.
    pub pids: Pids,
    /// Emulated ids.
    pub identities: Identities,
    /// Emulated metadata of inodes that take no attribute.
    pub side: SideTable,
    /// Numbers of the pseudo-terminals that the step opened.
    pub ptys: HashSet<u32>,
    /// Directories of `/sys` and `/proc/sys` whose skeleton is complete.
    pub mirrored: HashSet<Vec<u8>>,
    /// How many entries they have together.
    pub mirrored_entries: usize,
    /// Whether any process may have a directory of a graft as its own or open: from then on a relative path may
    /// start in one.
    pub entered: bool,
    /// The names by which a path leads to anything that is answered here, where they are known.
    pub names: Option<Names>,
    /// Names of links at the top of the tree when the step began, such as `lib`: most paths through them are
    /// resolved with links at once.
    pub top_links: Vec<Vec<u8>>,
    /// Where something is mounted.
    pub mount_points: Vec<MountPoint>,
    /// Files whose content is in memory.
    pub secrets: Vec<SecretFile>,
    /// Directories that stand for file systems in memory, with a size.
    pub rooms: Vec<Told>,
    /// What was done.
    pub counters: Counters,
    /// What the supervisor keeps in the kernel's place, where no path may be left to it.
    pub mediated: Option<Mediated>,
}

impl Step {
    /// Opens the handles.
    ///
    /// # Errors
    /// A directory that cannot be opened; a missing `/sys` or `/dev` is fine.
    pub fn new(spec: SupervisorSpec) -> SysResult<Self> {
        let stat = fs::statx(
            &spec.root_dir,
            c"",
            AtFlags::EMPTY_PATH,
            StatxFlags::BASIC_STATS,
        )
        .context("statx", spec.root.to_string_lossy())?;
        let root_text = resolve::path_of(&spec.root_dir)
            .ok_or_else(|| SysError::new("readlink", "root of the tree", Errno::NOENT))?;
        let host = Host {
            proc: open_dir("/proc")?,
            sys: open_dir("/sys").ok(),
            dev: open_dir("/dev").ok(),
        };
        let mediated = (spec.tier == Tier::Mediated)
            .then(|| Mediated::new(&spec.root_dir, &spec.cwd, &spec.hostname))
            .transpose()?;
        Ok(Self {
            mediated,
            scratch: open_dir(&spec.scratch)?,
            root_text,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            host,
            ids: spec.ids,
            kernel_world: spec.kernel_world,
            own_root: spec.own_root,
            real_devices: spec.real_devices,
            pids: Pids::new(spec.init_pid, spec.pid_namespace),
            identities: Identities::new(&spec.credentials),
            side: spec.side,
            ptys: HashSet::new(),
            mirrored: HashSet::new(),
            mirrored_entries: 0,
            // What looks like any other name may be a secret.
            entered: !spec.secrets.is_empty(),
            names: spec.names,
            top_links: top_links(&spec.root_dir),
            mount_points: spec.mount_points,
            secrets: spec.secrets,
            rooms: spec.rooms,
            counters: Counters::default(),
            root: spec.root_dir,
        })
    }

    /// Says whether ids of processes are emulated.
    pub fn emulates(&self) -> bool {
        self.ids != Ids::Real
    }

    /// Says whether owners of files are, too.
    pub fn keeps_owners(&self) -> bool {
        !self.ids.owners_are_real()
    }

    /// Says whether one more inode can be kept beside.
    ///
    /// # Errors
    /// `ENOSPC` when it cannot.
    pub fn room_for_side_entry(&self) -> Result<(), Errno> {
        if self.side.len() < MAX_SIDE_ENTRIES {
            Ok(())
        } else {
            Err(Errno::NOSPC)
        }
    }

    /// Returns the path inside the tree of a path of ours, `None` for what lies elsewhere.
    pub fn inside<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        resolve::below(path, &self.root_text)
    }

    /// Ends the step.
    pub fn report(&mut self) -> SupervisorReport {
        SupervisorReport {
            side: std::mem::take(&mut self.side),
            counters: self.counters,
        }
    }
}

/// Lists the links in the root directory; none where it cannot be read.
fn top_links(root: &OwnedFd) -> Vec<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = fs::openat(root, c".", flags, Mode::empty()).and_then(Dir::new);
    let links = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_type() == FileType::Symlink);
    links
        .map(|entry| entry.file_name().to_bytes().to_vec())
        .collect()
}

fn open_dir(path: impl AsRef<std::path::Path>) -> SysResult<OwnedFd> {
    let path = path.as_ref();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).context("open", path.to_string_lossy())
}
