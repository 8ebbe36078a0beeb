//! What a RUN step sees besides its root file system, and that is in no layer; and the limits of its processes.
//!
//! What a mount *means* is said here; it is carried out without any mount call by `stepwell-steps`.  Contents
//! (of caches, secrets, agents) are never part of it.

use serde::{Deserialize, Serialize};

/// One `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mount", rename_all = "kebab-case")]
pub enum Mount {
    /// Files of another input; what is written to them is lost.
    Bind(BindMount),
    /// A directory that is kept from step to step.
    Cache(CacheMount),
    /// An empty directory that is gone after the step.
    Tmpfs(TmpfsMount),
    /// Something confidential, as a file or a variable.
    Secret(SecretMount),
    /// The socket of an SSH agent.
    Ssh(SshMount),
}

/// Files of another input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Absolute path in the step.
    pub target: String,
    /// Index of the input.
    pub from: u32,
    /// Absolute path of a file or directory in the input.
    pub source: String,
    /// Whether the step may write; else it gets EROFS.
    pub writable: bool,
}

/// A directory that is kept from step to step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMount {
    /// Absolute path in the step.
    pub target: String,
    /// Which.  Caches that begin differently (`base`, `mode`, `uid`, `gid`) are different ones, as in BuildKit.
    pub id: String,
    /// What happens when another step has it.
    pub sharing: Sharing,
    /// Whether it is only read.
    pub read_only: bool,
    /// What it begins with; empty where none.
    pub base: Option<CacheBase>,
    /// Permission bits of the directory when it is made.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What a cache begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheBase {
    /// Index of the input.
    pub from: u32,
    /// Absolute path of a directory in the input.
    pub source: String,
}

/// How steps share a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Steps may use it at once.
    #[default]
    Shared,
    /// A step that finds it in use gets another one.
    Private,
    /// A step that finds it in use waits.
    Locked,
}

/// An empty directory that is gone after the step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsMount {
    /// Absolute path in the step.
    pub target: String,
    /// Largest size in bytes.
    pub size: Option<u64>,
}

/// Something confidential.  One that was not given is left out, unless it is required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretMount {
    /// Which.
    pub id: String,
    /// Absolute path of the file in the step.
    pub target: Option<String>,
    /// Name of the variable.
    pub env: Option<String>,
    /// Whether the step fails where it was not given.
    pub required: bool,
    /// Permission bits of the file.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The socket of an SSH agent.  One that was not given is left out, unless it is required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshMount {
    /// Which.
    pub id: String,
    /// Absolute path of the socket in the step.
    pub target: String,
    /// Whether the step fails where it was not given.
    pub required: bool,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A limit of a step's processes (`--ulimit`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// As docker names it: one of [`Limit::NAMES`].
    pub name: String,
    /// Soft limit; none means unlimited.
    pub soft: Option<u64>,
    /// Hard limit; none means unlimited.
    pub hard: Option<u64>,
}

impl Limit {
    /// The limits that there are (getrlimit(2)).
    pub const NAMES: [&'static str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
}

impl Mount {
    /// Returns the absolute path in the step, where it has one.
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::Bind(m) => Some(&m.target),
            Self::Cache(m) => Some(&m.target),
            Self::Tmpfs(m) => Some(&m.target),
            Self::Secret(m) => m.target.as_deref(),
            Self::Ssh(m) => Some(&m.target),
        }
    }

    /// Returns the input whose files it needs, and the absolute path there.
    pub fn source(&self) -> Option<(u32, &str)> {
        match self {
            Self::Bind(m) => Some((m.from, &m.source)),
            Self::Cache(m) => m.base.as_ref().map(|b| (b.from, &*b.source)),
            Self::Tmpfs(_) | Self::Secret(_) | Self::Ssh(_) => None,
        }
    }
}
