//! stepwell-registry
