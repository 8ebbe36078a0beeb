//! The command line: names and meanings as in `docker buildx build`.  Parsing only; [`crate::request`] turns it into
//! a checked `Request`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Builds container images where the usual builders do not run.
#[derive(Debug, Parser)]
#[command(name = "stepwell", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// Shown by `--help`; `crate::exit` gives the numbers their meaning.
pub const EXIT_CODES: &str = "\
Exit codes:
  0     success
  1-255 a RUN step failed: its own exit status (128 + the number of the signal that ended it)
  1     a check found something
  64    the command line is wrong
  65    the Dockerfile (or what the frontend reads in its place) is refused, or names an image that does not exist
  70    a guest (frontend or cache policy) trapped or reached a limit
  71    the builder failed: registry, network, store, disk
  75    a step reached a limit: time, memory, processes, size of a file system in memory
  77    RUN steps cannot be isolated as `--isolation` or `--require-isolation` ask, or not at all
  130   interrupted";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Builds an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Says why steps of a build would not be reused, naming what changed
    Explain(Box<BuildArgs>),
    /// Checks Dockerfiles without building them: files, and all that are below directories
    Check(CheckArgs),
    /// Says what this machine permits, which isolation a build gets, and how to get a better one
    Doctor(DoctorArgs),
    /// Shows what the store holds
    Du(StoreArgs),
    /// Removes what no build is using from the store
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
pub struct StoreArgs {
    /// Directory of the store [default: $STEPWELL_ROOT, else $XDG_DATA_HOME/stepwell; /var/lib/stepwell for root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// How findings are written
    #[arg(long, value_name = "HOW", default_value = "text")]
    pub format: DoctorFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// For people
    Text,
    /// One JSON object
    Json,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files, or directories that are searched for Dockerfiles (`Dockerfile`, `Dockerfile.*`, `*.Dockerfile`, `Containerfile`)
    #[arg(value_name = "PATH", default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// How findings are written
    #[arg(long, value_name = "HOW", default_value = "text")]
    pub format: CheckFormat,
    /// Files that are checked at once
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    #[command(flatten)]
    pub guest: GuestArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// For people
    Text,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, which code hosts read
    Sarif,
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Removes everything, not only what was not used lately
    #[arg(short, long)]
    pub all: bool,
    /// Keeps this much of what was used last, for example `10gb`
    #[arg(long, value_name = "SIZE", value_parser = crate::values::size)]
    pub keep_storage: Option<u64>,
    /// Removes only what was not used for this long, for example `48h`
    #[arg(long, value_name = "TIME", value_parser = crate::values::duration, default_value = "168h")]
    pub older_than: Duration,
}

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Directory with the files of the build; the address of a repository, an archive or a Dockerfile; or `-`: standard input
    #[arg(value_name = "PATH|URL|-")]
    pub context: PathBuf,
    /// Name of the Dockerfile, its address, or `-` for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE|URL|-")]
    pub file: Option<PathBuf>,
    /// Name of the image, `registry/repository:tag`
    #[arg(short, long = "tag", value_name = "NAME")]
    pub tags: Vec<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Value of an ARG; without `=VALUE`, that of the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,
    /// Named context, or one for a platform (`NAME::OS/ARCH`): a directory, `docker-image://REFERENCE`, `oci-layout://DIR[:TAG|@DIGEST]`, or the address of a
    /// repository, an archive or a file
    #[arg(long = "build-context", value_name = "NAME=WHERE")]
    pub build_contexts: Vec<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// What is written: `type=image|oci|docker|local|tar[,dest=…][,name=…][,push=true][,compression=gzip|zstd|uncompressed][,…]`
    #[arg(short, long = "output", value_name = "type=…")]
    pub outputs: Vec<String>,
    /// Pushes the image; short for `--output=type=image,push=true`
    #[arg(long)]
    pub push: bool,
    /// Carries every step out again
    #[arg(long)]
    pub no_cache: bool,
    /// Carries the steps of these stages out again
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// How progress is shown
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: ProgressMode,
    /// Shows nothing but errors, and the digest of the image; short for `--progress=quiet`
    #[arg(short, long, conflicts_with = "progress")]
    pub quiet: bool,
    /// Writes a JSON description of the result to this file: the image, and the isolation that RUN steps got
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Writes the digest of the image's configuration to this file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Says beside the image how it was made: `true`, `false`, `mode=min|max[,builder-id=URI][,reproducible=true]`; short for
    /// `--attest=type=provenance,…` [default: false; `--metadata-file` has it always]
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub provenance: Option<String>,
    /// Attestation beside the image: `type=provenance[,mode=min|max][,…]`
    #[arg(long = "attest", value_name = "type=…")]
    pub attests: Vec<String>,
    /// Lists of what is in an image are not made here: only `false` is taken
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    pub sbom: Option<String>,
    /// How RUN steps are kept apart from the machine
    #[arg(long, value_name = "TIER", default_value = "auto")]
    pub isolation: IsolationArg,
    /// Weakest isolation that a RUN step may get; where the machine permits less, the build fails and says why
    #[arg(
        long,
        value_name = "TIER",
        default_value = "auto",
        hide_default_value = true
    )]
    pub require_isolation: IsolationArg,
    /// Network of RUN steps
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub network: NetworkArg,
    /// Additional line of /etc/hosts in RUN steps
    #[arg(long = "add-host", value_name = "HOST:IP")]
    pub add_hosts: Vec<String>,
    /// Something confidential for RUN --mount=type=secret: `id=ID[,src=FILE|,env=VARIABLE]`
    #[arg(long = "secret", value_name = "id=…")]
    pub secrets: Vec<String>,
    /// SSH agent for RUN --mount=type=ssh, and `default` for repositories behind ssh: `ID[=SOCKET|KEYFILE[,…]]`
    /// [default socket: $SSH_AUTH_SOCK]
    #[arg(long = "ssh", value_name = "ID[=SOCKET|KEY]")]
    pub agents: Vec<String>,
    /// Size of /dev/shm in RUN steps [default: 64mb]
    #[arg(long, value_name = "SIZE", value_parser = crate::values::size)]
    pub shm_size: Option<u64>,
    /// Limit of the processes of RUN steps: `nofile=1024:2048`; -1 means unlimited
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub ulimits: Vec<String>,
    /// Component that reads the definition in place of the built-in Dockerfile frontend
    #[arg(long, value_name = "FILE.wasm")]
    pub frontend: Option<PathBuf>,
    /// Parameter for the frontend
    #[arg(long = "opt", value_name = "NAME=VALUE")]
    pub options: Vec<String>,
    /// Checks the Dockerfile and builds nothing; short for `--call=check`
    #[arg(long, conflicts_with = "call")]
    pub check: bool,
    /// What is asked: `build`, `check`, `targets`, or `outline` (what can be given to a build), each with `,format=json`
    #[arg(long, value_name = "METHOD", value_parser = crate::inspect::call)]
    pub call: Option<crate::inspect::Asked>,
    /// Prints the build graph as JSON and builds nothing
    #[arg(long, value_name = "WHAT")]
    pub print: Option<PrintWhat>,
    /// Registry spoken to over plain http (loopback always may be)
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    pub insecure_registries: Vec<String>,
    /// Longest time that one RUN step may take, for example `10m`
    #[arg(long, value_name = "TIME", value_parser = crate::values::duration)]
    pub step_timeout: Option<Duration>,
    /// Memory that the processes of one RUN step may have together; who takes more is ended
    #[arg(long, value_name = "SIZE", value_parser = crate::values::size)]
    pub step_memory: Option<u64>,
    /// Processes and threads that one RUN step may have at once; who starts more is ended
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub step_processes: Option<u64>,
    /// Output of one RUN step that is shown; of what is more, the end
    #[arg(long, value_name = "SIZE", value_parser = crate::values::size, default_value = "2mb")]
    pub step_output: u64,
    /// Steps that may run at once
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Keeps the cache of tenants apart from each other
    #[arg(long, value_name = "NAME", default_value = "")]
    pub cache_namespace: String,
    #[command(flatten)]
    pub guest: GuestArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Accepted for compatibility: the result is always where `--output` says
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub load: bool,
}

