//! stepwell-image
