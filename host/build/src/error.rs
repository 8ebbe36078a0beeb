//! Why a build fails.  What the user wrote, a step, a guest and the tool itself are different things, because the command
//! line gives them different exit codes.

use std::path::PathBuf;

use stepwell_model::{Diagnostic, Digest, DigestError, Origin, Severity};
use stepwell_registry::{ErrorKind, RegistryError};
use stepwell_steps::files::FilesError;
use stepwell_steps::run::mounts::MountError;
use stepwell_steps::run::{ExecFailure, Exit, Refusal, RunError, SHARED_MEMORY};
use stepwell_steps::source::SourceError;
use stepwell_store::StoreError;
use stepwell_wasm::GuestError;

use crate::mounts::SupplyError;
use crate::remote::RemoteError;

/// Says how many errors are among diagnostics: warnings may stand beside them.
fn errors(diagnostics: &[Diagnostic]) -> String {
    match diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count()
    {
        1 => "1 error".into(),
        count => format!("{count} errors"),
    }
}

/// Why a build fails.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// What the user wrote is refused; the diagnostics were reported as events already.
    #[error("the definition is refused: {}", errors(.0))]
    Refused(Vec<Diagnostic>),
    /// The same, because an image, a context or a source that the user named cannot be had: at fault may be the name, or who has it.
    #[error("{what} cannot be had")]
    Unresolved {
        /// What; an image, most often.
        what: String,
        /// What the frontend said of it; reported as events already.
        diagnostics: Vec<Diagnostic>,
        /// Why; the diagnostics have it in their words.
        source: Box<BuildError>,
    },
    /// An image cannot be pushed.
    #[error("cannot push {what} to `{name}`: {source}")]
    Push {
        /// The image's name there.
        name: String,
        /// Which part of it.
        what: String,
        /// Why.
        source: RegistryError,
    },
    /// A guest trapped, reached a limit, or is no usable component.
    #[error(transparent)]
    Guest(GuestError),
    /// A RUN step ended with anything but success.
    #[error("`{step}` {}{}", describe(exit), failure.as_ref().map(|f| format!(": {f}")).unwrap_or_default())]
    Step {
        /// The step, for people.
        step: String,
        /// Where it was written.
        origin: Option<Box<Origin>>,
        /// How it ended.
        exit: Exit,
        /// Why its program did not start, where it did not.
        failure: Option<ExecFailure>,
    },
    /// A step could not be carried out.
    #[error("`{step}`: {source}")]
    StepSetup {
        /// The step, for people.
        step: String,
        /// Where it was written.
        origin: Option<Box<Origin>>,
        /// Why.
        source: Box<StepError>,
    },
    /// The user stopped the build.
    #[error("the build was interrupted")]
    Interrupted,
    /// A definition or context cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A context cannot be opened.
    #[error("context `{}`: {source}", path.display())]
    Context {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: SourceError,
    },
    /// A context or definition from elsewhere cannot be had.
    #[error("context `{address}`: {source}")]
    RemoteContext {
        /// Where it is.
        address: String,
        /// Why not.
        source: Box<StepError>,
    },
    /// A definition in a context from elsewhere cannot be read.
    #[error("cannot read `{name}` of the context: {source}")]
    Definition {
        /// Which.
        name: String,
        /// Why not.
        source: SourceError,
    },
    /// An output cannot be written.
    #[error("output `{dest}`: {source}")]
    Output {
        /// Where it was to go.
        dest: String,
        /// Why.
        source: std::io::Error,
    },
    /// An image cannot be had, or makes no sense.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The builder's own set-up failed.
    #[error("cannot {operation}: {source}")]
    Setup {
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl BuildError {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(e) | Self::Push { source: e, .. } => e.hint().map(str::to_owned),
            Self::StepSetup { source, .. } | Self::RemoteContext { source, .. } => source.hint(),
            Self::Definition { .. } => {
                Some("name the file with `--file`; it is one of the context".to_owned())
            }
            Self::Unresolved { source, .. } => source.hint(),
            Self::Image(e) => e.hint(),
            Self::Read { .. } => Some("name the file with `--file`".to_owned()),
            Self::Guest(GuestError::Limit { .. }) => Some(
                "limits of guests have flags of their own: see `stepwell build --help`".to_owned(),
            ),
            Self::Step { exit, .. } => {
                let what = match exit {
                    Exit::TimedOut => "`--step-timeout`",
                    Exit::OutOfMemory => "`--step-memory`",
                    Exit::TooManyProcesses => "`--step-processes`",
                    Exit::Full { mount, .. } if mount == SHARED_MEMORY => "`--shm-size`",
                    Exit::Full { .. } => "`size=` of the mount",
                    Exit::Code(_) | Exit::Signal(_) | Exit::Cancelled => return None,
                };
                Some(format!("{what} sets the limit"))
            }
            _ => None,
        }
    }

    /// Says whether the isolation that RUN steps need, or that is required, is not to be had here.
    pub fn is_isolation(&self) -> bool {
        matches!(self, Self::StepSetup { source, .. } if matches!(**source, StepError::Isolation(_)))
    }

    /// Says whether what the user wrote is at fault, and not the tool, the machine, the network or a registry.
    pub fn is_users(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Read { .. } => true,
            Self::StepSetup { source, .. } | Self::RemoteContext { source, .. } => {
                source.is_users()
            }
            Self::Definition { .. } => true,
            Self::Unresolved { source, .. } => source.is_users(),
            Self::Image(e) => matches!(
                e,
                ImageError::Reference { .. }
                    | ImageError::Digest(_)
                    | ImageError::Manifest {
                        source: stepwell_image::ManifestError::Platform { .. },
                        ..
                    }
            ),
            Self::Registry(e) => {
                let kind = e.kind();
                matches!(
                    kind,
                    ErrorKind::NoPlatform { .. } | ErrorKind::Reference { .. }
                ) || e.status() == Some(404) && e.url().is_some_and(|u| u.contains("/manifests/"))
            }
            _ => false,
        }
    }
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference is no reference.
    #[error("`{reference}` is not an image name: {reason}")]
    Reference {
        /// The text.
        reference: String,
        /// Why.
        reason: String,
    },
    /// Its manifest or configuration makes no sense.
    #[error("image `{reference}`: {source}")]
    Manifest {
        /// The image.
        reference: String,
        /// Why.
        source: stepwell_image::ManifestError,
    },
    /// Its registry names a manifest that it does not have.
    #[error("the registry says that `{reference}` is `{digest}`, and does not have that: {source}")]
    Inconsistent {
        /// The image.
        reference: String,
        /// The manifest.
        digest: Digest,
        /// What it answered.
        source: RegistryError,
    },
    /// It was asked for by an operation, but no frontend resolved it.
    #[error("image `{reference}` at `{digest}` was not resolved in this build")]
    Unknown {
        /// The image.
        reference: String,
        /// Its manifest.
        digest: Digest,
    },
    /// It has as many layers as diff ids, or it is broken.
    #[error("image `{reference}` has {layers} layers and {diff_ids} diff ids")]
    LayerCount {
        /// The image.
        reference: String,
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// A layer's blob is nowhere.
    #[error(
        "layer `{0}` is neither in the store nor in a known registry; build without the cache record with `--no-cache`"
    )]
    LostLayer(Digest),
    /// A digest is written wrongly.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// An OCI layout cannot be read.
    #[error("oci layout `{}`: {source}", path.display())]
    Layout {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: stepwell_image::layout::LayoutError,
    },
}

