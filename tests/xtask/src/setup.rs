//! Set-up: installs what is missing and is quick when nothing is.

use stepwell_test_support::{base, tools, user};

use crate::guest_std;

/// Everything.
pub fn main(_: &[String]) -> Result<(), String> {
    build()?;
    images()?;
    println!("setup: done; `cargo build --release` gives target/release/stepwell");
    Ok(())
}

/// What compiling needs.
pub fn build() -> Result<(), String> {
    guest_std::ensure()
}

/// What the demonstration and the tests need.
pub fn images() -> Result<(), String> {
    tools::ensure(&tools::PACKAGES.iter().collect::<Vec<_>>())?;
    user::ensure()?;
    base::busybox()?;
    base::debian().map(drop)
}
