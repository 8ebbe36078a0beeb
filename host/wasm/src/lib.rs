//! Embeds wasmtime: runs frontends and cache policies, which are WebAssembly components, with nothing of the host in
//! reach but what their world imports.
//!
//! * [`engine`]: the settings, loading components, interrupting them.
//! * [`frontend`]: turns a definition into a build graph.
//! * [`policy`]: decides on reuse and eviction.
//! * [`limits`]: what a guest may use.
//! * [`error`]: a guest that refuses, a guest that fails, and a tool that is broken are different things.
//!
//! It reads no context and resolves no image: the [`FrontendHost`](frontend::FrontendHost) that the caller brings does.
//! What becomes of the graph is the business of `stepwell-solve` and `stepwell-steps`.
//!
//! Unsafe code is denied but in `engine/trusted.rs`: wasmtime's loading of code that was compiled before is unsafe by
//! its signature.
#![deny(unsafe_code)]

mod builtin;
pub mod engine;
pub mod error;
pub mod frontend;
pub mod limits;
mod plain;
pub mod policy;
mod wasi;

pub use engine::GuestEngine;
pub use error::GuestError;
