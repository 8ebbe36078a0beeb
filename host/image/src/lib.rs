//! OCI bytes: layers (tar, whiteouts, compression), manifests, image configurations and image archives.
//!
//! No network and no store: what is read and written comes in as `Read`, `Write`, or a
//! [`BlobSource`](blob::BlobSource).  Fetching blobs is `stepwell-registry`, keeping and unpacking
//! them is `stepwell-store`.
#![forbid(unsafe_code)]

pub mod compress;
pub mod config;
pub mod hash;
pub mod layer;
pub mod manifest;
pub mod whiteout;

pub use config::{HistoryEntry, ImageDocument};
pub use layer::{Entry, Kind, LayerOptions, LayerReader, LayerWriter, Mtime, ReadLimits, Written};
pub use manifest::{Descriptor, Document, Index, Manifest, ManifestError};
