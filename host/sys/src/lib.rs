//! stepwell-sys
