//! The supervisor: answers, from outside the chroot, the system calls of a step that the kernel alone would
//! answer wrongly there.
//!
//! Two things are made up.  *Grafts*: `/proc`, `/dev` and `/sys` of a tree in which nothing is mounted
//! ([`nodes`]).  *Emulated ids*: ids of processes, and owners of files, that the kernel does not hold ([`credentials`], [`owner`],
//! [`crate::run::types::Ids`]).
//!
//! The way of a call: the filter ([`syscalls::filter`]) makes the kernel ask, the loop here takes the
//! notification, the table ([`syscalls::rows`]) names its handler, the handler finds out what is meant
//! ([`path`]) and says how to answer ([`call::Answer`]).
//!
//! Security never rests on what is read from the step's memory: it may change between our look and the kernel's.
//! What the kernel carries on with is confined by the chroot and the namespace; what the supervisor opens itself
//! lies beneath its own handles and is on its lists.  The supervisor must not block, must not keep what a step
//! can make grow without bound, and must survive anything a step does: a handler that fails answers that one call.

mod call;
mod chmod;
mod create;
mod credentials;
mod dev;
mod exec;
mod grafts;
mod guard;
mod identity;
mod layout;
mod mediated;
mod mounts;
mod names;
mod nodes;
mod open;
mod owner;
mod path;
mod pids;
mod pidtext;
mod procfs;
pub(super) mod remove;
mod secrets;
mod stat;
mod statfs;
mod step;
mod stubs;
mod syscalls;
mod sysfs;
mod xattr;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use stepwell_sys::error::{Context, SysError};
use stepwell_sys::memory;
use stepwell_sys::notify::{Listener, Notification, Received};

pub(super) use grafts::keeping_times;
pub use grafts::{GraftSpec, Grafts};
pub use guard::Guarded;
pub use names::Names;
pub use owner::is_shared;
pub use syscalls::filter;

use self::call::{Answer, Call, Handler, Stop};
use self::step::Step;
use self::syscalls::Row;
use super::narrow::Form;
use super::types::{SupervisorReport, SupervisorSpec};

/// Why a supervisor did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A system call failed.
    #[error("the supervisor of a step: {0}")]
    Sys(#[from] SysError),
    /// Its thread ended by a defect of ours.
    #[error("the supervisor of a step panicked")]
    Panicked,
}

/// A running supervisor: one thread, which ends when no process has the filter any more.
#[derive(Debug)]
pub struct Supervisor {
    thread: JoinHandle<Result<(), SupervisorError>>,
    tracer: Option<JoinHandle<Result<(), SysError>>>,
    step: Arc<Mutex<Step>>,
    stop: OwnedFd,
}

/// Takes the step, also after a defect of ours in another call.
fn lock(step: &Mutex<Step>) -> MutexGuard<'_, Step> {
    step.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    /// Starts to answer the notifications that arrive on `listener`.
    ///
    /// The grafts have to be in place ([`Grafts::install`]).
    ///
    /// # Errors
    /// A descriptor that is no listener, or a handle that could not be had.
    pub fn start(listener: OwnedFd, spec: SupervisorSpec) -> Result<Self, SupervisorError> {
        let listener = Listener::new(listener)?;
        // Older kernels do not know it, and lose only speed.
        let _ = listener.wake_on_same_cpu();
        let stop =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("eventfd2", "")?;
        let seen = rustix::io::fcntl_dupfd_cloexec(&stop, 0).context("fcntl", "eventfd")?;
        let step = Arc::new(Mutex::new(Step::new(spec)?));
        let shared = step.clone();
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || Loop::new(listener, shared).run(&seen))
            .context("clone", "supervisor thread")?;
        Ok(Self {
            thread,
            tracer: None,
            step,
            stop,
        })
    }

    /// Begins to trace the first process of a step whose paths are mediated, and all that will descend from it.
    ///
    /// # Errors
    /// It may not be traced.
    pub fn trace(&mut self, pid: u32) -> Result<(), SupervisorError> {
        self.tracer = Some(mediated::trace(self.step.clone(), pid)?);
        Ok(())
    }

    /// Kills what is traced, and whatever that makes from now on; where nothing is traced, does nothing.
    pub fn end_traced(&self) {
        if self.tracer.is_some() {
            mediated::kill_all(&mut lock(&self.step));
        }
    }

    /// Kills what is traced until nothing is; for a step whose holder was killed.
    pub fn kill_traced(&self) {
        // A process takes a moment to end; the bound is for one that cannot be signalled at all.
        const ROUNDS: u32 = 5000;
        let Some(tracer) = &self.tracer else { return };
        for _ in 0..ROUNDS {
            if tracer.is_finished() {
                return;
            }
            mediated::kill_all(&mut lock(&self.step));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Waits until no process of the step is left, and returns what is to be kept of it.
    ///
    /// # Errors
    /// What stopped the supervisor early; calls of the step that waited then failed with ENOSYS.
    pub fn join(self) -> Result<SupervisorReport, SupervisorError> {
        self.thread
            .join()
            .map_err(|_| SupervisorError::Panicked)??;
        if let Some(tracer) = self.tracer {
            tracer.join().map_err(|_| SupervisorError::Panicked)??;
        }
        Ok(lock(&self.step).report())
    }

    /// Ends the supervisor although processes may be left (their calls fail with ENOSYS from then on), and
    /// returns what is to be kept.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub fn stop(self) -> Result<SupervisorReport, SupervisorError> {
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).context("write", "eventfd")?;
        self.join()
    }
}

