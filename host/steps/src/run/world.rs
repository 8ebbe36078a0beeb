//! `/proc`, `/dev`, `/sys` and file systems in memory of the kernel's own, where a step may have them: then nothing in
//! them has to be made up, and hardly a call of the step is asked about.
//!
//! They are attached in a mount namespace that only the step has, and that goes with it.  What other container runtimes
//! cover or make read-only is so here.  Where any of it is denied, the supervisor makes what is there instead
//! ([`super::supervisor`]); a Dockerfile must not depend on which of the two it is.

use serde::{Deserialize, Serialize};
use stepwell_sys::mount::Limits;

use super::plan::SetupStep;

/// What the kernel is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelWorld {
    /// Absolute path of the tree, outside.
    pub tree: String,
    /// Whether the tree becomes the root of the step's mount namespace, so that nothing lies above it and the step may use
    /// chroot(2).
    pub own_root: bool,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Further file systems in memory.
    pub in_memory: Vec<InMemory>,
}

/// A file system in memory that is mounted in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InMemory {
    /// Absolute path in the step, without links.
    pub path: String,
    /// Permission bits of its root.
    pub mode: u32,
    /// Bytes; half of the machine's memory where nothing is said (tmpfs(5)).
    pub size: Option<u64>,
}

/// What is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSystem {
    /// A new one.
    New {
        /// Its kind.
        kind: String,
        /// Its options.
        options: Vec<(String, String)>,
    },
    /// What the machine has at this path, with all that is mounted below it.
    Machines(String),
    /// What the step has at the same path already.
    Itself,
}

/// An entry of a directory that was made for the step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// An empty file, for something to be attached to.
    File,
    /// A link to this.
    Link(String),
}

/// Parts of `/proc` that are only to be read, as in docker.
const READ_ONLY: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Files of `/proc` that tell of the machine or of keys: they look empty.
const COVERED_FILES: &[&str] = &[
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "timer_list",
    "timer_stats",
];

/// The same of directories.  Number 1 is the builder's process that holds the step: nobody may look into it, and a program that
/// walks through all of `/proc` should not stumble over that.
const COVERED_DIRECTORIES: &[&str] = &[
    "/proc/1",
    "/proc/acpi",
    "/proc/asound",
    "/proc/scsi",
    "/proc/tty/driver",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

/// Devices of `/dev`, and what of the machine's they are; there is no console.
const DEVICES: &[(&str, &str)] = &[
    ("console", "null"),
    ("full", "full"),
    ("null", "null"),
    ("random", "random"),
    ("tty", "tty"),
    ("urandom", "urandom"),
    ("zero", "zero"),
];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

const READ: Limits = Limits {
    read_only: true,
    no_devices: true,
    no_programs: true,
};

const DATA: Limits = Limits {
    read_only: false,
    no_devices: true,
    no_programs: true,
};

/// Lists what is to be done before the tree becomes the root.
pub fn steps(world: &KernelWorld) -> Vec<SetupStep> {
    let mut steps = vec![SetupStep::AttachTree {
        path: world.tree.clone(),
    }];
    steps.push(attach(new("proc", &[]), "/proc", DATA));
    if world.own_root {
        // In a chroot the kernel makes none.
        steps.push(SetupStep::NoUserNamespaces);
    }
    for name in READ_ONLY {
        steps.push(if_there(FileSystem::Itself, format!("/proc/{name}"), READ));
    }
    for name in COVERED_FILES {
        let null = FileSystem::Machines("/dev/null".to_owned());
        steps.push(if_there(null, format!("/proc/{name}"), DEVICE));
    }
    let sys = FileSystem::Machines("/sys".to_owned());
    steps.push(if_there(sys, "/sys".to_owned(), READ));
    for path in COVERED_DIRECTORIES {
        steps.push(if_there(new("tmpfs", &[]), (*path).to_owned(), READ));
    }
    steps.extend(dev(world.shm_size));
    for InMemory { path, mode, size } in &world.in_memory {
        let limits = Limits {
            no_programs: false,
            ..DATA
        };
        steps.push(attach(memory(*mode, *size), path, limits));
    }
    steps
}

/// Nobody can change a device's mode; to write to it is no change.
const DEVICE: Limits = Limits {
    read_only: true,
    no_devices: false,
    no_programs: true,
};

/// `/dev` itself is the directory that stands there while a step runs (`supervisor/grafts.rs`), with what was put into it.
fn dev(shm_size: u64) -> Vec<SetupStep> {
    let entry = |name: &str, entry| SetupStep::Make {
        entry,
        at: format!("/dev/{name}"),
    };
    let mut steps = Vec::new();
    for (name, device) in DEVICES {
        let device = FileSystem::Machines(format!("/dev/{device}"));
        steps.push(entry(name, Entry::File));
        steps.push(attach(device, &format!("/dev/{name}"), DEVICE));
    }
    for (name, target) in LINKS {
        steps.push(entry(name, Entry::Link((*target).to_owned())));
    }
    // The options are those of docker; group 5 is `tty`.
    let terminals = new(
        "devpts",
        &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
    );
    let terminal = Limits {
        read_only: false,
        ..DEVICE
    };
    for (name, file_system, limits) in [
        ("pts", terminals, terminal),
        ("shm", memory(0o1777, Some(shm_size)), DATA),
        ("mqueue", new("mqueue", &[]), DATA),
    ] {
        steps.push(attach(file_system, &format!("/dev/{name}"), limits));
    }
    steps
}

fn new(kind: &str, options: &[(&str, &str)]) -> FileSystem {
    FileSystem::New {
        kind: kind.to_owned(),
        options: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn memory(mode: u32, size: Option<u64>) -> FileSystem {
    let mode = format!("{mode:o}");
    let size = size.map(|size| size.to_string());
    let mut options = vec![("mode", &*mode)];
    options.extend(size.as_deref().map(|size| ("size", size)));
    new("tmpfs", &options)
}

fn attach(what: FileSystem, at: &str, limits: Limits) -> SetupStep {
    SetupStep::Attach {
        what,
        at: at.to_owned(),
        limits,
        if_there: false,
    }
}

fn if_there(what: FileSystem, at: String, limits: Limits) -> SetupStep {
    SetupStep::Attach {
        what,
        at,
        limits,
        if_there: true,
    }
}
