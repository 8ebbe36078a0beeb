//! What lies below the new layer, by its tables of contents.

use stepwell_image::layer::Entry;
use stepwell_store::{ChainView, Store};

use super::error::FilesError;
use crate::source::path;

/// The file system that files are put into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base<'a> {
    /// Where the layers are.
    pub(super) store: &'a Store,
    /// What they make.
    pub(super) view: &'a ChainView,
}

impl<'a> Base<'a> {
    /// Returns what is at `path`: no slash in front, links not followed, not even on the way.
    pub(super) fn entry(&self, path: &[u8]) -> Option<&'a Entry> {
        self.view.lookup(path).map(|node| node.entry())
    }

    /// Reads the file at `path`, links followed; none where it is missing.
    pub(super) fn read(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, FilesError> {
        let read = self
            .view
            .read_file(self.store, &path::clean(path.as_bytes()), max);
        read.map_err(|source| FilesError::Base {
            path: path.to_owned(),
            source,
        })
    }
}
