//! The Dockerfile language: from the text of a file to a build graph.
//!
//! Plain Rust without I/O, clock, environment or processes: everything outside comes through the trait
//! [`lower::Host`], so that the same code runs in a WebAssembly component, in tests and under a fuzzer.  It is
//! deterministic, takes time in proportion to its input, and does not panic on any.
//!
//! The way: [`source`] → [`lexer`] (logical lines) → [`ast`] (instructions) → [`stages`] (what is needed) →
//! [`lower`] (the graph), with [`expand`] for variables and [`diagnostic`] for messages.
#![forbid(unsafe_code)]

pub mod ast;
pub mod diagnostic;
pub mod expand;
mod front;
pub mod inspect;
pub mod lexer;
mod lint;
pub mod lower;
mod reference;
pub mod source;
pub mod stages;

pub use lower::build;
pub use stepwell_patterns::remote;
