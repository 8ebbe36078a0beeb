//! Runs one command as a RUN step in a directory tree: for the tests of the sandbox, and for trying things by hand.
//!
//! `step-runner [OPTION VALUE]... ROOT COMMAND [ARG]...`, with `--isolation`, `--user`, `--cwd`, `--network none`,
//! `--timeout SECONDS`, `--memory BYTES`, `--processes NUMBER`, `--env NAME=VALUE`, `--file PATH=CONTENT`, `--cancel SECONDS`, `--limit NAME=NUMBER`, `--shm-size BYTES`,
//! `--bind|--bind-rw|--cache TARGET=DIRECTORY[:SOURCE]`, `--tmpfs TARGET[=BYTES]`, `--secret TARGET=CONTENT`, `--ssh TARGET=SOCKET`,
//! `--container docker` (root only: the capabilities and the denials of docker's default profile from the start on;
//! `restricted`, for ordinary users: those denials without any capability; `ids`, root only: as the user 4242 with subordinate ids),
//! `--deny-mounts seccomp|landlock` (the calls of the mount family fail with EACCES or EPERM from the start on).  `--doctor USER` prints what this machine permits.
//! Not part of the product:
//! it starts as the product does (init first, then a user namespace of its own) and exits with the step's status,
//! 128 + the signal, 121, 122, 123, 124 after a limit of sizes, memory, processes, time, 130 when cancelled, 125 where the step could not be run.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::Duration;

use stepwell_model::event::Stream;
use stepwell_model::mount::Limit;
use stepwell_model::op::{EnvVar, InlineFile, Network, RunOp};
use stepwell_model::request::{Isolation, SecretValue, StepLimits};
use stepwell_steps::run::mounts::{Owner, StepMount, What};
use stepwell_steps::run::{self, CancelToken, Exit, Ids, InitProgram, Names, RunSpec, etc, init};
use stepwell_sys::capability::{self, Capabilities};
use stepwell_sys::landlock;
use stepwell_sys::meta::{self, SideTable};
use stepwell_sys::namespace::{self, IdRange, Namespaces};
use stepwell_sys::process::{self, Forked};
use stepwell_sys::seccomp::{self, Action, Condition, Filter, OtherAbi, Rule};

/// `--doctor [NAME]`: prints everything that this machine permits.
fn doctor() -> ! {
    let users: Vec<String> = std::env::args().skip(2).collect();
    let path = [PathBuf::from("/usr/bin")];
    match run::probe_doctor(&InitProgram::Myself, Path::new("/var/tmp"), &users, &path) {
        Ok(facts) => println!("{facts:#?}"),
        Err(error) => println!("{error}"),
    }
    exit(0)
}

struct Options {
    op: RunOp,
    /// Taken when the step begins.
    mounts: Vec<StepMount>,
    root: PathBuf,
    isolation: Isolation,
    limits: StepLimits,
    cancel: Option<Duration>,
    deny_mounts: String,
    container: String,
}

fn main() {
    if init::is_init_invocation() {
        init::init_main();
    }
    if std::env::args().nth(1).is_some_and(|arg| arg == "--doctor") {
        doctor();
    }
    let mut options = parse(std::env::args().skip(1).collect());
    deny_mounts(&options.deny_mounts);
    match options.container.as_str() {
        "docker" => enter_container(false),
        "restricted" => enter_container(true),
        "ids" => become_user_with_ids().expect("subordinate ids"),
        _ => {}
    }
    let _ = stepwell_sys::namespace::enter_user_namespace(None);
    match step(&mut options) {
        Ok(code) => exit(code),
        Err(error) => {
            eprintln!("step-runner: {error}");
            exit(125)
        }
    }
}

fn parse(args: Vec<String>) -> Options {
    let mut args = args.into_iter().peekable();
    let mut options = Options {
        op: RunOp::new(Vec::new()),
        mounts: Vec::new(),
        root: PathBuf::new(),
        isolation: Isolation::Auto,
        limits: StepLimits::default(),
        cancel: None,
        deny_mounts: String::new(),
        container: String::new(),
    };
    while let Some(name) = args.next_if(|arg| arg.starts_with("--")) {
        let value = args.next().unwrap_or_default();
        let seconds = || Some(Duration::from_secs_f64(value.parse().unwrap_or(1.0)));
        let (left, right) = value.split_once('=').unwrap_or((&value, ""));
        match name.as_str() {
            "--isolation" if value == "auto" => {}
            "--isolation" if value == "chroot" => options.isolation = Isolation::Chroot,
            "--isolation" if value == "userns" => options.isolation = Isolation::Userns,
            "--isolation" if value == "mediated" => options.isolation = Isolation::Mediated,
            "--user" => options.op.user = value,
            "--cwd" => options.op.cwd = value,
            "--network" => options.op.network = Network::None,
            "--timeout" => options.limits.time = seconds(),
            "--memory" => options.limits.memory = value.parse().ok(),
            "--processes" => options.limits.processes = value.parse().ok(),
            "--cancel" => options.cancel = seconds(),
            "--deny-mounts" => options.deny_mounts = value,
            "--container" => options.container = value,
            "--env" => options.op.env.push(EnvVar {
                name: left.to_owned(),
                value: right.to_owned(),
            }),
            "--file" => options.op.files.push(InlineFile {
                path: left.to_owned(),
                content: right.into(),
                mode: 0o755,
            }),
            "--limit" => options.op.limits.push(Limit {
                name: left.to_owned(),
                soft: right.parse().ok(),
                hard: right.parse().ok(),
            }),
            "--shm-size" => options.op.shm_size = value.parse().ok(),
            "--bind" | "--bind-rw" | "--cache" | "--tmpfs" | "--secret" | "--ssh" => {
                options.mounts.push(mount(&name, left, right));
            }
            other => panic!("option {other}"),
        }
    }
    options.root = args.next().map(PathBuf::from).unwrap_or_default();
    options.op.args = args.collect();
    options
}

