//! The init: this program again, as a small process of one thread (but for a moment) that carries out a [`Plan`] and becomes
//! the step's program.
//!
//! It decides nothing and looks nothing up.  The builder's side is [`super::session`].  Three processes may come of
//! it: the first one, which only waits; pid 1 of the pid namespace, which holds the step; and the step's own.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use stepwell_sys::error::Context;
use stepwell_sys::mount::{self, Limits};
use stepwell_sys::namespace::{self, Namespaces};
use stepwell_sys::process::{self, ChildSignals, Ending, Forked};
use stepwell_sys::resolve::{self, Links};
use stepwell_sys::{SysError, SysResult};
use stepwell_sys::{capability, chroot, descriptor, landlock, probe, seccomp};

use super::plan::{NamespaceKind, Plan, SetupStep};
use super::types::Credentials;
use super::wire::{self, FromInit, ToInit};
use super::world::{Entry, FileSystem};

/// Name under which the program is started to be the init.
pub const INIT_NAME: &str = "stepwell-init";

/// First argument: carry out a plan.
pub(super) const STEP: &str = "step";
/// First argument: say what a build may do here, as JSON.
pub(super) const PROBE: &str = "probe";
/// First argument: the same for `stepwell doctor`.
pub(super) const DOCTOR: &str = "doctor";

/// Status of an init that could not do its work; the reason goes over the control socket.
const FAILED: i32 = 125;
/// How long a program may be busy.
const BUSY: Duration = Duration::from_secs(2);

/// Returns whether this process was started to be an init.  Ask first thing in `main`.
pub fn is_init_invocation() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|name| name == INIT_NAME)
}

/// Is the init; for `main`, before any thread is started.
pub fn init_main() -> ! {
    let mut args = std::env::args_os().skip(1);
    let what = args.next().unwrap_or_default();
    match what.to_str() {
        Some(STEP) => run_step(),
        Some(PROBE) => print(&probe::probe_build(
            &args.next().map(PathBuf::from).unwrap_or_default(),
        )),
        Some(DOCTOR) => {
            let store = args.next().map(PathBuf::from).unwrap_or_default();
            let users: Vec<String> = args
                .by_ref()
                .take_while(|a| a != "--")
                .map(|a| a.to_string_lossy().into_owned())
                .collect();
            print(&probe::doctor::probe_doctor(
                &store,
                &users,
                &args.map(PathBuf::from).collect::<Vec<_>>(),
            ))
        }
        _ => exit(FAILED),
    }
}

fn print(facts: &impl serde::Serialize) -> ! {
    let written = serde_json::to_vec(facts)
        .ok()
        .and_then(|text| std::io::stdout().write_all(&text).ok());
    exit(if written.is_some() { 0 } else { FAILED })
}

fn run_step() -> ! {
    // The control socket comes as standard input; without one there is nobody to tell.
    let Ok(control) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else {
        exit(FAILED)
    };
    let mut init = Init {
        control,
        root: None,
    };
    let Err((doing, error)) = init.receive_plan().and_then(|plan| init.carry_out(plan));
    let message = FromInit::Failed {
        doing,
        error: error.to_string(),
    };
    // If this fails too, the builder is gone and the exit status is for nobody.
    let _ = wire::send(init.control.as_fd(), &message, &[]);
    exit(FAILED)
}

/// What was to be done, and why it was not.
type Failure = (String, SysError);

enum Never {}

struct Init {
    control: OwnedFd,
    root: Option<OwnedFd>,
}

impl Init {
    fn receive_plan(&mut self) -> Result<Plan, Failure> {
        let read = || -> SysResult<(Plan, OwnedFd)> {
            let gone = || SysError::new("recvmsg", "plan", Errno::CONNRESET);
            let (ToInit::Plan, mut fds) = wire::receive(self.control.as_fd())?.ok_or_else(gone)?
            else {
                return Err(gone());
            };
            let (Some(root), Some(plan)) = (fds.pop(), fds.pop()) else {
                return Err(gone());
            };
            let mut text = Vec::new();
            File::from(plan)
                .read_to_end(&mut text)
                .context("read", "plan")?;
            let plan = serde_json::from_slice(&text)
                .map_err(|_| SysError::new("read", "plan", Errno::BADMSG))?;
            Ok((plan, root))
        };
        let (plan, root) = read().map_err(|error| ("receive-plan".to_owned(), error))?;
        self.root = Some(root);
        Ok(plan)
    }

