//! COPY, ADD, WORKDIR and the like: makes one layer out of sources and a base, without unpacking the base.
//!
//! 1. [`select`](fn@select): finds and walks what the copy actions take.
//! 2. [`Selected::digest`]: the digest of it, for the cache key.
//! 3. [`apply`]: carries out the actions in a plan on top of the base's tables of contents, and writes the layer.
//!
//! Nothing here writes to a tree; a later RUN applies the layer to one.  What a source is, is in [`crate::source`].

mod archive;
mod base;
mod content;
mod copy;
mod emit;
pub mod error;
pub mod mode;
pub mod notes;
pub mod owner;
mod plan;
mod read_ahead;
pub mod select;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use stepwell_image::layer::Mtime;
use stepwell_model::op::FilesOp;
use stepwell_store::{ChainView, LayerSink, Store};

pub use archive::is_archive;
use base::Base;
use emit::{Emit, Part};
pub use error::FilesError;
pub use notes::Note;
pub use select::{Selected, select};

use crate::source::SourceTree;

/// How a layer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Time of the directories and files that are made and not copied.
    pub now: Mtime,
}

impl Default for Options {
    fn default() -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            now: Mtime {
                secs: now.as_secs() as i64,
                nanos: now.subsec_nanos(),
            },
        }
    }
}

/// Carries out `op` on top of `base` (an empty view for scratch) and adds the entries to `sink`; `inputs` has a tree
/// at each index that a copy action names.  Returns what the user should know.
pub fn apply(
    op: &FilesOp,
    base: &ChainView,
    inputs: &[Option<SourceTree>],
    store: &Store,
    sink: &mut LayerSink<'_>,
    options: &Options,
) -> Result<Vec<Note>, FilesError> {
    apply_selected(&select(op, inputs)?, base, store, sink, options)
}

/// Like [`apply`], with what was selected before: a source that is no longer the same is an error.
pub fn apply_selected(
    selected: &Selected<'_>,
    base: &ChainView,
    store: &Store,
    sink: &mut LayerSink<'_>,
    options: &Options,
) -> Result<Vec<Note>, FilesError> {
    let now = options.now;
    carry_out(
        selected,
        Base { store, view: base },
        now,
        &mut |part| match part {
            Part::Entry(entry, content) => sink.add(entry, content),
            Part::Removed(path) => sink.remove(path, now),
            Part::Opaque(path) => sink.opaque(path, now),
        },
    )
}

fn carry_out(
    selected: &Selected<'_>,
    base: Base<'_>,
    now: Mtime,
    emit: &mut Emit<'_>,
) -> Result<Vec<Note>, FilesError> {
    let mut planner = copy::Planner::new(base, now);
    planner.run(selected)?;
    let copy::Planner {
        plan,
        archives,
        notes,
        ..
    } = planner;
    emit::emit(&plan.into_root(), selected.inputs, &archives, emit)?;
    Ok(selected.notes.iter().cloned().chain(notes).collect())
}
