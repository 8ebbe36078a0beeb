//! Generated from `guest-sdk/wit/frontend`.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::all,
    rust_2018_idioms,
    reason = "generated"
)]

wit_bindgen::generate!({
    path: "../wit/frontend",
    world: "frontend",
    pub_export_macro: true,
    generate_all,
});
