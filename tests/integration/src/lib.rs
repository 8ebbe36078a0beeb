//! stepwell-integration-tests