impl ImageError {
    fn hint(&self) -> Option<String> {
        matches!(self, Self::Inconsistent { .. }).then(|| {
            "a mirror or a cache may lag behind: try again later, or push the image again"
                .to_owned()
        })
    }
}

/// Why a step could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// COPY, ADD and the like.
    #[error(transparent)]
    Files(Box<FilesError>),
    /// The files of a context or stage.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// RUN: the sandbox.
    #[error(transparent)]
    Run(#[from] RunError),
    /// RUN: what is mounted.
    #[error(transparent)]
    Supply(#[from] SupplyError),
    /// RUN: no tier is to be had.
    #[error(transparent)]
    Isolation(#[from] Refusal),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A layer of an image is not what it has to be.
    #[error("the image `{image}` is broken: {source}")]
    Broken {
        /// The image.
        image: String,
        /// What is wrong.
        source: Box<StoreError>,
    },
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Something elsewhere.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl From<FilesError> for StepError {
    fn from(error: FilesError) -> Self {
        Self::Files(Box::new(error))
    }
}

impl StepError {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(e) => e.hint().map(str::to_owned),
            Self::Image(e) => e.hint(),
            Self::Remote(e) => e.hint(),
            Self::Broken { .. } => Some(
                "push the image again from where it is whole, or build on another one".to_owned(),
            ),
            Self::Supply(e) => e.hint(),
            Self::Isolation(_) => {
                Some("`stepwell doctor` says what was tried and what to change".to_owned())
            }
            _ => None,
        }
    }

    /// Says whether the user's definition or context is at fault, and not the tool or the machine.
    pub fn is_users(&self) -> bool {
        match self {
            Self::Files(e) => !matches!(
                **e,
                FilesError::Layer { .. }
                    | FilesError::Base { .. }
                    | FilesError::MissingInput { .. }
                    | FilesError::Threads(_)
            ),
            Self::Source(_) => true,
            Self::Remote(e) => e.is_users(),
            Self::Run(RunError::Mount(e)) => !matches!(**e, MountError::System { .. }),
            Self::Run(e) => matches!(e, RunError::User(_) | RunError::Invalid { .. }),
            Self::Supply(_) => true,
            Self::Isolation(_)
            | Self::Store(_)
            | Self::Image(_)
            | Self::Broken { .. }
            | Self::Registry(_) => false,
        }
    }
}

/// What became of a step, as the end of a sentence.
fn describe(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("failed with exit status {code}"),
        Exit::Signal(signal) => format!("was ended by {}", signal_name(*signal)),
        Exit::TimedOut => "reached its time limit and was ended".to_owned(),
        Exit::OutOfMemory => "took more memory than it may and was ended".to_owned(),
        Exit::TooManyProcesses => "started more processes than it may and was ended".to_owned(),
        Exit::Full { mount, size } => {
            format!("put more into `{mount}` than fits there ({size} bytes) and was ended")
        }
        Exit::Cancelled => "was given up".to_owned(),
    }
}

/// Name of a signal that ends programs, else its number.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}
