//! Carries out single steps of a build.
//!
//! - [`source`]: what steps read: build contexts and checkouts, by directory handles that no look-up leaves
//! - [`files`]: COPY, ADD, WORKDIR and the like, as a layer that is made without touching a tree
//! - [`run`]: RUN, in a sandbox
//!
//! Which step is carried out, and whether an earlier result serves, is decided by `stepwell-solve` and
//! `stepwell-build`; this crate neither prints nor reads the environment.
#![forbid(unsafe_code)]

pub mod files;
pub mod run;
pub mod source;
