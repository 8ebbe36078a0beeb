//! The builds in real lockdowns, the slow ones too: all containers with a Debian build, and Debian's kernels with AppArmor.

use stepwell_test_support::cmd::show;
use stepwell_test_support::{is_root, tools};

use crate::{setup, test};

/// Package of the tests.
pub const PACKAGE: &str = "stepwell-lockdown-tests";

/// What is said where the containers cannot be made.
pub const NOT_RUN: &str = "NOT RUN: builds in containers (runc needs the machine's root); run `cargo xtask lockdown` as root for them";

/// Sets up and runs them; without root those in containers are not run, and that is no success.
pub fn main(args: &[String]) -> Result<(), String> {
    setup::build()?;
    setup::tools()?;
    tools::ensure(&tools::LOCKDOWN.iter().collect::<Vec<_>>())?;
    show(test::cargo().args(["build", "--package", "stepwell"]))?;
    setup::images()?;
    let mut tests = test::runner()?;
    tests.args(["--package", PACKAGE, "--run-ignored", "all"]);
    // They keep the processor busy for long; two at once are enough.
    tests.args(["--test-threads", "2", "--failure-output=immediate-final"]);
    if !is_root() {
        tests.args(["--filterset", "binary(machines)"]);
    }
    show(tests.args(args))?;
    if is_root() {
        Ok(())
    } else {
        Err(NOT_RUN.to_owned())
    }
}
