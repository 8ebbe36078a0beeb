//! What Stepwell keeps on disk, shared by all its processes: blobs, layers with their tables of contents, cache
//! records, and *trees*, a small pool of unpacked root file systems that is transformed like git's work trees.
//!
//! It decides nothing: what is reused is the business of `stepwell-solve`, what runs in a tree that of
//! `stepwell-steps`.  It makes no network connection and no mount.
//!
//! # On disk
//! | path below the store's root | what | documented in |
//! | --- | --- | --- |
//! | `v1/lock` | shared lock of every process that has the store open | [`store`] |
//! | `v1/blobs/sha256/HEX` | compressed layers, configurations, manifests | [`blobs`] |
//! | `v1/layers/HEX.toc`, `HEX.gzip` …, `HEX.BLOB` | contents of the layer with that diff id; where its blobs are; that a blob was found to be it | [`toc`], [`layer`] |
//! | `v1/records/HEX`, `v1/slots/HEX` | cache records by key; latest key of a place in a build | [`records`] |
//! | `v1/trees/NAME/` | a tree: `lock`, `index`, `state` or `begun`, `root/` | [`tree`] |
//! | `v1/caches/HEX/` | a cache directory of RUN steps: `lock`, `about`, `data/`, `lent` | [`caches`] |
//! | `v1/tmp/NAME.lock`, `v1/tmp/NAME/` | what one process is writing or deleting | [`session`] |
//!
//! Another format of any of these gets another `vN` directory; processes of different versions can share a root.
#![forbid(unsafe_code)]

pub mod blobs;
pub mod caches;
mod codec;
pub mod error;
mod interrupt;
pub mod layer;
mod paths;
pub mod prune;
pub mod records;
pub mod session;
pub mod sink;
mod spread;
pub mod store;
pub mod toc;
pub mod tree;
pub mod usage;
pub mod view;

pub use blobs::{BlobWriter, Blobs};
pub use caches::{CacheDir, CacheKey};
pub use error::{Result, StoreError};
pub use layer::{Layer, chain_id};
pub use prune::{PruneOptions, Pruned};
pub use records::{Record, Records};
pub use sink::LayerSink;
pub use stepwell_image::LayerOptions;
pub use stepwell_model::request::Compression;
pub use store::{Ids, Store, StoreOptions};
pub use toc::{Toc, TocEntry};
pub use tree::{CaptureOptions, Captured, Checkout, Progress, ReadCheckout};
pub use usage::{Usage, UsageItem, UsageKind};
pub use view::{ChainView, Node, Resolved};
