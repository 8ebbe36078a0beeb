//! Tests of the client against a real registry (Debian's `docker-registry`) and against servers that
//! misbehave in every way a test can think of.
#![allow(missing_docs)]
#![forbid(unsafe_code)]

mod auth;
mod faults;
mod fetch;
mod real;
mod support;
mod tls;
mod uploads;
