//! Why something cannot be mounted.

use stepwell_sys::SysError;

/// Why something cannot be mounted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// A system call failed.
    #[error("cannot mount `{target}`: {error}")]
    System {
        /// The target.
        target: String,
        /// Why.
        error: SysError,
    },
    /// The target is where the step's own `/proc` or `/sys` is.
    #[error(
        "cannot mount `{target}`: `/proc` and `/sys` of a step are made up, and nothing is mounted there"
    )]
    MadeUp {
        /// The target.
        target: String,
    },
    /// The source is not there.
    #[error("cannot mount `{target}`: there is no `{source_path}` in what is mounted")]
    NoSource {
        /// The target.
        target: String,
        /// The source.
        source_path: String,
    },
    /// One of the two is a directory and the other is not.
    #[error("cannot mount `{target}`: a {what} cannot be mounted on a {there}")]
    Kind {
        /// The target.
        target: String,
        /// What is mounted.
        what: &'static str,
        /// What the image has there.
        there: &'static str,
    },
}
