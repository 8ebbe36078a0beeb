//! What a user should know of a file operation that nevertheless succeeded.

use std::fmt;

use crate::source::Hint;

/// Something the user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A pattern with wildcards matches nothing.
    NothingMatches {
        /// The pattern.
        pattern: String,
        /// Why.
        hint: Option<Hint>,
    },
    /// A socket was left out.
    SocketLeftOut {
        /// Its path in the source.
        path: String,
    },
    /// A device node or named pipe in an archive was left out.
    SpecialLeftOut {
        /// The archive.
        archive: String,
        /// Its path in it.
        path: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingMatches {
                pattern,
                hint: None,
            } => write!(f, "`{pattern}` matches nothing"),
            Self::NothingMatches {
                pattern,
                hint: Some(hint),
            } => write!(f, "`{pattern}` matches nothing: {hint}"),
            Self::SocketLeftOut { path } => write!(f, "the socket `{path}` is left out"),
            Self::SpecialLeftOut { archive, path } => {
                write!(
                    f,
                    "`{path}` of `{archive}` is left out: ADD makes no device nodes and named pipes"
                )
            }
        }
    }
}
