//! What the lowering asks of its host, and what it hands back.  The component maps it onto the imports of
//! `stepwell:frontend`; tests implement it in memory.
//!
//! The data mirrors `stepwell-model`: guests may not depend on crates of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use stepwell_patterns::remote::GitSource;

use crate::diagnostic::{Diagnostic, Span};

/// What is asked about a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Call {
    /// Its build graph.
    #[default]
    Build,
    /// What is wrong with it, in all stages where no target is named; images that cannot be had are no errors.
    Check,
}

/// What is to be built.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// What is asked.
    pub call: Call,
    /// Name and content of the ignore file that belongs to the Dockerfile, where that lies outside the context.
    pub ignore_file: Option<(String, Vec<u8>)>,
    /// Name of the Dockerfile as the user gave it.
    pub file: String,
    /// Its content.
    pub content: Vec<u8>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`, in order; a later one of the same name wins.
    pub build_args: Vec<(String, String)>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// For what the result is.
    pub target_platform: Platform,
    /// What steps run on.
    pub build_platform: Platform,
    /// `--build-context`.
    pub contexts: Vec<NamedContext>,
    /// `--add-host`: name and address.
    pub hosts: Vec<(String, String)>,
    /// `--network`.
    pub network: Network,
    /// `--shm-size`, in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft and hard limit; none means unlimited.
    pub limits: Vec<Limit>,
}

/// A limit of a step's processes: name, soft and hard value; none means unlimited.
pub type Limit = (String, Option<u64>, Option<u64>);

/// A context that the user gave a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedContext {
    /// The name; with `::os/architecture` behind it, it is for stages of that platform only.
    pub name: String,
    /// The reference of an image; nothing for a directory.
    pub image: Option<String>,
}

/// An operating system and a processor, in the words of Go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v8`, or empty.
    pub variant: String,
}

/// What of the network a step may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The builder's choice.
    #[default]
    Default,
    /// Nothing.
    None,
    /// The host's.
    Host,
}

/// A vertex of the graph, as the host numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VertexId(pub u32);

/// One operation, for what platform, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// What is done.
    pub op: Op,
    /// For what platform.
    pub platform: Platform,
    /// Where it was written.
    pub origin: Origin,
}

/// Where a vertex was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Name of the file.
    pub file: String,
    /// Place in the file; line 0 means none.
    pub span: Span,
    /// The instruction, on one line.
    pub text: String,
    /// For example `build 2/5`; may be empty.
    pub stage: String,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The file system of an image.
    Image {
        /// Normalised reference.
        reference: String,
        /// Digest of the manifest.
        digest: String,
    },
    /// A directory of the user's.
    Context {
        /// `""` for the main one.
        name: String,
        /// Ignore patterns, in order.
        exclude: Vec<String>,
    },
    /// A file behind an http address.
    Http {
        /// Where it is.
        url: String,
        /// What it is called.
        name: String,
        /// Digest that it has to have.
        checksum: Option<String>,
    },
    /// The files of a repository.
    Git(Box<GitSource>),
    /// A command.
    Run(Box<Run>),
    /// Files made without running anything.
    Files {
        /// What is changed; none means an empty file system.
        base: Option<VertexId>,
        /// What is done, in order.
        actions: Vec<FileAction>,
    },
    /// The layers of all on top of each other.
    Merge(Vec<VertexId>),
}

/// A command run on a root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The root file system.
    pub root: VertexId,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// Variables that do not count for reuse.
    pub uncounted_env: Vec<(String, String)>,
    /// Absolute.
    pub cwd: String,
    /// `user[:group]`, or empty.
    pub user: String,
    /// What of the network it may reach.
    pub network: Network,
    /// Path, content and permissions of files that are in no layer.
    pub files: Vec<(String, Vec<u8>, u32)>,
    /// Name and address.
    pub hosts: Vec<(String, String)>,
    /// What it sees besides the root file system, in order.
    pub mounts: Vec<Mount>,
    /// Size of `/dev/shm`, in bytes.
    pub shm_size: Option<u64>,
    /// Limits of its processes.
    pub limits: Vec<Limit>,
    /// Its host name; empty means the usual one.
    pub hostname: String,
}

