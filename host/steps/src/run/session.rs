//! One run of a step, seen from the builder: starts the init, feeds it the plan, passes output on as it comes,
//! watches time and cancellation, and does not end before everything of the step has.
//!
//! What the step's processes do is in [`super::init`]; what they ask is answered in [`super::supervisor`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Pid;
use stepwell_model::event::Stream;
use stepwell_sys::error::Context;
use stepwell_sys::namespace::{self, IdRange};
use stepwell_sys::{SysError, SysResult, descriptor, process, usage};

use super::bounds::{Bounds, Excess, LOOK};
use super::cancel::CancelToken;
use super::init::{INIT_NAME, STEP};
use super::plan::Plan;
use super::rooms::{Full, Rooms, Watch};
use super::supervisor::Supervisor;
use super::tree::Tree;
use super::types::{SupervisorReport, SupervisorSpec};
use super::wire::{self, FromInit, ToInit};
use super::{Exit, RunError};

/// The program that is started to be the init.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitProgram {
    /// This program; its `main` asks [`super::init::is_init_invocation`] first.
    Myself,
    /// Another one that does.
    Path(PathBuf),
}

impl InitProgram {
    /// Prepares its start, with nothing of this program's environment.
    pub(super) fn command(&self, what: &str) -> Command {
        let mut command = match self {
            Self::Myself => Command::new("/proc/self/exe"),
            Self::Path(path) => Command::new(path),
        };
        command.arg0(INIT_NAME).arg(what).env_clear();
        command
    }
}

/// How long a subreaper may take to kill what descends from it, before it is killed itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Output taken at once.
const CHUNK: usize = 64 << 10;

/// What came of a session.
pub(super) struct Ended {
    pub exit: Exit,
    /// Number of execve's error, where the program did not start.
    pub not_executed: Option<i32>,
    pub report: SupervisorReport,
}

/// Why a step that was running is no longer wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Cancelled,
    TimedOut,
    Excess(Excess),
    Full,
}

pub(super) struct Session<'a> {
    child: Child,
    /// The first process of the init; is readable when it has ended.
    first: OwnedFd,
    control: Option<OwnedFd>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// Pid 1 of the step's namespace.
    holder: Option<OwnedFd>,
    /// Taken when the listener arrives.
    spec: Option<SupervisorSpec>,
    supervisor: Option<Supervisor>,
    exit: Option<Exit>,
    not_executed: Option<i32>,
    failure: Option<RunError>,
    stop: Option<Stop>,
    killed_at: Option<Instant>,
    /// When memory and processes were last looked at.
    looked_at: Instant,
    /// Who looks at the directories that have a size.
    sizes: Option<Watch>,
    root: PathBuf,
    cancel: &'a CancelToken,
}

impl<'a> Session<'a> {
    /// Starts the init and gives it the plan.
    pub fn start(
        program: &InitProgram,
        plan: &Plan,
        tree: &Tree,
        spec: SupervisorSpec,
        rooms: Rooms,
        cancel: &'a CancelToken,
    ) -> Result<Self, RunError> {
        let (control, theirs) = descriptor::message_pair()?;
        let spawned = program
            .command(STEP)
            .stdin(theirs)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.context("execve", "init")?;
        let pid = Pid::from_child(&child);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let first = process::pidfd(pid)?;
        let mut session = Self {
            first,
            child,
            control: Some(control),
            stdout,
            stderr,
            holder: None,
            spec: Some(SupervisorSpec {
                init_pid: pid.as_raw_nonzero().get().unsigned_abs(),
                ..spec
            }),
            supervisor: None,
            exit: None,
            not_executed: None,
            failure: None,
            stop: None,
            killed_at: None,
            looked_at: Instant::now(),
            sizes: None,
            root: tree.path().to_owned(),
            cancel,
        };
        session.sizes = Watch::start(rooms, pid)?;
        session.send_plan(plan, tree)?;
        Ok(session)
    }

    fn send_plan(&self, plan: &Plan, tree: &Tree) -> Result<(), RunError> {
        let text = serde_json::to_vec(plan)
            .map_err(|_| SysError::new("sendmsg", "plan", Errno::BADMSG))?;
        let file = descriptor::sealed_memory_file("stepwell-plan", &text)?;
        self.send(&ToInit::Plan, &[file.as_fd(), tree.as_fd()])?;
        Ok(())
    }

