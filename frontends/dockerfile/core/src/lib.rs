//! dockerfile-core
