//! A client of the OCI distribution API (distribution-spec 1.1): resolve, pull and push.
//!
//! Nothing here knows the content store, an image's contents, the environment or the terminal: blobs stream
//! from and to what the caller hands in, paths and proxies come in [`RegistryOptions`].  What the bytes of a
//! manifest or a layer mean is the business of `stepwell-image`.
//!
//! Files behind plain addresses are fetched over the same connections (`fetch`).
//!
//! The way of a call: [`Registry`] (in `manifest`, `pull`, `push`) builds a request, `retry` repeats it,
//! `transport` sends it once with redirects and timeouts, `auth` answers the server's challenges.
#![forbid(unsafe_code)]

mod auth;
mod endpoint;
mod error;
mod fetch;
mod hint;
mod manifest;
mod options;
mod pull;
mod push;
mod registry;
mod retry;
mod select;
mod text;
mod tls;
mod transport;
mod upload;

pub use error::{ErrorCode, ErrorKind, RegistryError, Result};
pub use fetch::{Download, FETCH_ATTEMPTS, Fetch, FetchAuth, Fetched, Validators};
pub use manifest::{MANIFEST_LIMIT, Manifest, Resolved, media_type};
pub use oci_spec::image::Descriptor;
pub use options::{Proxy, RegistryOptions, RetryPolicy, Timeouts};
pub use push::{BlobSource, PushOutcome};
pub use registry::{Progress, Registry, no_progress};
pub use retry::RetryListener;
pub use stepwell_model::{Digest, Platform, Reference};