/// How steps share a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// They may use it at once.
    Shared,
    /// One that finds it in use gets another.
    Private,
    /// One that finds it in use waits.
    Locked,
}

/// Something that a step sees and that is in no layer.  Targets are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Files of another vertex.
    Bind {
        /// Where.
        target: String,
        /// Whose files.
        from: VertexId,
        /// Absolute path there.
        source: String,
        /// Whether they may be written; what is written is discarded.
        writable: bool,
    },
    /// A directory that is kept.
    Cache {
        /// Where.
        target: String,
        /// Which.
        id: String,
        /// How it is shared.
        sharing: Sharing,
        /// Whether it is only read.
        read_only: bool,
        /// What it begins with: whose files, and the absolute path there.
        base: Option<(VertexId, String)>,
        /// Permission bits of the directory.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// An empty directory.
    Tmpfs {
        /// Where.
        target: String,
        /// Largest size in bytes.
        size: Option<u64>,
    },
    /// A file or variable with something confidential.
    Secret {
        /// Which.
        id: String,
        /// The file.
        target: Option<String>,
        /// The variable.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Permission bits of the file.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Which.
        id: String,
        /// The socket.
        target: String,
        /// Whether the step fails without it.
        required: bool,
        /// Permission bits of the socket.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// One change to a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAction {
    /// Copies files.
    Copy(Copy),
    /// Makes a directory and its missing parents.
    Mkdir {
        /// Absolute.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Owner, also of the parents that were missing.
        owner: Option<Owner>,
    },
    /// Makes a file.
    Mkfile {
        /// Absolute.
        path: String,
        /// The content.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner; root where none.
        owner: Option<Owner>,
    },
}

/// One copying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// What is read.
    pub from: VertexId,
    /// Paths or patterns below its root.
    pub sources: Vec<String>,
    /// Absolute.
    pub dest: String,
    /// Owner; where none, root for contexts and as in the source for anything else.
    pub owner: Option<Owner>,
    /// Octal or symbolic; empty means as in the source.
    pub mode: String,
    /// Whether local archives are unpacked.
    pub extract: bool,
    /// Patterns left out.
    pub exclude: Vec<String>,
    /// Whether the directories of the sources are kept.
    pub parents: bool,
}

/// An owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Name or number.
    pub user: String,
    /// Name or number.
    pub group: Option<String>,
}

/// What a container of an image runs with (OCI image-spec and docker's additions).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Program and arguments, or arguments of the entry point.
    pub cmd: Option<Vec<String>>,
    /// Program and its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Absolute, or empty.
    pub working_dir: String,
    /// `user[:group]`, or empty.
    pub user: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `port/protocol`.
    pub exposed_ports: BTreeSet<String>,
    /// Absolute paths.
    pub volumes: BTreeSet<String>,
    /// Name or number, or empty.
    pub stop_signal: String,
    /// How to check a container.
    pub healthcheck: Option<Healthcheck>,
    /// Shell of the shell forms, where it was changed.
    pub shell: Option<Vec<String>>,
    /// Triggers.
    pub on_build: Vec<String>,
    /// Author, or empty.
    pub author: String,
}

/// A health check; durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// Time between two checks.
    pub interval: u64,
    /// Time a check may take.
    pub timeout: u64,
    /// Time in which failures do not count.
    pub start_period: u64,
    /// Time between two checks in the start period.
    pub start_interval: u64,
    /// Failures in a row.
    pub retries: u64,
}

/// One line of an image's history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// The instruction.
    pub created_by: String,
    /// `buildkit.dockerfile.v0`, which tools know.
    pub comment: &'static str,
    /// Whether no layer belongs to it.
    pub empty_layer: bool,
}

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedImage {
    /// The reference, normalised.
    pub reference: String,
    /// Digest of the manifest; empty where a check goes on without knowing the image.
    pub digest: String,
    /// What it is for.
    pub platform: Platform,
    /// Its configuration.
    pub config: ImageConfig,
}

