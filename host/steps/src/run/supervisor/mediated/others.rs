//! Calls about other processes.  Without a pid namespace those of the machine have numbers too: a step is told that
//! there is nobody of that number.
//!
//! Landlock keeps signals and tracing inside on newer kernels by itself; priorities and limits it does not know.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::super::call::{Answer, Call, Stop};
use super::super::pids::Status;
use super::super::step::Step;

impl Step {
    /// Says whether a process or thread is one of the step's.
    fn has(&self, tid: u32) -> bool {
        let known = self
            .mediated
            .as_ref()
            .is_some_and(|m| m.processes.knows(tid));
        // One that has ended and that nobody has waited for yet is known no more.
        known || self.pids.belongs(tid)
    }

    fn allow(&self, number: i32) -> Result<Answer, Stop> {
        match u32::try_from(number) {
            Ok(0) => Ok(Answer::CarryOn),
            Ok(tid) if self.has(tid) => Ok(Answer::CarryOn),
            _ => Err(Errno::SRCH.into()),
        }
    }
}

/// Calls whose first argument is a process: signals to one, limits, scheduling.
pub fn first(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    step.allow(call.int(0))
}

/// tgkill(process, thread, signal) and rt_tgsigqueueinfo
pub fn thread_signal(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    step.allow(call.int(0))?;
    step.allow(call.int(1))
}

/// setpriority(which, who, priority), ioprio_set(which, who, priority): of single processes only
pub fn priority(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    // The two calls count from 0 and from 1.
    let of_process = if i64::from(call.number()) == libc::SYS_setpriority {
        libc::PRIO_PROCESS as i32
    } else {
        1
    };
    if call.int(0) != of_process {
        return Err(Errno::PERM.into());
    }
    step.allow(call.int(1))
}

/// kill(process, signal)
pub fn kill(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    match call.int(0) {
        -1 => everybody(step, call),
        0.. => step.allow(call.int(0)),
        group => {
            let group = group.unsigned_abs();
            let member = |outer: u32| {
                Status::of(outer).is_some_and(|status| status.ns_pgid.first() == Some(&group))
            };
            if step.has(group) || step.pids.all().iter().any(|(_, outer)| member(*outer)) {
                Ok(Answer::CarryOn)
            } else {
                Err(Errno::SRCH.into())
            }
        }
    }
}

/// A signal to all processes but the caller's: all of the step, that is.
fn everybody(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let own = Status::of(call.tid()).map_or(call.tid(), |status| status.tgid);
    let signal = match call.int(1) {
        0 => return Ok(Answer::Value(0)),
        number => Signal::from_named_raw(number).ok_or(Errno::INVAL)?,
    };
    let mut found = false;
    for (_, outer) in step.pids.all() {
        if outer != own
            && let Some(pid) = Pid::from_raw(outer as i32)
        {
            // Whoever is gone already needs none.
            found |= kill_process(pid, signal).is_ok();
        }
    }
    if found {
        Ok(Answer::Value(0))
    } else {
        Err(Errno::SRCH.into())
    }
}
