//! stepwell-guest