/// Why a file of a context cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// There is none.
    NotFound,
    /// Something else; the text is for people.
    Failed(String),
}

/// Why an image cannot be resolved; the texts are for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError {
    /// The reference is malformed.
    Invalid(String),
    /// The registry cannot be asked.
    Unavailable(String),
    /// Anything else.
    Failed(String),
}

/// What the lowering may ask.
pub trait Host {
    /// Reads a file of a context (`""` is the main one), of at most `limit` bytes.
    fn read(&mut self, context: &str, path: &str, limit: u64) -> Result<Vec<u8>, ReadError>;

    /// Finds the image that a reference means.
    fn resolve(
        &mut self,
        reference: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError>;

    /// Says when what a context (`""` is the main one) is made of was last changed, in seconds since 1970; nothing for a
    /// directory of the user's.  The error is for people.
    fn context_time(&mut self, context: &str) -> Result<Option<i64>, String> {
        let _ = context;
        Ok(None)
    }

    /// Says the same of a file or a repository elsewhere, which is fetched for that.
    fn fetched_time(&mut self, source: VertexId) -> Result<Option<i64>, String> {
        let _ = source;
        Ok(None)
    }

    /// Adds a vertex; the error is for people.
    fn add(&mut self, vertex: Vertex) -> Result<VertexId, String>;
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The result's files; none means an empty image.
    pub root: Option<VertexId>,
    /// Its configuration.
    pub config: ImageConfig,
    /// The lines of history that this build adds to the base's.
    pub history: Vec<History>,
    /// What the file says of the time of new files and of the image, in seconds since 1970.
    pub source_date_epoch: Option<i64>,
    /// Warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// Operating systems that may stand alone.
const OSES: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "macos",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasi",
    "wasip1",
    "windows",
    "zos",
];

/// Says whether a word may stand alone as an architecture.
fn is_architecture(word: &str) -> bool {
    let known = [
        "386", "aarch64", "amd64", "arm", "arm64", "armel", "armhf", "i386", "loong64", "mips",
        "mips64", "mips64le", "mipsle", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390",
        "s390x", "sparc", "sparc64", "wasm", "x86-64", "x86_64",
    ];
    known.contains(&word)
}

/// Returns an architecture and its variant under the names that Go has for them.
fn normal_architecture<'a>(architecture: &'a str, variant: &'a str) -> (&'a str, &'a str) {
    match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    }
}

impl Platform {
    /// Reads `os[/architecture[/variant]]` or an architecture alone, as containerd does; what is not said is as in
    /// `default`.
    pub fn parse(text: &str, default: &Self) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let is_part = |p: &&str| {
            !p.is_empty()
                && p.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let mut parts: Vec<&str> = lower.split('/').collect();
        // `linux(1.2)`: the version of the operating system says nothing here.
        if let Some((os, version)) = parts[0].split_once('(') {
            version.strip_suffix(')')?;
            parts[0] = os;
        }
        if !parts.iter().all(is_part) {
            return None;
        }
        let (os, architecture, variant) = match parts.as_slice() {
            [os] if OSES.contains(os) => {
                (*os, default.architecture.as_str(), default.variant.as_str())
            }
            [architecture] if is_architecture(architecture) => {
                (default.os.as_str(), *architecture, "")
            }
            [os, architecture] => (*os, *architecture, ""),
            [os, architecture, variant] => (*os, *architecture, *variant),
            _ => return None,
        };
        let (architecture, mut variant) = normal_architecture(architecture, variant);
        if parts.len() < 3 && (architecture, variant) == ("arm", "v7") {
            // The usual one goes without saying.
            variant = "";
        }
        let os = if os == "macos" { "darwin" } else { os };
        Some(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        })
    }

    /// Says whether programs for `self` run on `machine`.
    pub fn runs_on(&self, machine: &Self) -> bool {
        self.os == machine.os && self.architecture == machine.architecture
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}
