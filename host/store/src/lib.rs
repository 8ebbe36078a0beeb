//! stepwell-store