    /// Carries out the steps in order; the last one executes the step's program, so it does not come back.
    fn carry_out(&mut self, plan: Plan) -> Result<Never, Failure> {
        for step in plan.steps {
            let name = name_of(&step);
            self.apply(step).map_err(|error| (name, error))?;
        }
        Err((
            "execute".to_owned(),
            SysError::new("execve", "a plan without a program", Errno::INVAL),
        ))
    }

    fn apply(&mut self, step: SetupStep) -> SysResult<()> {
        match step {
            SetupStep::DieWithParent => process::die_with_parent(),
            SetupStep::NewNamespaces { kinds } => namespace::unshare(flags(&kinds)),
            SetupStep::MapSingleId { uid, gid } => namespace::map_single_id(uid, gid),
            SetupStep::AwaitIdMap => self.await_id_map(),
            SetupStep::EnterPidNamespace => self.enter_pid_namespace(),
            SetupStep::BecomeSubreaper => process::become_subreaper(),
            SetupStep::HostName { name } => namespace::set_host_name(&name),
            SetupStep::LoopbackUp => namespace::bring_up_loopback(),
            SetupStep::StartStep => self.start_step(),
            SetupStep::NewSession => process::new_session(),
            SetupStep::NullInput => null_input(),
            SetupStep::ProcessDefaults { open_files } => process_defaults(open_files),
            SetupStep::Limits { limits } => limits
                .iter()
                .try_for_each(|l| process::set_limit(&l.name, l.soft, l.hard)),
            SetupStep::AttachTree { path } => self.attach_tree(Path::new(&path)),
            SetupStep::Attach {
                what,
                at,
                limits,
                if_there,
            } => match self.attach(&what, &at, limits) {
                Err(error) if if_there && error.errno == Errno::NOENT => Ok(()),
                result => result,
            },
            SetupStep::Make { entry, at } => self.make(&entry, &at),
            SetupStep::NoUserNamespaces => namespace::forbid_user_namespaces(self.place("/proc")?),
            SetupStep::EnterRoot => chroot::enter(self.root()?),
            SetupStep::TakeOverRoot => chroot::take_over(self.root()?),
            SetupStep::WorkingDirectory { path } => enter_directory(&path),
            SetupStep::ConfineBeneathRoot => landlock::confine_beneath(self.root()?).map(drop),
            SetupStep::NoNewPrivileges => seccomp::set_no_new_privs(),
            SetupStep::LimitCapabilities { keep, no_new_privs } => capability::limit_next_program(
                capability::Capabilities::from_bits_retain(keep),
                no_new_privs,
            ),
            SetupStep::Supervise { filter } => self.supervise(&filter),
            SetupStep::AwaitTracer => self.await_tracer(),
            SetupStep::BecomeUser(credentials) => become_user(&credentials),
            SetupStep::Execute { program, args, env } => self.execute(program, args, env),
        }
    }

    fn root(&self) -> SysResult<&OwnedFd> {
        self.root
            .as_ref()
            .ok_or_else(|| SysError::new("fchdir", "tree root", Errno::BADF))
    }

    /// Attaches another mount of the tree to the place where it is, and takes that one from here on.
    fn attach_tree(&mut self, path: &Path) -> SysResult<()> {
        // The handle that was given is of the builder's mount namespace, where nothing can be attached any more.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place =
            rustix::fs::open(path, flags, Mode::empty()).context("open", path.to_string_lossy())?;
        let inode = |dir: &OwnedFd| {
            let stat = rustix::fs::fstat(dir).context("fstat", path.to_string_lossy())?;
            SysResult::Ok((stat.st_dev, stat.st_ino))
        };
        if inode(&place)? != inode(self.root()?)? {
            return Err(SysError::new("open", path.to_string_lossy(), Errno::STALE));
        }
        let tree = mount::another_mount_of(&place)?;
        mount::attach(&tree, place)?;
        self.root = Some(tree);
        Ok(())
    }

    fn attach(&self, what: &FileSystem, at: &str, limits: Limits) -> SysResult<()> {
        let place = self.place(at)?;
        let mount = match what {
            FileSystem::New { kind, options } => mount::file_system(kind, options, limits)?,
            FileSystem::Machines(path) => mount::another_mount_at(Path::new(path))?,
            FileSystem::Itself => mount::another_mount_of(&place)?,
        };
        if !matches!(what, FileSystem::New { .. }) {
            mount::limit(&mount, limits)?;
        }
        mount::attach(mount, place)
    }

