//! The guests that are part of the program; the build script compiles them.

use stepwell_model::Digest;

/// A guest that is part of the program.
pub struct Builtin {
    pub name: &'static str,
    /// Code for this processor, made by `Engine::precompile_component`.
    pub code: &'static [u8],
    /// Digest of the component that it was made from.
    pub digest: Digest,
}

include!(concat!(env!("OUT_DIR"), "/builtin.rs"));
