//! dockerfile-component
