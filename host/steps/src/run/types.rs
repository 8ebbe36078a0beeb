//! The types that the parts of a RUN step share: who runs, in what tier, with whose ids.
//!
//! Nothing here does anything.  [`super::plan`] decides, [`super::init`] sets up, [`super::supervisor`]
//! answers what the step asks of the kernel.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stepwell_model::op::Network;
use stepwell_sys::meta::SideTable;

use super::mounts::{MountPoint, SecretFile};
use super::rooms::Told;
use super::supervisor::{Guarded, Names};

/// Who holds the owners of files and the ids of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ids {
    /// The kernel: changing owners and ids works, what is on disk is the truth.
    Real,
    /// The kernel those of files, the supervisor those of processes, which are all root's: of a container's root, who may
    /// give files away but not look into processes of other users.
    RealOwners,
    /// The supervisor: one id is mapped; owners, devices and the step's own ids are kept beside
    /// (`stepwell_sys::meta`).
    Emulated,
}

impl Ids {
    /// Says whether files belong to their owners on the disk.
    pub fn owners_are_real(self) -> bool {
        self != Self::Emulated
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real => "real ids",
            Self::RealOwners => "real owners, emulated ids",
            Self::Emulated => "emulated ids",
        })
    }
}

/// Who makes a step's `/proc`, `/dev` and `/sys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// The kernel, in a mount namespace of the step's own ([`super::world`]).
    Kernel,
    /// The supervisor: nothing is mounted.
    Supervisor,
}

/// How a step is kept apart from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// A user namespace (and pid, ipc, uts) of its own, and chroot(2).
    Userns,
    /// chroot(2) alone, with what other namespaces the kernel gives.
    Chroot,
    /// Nothing at all: the supervisor carries out every call that names a path.
    Mediated,
}

/// Ids that a process has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What a supervisor needs to know of its step.
#[derive(Debug)]
pub struct SupervisorSpec {
    /// The tree's root directory: absolute, without symlinks.
    pub root: PathBuf,
    /// A handle on it (`O_PATH`).
    pub root_dir: OwnedFd,
    /// A private directory outside the tree, for the grafted copies; it exists and is empty.
    pub scratch: PathBuf,
    /// Content of the step's `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// Content of the step's `/etc/hosts`.
    pub hosts: Vec<u8>,
    /// Name of the step's host, also the content of `/etc/hostname`.
    pub hostname: String,
    /// Who holds owners and ids.
    pub ids: Ids,
    /// The tier.
    pub tier: Tier,
    /// Whether the step has a pid namespace of its own, so that its pids are not the supervisor's.
    pub pid_namespace: bool,
    /// Outer pid of the process that holds the step: pid 1 of its namespace, or the subreaper all of its
    /// processes descend from.
    pub init_pid: u32,
    /// Whether the tree's `/dev` holds real device nodes, so that they need no intercepting.
    pub real_devices: bool,
    /// What of the network the step may reach.
    pub network: Network,
    /// The ids the step starts with.
    pub credentials: Credentials,
    /// Where something is mounted.
    pub mount_points: Vec<MountPoint>,
    /// Files whose content is in memory.
    pub secrets: Vec<SecretFile>,
    /// Directories that stand for file systems in memory, with a size.
    pub rooms: Vec<Told>,
    /// Emulated metadata of inodes that take no extended attribute, as left by earlier steps.
    pub side: SideTable,
    /// The directory that the step starts in, as its path in the step.
    pub cwd: String,
    /// Whether `/proc`, `/dev` and `/sys` are the kernel's own ([`super::world`]).
    pub kernel_world: bool,
    /// The special names of the tree, where they are known.
    pub names: Option<Names>,
    /// Whether the tree is the root of a mount namespace of the step's.
    pub own_root: bool,
}

/// What decides which system calls the supervisor has to be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterNeeds {
    /// Who holds owners and ids.
    pub ids: Ids,
    /// Whether the tree's `/dev` holds real device nodes.
    pub real_devices: bool,
    /// Whether the step has a pid namespace of its own.
    pub pid_namespace: bool,
    /// What of the step's mounts has to be watched over.
    pub mounts: Guarded,
    /// Whether no path may be left to the kernel.
    pub mediated: bool,
    /// Whether `/proc`, `/dev` and `/sys` are the kernel's own ([`super::world`]).
    pub kernel_world: bool,
    /// Whether the special names of the tree are kept.
    pub names: bool,
}

/// What a supervisor did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Notifications taken.
    pub notified: u64,
    /// Notifications that the kernel carried on with.
    pub continued: u64,
    /// Descriptors injected.
    pub injected: u64,
    /// Calls answered.
    pub emulated: u64,
    /// Calls that could not be answered as they should.
    pub failed: u64,
}

/// What a supervisor leaves behind.
#[derive(Debug, Default)]
pub struct SupervisorReport {
    /// Emulated metadata of inodes that take no extended attribute.
    pub side: SideTable,
    /// What it did.
    pub counters: Counters,
}
