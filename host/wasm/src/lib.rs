//! stepwell-wasm
