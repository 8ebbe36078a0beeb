//! The tracer: follows forks, changes execve(2), and passes everything else on.
//!
//! A thread of its own, because only the thread that traces may ask anything of a traced one.  It takes the step's
//! lock to look things up and never waits for a traced thread with it, since that may wait for the supervisor.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use rustix::io::Errno;
use stepwell_sys::error::{Context, SysError, SysResult};
use stepwell_sys::ptrace::{Registers, Resume, Status, Tracer};

use super::super::call::{Answer, Call, Handler, Stop};
use super::super::step::Step;
use super::super::{SupervisorError, lock};
use super::exec::{self, Pending};
use super::processes::{Child, Processes};
use super::{socketcall, sockets, syscalls};
use crate::run::narrow;

/// Begins to trace the first process of a step; the thread ends when nothing of the step is left.
///
/// # Errors
/// It may not be traced.
pub fn trace(
    step: Arc<Mutex<Step>>,
    first: u32,
) -> Result<JoinHandle<SysResult<()>>, SupervisorError> {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("tracer".to_owned())
        .spawn(move || {
            let tracer = Tracer::default();
            let seized = tracer.seize(first);
            let began = seized.is_ok();
            // The other side waits for exactly this.
            let _ = tell.send(seized);
            if began {
                Loop::new(tracer, step, first).run()
            } else {
                Ok(())
            }
        })
        .context("clone", "tracer thread")?;
    let gone = || SysError::new("ptrace", "tracer thread", Errno::SRCH);
    told.recv().map_err(|_| gone())??;
    Ok(thread)
}

/// The thread's own.
pub struct Loop {
    pub tracer: Tracer,
    pub step: Arc<Mutex<Step>>,
    /// Threads that stopped at their start before their parent told of them.
    early: HashSet<u32>,
    /// Programs that are being executed, by thread.
    pub pending: HashMap<u32, Pending>,
    /// What the registers were of threads whose call was replaced by another one.
    pub replaced: HashMap<u32, Registers>,
}

impl Loop {
    fn new(tracer: Tracer, step: Arc<Mutex<Step>>, first: u32) -> Self {
        let this = Self {
            tracer,
            step,
            early: HashSet::new(),
            pending: HashMap::new(),
            replaced: HashMap::new(),
        };
        this.processes(|processes| {
            processes.of_mut(first);
        });
        this
    }

    fn run(mut self) -> SysResult<()> {
        loop {
            let all = self.tracer.wait_for_all()?;
            if all.is_empty() {
                return Ok(());
            }
            let is_single = all.len() == 1;
            for (tid, status) in all {
                // Since it was told of, a thread may have been ended by another one of its process, which has executed a
                // program and has its number now: it is told of by itself, and must not go on before.
                let is_another =
                    status != Status::Executed && !is_single && self.tracer.is_at_exec(tid);
                if !is_another {
                    self.turn(tid, status);
                }
            }
        }
    }

    fn turn(&mut self, tid: u32, status: Status) {
        match self.take(tid, status) {
            // It was killed meanwhile: its end comes by itself.
            Err(error) if error.errno == Errno::SRCH => {}
            Err(error) => {
                // Whatever it was, a thread that cannot be handled must not go on unwatched.
                lock(&self.step).counters.failed += 1;
                exec::kill(tid);
                tracing::debug!(%error, tid, "a traced thread was killed");
            }
            Ok(()) => {}
        }
    }

    /// Does something with the table of processes.
    pub fn processes<T>(&self, work: impl FnOnce(&mut Processes) -> T) -> Option<T> {
        let mut step = lock(&self.step);
        step.mediated
            .as_mut()
            .map(|mediated| work(&mut mediated.processes))
    }

