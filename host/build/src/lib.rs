//! stepwell-build
