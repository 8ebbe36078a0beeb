//! Carries out RUN steps: the sandbox, its init and its supervisor.  No system call of the mount family is made
//! on this way.
//!
//! The way of a step: [`tier::choose_tier`] says what this machine permits, [`user`] and [`program`] look up who runs
//! what, [`plan::plan`] lists what is to be done, [`init`] does it in small processes, [`session`] watches them,
//! and [`supervisor`] makes a chroot without mounts look like a container.
//!
//! Nothing here knows of layers, caches or images.

mod bounds;
pub mod cancel;
pub mod causes;
pub mod etc;
#[cfg(test)]
mod filter_table;
pub mod init;
pub mod mounts;
mod narrow;
pub mod plan;
pub mod program;
pub mod rooms;
pub mod session;
pub mod strangers;
pub mod supervisor;
pub mod tier;
pub mod tree;
pub mod types;
pub mod user;
mod walls;
mod wire;
pub mod world;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use stepwell_model::event::Stream;
use stepwell_model::op::RunOp;
use stepwell_model::request::{SecretValue, StepLimits};
use stepwell_sys::SysError;
use stepwell_sys::meta::SideTable;
use stepwell_sys::probe::doctor::DoctorFacts;
use stepwell_sys::probe::{Attempt, Facts};

pub use cancel::CancelToken;
pub use init::{init_main, is_init_invocation};
pub use program::ExecFailure;
pub use rooms::SHARED_MEMORY;
pub use session::InitProgram;
pub use supervisor::Names;
pub use tier::{Reason, Refusal, Rung, TierChoice, at_least, choose_tier, rungs};
pub use types::{Counters, Credentials, Ids, Tier, World};

use bounds::Bounds;
use mounts::{MountError, Mounts, StepMount, What};
use plan::StepProcess;
use rooms::{Rooms, Told};
use supervisor::{GraftSpec, Grafts, Guarded, SupervisorError};
use tree::Tree;
use types::{FilterNeeds, SupervisorSpec};
use world::KernelWorld;

/// Size of `/dev/shm` where nothing is said, as docker has it.
const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// A step to be run.
#[derive(Debug)]
pub struct RunSpec<'a> {
    /// Root directory of the tree; it is changed in place.
    pub root: &'a Path,
    /// A private, empty directory outside the tree, for this step alone.
    pub scratch: &'a Path,
    /// What is run.
    pub op: &'a RunOp,
    /// What is mounted.
    pub mounts: Vec<StepMount>,
    /// Variables with something confidential.
    pub secret_env: Vec<(String, SecretValue)>,
    /// Content of `/etc/resolv.conf`; see [`etc::resolv_conf`].
    pub resolv_conf: Vec<u8>,
    /// Content of `/etc/hosts`; see [`etc::hosts`].
    pub hosts: Vec<u8>,
    /// The tier.
    pub choice: &'a TierChoice,
    /// What this machine permits.
    pub facts: &'a Facts,
    /// What it may use.
    pub limits: StepLimits,
    /// Emulated metadata of inodes that take no extended attribute, from the tree's index.
    pub side: SideTable,
    /// The special names of the tree, where they are known and the tier asks for them ([`wants_names`]).
    pub names: Option<Names>,
    /// The program to be the init.
    pub init: &'a InitProgram,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// With this exit status; 126 and 127 also for programs that did not start, see [`RunResult::failure`].
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It took longer than it may, and was killed.
    TimedOut,
    /// Its processes took more memory than they may, and were killed.
    OutOfMemory,
    /// It had more processes than it may, and was killed.
    TooManyProcesses,
    /// It had more in a directory in memory than fits there, and was killed.
    Full {
        /// Absolute path in the step: [`SHARED_MEMORY`], or a mount of the kind `tmpfs`.
        mount: String,
        /// What fits in, in bytes.
        size: u64,
    },
    /// It was given up, and was killed.
    Cancelled,
}

/// What a run leaves behind, besides the changed tree.
#[derive(Debug)]
pub struct RunResult {
    /// How it ended.
    pub exit: Exit,
    /// Why the program did not start, where it did not.
    pub failure: Option<ExecFailure>,
    /// Emulated metadata of inodes that take no extended attribute, for the tree's index.
    pub side: SideTable,
    /// What the supervisor did.
    pub counters: Counters,
}

