//! The operations a build graph is made of: a closed enum.  What an operation means is said here; it is
//! carried out by `stepwell-steps`.
//!
//! An operation names its inputs by index into the `inputs` of the vertex that holds it.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::mount::{Limit, Mount};

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// The file system of an image.
    Image(ImageOp),
    /// A directory that the user handed over: the main build context or a named one.
    Context(ContextOp),
    /// A file behind an http or https address.
    Http(HttpOp),
    /// The files of a commit of a Git repository.
    Git(GitOp),
    /// A command run on a root file system.
    Run(Box<RunOp>),
    /// Files made without running anything.
    Files(FilesOp),
    /// The layers of all inputs, on top of each other in order (COPY --link).
    Merge(MergeOp),
}

/// The file system of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOp {
    /// Normalised reference, for example `docker.io/library/debian:12`.
    pub reference: String,
    /// The manifest that the reference was resolved to.
    pub digest: Digest,
}

/// A directory of the user's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContextOp {
    /// `""` for the main context, else the name given with `--build-context`.
    pub name: String,
    /// Patterns of a `.dockerignore`, in order; `!` at the front takes back.
    pub exclude: Vec<String>,
}

/// One file, in the root of an otherwise empty file system: root's, mode 0600, with the server's time of its last change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpOp {
    /// Where it is; `http` or `https`.
    pub url: String,
    /// Its name: one path element.
    pub name: String,
    /// What its content has to be.
    pub checksum: Option<Digest>,
}

/// The files of a commit, as root's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GitOp {
    /// The repository: `https`, `http`, `ssh`, `git`, or `user@host:path`.
    pub url: String,
    /// Branch, tag, ref or commit; empty means the default branch.
    pub reference: String,
    /// Directory of it that becomes the root; empty means all.
    pub subdir: String,
    /// The commit that it has to be, or how its id begins; empty means any.
    pub checksum: String,
    /// Whether `.git` is kept.
    pub keep_git_dir: bool,
    /// Whether submodules are taken, too.
    pub submodules: bool,
    /// Whether files get the time of the commit in place of that of the checkout.
    pub commit_times: bool,
}

/// A command run on the root file system `inputs[0]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOp {
    /// The program and its arguments; the program is looked up in the step's own `PATH`.
    pub args: Vec<String>,
    /// The environment, in order; names are unique.
    pub env: Vec<EnvVar>,
    /// Variables that the step sees and that do not count for reuse (the predefined proxy arguments).
    pub uncounted_env: Vec<EnvVar>,
    /// Absolute working directory; created when it is missing.
    pub cwd: String,
    /// `user[:group]`, names or numbers; empty means root.
    pub user: String,
    /// What of the network the step may reach.
    pub network: Network,
    /// Files that exist while the step runs and that are in no layer (heredoc scripts).
    pub files: Vec<InlineFile>,
    /// Additional lines of `/etc/hosts`.
    pub extra_hosts: Vec<HostEntry>,
    /// Host name of the step; empty means the default.
    pub hostname: String,
    /// What the step sees besides its root, in order.
    // Left out of the encoding where empty, so that the digests of operations from before there were mounts stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Size of `/dev/shm` in bytes, as the step sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
    /// Limits of its processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
}

impl RunOp {
    /// Makes the operation that runs `args` as root in `/`, and nothing else.
    pub fn new(args: Vec<String>) -> Self {
        Self {
            args,
            env: Vec::new(),
            uncounted_env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            network: Network::Default,
            files: Vec::new(),
            extra_hosts: Vec::new(),
            hostname: String::new(),
            mounts: Vec::new(),
            shm_size: None,
            limits: Vec::new(),
        }
    }
}

/// A variable and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// What of the network a step may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The builder's choice; today the host's network.
    #[default]
    Default,
    /// Nothing but a loopback interface of its own.
    None,
    /// The host's network.
    Host,
}

/// A file given by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineFile {
    /// Absolute path in the step.
    pub path: String,
    /// The content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// The name.
    pub host: String,
    /// An IPv4 or IPv6 address.
    pub address: String,
}

/// Actions carried out in order on the root file system `inputs[base]`, or on an empty one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesOp {
    /// Index of the input that is changed; none means scratch.
    pub base: Option<u32>,
    /// What is done, in order; it becomes one layer.
    pub actions: Vec<FileAction>,
}

/// One change to a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum FileAction {
    /// Copies files from another input.
    Copy(CopyAction),
    /// Makes a directory and its missing parents (0755, root).
    Mkdir {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Owner of the directory and of the parents that were missing.
        owner: Option<Owner>,
    },
    /// Makes a file with the given content; missing parents are made (0755, root).
    Mkfile {
        /// Absolute path; with a trailing slash, a directory into which `name` goes is meant by the frontend already.
        path: String,
        /// The content.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner; root where none.
        owner: Option<Owner>,
    },
    /// Removes a file or a whole directory.
    Rm {
        /// Absolute path.
        path: String,
        /// Whether a missing path is fine.
        allow_missing: bool,
    },
    /// Makes a symbolic link.
    Symlink {
        /// Text of the link.
        target: String,
        /// Absolute path of the link.
        path: String,
    },
}

/// Copies files from `inputs[from]` (a Dockerfile's COPY and ADD of local files).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyAction {
    /// Index of the input that is read.
    pub from: u32,
    /// Paths or patterns (Go's `filepath.Match` per path element) below the root of that input.
    pub sources: Vec<String>,
    /// Absolute destination; with a trailing slash, or with several sources, it is a directory.
    pub dest: String,
    /// Owner of everything copied; where none, root for contexts and as in the source for other inputs
    /// (as docker has it: moby#38599).
    pub owner: Option<Owner>,
    /// `--chmod`: octal, or symbolic as chmod(1) writes it; empty means as in the source.
    pub mode: String,
    /// Whether local tar archives are unpacked instead of copied (ADD).
    pub extract: bool,
    /// Patterns left out (`--exclude`), relative to each source.
    pub exclude: Vec<String>,
    /// `--parents`: keep the directories of the source paths.
    pub parents: bool,
}

/// Owner of files: names are looked up in the base's `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name or number.
    pub user: String,
    /// Name or number; where none, the primary group if `user` is a name, else the same number.
    pub group: Option<String>,
}

/// The layers of all inputs on top of each other, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOp {}
