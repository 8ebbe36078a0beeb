//! Generated from `guest-sdk/wit/cache-policy`.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::all,
    rust_2018_idioms,
    reason = "generated"
)]

wasmtime::component::bindgen!({
    path: "../../guest-sdk/wit/cache-policy",
    world: "cache-policy",
});
