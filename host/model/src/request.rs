//! What the user asks for, after the command line was checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Platform;

/// One build.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What turns the definition into a graph.
    pub frontend: Frontend,
    /// Main context.
    pub context: ContextSource,
    /// Definition (`--file`); where none, the frontend's default name in the context.
    pub file: Option<DefinitionSource>,
    /// `--build-context NAME=…`.
    pub named_contexts: Vec<(String, NamedContext)>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`, in order.
    pub build_args: Vec<(String, String)>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--opt`: parameters for a frontend of the user's.
    pub options: Vec<(String, String)>,
    /// `--platform`.
    pub platform: Platform,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: names of stages whose steps are carried out again, in any case.
    pub no_cache_stages: Vec<String>,
    /// `--add-host`.
    pub extra_hosts: Vec<crate::op::HostEntry>,
    /// `--network`.
    pub network: crate::op::Network,
    /// `--secret`: id and content.
    pub secrets: Vec<(String, SecretValue)>,
    /// `--ssh`: id and socket of an agent.
    pub agents: Vec<(String, PathBuf)>,
    /// Files with the keys of hosts that are spoken to over ssh (known_hosts, sshd(8)); the first that knows a host counts.
    pub known_hosts: Vec<PathBuf>,
    /// `--shm-size`, in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub limits: Vec<crate::mount::Limit>,
    /// Names for the image (`--tag`).
    pub tags: Vec<String>,
    /// What is written, and where.
    pub outputs: Vec<Output>,
    /// `--provenance`: what is said of images beside them.
    pub provenance: Option<Provenance>,
    /// How much is said of how the result was made where it is told to the user (`--metadata-file`).
    pub told_provenance: Option<ProvenanceMode>,
    /// `--isolation`.
    pub isolation: Isolation,
    /// `--require-isolation`: the weakest tier that a RUN step may get; `Auto` demands nothing.
    pub require_isolation: Isolation,
    /// `SOURCE_DATE_EPOCH`: seconds since 1970; times in the image are at most this.
    pub source_date_epoch: Option<i64>,
    /// What guests may use.
    pub guest_limits: GuestLimits,
    /// What one RUN step may use.
    pub step_limits: StepLimits,
    /// Separates the cache keys of tenants from each other.
    pub namespace: String,
    /// Registries to be spoken to without TLS, besides loopback.
    pub insecure_registries: Vec<String>,
    /// Processes of the host that may run at once: parallel steps.
    pub jobs: usize,
}

/// How the provenance of a result is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// How much.
    pub mode: ProvenanceMode,
    /// URI of who vouches for it (`builder-id`).
    pub builder_id: Option<String>,
    /// Whether the user says that the result is the same each time (`reproducible`).
    pub reproducible: bool,
}

/// How much of a build its provenance tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProvenanceMode {
    /// No build arguments, labels, steps, and ids of secrets.
    #[default]
    Min,
    /// All but what is confidential.
    Max,
}

/// What one RUN step may use; none means as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Longest time.
    pub time: Option<Duration>,
    /// Bytes of memory of its own that its processes have together.
    pub memory: Option<u64>,
    /// Processes and threads at once.
    pub processes: Option<u64>,
    /// Bytes of its output that are shown; what is more is left out, but for the end.
    pub output: u64,
}

impl Default for StepLimits {
    /// No limit but that of the output, which is BuildKit's.
    fn default() -> Self {
        Self {
            time: None,
            memory: None,
            processes: None,
            output: 2 << 20,
        }
    }
}

/// Something confidential: shown to nobody, written nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Wraps it.
    pub fn new(content: Vec<u8>) -> Self {
        Self(content)
    }

    /// Returns it; whoever asks sees to it that it stays in memory.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// What is asked about a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Call {
    /// Its build graph.
    #[default]
    Build,
    /// What is wrong with it.
    Check,
    /// What of it can be built.
    Targets,
    /// What can be given to the build of a target.
    Outline,
}

