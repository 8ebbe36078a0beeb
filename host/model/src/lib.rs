//! The pure data that every part of Stepwell shares: digests, platforms, operations, the build graph,
//! image configuration, diagnostics, progress events and the build request.
//!
//! No I/O happens here and nothing here may depend on another crate of the workspace but `stepwell-patterns`.  Carrying the data
//! out is the business of `stepwell-steps`; deciding what to carry out is that of `stepwell-solve`.
#![forbid(unsafe_code)]

pub mod config;
pub mod diagnostic;
pub mod digest;
pub mod event;
pub mod graph;
pub mod inspection;
pub mod mount;
pub mod op;
pub mod platform;
pub mod reference;
pub mod request;

pub use stepwell_patterns as ignore;
pub use stepwell_patterns::remote;

pub use config::{Healthcheck, History, ImageConfig};
pub use diagnostic::{Diagnostic, Origin, Severity, Span};
pub use digest::{Digest, DigestError, Hasher};
pub use graph::{Graph, GraphBuilder, GraphError, Vertex, VertexId};
pub use oci_spec::distribution::Reference;
pub use op::Op;
pub use platform::Platform;
pub use reference::{ReferenceError, parse_reference};