/// The thread's own: takes notifications and has them answered.
struct Loop {
    listener: Listener,
    step: Arc<Mutex<Step>>,
    rows: HashMap<i32, &'static Row>,
    /// What stands in for the kernel, where no path may be left to it, and what looks at numbers of processes, where they
    /// are the machine's.
    kernel: HashMap<i32, Handler>,
}

impl Loop {
    fn new(listener: Listener, step: Arc<Mutex<Step>>) -> Self {
        let rows = syscalls::rows().map(|row| (row.nr as i32, row)).collect();
        let kernel = {
            let step = lock(&step);
            if step.mediated.is_some() {
                mediated::handlers().collect()
            } else if !step.pids.own_namespace() {
                mediated::handlers_about_others().collect()
            } else {
                HashMap::new()
            }
        };
        Self {
            listener,
            step,
            rows,
            kernel,
        }
    }

    fn run(mut self, stop: &OwnedFd) -> Result<(), SupervisorError> {
        loop {
            match self.listener.receive(Some(stop.as_fd()))? {
                Received::Call(notification) => self.answer(notification),
                Received::Nothing => {}
                Received::AllGone | Received::Stopped => break,
            }
        }
        Ok(())
    }

    fn answer(&mut self, notification: Notification) {
        let mutex = self.step.clone();
        let mut step = lock(&mutex);
        step.counters.notified += 1;
        step.pids.meet(notification.tid);
        let call = Call::new(notification, &self.listener);
        let answer = self.decide(&mut step, &call);
        self.send(&mut step, notification, answer);
    }

    fn decide(&self, step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
        if call.tid() == 0 {
            return Err(Stop::CarryOn);
        }
        if call.form() == Form::Gone {
            return Err(Errno::NOSYS.into());
        }
        if let Some(answer) = mediated::expected(step, call) {
            return Ok(answer);
        }
        let answer = attempt(step, call, |step, call| {
            guard::check(step, call)?;
            names::watch(step, call)?;
            // What is asked about for the sake of mounts alone, or of mediation, has no handler.
            let row = self.rows.get(&call.number());
            match row.filter(|row| step.mediated.is_some() || row.asks(step, call)) {
                Some(row) => (row.handler)(step, call),
                None => Err(Stop::CarryOn),
            }
        });
        match (&answer, self.kernel.get(&call.number())) {
            (Ok(Answer::CarryOn) | Err(Stop::CarryOn), Some(kernel)) => {
                mediated::settle(attempt(step, call, kernel))
            }
            _ => answer,
        }
    }

    /// Sends an answer.  That nobody waits for it any more is no failure: tasks die.
    fn send(&mut self, step: &mut Step, notification: Notification, answer: Result<Answer, Stop>) {
        let Notification { id, .. } = notification;
        let counters = &mut step.counters;
        match answer {
            Ok(Answer::CarryOn) | Err(Stop::CarryOn) => {
                counters.continued += 1;
                self.listener.carry_on(id);
            }
            Ok(Answer::Value(value)) => {
                counters.emulated += 1;
                self.listener.succeed(id, value);
            }
            Ok(Answer::Later) => counters.emulated += 1,
            Ok(Answer::Inject {
                file,
                close_on_exec,
            }) => {
                counters.injected += 1;
                if let Err(error) = self.listener.inject(id, file.as_fd(), close_on_exec)
                    && error.errno != Errno::NOENT
                {
                    counters.failed += 1;
                    self.listener.fail(id, error.errno);
                }
            }
            Ok(Answer::InjectTwo {
                files,
                close_on_exec,
                numbers,
            }) => {
                counters.injected += 1;
                match give_two(&self.listener, notification, &files, close_on_exec, numbers) {
                    Ok(()) => self.listener.succeed(id, 0),
                    Err(errno) => self.listener.fail(id, errno),
                };
            }
            Err(Stop::Fail(errno)) => {
                counters.emulated += 1;
                self.listener.fail(id, errno);
            }
        }
    }
}

/// Gives a task two files and tells their numbers.
fn give_two(
    listener: &Listener,
    task: Notification,
    files: &[OwnedFd; 2],
    close_on_exec: bool,
    numbers: u64,
) -> Result<(), Errno> {
    let mut told = Vec::new();
    for file in files {
        let given = listener.give(task.id, file.as_fd(), close_on_exec);
        told.extend(given.map_err(|error| error.errno)?.to_ne_bytes());
    }
    memory::write(task.tid, numbers, &told).map_err(|_| Errno::FAULT)
}

/// Has a handler answer.
fn attempt(
    step: &mut Step,
    call: &Call<'_>,
    handler: impl FnOnce(&mut Step, &Call<'_>) -> Result<Answer, Stop>,
) -> Result<Answer, Stop> {
    // A defect of ours in one call must not end the others: the kernel carries this one out alone.
    catch_unwind(AssertUnwindSafe(|| handler(step, call))).unwrap_or_else(|_| {
        step.counters.failed += 1;
        Err(Stop::CarryOn)
    })
}
