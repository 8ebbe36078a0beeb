//! What whoever runs a frontend has to bring: contexts and images.

use stepwell_model::{Digest, ImageConfig, Op, Platform};

/// Why something of a context cannot be had.  The guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// No directory has this name.
    #[error("no such context")]
    UnknownContext,
    /// There is nothing.
    #[error("not found")]
    NotFound,
    /// The path leads out of the context.
    #[error("the path leads out of the context")]
    Outside,
    /// It is not a file.
    #[error("not a file")]
    NotAFile,
    /// It is not a directory.
    #[error("not a directory")]
    NotADirectory,
    /// The file has more than this many bytes.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// The operating system denies it.
    #[error("permission denied")]
    Denied,
    /// The operating system failed.
    #[error("{0}")]
    Io(String),
}

/// Why a reference cannot be resolved.  The guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It is no reference.
    #[error("{0}")]
    InvalidReference(String),
    /// There is no such image.
    #[error("{0}")]
    NotFound(String),
    /// It is not there for the platform.
    #[error("{0}")]
    NoSuchPlatform(String),
    /// The registry wants other credentials.
    #[error("{0}")]
    Denied(String),
    /// The registry cannot be reached or does not answer as it should.
    #[error("{0}")]
    Unavailable(String),
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryStat {
    /// What it is.
    pub kind: EntryKind,
    /// In bytes; 0 where it is no file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// An image that a reference was resolved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The reference, normalised; it comes back in [`stepwell_model::op::ImageOp`].
    pub reference: String,
    /// Digest of the manifest for the platform.
    pub digest: Digest,
    /// The platform that the image is for.
    pub platform: Platform,
    /// Its configuration.
    pub config: ImageConfig,
}

/// Contexts and images.  Paths come from the guest as they are: it is the implementation that keeps them within the
/// context.  The context is `""` or the name of a directory of
/// [`FrontendInput::named_contexts`](super::FrontendInput::named_contexts).
pub trait FrontendHost {
    /// Makes a context ready to be read, which may take time that is not the guest's.
    fn open_context(&mut self, context: &str) -> Result<(), AccessError> {
        let _ = context;
        Ok(())
    }

    /// Reads a whole file of at most `max` bytes; a larger one is [`AccessError::TooLarge`].
    fn read(&mut self, context: &str, path: &str, max: u64) -> Result<Vec<u8>, AccessError>;

    /// Says what a path is, without following a symbolic link at its end.
    fn stat(&mut self, context: &str, path: &str) -> Result<EntryStat, AccessError>;

    /// Lists a directory, sorted by name.
    fn list(&mut self, context: &str, path: &str) -> Result<Vec<DirectoryEntry>, AccessError>;

    /// Says when what a context is made of was last changed, in seconds since 1970.
    fn context_time(&mut self, context: &str) -> Result<Option<i64>, AccessError> {
        let _ = context;
        Ok(None)
    }

    /// Says the same of what an operation takes from elsewhere; it is fetched for that.
    fn fetched_time(&mut self, op: &Op) -> Result<Option<i64>, AccessError> {
        let _ = op;
        Ok(None)
    }

    /// Resolves a reference to the image for a platform.
    fn resolve_image(
        &mut self,
        reference: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError>;
}

/// Has no context and no image: for asking a frontend what it is.
pub(super) struct Nothing;

impl FrontendHost for Nothing {
    fn read(&mut self, _: &str, _: &str, _: u64) -> Result<Vec<u8>, AccessError> {
        Err(AccessError::UnknownContext)
    }

    fn stat(&mut self, _: &str, _: &str) -> Result<EntryStat, AccessError> {
        Err(AccessError::UnknownContext)
    }

    fn list(&mut self, _: &str, _: &str) -> Result<Vec<DirectoryEntry>, AccessError> {
        Err(AccessError::UnknownContext)
    }

    fn resolve_image(&mut self, _: &str, _: &Platform) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError::Unavailable("there is no build".into()))
    }
}
