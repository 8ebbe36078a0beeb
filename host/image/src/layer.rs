//! Layers: tar archives (POSIX.1-2001 pax, as the OCI image-spec's layer.md asks for) of entries.
//!
//! [`LayerWriter`] makes one from entries, [`LayerReader`] reads entries out of one that nobody vouches for.
//! Nothing here touches a file system: the store walks trees and unpacks.

mod content;
pub mod entry;
pub mod error;
mod fields;
pub(crate) mod header;
mod pax;
pub mod reader;
mod sparse;
pub mod writer;

pub use content::Content;
pub use entry::{Entry, Kind, Mtime};
pub use error::{Place, ReadError, ReadFault};
pub use reader::{LayerReader, ReadLimits, ReadSummary};
pub use writer::{LayerOptions, LayerWriter, WriteError, Written};