    fn take(&mut self, tid: u32, status: Status) -> SysResult<()> {
        let is_over = self.processes(|processes| processes.are_over());
        match status {
            // Who was made since all were killed is killed before its first instruction.
            Status::Forked | Status::Started | Status::Filtered | Status::Call
                if is_over == Some(true) =>
            {
                exec::kill(tid);
                Ok(())
            }
            Status::Gone => {
                self.pending.remove(&tid);
                self.replaced.remove(&tid);
                self.early.remove(&tid);
                self.processes(|processes| processes.ended(tid));
                sockets::let_go(&mut lock(&self.step)).or(Ok(()))
            }
            Status::Filtered => {
                let registers = self.tracer.registers(tid)?;
                if socketcall::is_one(&registers) {
                    socketcall::begin(self, tid, registers)
                } else if let Some(handler) = syscalls::about_signals(called(&registers)) {
                    self.signals(tid, registers, handler)
                } else {
                    exec::begin(self, tid, registers)
                }
            }
            Status::Executed => {
                // The thread that had this number is gone, and its call with it.
                self.replaced.remove(&tid);
                exec::succeeded(self, tid)?;
                sockets::let_go(&mut lock(&self.step)).or(Ok(()))
            }
            Status::Call if self.replaced.contains_key(&tid) => socketcall::end(self, tid),
            Status::Call if self.pending.contains_key(&tid) => exec::failed(self, tid),
            Status::Forked => self.forked(tid),
            Status::Started => self.started(tid),
            Status::Stopped => self.tracer.listen(tid),
            Status::Signal(signal) => self.tracer.resume(tid, self.mode(tid), signal),
            Status::Call | Status::Other => self.tracer.resume(tid, self.mode(tid), 0),
        }
    }

    /// How a thread goes on: while it executes a program, or makes another call than it wanted, the end has to be seen.
    fn mode(&self, tid: u32) -> Resume {
        if self.pending.contains_key(&tid) || self.replaced.contains_key(&tid) {
            Resume::ToCall
        } else {
            Resume::Freely
        }
    }

    /// A thread stopped before a call that signals: it is carried out by the kernel, or left out.
    fn signals(&mut self, tid: u32, mut registers: Registers, handler: Handler) -> SysResult<()> {
        let arguments = std::array::from_fn(|index| registers.argument(index));
        let call = Call::stopped(tid, called(&registers) as i32, arguments);
        let answer = {
            let mut step = lock(&self.step);
            step.counters.notified += 1;
            handler(&mut step, &call)
        };
        match answer {
            Ok(Answer::Value(value)) => registers.leave_out(value),
            Err(Stop::Fail(errno)) => registers.fail(errno.raw_os_error()),
            _ => return self.tracer.resume(tid, self.mode(tid), 0),
        }
        self.tracer.set_registers(tid, &registers)?;
        self.tracer.resume(tid, self.mode(tid), 0)
    }

    fn forked(&mut self, parent: u32) -> SysResult<()> {
        let child = self.tracer.message(parent)?;
        let registers = self.tracer.registers(parent)?;
        let kind = made_by(called(&registers), registers.argument(0));
        self.processes(|processes| processes.forked(parent, child, kind));
        if self.early.remove(&child) {
            // It may have been killed already.
            let _ = self.tracer.resume(child, Resume::Freely, 0);
        }
        self.tracer.resume(parent, self.mode(parent), 0)
    }

    fn started(&mut self, tid: u32) -> SysResult<()> {
        if self.processes(|processes| processes.knows(tid)) == Some(true) {
            return self.tracer.resume(tid, self.mode(tid), 0);
        }
        self.early.insert(tid);
        Ok(())
    }
}

/// Returns the native number of the call that a thread is at.
pub fn called(registers: &Registers) -> i64 {
    match registers.call() {
        number if registers.is_narrow() => narrow::native(number).unwrap_or(-1),
        number => number,
    }
}

/// Says what a call makes; clone3 is refused by the filter.
fn made_by(call: i64, flags: u64) -> Child {
    let has = |flag: i32| call == libc::SYS_clone && flags & flag as u64 != 0;
    if has(libc::CLONE_THREAD) {
        Child::Thread
    } else if call == VFORK || has(libc::CLONE_VM) {
        Child::SharingMemory
    } else {
        Child::Process
    }
}

#[cfg(target_arch = "x86_64")]
const VFORK: i64 = libc::SYS_vfork;
/// There is no such call.
#[cfg(not(target_arch = "x86_64"))]
const VFORK: i64 = -1;
