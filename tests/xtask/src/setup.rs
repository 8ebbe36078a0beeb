//! Set-up: installs what is missing and is quick when nothing is.

use stepwell_test_support::cmd::show;
use stepwell_test_support::{base, program, tools, user};

use crate::{guest_std, test};

/// Everything.
pub fn main(_: &[String]) -> Result<(), String> {
    build()?;
    tools()?;
    if base::debian_needs_stepwell() && program::any().is_err() {
        show(test::cargo().args(["build", "--package", "stepwell"]))?;
    }
    images()?;
    println!("setup: done; `cargo build --release` gives target/release/stepwell");
    Ok(())
}

/// What compiling needs.
pub fn build() -> Result<(), String> {
    guest_std::ensure()
}

/// Other people's programs, and the account.
pub fn tools() -> Result<(), String> {
    tools::ensure(&tools::PACKAGES.iter().collect::<Vec<_>>())?;
    user::ensure()
}

/// The base images of the demonstration and the tests; where [`base::debian_needs_stepwell`], `stepwell` has to be there.
pub fn images() -> Result<(), String> {
    base::busybox()?;
    base::debian().map(drop)
}