/// Why a step could not be run; how it ended when it ran is [`Exit`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A system call of the builder failed.
    #[error(transparent)]
    System(#[from] SysError),
    /// The user is not in the image.
    #[error(transparent)]
    User(#[from] user::UserError),
    /// The operation holds what no process can be given.
    #[error("the {what} `{value}` cannot be given to a process: {why}")]
    Invalid {
        /// What it is.
        what: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something cannot be mounted.
    #[error(transparent)]
    Mount(Box<MountError>),
    /// A file of the step could not be put into its tree.
    #[error("cannot make `{path}` for the step: {error}")]
    InlineFile {
        /// Path in the step.
        path: String,
        /// Why.
        error: String,
    },
    /// The sandbox could not be set up.
    #[error("cannot set up the sandbox: {doing}: {error}")]
    Setup {
        /// The operation of the plan.
        doing: String,
        /// Why it failed.
        error: String,
    },
    /// The supervisor could not be started, or failed.
    #[error("cannot set up the sandbox: {0}")]
    Supervisor(String),
    /// The init ended without saying how the step did.
    #[error("the process that held the step was killed by something else")]
    InitDied,
    /// This program cannot be executed again, nor processes be told apart.
    #[error("`/proc` is not mounted here, and RUN steps need it")]
    NoProc,
    /// The probe did not answer.
    #[error("cannot find out what this machine permits: {0}")]
    Probe(String),
}

impl From<MountError> for RunError {
    fn from(error: MountError) -> Self {
        Self::Mount(Box::new(error))
    }
}

impl From<SupervisorError> for RunError {
    fn from(error: SupervisorError) -> Self {
        Self::Supervisor(error.to_string())
    }
}

/// Runs a step; returns when it has ended and nothing of it runs any more.
///
/// Blocks; `output` is called from this thread with what the step writes, as it comes.  After an error, and after
/// a step that failed, the tree is in an unknown state.
pub fn run(
    mut spec: RunSpec<'_>,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &CancelToken,
) -> Result<RunResult, RunError> {
    let bounds = Bounds {
        deadline: spec.limits.time.map(|limit| Instant::now() + limit),
        memory: spec.limits.memory,
        processes: spec.limits.processes,
    };
    check(spec.op)?;
    let tree = Tree::open(spec.root)?;
    let user = user::look_up(
        &spec.op.user,
        &tree.read_text("/etc/passwd"),
        &tree.read_text("/etc/group"),
    )?;
    let env = environment(&spec, &user.home)?;
    let grafts = Grafts::install(&graft_spec(&spec, &tree))?;
    let ids = spec.choice.ids;
    let lent = std::mem::take(&mut spec.mounts);
    let mounts = match Mounts::install(&tree, spec.scratch, ids, lent) {
        Ok(mounts) => mounts,
        Err(error) => {
            grafts.remove()?;
            return Err(error.into());
        }
    };
    // What is mounted may bring the program.
    let result = match find_program(&tree, spec.op, &env) {
        Ok(program) => {
            let process = process(&spec, program, env, user.credentials);
            let around = Around {
                mounts: &mounts,
                real_devices: grafts.real_devices(),
            };
            run_grafted(&mut spec, &tree, process, &around, (bounds, cancel), output)
        }
        Err(failure) => Ok(not_started(failure, spec.side, Counters::default())),
    };
    mounts.remove()?;
    grafts.remove()?;
    result
}

/// What stands in the tree while the step runs.
struct Around<'a> {
    mounts: &'a Mounts,
    real_devices: bool,
}

/// What the kernel makes of the step's `/proc`, `/dev` and `/sys`, where it may.  The content of a secret file is given out by the
/// supervisor, which then has to be asked about every file that is opened.
fn kernel_world(spec: &RunSpec<'_>, tree: &Tree, mounts: &Mounts) -> Option<KernelWorld> {
    if spec.choice.world == World::Supervisor || !mounts.secrets().is_empty() {
        return None;
    }
    Some(KernelWorld {
        tree: tree.path().to_str()?.to_owned(),
        own_root: spec.facts.own_root.as_ref().is_some_and(Attempt::works),
        shm_size: shm_size(spec),
        in_memory: mounts.in_memory()?,
    })
}

/// Runs the step in a tree that has its grafts.
fn run_grafted(
    spec: &mut RunSpec<'_>,
    tree: &Tree,
    mut process: StepProcess,
    around: &Around<'_>,
    (bounds, cancel): (Bounds, &CancelToken),
    output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<RunResult, RunError> {
    let _inline = etc::InlineFiles::place(tree, &spec.op.files)?;
    process.world = kernel_world(spec, tree, around.mounts);
    let needs = needs(spec, around, &process);
    let plan = plan::plan(
        &process,
        spec.choice,
        spec.facts,
        &supervisor::filter(&needs),
    );
    let program = process.program.clone();
    // Where the kernel makes what is in memory, it keeps the sizes.
    let rooms = match process.world {
        Some(_) => Rooms::default(),
        None => Rooms::open(tree, shm_size(spec), around.mounts)?,
    };
    let supervisor = supervisor_spec(spec, tree, process, needs, around.mounts, rooms.told())?;
    let ended = session::Session::start(spec.init, &plan, tree, supervisor, rooms, cancel)?
        .finish(bounds, output)?;
    let (side, counters) = (ended.report.side, ended.report.counters);
    Ok(match ended.not_executed {
        Some(errno) => not_started(program::diagnose(tree, &program, errno), side, counters),
        None => RunResult {
            exit: ended.exit,
            failure: None,
            side,
            counters,
        },
    })
}

fn find_program(tree: &Tree, op: &RunOp, env: &[String]) -> Result<String, ExecFailure> {
    let search = env
        .iter()
        .find_map(|v| v.strip_prefix("PATH="))
        .unwrap_or_default();
    let name = op.args.first().map(String::as_str).unwrap_or_default();
    program::find(tree, name, search, &op.cwd)
}

fn graft_spec<'a>(spec: &'a RunSpec<'_>, tree: &'a Tree) -> GraftSpec<'a> {
    GraftSpec {
        root: tree.as_fd(),
        scratch: spec.scratch,
        resolv_conf: &spec.resolv_conf,
        hosts: &spec.hosts,
        hostname: etc::hostname(spec.op),
    }
}

