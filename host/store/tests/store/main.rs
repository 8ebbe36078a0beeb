//! The store from outside: trees, layers, records, hostile layers, processes that die.
//!
//! Every test of trees runs with owners held by the kernel where it may (real root), and with emulated ones; the last
//! file runs them all again as an ordinary user's root of a user namespace of its own.

mod blobs;
mod caches;
mod capture;
mod concurrent;
mod donors;
mod fake_root;
mod hostile;
mod interrupt;
mod prune;
mod random;
mod support;
mod transform;
mod view;
