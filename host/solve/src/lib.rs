//! stepwell-solve
