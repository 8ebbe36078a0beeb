//! The Dockerfile language, case by case: what a Dockerfile becomes, or what is said about it.
//!
//! Cases are data (`cases/*.toml`, see [`case`]); [`run`] builds each with the real program, [`image`] reads what came out,
//! [`compare`] says what is not as expected.
#![forbid(unsafe_code)]

pub mod case;
pub mod compare;
pub mod image;
pub mod run;
