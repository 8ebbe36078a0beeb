//! The SDK for guests of Stepwell in Rust: a frontend (feature `frontend`) or a cache policy (feature `cache-policy`).
//!
//! A guest is a `cdylib` for `wasm32-unknown-unknown` that implements [`frontend::Frontend`] or
//! [`cache_policy::CachePolicy`] and calls the matching export macro once.  It reaches nothing of the host but what
//! these modules show; there is no file, clock, network, process, environment or randomness.
//!
//! The contracts are in `guest-sdk/wit`; a whole frontend is in `examples/recipe-frontend`.
//!
//! The generated bindings are the only unsafe code; nothing else here may contain any.
#![deny(unsafe_code)]

#[cfg(feature = "cache-policy")]
pub mod cache_policy;
#[cfg(feature = "frontend")]
pub mod frontend;