/// Limits of guests: frontends and cache policies.
#[derive(Debug, Args)]
#[command(next_help_heading = "Guest limits")]
pub struct GuestArgs {
    /// Memory of a guest
    #[arg(long, value_name = "SIZE", value_parser = crate::values::size, default_value = "256mb")]
    pub guest_memory: u64,
    /// Time that a guest may compute
    #[arg(long, value_name = "TIME", value_parser = crate::values::duration, default_value = "10s")]
    pub guest_time: Duration,
    /// Vertices that a guest's graph may have
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub guest_vertices: usize,
    /// Calls that a guest may make into the host
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub guest_calls: u64,
    /// Bytes that a guest may read from contexts
    #[arg(long, value_name = "SIZE", value_parser = crate::values::size, default_value = "64mb")]
    pub guest_read: u64,
    /// Bytes of messages and configuration that a guest may return
    #[arg(long, value_name = "SIZE", value_parser = crate::values::size, default_value = "16mb")]
    pub guest_output: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// `tty` on a terminal, else `plain`
    Auto,
    /// One line for each thing that happens
    Plain,
    /// A live picture of the build
    Tty,
    /// One JSON object for each event
    Rawjson,
    /// Nothing but errors
    Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IsolationArg {
    /// The best that works here; as a demand, none
    Auto,
    /// A user namespace
    Userns,
    /// chroot(2) without a user namespace; needs CAP_SYS_CHROOT
    Chroot,
    /// Every path is resolved by the builder; needs no privilege at all, and is the slowest
    Mediated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkArg {
    /// The host's network
    Default,
    /// Nothing but a loopback interface
    None,
    /// The host's network
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrintWhat {
    /// The build graph
    Graph,
}
