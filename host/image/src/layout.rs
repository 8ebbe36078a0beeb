//! OCI image layouts (OCI image-spec, image-layout.md): directories and tars of images.
//!
//! A directory appears whole where there was none; where a layout already is, the image is added, and the index,
//! which makes it visible, is replaced last.

use std::io;
use std::path::{Path, PathBuf};

use stepwell_model::Digest;

use crate::manifest::ManifestError;

mod read;
mod write;

pub use read::{Layout, LayoutImage};
pub(crate) use write::index_of;
pub use write::{write_dir, write_tar};

/// The file that makes a directory a layout.
pub(crate) const MARKER: &str = "oci-layout";
/// What is in it.
pub(crate) const MARKER_TEXT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Annotation with the tag (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with the whole name, which containerd and docker read.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Why a layout could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A file or directory of the layout cannot be read or written.
    #[error("cannot {operation} `{}`", path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A blob cannot be read, or is not what its descriptor says.
    #[error("cannot read blob `{digest}`")]
    Blob {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The directory is there, with something else in it.
    #[error("`{}` exists, is not empty and is not an oci layout", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is no layout, or one of a version that is not known.
    #[error("`{}` is not an oci layout of version 1", path.display())]
    NotLayout {
        /// The directory.
        path: PathBuf,
    },
    /// No image of that name is in the layout.
    #[error("no image `{reference}` is in the layout; it has {available}")]
    Reference {
        /// What was asked for.
        reference: String,
        /// The tags that there are.
        available: String,
    },
    /// Several images are in the layout, and none was named.
    #[error("several images are in the layout: name one of {available}")]
    Ambiguous {
        /// The tags that there are.
        available: String,
    },
    /// A manifest, index or configuration makes no sense.
    #[error("blob `{digest}`: {source}")]
    Manifest {
        /// The blob.
        digest: Digest,
        /// Why.
        source: ManifestError,
    },
    /// The layout's own index makes no sense.
    #[error("`index.json` of the layout: {0}")]
    Index(#[source] ManifestError),
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.to_owned();
    move |source| LayoutError::Io {
        operation,
        path,
        source,
    }
}
