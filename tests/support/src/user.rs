//! An ordinary user: who runs the tests, or, where that is root, an account without any right that is made for it.
//! Root hides every mistake that this project is about.

use std::path::Path;
use std::process::Command;

use crate::cmd::run;
use crate::is_root;

/// The account's name.
pub const NAME: &str = "stepwell-test";

/// Turns a command into one that the ordinary user runs, with nothing of root's environment left.
pub fn ordinary(command: Command) -> Command {
    if !is_root() {
        return command;
    }
    let mut own = Command::new("setpriv");
    own.args([
        "--reuid",
        NAME,
        "--regid",
        NAME,
        "--init-groups",
        "--no-new-privs",
    ]);
    if needs_helpers(&command) {
        // Setuid helpers (newuidmap) are of no use with no_new_privs.
        own = Command::new("setpriv");
        own.args(["--reuid", NAME, "--regid", NAME, "--init-groups"]);
    }
    own.arg("--")
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

fn needs_helpers(command: &Command) -> bool {
    Path::new(command.get_program())
        .file_name()
        .is_some_and(|name| name == "buildah")
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