fn mount(kind: &str, target: &str, value: &str) -> StepMount {
    let owner = Owner {
        mode: 0o400,
        uid: 0,
        gid: 0,
    };
    StepMount {
        target: target.to_owned(),
        read_only: matches!(kind, "--bind" | "--secret"),
        what: match kind {
            "--tmpfs" => What::Empty {
                mode: 0o1777,
                size: value.parse().ok(),
            },
            "--secret" => What::Secret {
                content: SecretValue::new(value.into()),
                owner,
            },
            "--ssh" => What::Agent {
                socket: value.into(),
                owner: Owner {
                    mode: 0o600,
                    ..owner
                },
            },
            _ => {
                let (root, source) = value.split_once(':').unwrap_or((value, "/"));
                What::Lent {
                    root: root.into(),
                    source: source.to_owned(),
                    keep: None,
                }
            }
        },
    }
}

const MOUNT_CALLS: &[(i64, &str)] = &[
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_pivot_root, "pivot_root"),
    (libc::SYS_open_tree, "open_tree"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_fsopen, "fsopen"),
    (libc::SYS_fsconfig, "fsconfig"),
    (libc::SYS_fsmount, "fsmount"),
    (libc::SYS_fspick, "fspick"),
    (libc::SYS_mount_setattr, "mount_setattr"),
];

/// Does to this process what a security policy would.
fn deny_mounts(how: &str) {
    if how.is_empty() {
        return;
    }
    seccomp::set_no_new_privs().expect("no_new_privs");
    match how {
        "seccomp" => {
            let rule = |(nr, name): &(i64, &str)| {
                Rule::new(
                    *nr,
                    name,
                    Action::Errno(libc::EACCES as u16),
                    "as AppArmor answers",
                )
            };
            let filter = Filter {
                rules: MOUNT_CALLS.iter().map(rule).collect(),
                other_abi: OtherAbi::Allow,
            };
            seccomp::install(&filter).expect("filter");
        }
        "landlock" => {
            let root = std::fs::File::open("/").expect("/");
            assert!(
                landlock::confine_beneath(root).expect("landlock"),
                "no Landlock here"
            );
        }
        other => panic!("--deny-mounts {other}"),
    }
}

/// Becomes an ordinary user with subordinate ids, in the user namespace that newuidmap(1) would have made.
fn become_user_with_ids() -> stepwell_sys::SysResult<()> {
    let ids = [(0, 4242, 1), (1, 200_000, 65_536)].map(|(inside, outside, count)| IdRange {
        inside,
        outside,
        count,
    });
    let pid = std::process::id();
    let (wait, go) = std::io::pipe().expect("pipe");
    match process::fork()? {
        Forked::Child => {
            drop(go);
            let told = (&wait).read(&mut [0]).is_ok_and(|n| n == 1);
            let mapped = told && namespace::write_id_maps(pid, &ids, &ids).is_ok();
            exit(i32::from(!mapped))
        }
        Forked::Parent(child) => {
            namespace::unshare(Namespaces::NEWUSER)?;
            (&go).write_all(b"x").expect("pipe");
            process::wait_for(child)?;
        }
    }
    let root = (rustix::thread::Uid::ROOT, rustix::thread::Gid::ROOT);
    rustix::thread::set_thread_groups(&[]).expect("setgroups");
    rustix::thread::set_thread_res_gid(root.1, root.1, root.1).expect("setresgid");
    rustix::thread::set_thread_res_uid(root.0, root.0, root.0).expect("setresuid");
    process::set_tracing(true)
}

/// Any of the namespace flags of clone(2) and unshare(2).
const NAMESPACE_FLAGS: &[u64] = &[
    0x2000_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x4000_0000,
    0x0002_0000,
];