impl Call {
    /// All of them, by the names that `--call` and frontends know them by.
    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("build", Self::Build),
        ("check", Self::Check),
        ("targets", Self::Targets),
        ("outline", Self::Outline),
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, c)| *c == self)
            .map_or("build", |(name, _)| name)
    }
}

/// What turns a definition into a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frontend {
    /// The Dockerfile frontend that is part of the program.
    Dockerfile,
    /// A component in a file.
    Component(PathBuf),
}

/// Where the main context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory.
    Directory(PathBuf),
    /// A file of the caller's, alone in its directory: an archive of the context, or a lone definition (standard input).
    File(PathBuf),
    /// An address: a repository, an archive, or a lone definition.
    Remote(String),
}

impl ContextSource {
    /// Returns the directory, where it is one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::File(_) | Self::Remote(_) => None,
        }
    }
}

/// Where a definition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefinitionSource {
    /// A file: of this machine where the context is a directory of it, else of the context.
    File(PathBuf),
    /// It was read already (standard input).
    Text {
        /// What it is called in messages.
        name: String,
        /// The text.
        content: Vec<u8>,
    },
    /// An address.
    Remote(String),
}

/// A named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory.
    Directory(PathBuf),
    /// An address: a repository, an archive, or a file.
    Remote(String),
    /// An image of a registry (`docker-image://`).
    Image(String),
    /// An OCI layout directory, with tag or digest (`oci-layout://`).
    OciLayout {
        /// The directory.
        path: PathBuf,
        /// `tag` or `sha256:…`; empty means the only one.
        reference: String,
    },
}

/// How far a RUN step is kept apart from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// The best tier that works here.
    #[default]
    Auto,
    /// A user namespace.
    Userns,
    /// chroot(2), without a user namespace.
    Chroot,
    /// Neither: every path is resolved by the builder.
    Mediated,
}

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An image, pushed to a registry where `push`.
    Image {
        /// Whether it is pushed; else it stays in the store.
        push: bool,
        /// How it is written.
        image: ImageOptions,
    },
    /// An OCI image layout.
    Oci {
        /// File or directory; none means standard output.
        dest: Option<PathBuf>,
        /// A tar archive, or a directory.
        tar: bool,
        /// How it is written.
        image: ImageOptions,
    },
    /// An archive for `docker load`.
    Docker {
        /// File; none means standard output.
        dest: Option<PathBuf>,
        /// How it is written.
        image: ImageOptions,
    },
    /// The files of the result, in a directory.
    Local {
        /// The directory.
        dest: PathBuf,
    },
    /// The files of the result, as a tar archive.
    Tar {
        /// File; none means standard output.
        dest: Option<PathBuf>,
    },
}

/// How an image is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageOptions {
    /// Names; the request's tags where empty.
    pub names: Vec<String>,
    /// How new layers are compressed.
    pub compression: Compression,
    /// Level of the compression; none means the default.
    pub level: Option<i32>,
    /// Docker's media types in place of OCI's.
    pub docker_media_types: bool,
    /// Annotations of the manifest.
    pub annotations: Vec<(String, String)>,
}

/// Compression of layers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// gzip (RFC 1952).
    #[default]
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// None.
    Uncompressed,
}

/// What a guest may use; each has a flag of `stepwell build` and an error of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestLimits {
    /// Linear memory, in bytes: stops a guest that allocates for ever.
    pub memory: u64,
    /// Time, in guest calls of one build: stops a guest that loops.
    pub time: Duration,
    /// Vertices of the graph: stops a guest that builds an endless graph.
    pub vertices: usize,
    /// Calls into the host: stops a guest that keeps the host busy.
    pub host_calls: u64,
    /// Bytes read from contexts.
    pub bytes_read: u64,
    /// Bytes of diagnostics and of the resulting configuration.
    pub output: u64,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            time: Duration::from_secs(10),
            vertices: 20_000,
            host_calls: 1_000_000,
            bytes_read: 64 << 20,
            output: 16 << 20,
        }
    }
}
