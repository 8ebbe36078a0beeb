//! The tests of trees once more on xfs and btrfs, where the roots of steps share their contents: in a mount namespace of their own,
//! in which `/var/tmp` is such a file system in a file.

use std::path::Path;
use std::process::Command;

use stepwell_test_support::cmd::{run, show, tool};
use stepwell_test_support::{cache_dir, is_root, tools};

use crate::{setup, test};

/// What is said where they cannot be mounted.
pub const NOT_RUN: &str = "NOT RUN: trees on xfs and btrfs (mounting them needs the machine's root, and loop devices); run `cargo xtask file-systems` as root for them";

/// Size of a file system; its file has holes.
const SIZE: &str = "8G";

/// Which tests are run with all others: how trees are made of others, and random changes.
const TREES: &str = "package(stepwell-store) & test(/donor|random/)";

/// Which are run by the command: all of the store, and builds.
const ALL: &str = "package(stepwell-store) | (package(stepwell-integration-tests) & binary(/branches|build|crash|mounts/)) \
                   | (package(stepwell-escape-tests) & binary(poison))";

/// A file system: its name, and what makes it.
const FILE_SYSTEMS: [(&str, &[&str]); 2] = [
    ("xfs", &["mkfs.xfs", "-q"]),
    ("btrfs", &["mkfs.btrfs", "-q"]),
];

/// Mounts `$1` and runs the rest there; a checkout that lies there stays where it is.
const THERE: &str = "exec 9<. && mount -o loop \"$1\" /var/tmp && chmod 1777 /var/tmp && rm \"$1\" && shift && case $PWD in /var/tmp/*) \
     mkdir -p \"$PWD\" && mount --bind --no-canonicalize /proc/self/fd/9 \"$PWD\" && cd \"$PWD\";; esac && exec 9<&- && exec \"$@\"";

/// Sets up and runs them; where they cannot be run, that is no success.
pub fn main(args: &[String]) -> Result<(), String> {
    setup::build()?;
    setup::tools()?;
    show(test::cargo().args(["build", "--package", "stepwell"]))?;
    setup::images()?;
    if is_possible() {
        each(ALL, args)
    } else {
        Err(NOT_RUN.to_owned())
    }
}

/// Runs those that are quick, after all tests were run.
pub fn quick() -> Result<(), String> {
    if is_possible() {
        each(TREES, &[])
    } else {
        println!("{NOT_RUN}");
        Ok(())
    }
}

/// Says whether file systems in files can be mounted here.
fn is_possible() -> bool {
    let namespace = || run(Command::new("unshare").args(["--mount", "losetup", "--find"]));
    is_root() && namespace().is_ok()
}

fn each(tests: &str, args: &[String]) -> Result<(), String> {
    tools::ensure(&tools::FILE_SYSTEMS.iter().collect::<Vec<_>>())?;
    let dir = cache_dir().join("file-systems");
    std::fs::create_dir_all(&dir).map_err(|e| format!("`{}`: {e}", dir.display()))?;
    for (name, make) in FILE_SYSTEMS {
        println!("test: trees on {name}");
        let image = dir.join(format!("{name}.{}", std::process::id()));
        let result = on(&image, make, tests, args);
        let _ = std::fs::remove_file(&image);
        result?;
    }
    Ok(())
}

fn on(image: &Path, make: &[&str], tests: &str, args: &[String]) -> Result<(), String> {
    run(Command::new("truncate").args(["-s", SIZE]).arg(image))?;
    run(tool(make[0]).args(&make[1..]).arg(image))?;
    let mut runner = test::runner()?;
    // The same features as with all tests, so that nothing is compiled again.
    runner.args(["--workspace", "--failure-output=immediate-final"]);
    runner.args(["--filterset", tests]).args(args);
    let mut there = test::at_root("unshare");
    there.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        THERE,
        "sh",
    ]);
    there
        .arg(image)
        .arg(runner.get_program())
        .args(runner.get_args());
    for (name, value) in runner.get_envs() {
        if let Some(value) = value {
            there.env(name, value);
        }
    }
    show(&mut there)
}