    fn make(&self, entry: &Entry, at: &str) -> SysResult<()> {
        let (dir, name) = at.rsplit_once('/').unwrap_or(("/", at));
        let dir = self.place(dir)?;
        match entry {
            Entry::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))
                    .map(drop)
                    .context("open", at)
            }
            Entry::Link(target) => {
                rustix::fs::symlinkat(&**target, dir, name).context("symlink", at)
            }
        }
    }

    /// Returns a handle on a place in the tree; no link is followed on the way.
    fn place(&self, at: &str) -> SysResult<OwnedFd> {
        resolve::handle(self.root()?, at.as_bytes(), Links::None)
            .map_err(|errno| SysError::new("openat2", at, errno))
    }

    fn tell(&self, message: &FromInit, fd: Option<&OwnedFd>) -> SysResult<()> {
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        wire::send(self.control.as_fd(), message, &fds)
    }

    fn await_id_map(&self) -> SysResult<()> {
        self.tell(&FromInit::MapIds, None)?;
        match wire::receive(self.control.as_fd())? {
            Some((ToInit::IdsMapped, _)) => Ok(()),
            _ => Err(SysError::new("recvmsg", "id map", Errno::CONNRESET)),
        }
    }

    /// Installs a filter and hands its listener over.
    fn supervise(&self, filter: &seccomp::Filter) -> SysResult<()> {
        if filter.asks_about(libc::SYS_sendmsg) {
            return self.supervise_by_thread(filter);
        }
        let listener = seccomp::install_with_listener(filter)?;
        self.tell(&FromInit::Supervise, Some(&listener))
    }

    /// The same where the filter asks about the very call that hands the listener over, which nobody would answer: a thread makes it
    /// that was there before, and has no filter.
    fn supervise_by_thread(&self, filter: &seccomp::Filter) -> SysResult<()> {
        std::thread::scope(|threads| {
            let (tell, told) = mpsc::channel::<OwnedFd>();
            let hands_over = move || match told.recv() {
                Ok(listener) => self.tell(&FromInit::Supervise, Some(&listener)),
                // There is no filter, which the other side of the channel says.
                Err(_) => Ok(()),
            };
            let thread = std::thread::Builder::new().spawn_scoped(threads, hands_over);
            let thread = thread.context("clone", "thread that hands the listener over")?;
            let listener = seccomp::install_with_listener(filter)?;
            let gone = || SysError::new("sendmsg", "listener", Errno::SRCH);
            tell.send(listener).map_err(|_| gone())?;
            drop(tell);
            thread.join().map_err(|_| gone())?
        })
    }

    fn await_tracer(&self) -> SysResult<()> {
        let pid = rustix::process::getpid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        self.tell(&FromInit::Trace { pid }, None)?;
        match wire::receive(self.control.as_fd())? {
            Some((ToInit::Traced, _)) => Ok(()),
            _ => Err(SysError::new("recvmsg", "tracer", Errno::CONNRESET)),
        }
    }

    fn enter_pid_namespace(&mut self) -> SysResult<()> {
        process::set_tracing(false)?;
        match process::fork()? {
            Forked::Child => process::set_tracing(true),
            Forked::Parent(pid) => {
                let handle = process::pidfd(pid)?;
                self.root = None;
                let number = pid.as_raw_nonzero().get().unsigned_abs();
                self.tell(&FromInit::Holder { pid: number }, Some(&handle))?;
                process::wait_for(pid)?;
                exit(0)
            }
        }
    }

    fn start_step(&mut self) -> SysResult<()> {
        let signals = ChildSignals::open()?;
        process::set_tracing(false)?;
        match process::fork()? {
            Forked::Child => process::set_tracing(true),
            Forked::Parent(child) => {
                self.root = None;
                self.hold(child, &signals)?;
                exit(0)
            }
        }
    }

    /// Holds the step: reaps whatever ends, until the step's own process has, or the builder is gone.  Pid 1 then
    /// exits and the kernel kills the rest of its namespace; a subreaper does that by itself.
    fn hold(&self, child: Pid, signals: &ChildSignals) -> SysResult<()> {
        let mut more = false;
        let ending = loop {
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let mut watched = [
                PollFd::new(signals, PollFlags::IN),
                PollFd::new(&self.control, PollFlags::RDHUP),
            ];
            match poll(&mut watched, more.then_some(&now)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(SysError::new("poll", "children", errno)),
            }
            if watched[1]
                .revents()
                .intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR)
            {
                break None;
            }
            signals.drain();
            let (found, unreaped) = reap_some(child)?;
            if let Some(ending) = found {
                break Some(ending);
            }
            more = unreaped;
        };
        if rustix::process::getpid() != Pid::INIT {
            process::kill_descendants()?;
        }
        match ending {
            Some(ending) => self.tell(&ending.into(), None),
            None => Ok(()),
        }
    }

    fn execute(&self, program: String, args: Vec<String>, env: Vec<String>) -> SysResult<()> {
        let text = |t: String| {
            CString::new(t)
                .map_err(|_| SysError::new("execve", "a text with a NUL byte", Errno::INVAL))
        };
        let texts = |all: Vec<String>| all.into_iter().map(text).collect::<SysResult<Vec<_>>>();
        let (program, args, env) = (text(program)?, texts(args)?, texts(env)?);
        let begin = Instant::now();
        let mut error = process::exec(&program, &args, &env);
        // The builder may have forked for another step while it wrote this file: until that child executes its own program it
        // holds the file open for writing.
        while error.errno == Errno::TXTBSY && begin.elapsed() < BUSY {
            std::thread::sleep(Duration::from_millis(1));
            error = process::exec(&program, &args, &env);
        }
        self.tell(
            &FromInit::NotExecuted {
                errno: error.errno.raw_os_error(),
            },
            None,
        )?;
        exit(FAILED)
    }
}

