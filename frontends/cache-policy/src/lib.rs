//! cache-policy-component
