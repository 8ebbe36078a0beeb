//! The supervisor: answers, from outside the chroot, the system calls of a step that the kernel alone would
//! answer wrongly there.
//!
//! Two things are made up.  *Grafts*: `/proc`, `/dev` and `/sys` of a tree in which nothing is mounted
//! ([`nodes`]).  *Emulated ids*: owners and ids that one mapped id cannot hold ([`credentials`], [`owner`]).
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
mod mounts;
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
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use stepwell_sys::error::{Context, SysError};
use stepwell_sys::notify::{Listener, Notification, Received};

pub(super) use grafts::keeping_times;
pub use grafts::{GraftSpec, Grafts};
pub use guard::Guarded;
pub use syscalls::filter;

use self::call::{Answer, Call, Stop};
use self::step::Step;
use self::syscalls::Row;
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
    thread: JoinHandle<Result<SupervisorReport, SupervisorError>>,
    stop: OwnedFd,
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
        let step = Step::new(spec)?;
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || Loop::new(listener, step).run(&seen))
            .context("clone", "supervisor thread")?;
        Ok(Self { thread, stop })
    }

    /// Waits until no process of the step is left, and returns what is to be kept of it.
    ///
    /// # Errors
    /// What stopped the supervisor early; calls of the step that waited then failed with ENOSYS.
    pub fn join(self) -> Result<SupervisorReport, SupervisorError> {
        self.thread.join().map_err(|_| SupervisorError::Panicked)?
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
    step: Step,
    rows: HashMap<i32, &'static Row>,
}

impl Loop {
    fn new(listener: Listener, step: Step) -> Self {
        let rows = syscalls::rows().map(|row| (row.nr as i32, row)).collect();
        Self {
            listener,
            step,
            rows,
        }
    }

    fn run(mut self, stop: &OwnedFd) -> Result<SupervisorReport, SupervisorError> {
        loop {
            match self.listener.receive(Some(stop.as_fd()))? {
                Received::Call(notification) => self.answer(notification),
                Received::Nothing => {}
                Received::AllGone | Received::Stopped => break,
            }
        }
        Ok(self.step.into_report())
    }

    fn answer(&mut self, notification: Notification) {
        self.step.counters.notified += 1;
        self.step.pids.meet(notification.tid);
        let call = Call::new(notification, &self.listener);
        // What is asked about for the sake of mounts alone has no handler.
        let row = self.rows.get(&notification.nr);
        let row = row.filter(|row| row.asks(self.step.emulates(), &call));
        let answer = if notification.tid == 0 {
            Err(Stop::CarryOn)
        } else {
            // A defect of ours in one call must not end the others: the kernel carries this one out alone.
            catch_unwind(AssertUnwindSafe(|| {
                guard::check(&self.step, &call)?;
                row.map_or(Ok(Answer::CarryOn), |row| {
                    (row.handler)(&mut self.step, &call)
                })
            }))
            .unwrap_or_else(|_| {
                self.step.counters.failed += 1;
                Err(Stop::CarryOn)
            })
        };
        self.send(notification, answer);
    }

    /// Sends an answer.  That nobody waits for it any more is no failure: tasks die.
    fn send(&mut self, notification: Notification, answer: Result<Answer, Stop>) {
        let Notification { id, .. } = notification;
        let counters = &mut self.step.counters;
        match answer {
            Ok(Answer::CarryOn) | Err(Stop::CarryOn) => {
                counters.continued += 1;
                self.listener.carry_on(id);
            }
            Ok(Answer::Value(value)) => {
                counters.emulated += 1;
                self.listener.succeed(id, value);
            }
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
            Err(Stop::Fail(errno)) => {
                counters.emulated += 1;
                self.listener.fail(id, errno);
            }
        }
    }
}
