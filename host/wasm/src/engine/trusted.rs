//! The only unsafe code of this crate: taking code that was compiled before as it is.  wasmtime checks that it was
//! compiled by the same version with compatible settings; it cannot check that nobody tampered with it.
#![allow(unsafe_code, reason = "see the SAFETY comments")]

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::builtin::Builtin;

/// Loads a guest that is part of this program.
pub fn embedded(engine: &Engine, guest: &Builtin) -> wasmtime::Result<Component> {
    // SAFETY: the bytes were made by `Engine::precompile_component` in this crate's build script and are part of
    // the program: whoever can change them can change the program.
    unsafe { Component::deserialize(engine, guest.code) }
}

/// Loads code of the cache; none where the engine does not take it.
pub fn cached(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `cache::Entry::read` gives only whole code from a directory and a file that belong to the user and that
    // nobody else may write; it was made by `Component::serialize` in `GuestEngine::compile`.
    unsafe { Component::deserialize(engine, code) }.ok()
}