    fn send(&self, message: &ToInit, fds: &[BorrowedFd<'_>]) -> SysResult<()> {
        match &self.control {
            Some(control) => wire::send(control.as_fd(), message, fds),
            None => Ok(()),
        }
    }

    /// Goes on until nothing of the step is left.
    pub fn finish(
        mut self,
        bounds: Bounds,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Ended, RunError> {
        while self.wait(&bounds)? {
            self.take_messages();
            self.pass_output(output);
            self.check_stop(&bounds);
        }
        self.take_messages();
        self.pass_output(output);
        self.child.wait().context("wait4", "init")?;
        self.sweep();
        let report = self
            .supervisor
            .take()
            .map(Supervisor::join)
            .transpose()?
            .unwrap_or_default();
        let full = self.sizes.take().and_then(Watch::finish);
        self.outcome(report, full)
    }

    fn outcome(&mut self, report: SupervisorReport, full: Option<Full>) -> Result<Ended, RunError> {
        let not_executed = self.not_executed;
        let exit = match self.stop {
            Some(Stop::Cancelled) => Exit::Cancelled,
            Some(Stop::TimedOut) => Exit::TimedOut,
            Some(Stop::Excess(Excess::Memory)) => Exit::OutOfMemory,
            Some(Stop::Excess(Excess::Processes)) => Exit::TooManyProcesses,
            // Also where there was too much when it ended, before anybody looked.
            Some(Stop::Full) | None => match (self.failure.take(), full, self.exit.take()) {
                (Some(failure), ..) => return Err(failure),
                (None, Some(Full { path, size }), _) => Exit::Full { mount: path, size },
                (None, None, Some(exit)) => exit,
                (None, None, None) => return Err(RunError::InitDied),
            },
        };
        Ok(Ended {
            exit,
            not_executed,
            report,
        })
    }

    /// Waits until there is something to do; returns whether the init still runs.
    fn wait(&self, bounds: &Bounds) -> Result<bool, RunError> {
        let mut watched = vec![PollFd::new(&self.first, PollFlags::IN)];
        if self.stop.is_none() {
            watched.push(PollFd::new(self.cancel, PollFlags::IN));
            watched.extend(self.sizes.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        }
        watched.extend(self.control.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        watched.extend(self.stdout.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        watched.extend(self.stderr.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let limit = match self.killed_at {
            Some(at) => Some(at + PATIENCE),
            None if bounds.is_watched() => {
                let look = self.looked_at + LOOK;
                Some(bounds.deadline.map_or(look, |at| at.min(look)))
            }
            None => bounds.deadline,
        };
        let timeout = limit.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(!watched[0].revents().contains(PollFlags::IN)),
            Err(errno) => Err(SysError::new("poll", "step", errno).into()),
        }
    }

    fn take_messages(&mut self) {
        while let Some(control) = &self.control {
            let mut ready = [PollFd::new(control, PollFlags::IN)];
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            if !matches!(poll(&mut ready, Some(&now)), Ok(1..)) {
                return;
            }
            match wire::receive(control.as_fd()) {
                Ok(Some((message, fds))) => {
                    if let Err(error) = self.take(message, fds) {
                        self.give_up(error);
                    }
                }
                // The other side is gone, or not to be understood: the exit of the init says the rest.
                Ok(None) | Err(_) => self.control = None,
            }
        }
    }

    fn take(&mut self, message: FromInit, mut fds: Vec<OwnedFd>) -> Result<(), RunError> {
        match message {
            FromInit::MapIds => self.map_ids()?,
            FromInit::Holder { pid } => {
                self.holder = fds.pop();
                if let Some(spec) = &mut self.spec {
                    spec.init_pid = pid;
                }
            }
            FromInit::Supervise => {
                let (Some(listener), Some(spec)) = (fds.pop(), self.spec.take()) else {
                    return Err(RunError::InitDied);
                };
                self.supervisor = Some(Supervisor::start(listener, spec)?);
            }
            FromInit::Trace { pid } => {
                let supervisor = self.supervisor.as_mut().ok_or(RunError::InitDied)?;
                supervisor.trace(pid)?;
                self.send(&ToInit::Traced, &[])?;
            }
            FromInit::Failed { doing, error } => return Err(RunError::Setup { doing, error }),
            FromInit::NotExecuted { errno } => self.not_executed = Some(errno),
            FromInit::Exited { code } => self.exit = Some(Exit::Code(code)),
            FromInit::Signalled { signal } => self.exit = Some(Exit::Signal(signal)),
        }
        Ok(())
    }

    /// Maps all ids of this namespace to themselves in the step's.
    fn map_ids(&self) -> Result<(), RunError> {
        let identity = |file: &str| -> SysResult<Vec<IdRange>> {
            Ok(namespace::id_map(file)?
                .into_iter()
                .map(|range| IdRange {
                    outside: range.inside,
                    ..range
                })
                .collect())
        };
        namespace::write_id_maps(
            self.child.id(),
            &identity("uid_map")?,
            &identity("gid_map")?,
        )?;
        self.send(&ToInit::IdsMapped, &[])?;
        Ok(())
    }

    fn pass_output(&mut self, output: &mut dyn FnMut(Stream, &[u8])) {
        let mut buffer = vec![0; CHUNK];
        if drain(self.stdout.as_ref(), &mut buffer, |bytes| {
            output(Stream::Stdout, bytes)
        }) {
            self.stdout = None;
        }
        if drain(self.stderr.as_ref(), &mut buffer, |bytes| {
            output(Stream::Stderr, bytes)
        }) {
            self.stderr = None;
        }
    }

    fn check_stop(&mut self, bounds: &Bounds) {
        let now = Instant::now();
        if self.killed_at.is_some_and(|at| now >= at + PATIENCE) {
            // The init did not manage: whatever descends from it goes with it.
            self.kill_by_tree();
            return;
        }
        if self.stop.is_some() {
            return;
        }
        if self.cancel.is_cancelled() {
            self.stop = Some(Stop::Cancelled);
        } else if self.sizes.as_ref().is_some_and(Watch::is_full) {
            self.stop = Some(Stop::Full);
        } else if bounds.deadline.is_some_and(|at| now >= at) && self.exit.is_none() {
            self.stop = Some(Stop::TimedOut);
        } else if bounds.is_watched() && now >= self.looked_at + LOOK {
            let usage = usage::of_descendants(Pid::from_child(&self.child));
            self.stop = bounds.excess(&usage).map(Stop::Excess);
            self.looked_at = Instant::now();
        }
        if self.stop.is_some() {
            self.kill();
        }
    }

    fn give_up(&mut self, error: RunError) {
        self.failure.get_or_insert(error);
        self.kill();
    }

    /// Kills the whole step: by pid 1 of its namespace, or by hanging up, on which the subreaper kills all.
    fn kill(&mut self) {
        self.killed_at.get_or_insert_with(Instant::now);
        match &self.holder {
            // Should that not be possible, the time limit of `PATIENCE` brings the rest.
            Some(holder) => drop(process::kill_by_handle(holder)),
            None => self.control = None,
        }
        if let Some(supervisor) = &self.supervisor {
            supervisor.end_traced();
        }
    }

    fn kill_by_tree(&self) {
        for pid in process::descendants(Pid::from_child(&self.child)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = process::kill_by_handle(&self.first);
        self.sweep();
    }

    /// Kills what has the tree as its root, or is traced, and is left although the init has ended, which happens only where
    /// something killed the init.
    fn sweep(&self) {
        if self.exit.is_none() {
            process::kill_rooted_in(&self.root);
            if let Some(supervisor) = &self.supervisor {
                supervisor.kill_traced();
            }
        }
    }
}

impl Drop for Session<'_> {
    /// On every way out, errors too, nothing of the step is left running.
    fn drop(&mut self) {
        self.kill();
        let mut gone = [PollFd::new(&self.first, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE).ok();
        if !matches!(poll(&mut gone, patience.as_ref()), Ok(1..)) {
            self.kill_by_tree();
        }
        // After a regular end this answers at once with what was taken before.
        let _ = self.child.wait();
    }
}

/// Takes what is there without waiting; returns whether the stream has ended.
fn drain<F: AsFd>(stream: Option<&F>, buffer: &mut [u8], mut pass: impl FnMut(&[u8])) -> bool {
    let Some(stream) = stream else { return false };
    // Bounds one turn, so that a step that writes without end cannot keep time limit and cancellation waiting.
    for _ in 0..16 {
        let mut ready = [PollFd::new(stream, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if !matches!(poll(&mut ready, Some(&now)), Ok(1..)) {
            return false;
        }
        match rustix::io::read(stream, &mut *buffer) {
            Ok(0) => return true,
            Ok(n) => pass(&buffer[..n]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return true,
        }
    }
    false
}
