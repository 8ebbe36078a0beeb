//! Stands in for the kernel where a step has no root of its own: what other tiers let the kernel carry on with is
//! carried out here, beneath the handle of the tree.
//!
//! No path of a step is ever resolved by the kernel for the step.  A call that names one comes as a notification;
//! the handlers of the other tiers look at it first (grafts, emulated ids), and where they would let the kernel carry
//! on, a row of [`syscalls`] does the kernel's part: opens are injected ([`files`]), names are made and removed
//! ([`names`]), attributes are read and set ([`attributes`]).  Each process's working directory, umask and program
//! are kept in [`processes`], which follows forks by ptrace(2) ([`trace`]); execve(2) alone is changed by it
//! ([`exec`], [`load`]), because a program has to be loaded in the task itself.
//!
//! What is read from a step's memory is read once and never used by the kernel again, so no race leads out.  Should
//! it ever fail, Landlock confines the step to its tree.

mod attributes;
mod datagrams;
mod elf;
mod exec;
mod files;
mod load;
mod messages;
mod names;
mod others;
mod processes;
mod programs;
mod socketcall;
mod sockets;
mod stack;
mod syscalls;
mod trace;
mod watches;
mod ways;

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use stepwell_sys::error::{Context, SysResult};
use stepwell_sys::resolve::{self, Links};

use super::call::{Answer, Call, Stop};
use super::pids::Status;
use super::step::Step;
use processes::Processes;
use sockets::Sockets;
use watches::Watches;

pub use files::Waiting;
pub use processes::Link;
pub use syscalls::{handlers, handlers_about_others, rules, rules_about_limits};
pub use trace::trace;

/// What is kept in the kernel's place.
#[derive(Debug)]
pub struct Mediated {
    /// Directories, masks and programs of the processes.
    pub processes: Processes,
    /// Sockets that have no address yet.
    sockets: Sockets,
    /// Instances of inotify that watches may be added to.
    watches: Watches,
    /// Files that threads which are being loaded will ask for.
    expected: HashMap<u32, OwnedFd>,
    /// Opens of named pipes that wait for the other side.
    waiting: Waiting,
    /// User and group that the kernel thinks the step has.
    own: (u32, u32),
    /// The mask of file modes that this process has itself.
    umask: u32,
    /// Name of the step's host.
    hostname: String,
}

impl Mediated {
    /// Prepares for a step that starts in the directory `cwd`, which is made where it is missing.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(root: &OwnedFd, cwd: &str, hostname: &str) -> SysResult<Self> {
        let cwd = enter(root, cwd).context("mkdir", cwd)?;
        Ok(Self {
            processes: Processes::new(cwd),
            hostname: hostname.to_owned(),
            sockets: Sockets::default(),
            watches: Watches::default(),
            expected: HashMap::new(),
            waiting: Waiting::default(),
            own: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
            // Where it is not told, every mode is set once more.
            umask: Status::of(std::process::id()).map_or(0o777, |status| status.umask),
        })
    }

    /// Returns the link to the working directory of a task.
    pub fn cwd_link(&self, tid: u32) -> String {
        format!("/proc/self/fd/{}", self.processes.of(tid).cwd.as_raw_fd())
    }

    /// Has the next open of a thread answered with this file.
    fn expect(&mut self, tid: u32, file: OwnedFd) {
        self.expected.insert(tid, file);
    }
}

/// Opens a directory of the tree, and makes what is missing of it.
fn enter(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut made = Vec::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let parent = if made.is_empty() {
            b"/".to_vec()
        } else {
            made.clone()
        };
        made.push(b'/');
        made.extend(name.as_bytes());
        if matches!(
            resolve::open(root, &made, flags, Links::Follow),
            Err(Errno::NOENT)
        ) {
            let parent = resolve::open(root, &parent, flags, Links::Follow)?;
            fs::mkdirat(&parent, name, Mode::RWXU)?;
            fs::chmodat(&parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
        }
    }
    let path = if made.is_empty() { &b"/"[..] } else { &made };
    resolve::open(root, path, flags, Links::Follow)
}

/// Answers the open by which a thread that is being loaded asks for its program.
pub fn expected(step: &mut Step, call: &Call<'_>) -> Option<Answer> {
    let mediated = step.mediated.as_mut()?;
    let is_ours = i64::from(call.number()) == libc::SYS_openat && call.arg(1) == 0;
    let file = is_ours.then(|| mediated.expected.remove(&call.tid()))??;
    Some(Answer::Inject {
        file,
        close_on_exec: true,
    })
}

/// Makes an answer of what stands in for the kernel's: nothing is left to the kernel because it could not be done.
pub fn settle(answer: Result<Answer, Stop>) -> Result<Answer, Stop> {
    match answer {
        // Memory that could not be read, or nobody to tell.
        Err(Stop::CarryOn) => Err(Stop::Fail(Errno::FAULT)),
        other => other,
    }
}

/// Kills every process of a step, and all that they may have made meanwhile.
pub fn kill_all(step: &mut Step) {
    if let Some(mediated) = &mut step.mediated {
        mediated.processes.end();
        mediated
            .processes
            .threads()
            .into_iter()
            .for_each(exec::kill);
    }
}

/// uname(buffer)
fn uname(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    const FIELD: usize = 65;
    let machine = rustix::system::uname();
    let domain = machine.domainname().to_bytes().to_vec();
    let mut out = Vec::with_capacity(6 * FIELD);
    for text in [
        machine.sysname().to_bytes(),
        state(step)?.hostname.as_bytes(),
        machine.release().to_bytes(),
        machine.version().to_bytes(),
        machine.machine().to_bytes(),
        &domain,
    ] {
        let end = out.len() + FIELD;
        out.extend(&text[..text.len().min(FIELD - 1)]);
        out.resize(end, 0);
    }
    call.write(call.arg(0), &out)?;
    Ok(Answer::Value(0))
}

/// Returns what is kept in the kernel's place; only its handlers ask.
///
/// # Errors
/// `ENOSYS` where paths are not mediated.
fn state(step: &mut Step) -> Result<&mut Mediated, Errno> {
    step.mediated.as_mut().ok_or(Errno::NOSYS)
}

impl Step {
    /// Returns the bits that the kernel takes from the modes of files that the supervisor makes.
    fn builder_umask(&self) -> u32 {
        self.mediated.as_ref().map_or(0, |mediated| mediated.umask)
    }
}
