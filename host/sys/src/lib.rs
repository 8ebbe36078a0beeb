//! What Stepwell asks of the kernel: one file per facility, each with a safe interface and errors that name
//! the system call and its subject.
//!
//! This is the only crate with `unsafe` code.  It decides nothing: what a step is set up with is planned in
//! `stepwell-steps` (`run/plan.rs`), and what this machine permits is found out by [`probe`].

pub mod error;

pub mod memory;
pub mod meta;
pub mod notify;
pub mod resolve;

pub mod capability;
pub mod chroot;
pub mod descriptor;
pub mod group;
pub mod landlock;
pub mod mount;
pub mod namespace;
pub mod probe;
pub mod process;
pub mod ptrace;
pub mod seccomp;
pub mod subordinate;
pub mod usage;

pub use error::{SysError, SysResult};
