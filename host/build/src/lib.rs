//! The composition root: a `Request` becomes an `Outcome`.  Everything is wired here and nowhere else; the crates below
//! know nothing of each other.
//!
//! The way of a build: [`frontend`] turns the definition into a graph, [`policy`] asks the cache policy, [`drive`] lets the
//! scheduler decide and carries its actions out with [`execute`], [`export`] writes the result.  Nothing here reads the
//! environment or the home directory, or prints: what is to be told goes to the `EventSink`.
#![forbid(unsafe_code)]

mod builder;
pub mod check;
mod clip;
mod contexts;
mod definition;
mod drive;
mod error;
mod execute;
mod explain;
mod export;
mod frontend;
mod images;
mod mounts;
mod names;
mod policy;
mod provenance;
mod remote;
mod selections;
mod session;
mod stages;
mod tier;
mod uploads;

pub use builder::{Builder, BuilderOptions, Exported, Inspection, Outcome};
pub use error::{BuildError, ImageError, StepError};
pub use explain::Explanation;
pub use remote::RemoteError;
pub use stepwell_registry::{Proxy, RegistryError, RegistryOptions};
pub use stepwell_steps::run::{CancelToken, Exit};
pub use stepwell_wasm::GuestError;
