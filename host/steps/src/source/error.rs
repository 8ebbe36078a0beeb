//! Why a source tree cannot be read.

use std::fmt::Display;

use rustix::io::Errno;

/// Why a source tree cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is nothing of that name.
    #[error("`{path}` does not exist in the {tree}{}", hint_text(hint))]
    NotFound {
        /// The path as it was asked for.
        path: String,
        /// What kind of tree.
        tree: &'static str,
        /// Why it is not there, or what is.
        hint: Option<Hint>,
    },
    /// The path leads out of the context.
    #[error("`{path}` is outside of the build context")]
    Outside {
        /// The path.
        path: String,
    },
    /// There is no context of that name.
    #[error("there is no build context `{0}`")]
    UnknownContext(String),
    /// A directory is used as a file, or a special file as a regular one.
    #[error("`{path}` is {found}, not a file")]
    NotAFile {
        /// The path.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// A file is used as a directory.
    #[error("`{path}` is {found}, not a directory")]
    NotADirectory {
        /// The path.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// It is larger than what may be read.
    #[error("`{path}` is larger than the {limit} bytes that may be read")]
    TooLarge {
        /// The path.
        path: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A directory has more entries than may be listed.
    #[error("`{path}` has more than the {limit} entries that may be listed")]
    TooManyEntries {
        /// The path.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// The path is too long or has a NUL in it.
    #[error("`{path}` is not a path: it is too long or contains a NUL byte")]
    BadPath {
        /// The beginning of the path.
        path: String,
    },
    /// A pattern is malformed.
    #[error("pattern `{pattern}` is malformed: {reason}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An ignore pattern is malformed.
    #[error(transparent)]
    BadIgnore(#[from] stepwell_model::ignore::IgnoreError),
    /// A file was written to while it was read.
    #[error("`{path}` changed while it was being read")]
    Changed {
        /// The path.
        path: String,
    },
    /// The metadata kept beside a file of a checkout cannot be read.
    #[error("metadata of `{path}`: {reason}")]
    Metadata {
        /// The path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The kernel refused.
    #[error("cannot {operation} `{path}`: {error}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: String,
        /// Why not.
        error: Errno,
    },
}

/// Why something is not there, or what is there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// It is a symbolic link that leads nowhere.
    Dangling {
        /// Where it leads.
        target: String,
    },
    /// An ignore pattern leaves it out.
    Ignored {
        /// The pattern.
        pattern: String,
    },
    /// Names that look like it.
    Similar {
        /// The names, the nearest first.
        names: Vec<String>,
    },
}

impl SourceError {
    /// Makes an error of an error number of the kernel's.
    pub fn io(operation: &'static str, path: impl Display, error: Errno) -> Self {
        Self::Io {
            operation,
            path: path.to_string(),
            error,
        }
    }

    /// Makes an error of one of the standard library's.
    pub fn std(operation: &'static str, path: impl Display, error: &std::io::Error) -> Self {
        Self::io(
            operation,
            path,
            Errno::from_io_error(error).unwrap_or(Errno::IO),
        )
    }

    /// Says whether it means that nothing is there.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::Io {
                    error: Errno::NOENT | Errno::NOTDIR,
                    ..
                }
        )
    }
}

impl Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dangling { target } => {
                write!(
                    f,
                    "it is a symbolic link to `{target}`, which leads nowhere in there"
                )
            }
            Self::Ignored { pattern } => write!(f, "the ignore pattern `{pattern}` leaves it out"),
            Self::Similar { names } => write!(f, "there is `{}`", names.join("`, `")),
        }
    }
}

fn hint_text(hint: &Option<Hint>) -> String {
    hint.as_ref().map(|h| format!(": {h}")).unwrap_or_default()
}
