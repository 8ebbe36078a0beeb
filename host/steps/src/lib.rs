//! stepwell-steps
