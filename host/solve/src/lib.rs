//! Decides what of a graph is carried out and what is reused.  Pure: no I/O, no clock, no threads.  The
//! composition root (`stepwell-build`) carries out the [`Action`]s and tells the answers.
//!
//! * [`keys`]: what a cache key is made of.
//! * [`solver`]: the scheduler, a state machine.
//! * [`explain`]: why a step was not reused.
#![forbid(unsafe_code)]

pub mod explain;
pub mod keys;
pub mod solver;

pub use explain::{Change, explain};
pub use keys::{Decision, KeyContext, Part, Preimage};
pub use solver::{Action, Solver};