/// Confines this process as docker's default profile does a container's root, as far as builds notice it: fourteen
/// capabilities, no namespaces, no mounts, no clone3, no io_uring, no descriptors of others; no `no_new_privs`.  Or,
/// `restricted`, as the same profile confines an ordinary user of Kubernetes: no capability, no chroot.
fn enter_container(restricted: bool) {
    let deny = |(nr, name): &(i64, &str)| {
        Rule::new(
            *nr,
            name,
            Action::Errno(libc::EPERM as u16),
            "as docker's profile",
        )
    };
    let mut rules: Vec<Rule> = MOUNT_CALLS.iter().map(deny).collect();
    let others = [
        (libc::SYS_unshare, "unshare"),
        (libc::SYS_setns, "setns"),
        (libc::SYS_pidfd_getfd, "pidfd_getfd"),
        (libc::SYS_io_uring_setup, "io_uring_setup"),
        (libc::SYS_bpf, "bpf"),
        (libc::SYS_open_by_handle_at, "open_by_handle_at"),
    ];
    rules.extend(others.iter().map(deny));
    if restricted {
        rules.push(deny(&(libc::SYS_chroot, "chroot")));
        seccomp::set_no_new_privs().expect("no_new_privs");
    }
    rules.push(Rule::new(
        libc::SYS_clone3,
        "clone3",
        Action::Errno(libc::ENOSYS as u16),
        "as docker's profile",
    ));
    for flag in NAMESPACE_FLAGS {
        let when = vec![Condition {
            argument: 0,
            mask: *flag,
            value: *flag,
            negate: false,
        }];
        rules.push(Rule {
            when,
            ..deny(&(libc::SYS_clone, "clone"))
        });
    }
    seccomp::install(&Filter {
        rules,
        other_abi: OtherAbi::Allow,
    })
    .expect("filter");
    if restricted {
        return;
    }
    let held = capability::STEP | Capabilities::SYS_CHROOT;
    capability::limit_next_program(held, true).expect("capabilities");
}

/// Looks at every entry of a tree; the product has an index.
fn names(root: &Path, ids: Ids) -> std::io::Result<Names> {
    let mut names = Names::default();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let (path, stat) = (entry.path(), entry.metadata()?);
            let kept = ids == Ids::Emulated
                && (stat.is_file() || stat.is_dir())
                && meta::read_at(rustix::fs::CWD, &path).is_ok_and(|meta| meta.is_some());
            let target = stat.is_symlink().then(|| std::fs::read_link(&path));
            let target = target.transpose()?.map(PathBuf::into_os_string);
            let below = path.strip_prefix(root).unwrap_or(&path);
            names.add(
                below.as_os_str().as_encoded_bytes(),
                stat.ino(),
                kept,
                target.as_ref().map(|t| t.as_encoded_bytes()),
            );
            if stat.is_dir() {
                todo.push(path);
            }
        }
    }
    Ok(names)
}

fn step(options: &mut Options) -> Result<i32, Box<dyn std::error::Error>> {
    let parent = options.root.parent().unwrap_or(Path::new("."));
    let scratch = tempfile::tempdir_in(parent)?;
    let facts = run::probe(&InitProgram::Myself, scratch.path())?;
    let choice = run::choose_tier(options.isolation, &facts)?;
    let cancel = CancelToken::new()?;
    if let Some(after) = options.cancel {
        let token = cancel.clone();
        std::thread::spawn(move || {
            std::thread::sleep(after);
            token.cancel();
        });
    }
    if std::env::var_os("STEP_RUNNER_VERBOSE").is_some() {
        eprintln!(
            "step-runner: tier {}, ids {:?}, {:?}",
            choice.tier, choice.ids, choice.reasons
        );
    }
    let spec = RunSpec {
        root: &options.root,
        scratch: scratch.path(),
        op: &options.op,
        mounts: std::mem::take(&mut options.mounts),
        secret_env: Vec::new(),
        resolv_conf: etc::resolv_conf(&options.op),
        hosts: etc::hosts(&options.op),
        choice: &choice,
        facts: &facts,
        limits: options.limits,
        side: SideTable::default(),
        names: run::wants_names(&choice)
            .then(|| names(&options.root, choice.ids))
            .transpose()?,
        init: &InitProgram::Myself,
    };
    let mut output = |stream, bytes: &[u8]| {
        let written = match stream {
            Stream::Stdout => std::io::stdout()
                .write_all(bytes)
                .and_then(|()| std::io::stdout().flush()),
            Stream::Stderr => std::io::stderr().write_all(bytes),
        };
        written.expect("output");
    };
    let result = run::run(spec, &mut output, &cancel)?;
    if let Some(failure) = result.failure {
        eprintln!("step-runner: {failure}");
    }
    if std::env::var_os("STEP_RUNNER_VERBOSE").is_some() {
        eprintln!("step-runner: {:?} {:?}", result.exit, result.counters);
    }
    Ok(match result.exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
        Exit::Full { mount, size } => {
            eprintln!("step-runner: `{mount}` is full: {size} bytes fit in");
            121
        }
        Exit::OutOfMemory => 122,
        Exit::TooManyProcesses => 123,
        Exit::TimedOut => 124,
        Exit::Cancelled => 130,
    })
}