fn not_started(failure: ExecFailure, side: SideTable, counters: Counters) -> RunResult {
    RunResult {
        exit: Exit::Code(failure.status()),
        failure: Some(failure),
        side,
        counters,
    }
}

/// Refuses what execve(2) and chdir(2) cannot take.
fn check(op: &RunOp) -> Result<(), RunError> {
    let invalid = |what, value: &str, why| {
        Err(RunError::Invalid {
            what,
            value: value.to_owned(),
            why,
        })
    };
    let env = || op.env.iter().chain(&op.uncounted_env);
    if op.args.is_empty() {
        return invalid("command", "", "it is empty");
    }
    if let Some(arg) = op.args.iter().find(|arg| arg.contains('\0')) {
        return invalid("argument", arg, "it holds a NUL byte");
    }
    if let Some(var) = env().find(|var| var.name.contains(['\0', '=']) || var.value.contains('\0'))
    {
        return invalid(
            "variable",
            &var.name,
            "it holds a NUL byte, or its name a `=`",
        );
    }
    if let Some(limit) = op.limits.iter().find(|limit| limit.name == "rttime") {
        // Limits of real-time threads hold the ids of processes where those are emulated.
        return invalid("limit", &limit.name, "steps have none of their own");
    }
    if !op.cwd.starts_with('/') || op.cwd.contains('\0') {
        return invalid("working directory", &op.cwd, "it is not an absolute path");
    }
    Ok(())
}

/// The step's environment: what the operation says, and docker's PATH and the user's HOME where it says nothing.
fn environment(spec: &RunSpec<'_>, home: &str) -> Result<Vec<String>, RunError> {
    let op = spec.op;
    let given = op.env.iter().chain(
        op.uncounted_env
            .iter()
            .filter(|u| op.env.iter().all(|v| v.name != u.name)),
    );
    let mut env: Vec<String> = given
        .map(|var| format!("{}={}", var.name, var.value))
        .collect();
    let is = |var: &String, name: &str| {
        var.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('='))
    };
    for (name, value) in &spec.secret_env {
        env.retain(|var| !is(var, name));
        env.push(format!("{name}={}", secret_text(name, value)?));
    }
    let agent = spec.mounts.iter().find_map(|mount| match mount.what {
        What::Agent { .. } => Some(("SSH_AUTH_SOCK", &*mount.target)),
        _ => None,
    });
    let defaults = [("PATH", program::DEFAULT_PATH), ("HOME", home)];
    for (name, value) in defaults.into_iter().chain(agent) {
        if !env.iter().any(|var| is(var, name)) {
            env.push(format!("{name}={value}"));
        }
    }
    Ok(env)
}