/// Reaps what has ended; returns how `child` did, if it is among them, and whether more may have ended.
fn reap_some(child: Pid) -> SysResult<(Option<Ending>, bool)> {
    /// Where processes end faster than they are reaped, somebody has to look at the builder in between.
    const TURN: usize = 256;
    let mut found = None;
    for _ in 0..TURN {
        match process::reap() {
            Ok(Some((pid, ending))) if pid == child => found = Some(ending),
            Ok(Some(_)) => {}
            Ok(None) => return Ok((found, false)),
            Err(error) if error.errno == Errno::CHILD => return Ok((found, false)),
            Err(error) => return Err(error),
        }
    }
    Ok((found, true))
}

/// The name that the step has in the plan's JSON.
fn name_of(step: &SetupStep) -> String {
    let value = serde_json::to_value(step).unwrap_or_default();
    value
        .get("do")
        .and_then(|name| name.as_str())
        .unwrap_or("a step of the plan")
        .to_owned()
}

fn flags(kinds: &[NamespaceKind]) -> Namespaces {
    let flag = |kind: &NamespaceKind| match kind {
        NamespaceKind::User => Namespaces::NEWUSER,
        NamespaceKind::Pid => Namespaces::NEWPID,
        NamespaceKind::Ipc => Namespaces::NEWIPC,
        NamespaceKind::Uts => Namespaces::NEWUTS,
        NamespaceKind::Network => Namespaces::NEWNET,
        NamespaceKind::Mount => Namespaces::NEWNS,
    };
    kinds
        .iter()
        .map(flag)
        .fold(Namespaces::empty(), |all, one| all | one)
}

fn null_input() -> SysResult<()> {
    let null = match rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    {
        Ok(null) => null,
        // A machine without it still has an end of nothing: a pipe that nobody writes to.
        Err(_) => {
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .context("pipe2", "standard input")?
                .0
        }
    };
    rustix::stdio::dup2_stdin(&null).context("dup2", "standard input")
}

fn process_defaults(open_files: u64) -> SysResult<()> {
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    process::reset_signals();
    process::limit_open_files(open_files)?;
    descriptor::close_at_exec_from(3)
}

fn enter_directory(path: &str) -> SysResult<()> {
    if chroot::change_directory(path).is_ok() {
        return Ok(());
    }
    std::fs::create_dir_all(path).context("mkdir", path)?;
    chroot::change_directory(path)
}

fn become_user(credentials: &Credentials) -> SysResult<()> {
    use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let groups: Vec<Gid> = credentials
        .groups
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    let (uid, gid) = (
        Uid::from_raw(credentials.uid),
        Gid::from_raw(credentials.gid),
    );
    set_thread_groups(&groups).context("setgroups", format!("{:?}", credentials.groups))?;
    set_thread_res_gid(gid, gid, gid).context("setresgid", credentials.gid.to_string())?;
    set_thread_res_uid(uid, uid, uid).context("setresuid", credentials.uid.to_string())
}
