//! Real lockdowns: the same network-free build outside and in each of them, with the exit status, the tier that was chosen
//! and the digest of the image compared.
//!
//! [`environment`] is the table of containers, [`vm`] runs other kernels; a new environment is a row and nothing else.
//! Containers need the machine's root, for runc: tests fail without, and `cargo xtask test` says that it leaves them out.
#![forbid(unsafe_code)]

pub mod container;
pub mod environment;
pub mod root;
pub mod seccomp;
pub mod site;
pub mod vm;
