//! What the kernel keeps of a process that the supervisor has to keep itself: working directory, umask, program.
//!
//! A child has what its parent had when it forked; threads share.  Who forked whom is told by [`super::trace`] before
//! the child runs its first instruction, so that it can make no call as somebody unknown.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// What a step's first process starts with (see `run/init.rs`).
const FIRST_UMASK: u32 = 0o022;

/// A process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Handle on the working directory.
    pub cwd: Arc<OwnedFd>,
    /// The mask of file modes.
    pub umask: u32,
    /// What it runs; none before the first program.
    pub program: Option<Program>,
    /// Memory of its own that the tracer may write to; shared with those that share all memory.
    pub room: Arc<Mutex<Option<Room>>>,
}

/// Memory of a process that the tracer has mapped for itself.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Where it is.
    pub address: u64,
    /// Which part of it is the next to be used.
    pub next: u64,
}

/// What a process has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// A process with memory of its own.
    Process,
    /// A process that has its parent's memory until it executes a program.
    SharingMemory,
    /// A thread.
    Thread,
}

/// A running program.
#[derive(Debug, Clone)]
pub struct Program {
    /// Handle on the file.
    pub file: Arc<OwnedFd>,
}

/// A link in `/proc/PID` that the kernel would answer wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// `cwd`.
    Cwd,
    /// `exe`.
    Exe,
    /// `root`.
    Root,
}

/// The processes of a step.
#[derive(Debug)]
pub struct Processes {
    /// What a thread's process is called in `processes`: the number of its first thread.
    threads: HashMap<u32, u32>,
    processes: HashMap<u32, Known>,
    first: Process,
    over: bool,
}

/// A process and its threads: there may be thousands of processes, so that nobody looks for them among all.
#[derive(Debug)]
struct Known {
    process: Process,
    threads: HashSet<u32>,
}

impl Known {
    fn with(process: Process, thread: u32) -> Self {
        Self {
            process,
            threads: HashSet::from([thread]),
        }
    }
}

impl Processes {
    /// The first process starts in `cwd`.
    pub fn new(cwd: OwnedFd) -> Self {
        Self {
            threads: HashMap::new(),
            processes: HashMap::new(),
            first: Process {
                cwd: Arc::new(cwd),
                umask: FIRST_UMASK,
                program: None,
                room: Arc::default(),
            },
            over: false,
        }
    }

    /// Says that nobody of them is to go on.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// Says whether nobody of them is to go on.
    pub fn are_over(&self) -> bool {
        self.over
    }

    /// Returns what is kept of a thread's process; one that nobody knows is as the first was.
    pub fn of(&self, tid: u32) -> &Process {
        self.threads
            .get(&tid)
            .and_then(|process| self.processes.get(process))
            .map_or(&self.first, |known| &known.process)
    }

    /// Returns what is kept of a thread's process, to be changed.
    pub fn of_mut(&mut self, tid: u32) -> &mut Process {
        let process = *self.threads.entry(tid).or_insert(tid);
        let first = &self.first;
        let known = self.processes.entry(process);
        &mut known
            .or_insert_with(|| Known::with(first.clone(), tid))
            .process
    }

    /// Lists all threads.
    pub fn threads(&self) -> Vec<u32> {
        self.threads.keys().copied().collect()
    }

    /// Says whether a thread is known.
    pub fn knows(&self, tid: u32) -> bool {
        self.threads.contains_key(&tid)
    }

    /// Notes what `parent` has made.
    pub fn forked(&mut self, parent: u32, child: u32, kind: Child) {
        let mut inherited = self.of_mut(parent).clone();
        if kind == Child::Thread {
            let process = self.threads[&parent];
            self.threads.insert(child, process);
            if let Some(known) = self.processes.get_mut(&process) {
                known.threads.insert(child);
            }
        } else {
            if kind == Child::Process {
                let room = *inherited
                    .room
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                inherited.room = Arc::new(Mutex::new(room));
            }
            self.threads.insert(child, child);
            self.processes.insert(child, Known::with(inherited, child));
        }
    }

    /// Notes that a process runs a program: it has one thread, which has the number of the process.
    pub fn executed(&mut self, former: u32, tid: u32, program: Program) {
        let process = Process {
            program: Some(program),
            room: Arc::default(),
            ..self.of(former).clone()
        };
        let number = self.threads.get(&former);
        let known = number.and_then(|number| self.processes.remove(number));
        for thread in known.into_iter().flat_map(|known| known.threads) {
            self.threads.remove(&thread);
        }
        self.threads.insert(tid, tid);
        self.processes.insert(tid, Known::with(process, tid));
    }

    /// Notes that a thread has ended.
    pub fn ended(&mut self, tid: u32) {
        let Some(process) = self.threads.remove(&tid) else {
            return;
        };
        if let Some(known) = self.processes.get_mut(&process) {
            known.threads.remove(&tid);
            if known.threads.is_empty() {
                self.processes.remove(&process);
            }
        }
    }

    /// Returns the path beneath the machine's `/proc` of what a link of a process stands for.
    pub fn link(&self, tid: u32, link: Link, root: &OwnedFd) -> Option<String> {
        let process = self.of(tid);
        let file = match link {
            Link::Cwd => process.cwd.as_raw_fd(),
            Link::Exe => process.program.as_ref()?.file.as_raw_fd(),
            Link::Root => root.as_raw_fd(),
        };
        Some(format!("self/fd/{file}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &str) -> OwnedFd {
        std::fs::File::open(path).expect("open").into()
    }

    #[test]
    fn children_inherit_and_threads_share() {
        let mut all = Processes::new(open("/"));
        all.of_mut(10).umask = 0o077;
        all.forked(10, 11, Child::Process);
        all.forked(10, 12, Child::Thread);
        all.of_mut(12).cwd = Arc::new(open("/usr"));
        all.of_mut(11).umask = 0;
        all.forked(11, 13, Child::SharingMemory);
        assert!(Arc::ptr_eq(&all.of(11).room, &all.of(13).room));
        assert!(!Arc::ptr_eq(&all.of(10).room, &all.of(11).room));
        all.ended(13);
        assert!(Arc::ptr_eq(&all.of(10).cwd, &all.of(12).cwd));
        assert!(!Arc::ptr_eq(&all.of(10).cwd, &all.of(11).cwd));
        assert_eq!((all.of(10).umask, all.of(11).umask), (0o077, 0));
        all.ended(10);
        assert_eq!(
            all.of(12).umask,
            0o077,
            "a process outlives its first thread"
        );
        let file = Arc::new(open("/usr"));
        all.executed(12, 10, Program { file });
        assert!(all.knows(10) && !all.knows(12) && all.of(10).program.is_some());
        all.ended(10);
        all.ended(11);
        assert!(all.processes.is_empty() && all.threads.is_empty());
    }
}
