//! An ordinary user: who runs the tests, or, where that is root, an account without any right that is made for it.
//! Root hides every mistake that this project is about.

use std::path::Path;
use std::process::Command;

use crate::cmd::{run, which};
use crate::{is_root, tools};

/// The account's name.
pub const NAME: &str = "stepwell-test";

/// Turns a command into one that the ordinary user runs, with nothing of root's environment left, and with no way to gain
/// privileges (buildah alone cannot work so).
pub fn ordinary(command: Command) -> Command {
    let is_buildah = Path::new(command.get_program())
        .file_name()
        .is_some_and(|name| name == "buildah");
    as_user(command, !is_buildah)
}

/// The same for a command that may use setuid helpers (newuidmap).
pub fn with_helpers(command: Command) -> Command {
    as_user(command, false)
}

/// Says whether the ordinary user has subordinate ids, and helpers that may map them.
pub fn has_subordinate_ids() -> bool {
    let name = if is_root() {
        NAME.to_owned()
    } else {
        std::env::var("USER").unwrap_or_default()
    };
    let has = |file: &str| {
        std::fs::read_to_string(file)
            .unwrap_or_default()
            .lines()
            .any(|line| line.starts_with(&format!("{name}:")))
    };
    let helper = which("newuidmap").is_some_and(|p| !p.starts_with(tools::unpacked()));
    helper && has("/etc/subuid") && has("/etc/subgid")
}

fn as_user(command: Command, no_new_privs: bool) -> Command {
    if !is_root() {
        return command;
    }
    let mut own = Command::new("setpriv");
    own.args(["--reuid", NAME, "--regid", NAME, "--init-groups"])
        .args(no_new_privs.then_some("--no-new-privs"))
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    own.env("HOME", home())
        .env("USER", NAME)
        .env_remove("XDG_CACHE_HOME")
        .env_remove("XDG_DATA_HOME")
        .env_remove("XDG_RUNTIME_DIR");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => own.env(name, value),
            None => own.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        own.current_dir(dir);
    }
    own
}

/// Home directory of the ordinary user.
pub fn home() -> std::path::PathBuf {
    if is_root() {
        Path::new("/home").join(NAME)
    } else {
        std::env::var_os("HOME").unwrap_or_default().into()
    }
}

/// Gives a directory and all in it to the ordinary user.
pub fn give(dir: &Path) -> Result<(), String> {
    if !is_root() {
        return Ok(());
    }
    run(Command::new("chown")
        .arg("-R")
        .arg(format!("{NAME}:{NAME}"))
        .arg(dir))?;
    // The way there has to be open too.
    for parent in dir
        .ancestors()
        .skip(1)
        .take_while(|p| p.starts_with("/var/tmp/") || p.starts_with("/tmp/"))
    {
        run(Command::new("chmod").arg("a+rx").arg(parent))?;
    }
    Ok(())
}

/// Makes sure that the account exists.
pub fn ensure() -> Result<(), String> {
    if !is_root() || run(Command::new("id").arg(NAME)).is_ok() {
        return Ok(());
    }
    println!("setup: makes the account `{NAME}`, so that tests do not run as root");
    run(Command::new("useradd").args(["--create-home", "--shell", "/bin/sh", NAME])).map(drop)
}
