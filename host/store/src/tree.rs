//! Trees: unpacked root file systems.
pub(crate) mod remove;
