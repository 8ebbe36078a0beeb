//! The ways in which the same script is run.

use std::process::Command;

use stepwell_test_support::cmd::{run, tool, which};
use stepwell_test_support::{is_root, user};

use super::SCRIPT;
use super::tools::{Prepared, write};
use crate::measure::{self, Measured};

/// The way that all others are compared with.
pub const REAL: &str = "mounts";
/// The tier that does what PRoot does.
pub const MEDIATED: &str = "mediated";
/// What that is compared with.
pub const PROOT: &str = "proot";

/// What came of a way: what it took in all, and what it printed.
pub type Ran = (Measured, String);

/// A way: its name on the command line and in the table, what it is, how it is done.
pub struct Way {
    /// Name.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    run: fn(&Prepared) -> Result<Ran, String>,
}

impl Way {
    /// Runs the script.
    pub fn run(&self, prepared: &Prepared) -> Result<Ran, String> {
        (self.run)(prepared)
    }
}

/// All ways, in the order in which they are measured.
pub const WAYS: &[Way] = &[
    Way {
        name: REAL,
        what: "a chroot in a mount namespace, with real /proc, /dev and /sys",
        run: real,
    },
    Way {
        name: "userns",
        what: "Stepwell, an ordinary user with one id: owners emulated",
        run: |p| step(p, "userns", user::ordinary),
    },
    Way {
        name: "userns-ids",
        what: "Stepwell, an ordinary user with subordinate ids",
        run: subordinate,
    },
    Way {
        name: "chroot",
        what: "Stepwell as root with docker's capabilities, without user namespaces",
        run: chroot,
    },
    Way {
        name: MEDIATED,
        what: "Stepwell, every path resolved by the supervisor",
        run: |p| step(p, MEDIATED, user::ordinary),
    },
    Way {
        name: PROOT,
        what: "PRoot, the same without a filter of the calls",
        run: proot,
    },
];

/// Docker's capabilities, which have neither `sys_admin` nor `sys_ptrace`.
const DOCKERS: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

fn step(prepared: &Prepared, tier: &str, who: fn(Command) -> Command) -> Result<Ran, String> {
    build(prepared, tier, tier, who)
}

fn subordinate(prepared: &Prepared) -> Result<Ran, String> {
    if !user::has_subordinate_ids() {
        return Err("this user has no subordinate ids, or no helper that may map them".to_owned());
    }
    build(prepared, "userns-ids", "userns", user::with_helpers)
}

fn chroot(prepared: &Prepared) -> Result<Ran, String> {
    if !is_root() {
        return Err("it takes root".to_owned());
    }
    build(prepared, "chroot", "chroot", |command| {
        let mut own = Command::new("setpriv");
        own.args(["--no-new-privs", "--bounding-set", DOCKERS, "--"]);
        own.arg(command.get_program()).args(command.get_args());
        own
    })
}

/// Builds a Dockerfile of one step; whoever builds owns the directory.
fn build(
    prepared: &Prepared,
    name: &str,
    tier: &str,
    who: fn(Command) -> Command,
) -> Result<Ran, String> {
    let dir = prepared.dir(name)?;
    let context = prepared.dir(&format!("{name}/context"))?;
    let image = &prepared.image;
    let rounds = prepared.rounds;
    write(&context.join("work.sh"), SCRIPT)?;
    let text = format!("FROM {image}\nCOPY work.sh /cost/\nRUN sh /cost/work.sh {rounds}\n");
    write(&context.join("Dockerfile"), &text)?;
    user::give(&dir)?;
    let mut command = Command::new(prepared.program());
    command.args(["build", "--progress=plain", "--isolation", tier, "--root"]);
    command.arg(dir.join("store")).arg(&context);
    measure::one(&who(command))
}

fn real(prepared: &Prepared) -> Result<Ran, String> {
    let root = prepared.unpacked()?;
    let script = "mount -t proc proc \"$0/proc\" && mount --rbind /dev \"$0/dev\" && mount --rbind /sys \"$0/sys\" && exec chroot \"$0\" /bin/sh /cost/work.sh \"$1\"";
    let mut command = tool("unshare");
    command.args((!is_root()).then_some("--map-root-user"));
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        script,
    ]);
    command.arg(root).arg(prepared.rounds.to_string());
    measure::one(with_path(&mut command))
}

fn proot(prepared: &Prepared) -> Result<Ran, String> {
    let program = which("proot").ok_or("`proot` is not installed")?;
    let (root, own) = (prepared.unpacked()?, prepared.work.join("proot"));
    run(Command::new("cp").arg("-a").arg(&root).arg(&own))?;
    user::give(&own)?;
    let mut command = tool(program);
    command.args([
        "-0", "-b", "/proc", "-b", "/dev", "-b", "/sys", "-w", "/", "-r",
    ]);
    command
        .arg(&own)
        .args(["/bin/sh", "/cost/work.sh"])
        .arg(prepared.rounds.to_string());
    measure::one(with_path(&mut user::ordinary(command)))
}

/// The environment that a step has.
fn with_path(command: &mut Command) -> &mut Command {
    command
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
}