/// A secret as the value of a variable.
fn secret_text<'a>(name: &str, value: &'a SecretValue) -> Result<&'a str, RunError> {
    let text = std::str::from_utf8(value.reveal())
        .ok()
        .filter(|text| !text.contains('\0'));
    text.ok_or_else(|| RunError::Invalid {
        what: "secret in the variable",
        value: name.to_owned(),
        why: "its content is not text",
    })
}

fn process(
    spec: &RunSpec<'_>,
    program: String,
    env: Vec<String>,
    credentials: Credentials,
) -> StepProcess {
    StepProcess {
        program,
        args: spec.op.args.clone(),
        env,
        cwd: spec.op.cwd.clone(),
        credentials,
        hostname: etc::hostname(spec.op).to_owned(),
        network: spec.op.network,
        limits: bounds::with_backstops(&spec.op.limits, &spec.limits, spec.choice.tier),
        protected: vec![std::process::id()],
        world: None,
    }
}

fn shm_size(spec: &RunSpec<'_>) -> u64 {
    spec.op.shm_size.unwrap_or(DEFAULT_SHM_SIZE)
}

fn needs(spec: &RunSpec<'_>, around: &Around<'_>, process: &StepProcess) -> FilterNeeds {
    FilterNeeds {
        ids: spec.choice.ids,
        real_devices: around.real_devices,
        pid_namespace: plan::has_pid_namespace(spec.choice, spec.facts),
        mediated: spec.choice.tier == Tier::Mediated,
        kernel_world: process.world.is_some(),
        names: spec.names.is_some() && process.world.is_none(),
        mounts: Guarded::of(&around.mounts.points()),
    }
}

/// Says whether a step that runs so is quicker when the special names of its tree are known.
pub fn wants_names(choice: &TierChoice) -> bool {
    choice.tier != Tier::Mediated && choice.world == World::Supervisor
}

fn supervisor_spec(
    spec: &mut RunSpec<'_>,
    tree: &Tree,
    process: StepProcess,
    needs: FilterNeeds,
    mounts: &Mounts,
    rooms: Vec<Told>,
) -> Result<SupervisorSpec, RunError> {
    let mut side = spec.side.clone();
    side.extend(mounts.side());
    let mut names = spec.names.take().filter(|_| needs.names);
    if let Some(names) = &mut names {
        for point in mounts.points() {
            names.mount(&point.path);
        }
    }
    Ok(SupervisorSpec {
        root: tree.path().to_owned(),
        root_dir: tree.handle()?,
        scratch: spec.scratch.to_owned(),
        resolv_conf: spec.resolv_conf.clone(),
        hosts: spec.hosts.clone(),
        hostname: process.hostname,
        ids: spec.choice.ids,
        tier: spec.choice.tier,
        pid_namespace: needs.pid_namespace,
        init_pid: 0,
        real_devices: needs.real_devices,
        network: process.network,
        credentials: process.credentials,
        mount_points: mounts.points(),
        secrets: mounts.secrets(),
        rooms,
        side,
        cwd: process.cwd,
        kernel_world: needs.kernel_world,
        names,
        own_root: process.world.is_some_and(|world| world.own_root),
    })
}

/// Finds out what a build may do here, in a process of its own; `store` is a directory on the store's file system.
pub fn probe(init: &InitProgram, store: &Path) -> Result<Facts, RunError> {
    ask(init, init::PROBE, &[store.as_os_str().to_owned()])
}

/// Finds out everything `stepwell doctor` tells; `users` are name and number of the caller, `path` the
/// directories of programs.
pub fn probe_doctor(
    init: &InitProgram,
    store: &Path,
    users: &[String],
    path: &[PathBuf],
) -> Result<DoctorFacts, RunError> {
    let mut args = vec![store.as_os_str().to_owned()];
    args.extend(users.iter().map(Into::into));
    args.push("--".into());
    args.extend(path.iter().map(|dir| dir.as_os_str().to_owned()));
    ask(init, init::DOCTOR, &args)
}

fn ask<T: for<'a> serde::Deserialize<'a>>(
    init: &InitProgram,
    what: &str,
    args: &[std::ffi::OsString],
) -> Result<T, RunError> {
    let output = init.command(what).args(args).output().map_err(|e| {
        match Path::new("/proc/self").exists() {
            true => RunError::Probe(e.to_string()),
            false => RunError::NoProc,
        }
    })?;
    serde_json::from_slice(&output.stdout)
        .map_err(|e| RunError::Probe(format!("{} ({})", e, output.status)))
}

#[cfg(test)]
mod tests;
