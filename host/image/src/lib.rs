//! OCI bytes: layers (tar, whiteouts, compression), manifests, image configurations and image archives.
//!
//! No network and no store: what is read and written comes in as `Read`, `Write`, or a
//! [`BlobSource`](blob::BlobSource).  Fetching blobs is `stepwell-registry`, keeping and unpacking
//! them is `stepwell-store`.
#![forbid(unsafe_code)]

pub mod archive;
pub mod attestation;
pub mod blob;
pub mod compress;
pub mod config;
pub mod docker_archive;
pub mod hash;
pub mod layer;
pub mod layout;
pub mod manifest;
pub mod whiteout;

pub use archive::ImageBundle;
pub use attestation::Attestation;
pub use blob::BlobSource;
pub use config::{HistoryEntry, ImageDocument};
pub use layer::{Entry, Kind, LayerOptions, LayerReader, LayerWriter, Mtime, ReadLimits, Written};
pub use layout::{Layout, LayoutError, LayoutImage};
pub use manifest::{Descriptor, Document, Index, Manifest, ManifestError};
