//! Where files come from: build contexts and the checkouts of other stages.
//!
//! Everything below reads, through directory handles that no look-up leaves; nothing writes to a source.  What is
//! done with the files is [`crate::files`].
//!
//! - [`path`], [`node`], [`glob`]: pure data and text
//! - [`root`]: look-ups that stay inside
//! - [`tree`], [`walk`], [`extra`]: what a COPY sees
//! - [`context`]: what a frontend sees
//! - [`cache`]: digests of unchanged files

pub mod cache;
pub mod context;
pub mod error;
pub mod extra;
pub mod glob;
pub mod node;
pub mod path;
pub mod root;
mod similar;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod walk;

pub use cache::StatCache;
pub use context::ContextDir;
pub use error::{Hint, SourceError};
pub use tree::{Owners, SourceTree};
