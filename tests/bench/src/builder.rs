//! The builders that are compared.

use std::path::Path;
use std::process::Command;

use stepwell_test_support::cmd::{run, tool};
use stepwell_test_support::{program, user};

/// A builder.
pub trait Builder {
    /// Its name in the table.
    fn name(&self) -> &'static str;
    /// The commands that build `context` and push it as `image`, keeping state in `state`.
    fn commands(&self, state: &Path, context: &Path, image: &str) -> Vec<Command>;
    /// Removes its state.
    fn clean(&self, state: &Path) -> Result<(), String>;
}

/// This project, with the optimised program.
pub struct Stepwell;

impl Builder for Stepwell {
    fn name(&self) -> &'static str {
        "stepwell"
    }

    fn commands(&self, state: &Path, context: &Path, image: &str) -> Vec<Command> {
        let mut command = Command::new(program::release());
        command
            .args([
                "build",
                "--progress=plain",
                "--push",
                "--tag",
                image,
                "--root",
            ])
            .arg(state)
            .arg(context);
        vec![user::ordinary(command)]
    }

    fn clean(&self, state: &Path) -> Result<(), String> {
        let mut command = Command::new("rm");
        command.arg("-rf").arg(state);
        run(&mut command).map(drop)
    }
}

/// Buildah with overlay storage and its cache of layers, as its users run it in CI.
pub struct Buildah;

impl Buildah {
    fn command(state: &Path) -> Command {
        let mut command = tool("buildah");
        command
            .env("XDG_RUNTIME_DIR", state.join("run"))
            .env("HOME", state.join("home"))
            .arg("--root")
            .arg(state.join("root"))
            .arg("--runroot")
            .arg(state.join("runroot"));
        command
    }
}

impl Builder for Buildah {
    fn name(&self) -> &'static str {
        "buildah"
    }

    fn commands(&self, state: &Path, context: &Path, image: &str) -> Vec<Command> {
        let mut build = Self::command(state);
        build
            .args([
                "build",
                "--isolation=chroot",
                "--layers",
                "--tls-verify=false",
                "--tag",
                image,
            ])
            .arg(context);
        let mut push = Self::command(state);
        push.args(["push", "--tls-verify=false", image]);
        vec![user::ordinary(build), user::ordinary(push)]
    }

    fn clean(&self, state: &Path) -> Result<(), String> {
        let mut unshare = Self::command(state);
        unshare
            .args(["unshare", "rm", "-rf"])
            .arg(state.join("root"));
        // As root there is no user namespace to enter, and rm does it alone.
        let _ = run(&mut user::ordinary(unshare));
        run(Command::new("rm").arg("-rf").arg(state)).map(drop)
    }
}
