//! The processes of a step: which they are, and their numbers inside and outside its pid namespace.

use std::collections::HashMap;
use std::fs;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, openat, readlinkat};
use stepwell_sys::resolve;

/// What `/proc/PID/status` says of a process or thread.  Lists go from the outermost namespace inwards.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Status {
    /// Thread group, by its outer number.
    pub tgid: u32,
    /// Parent, by its outer number.
    pub parent: u32,
    /// Numbers of the thread group.
    pub ns_tgid: Vec<u32>,
    /// Numbers of the thread.
    pub ns_pid: Vec<u32>,
    /// Numbers of the process group.
    pub ns_pgid: Vec<u32>,
    /// Numbers of the session.
    pub ns_sid: Vec<u32>,
    /// Mask of file modes.
    pub umask: u32,
}

impl Status {
    /// Reads the status of a process or thread.
    pub fn of(outer: u32) -> Option<Self> {
        Some(Self::parse(
            &fs::read_to_string(format!("/proc/{outer}/status")).ok()?,
        ))
    }

    /// Reads the status of the process or thread whose directory in `/proc` this is.
    fn at(directory: BorrowedFd<'_>) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(directory, c"status", flags, Mode::empty()).ok()?;
        let text = std::io::read_to_string(fs::File::from(file)).ok()?;
        Some(Self::parse(&text))
    }

    /// Takes it from the text of the file.
    pub fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let numbers = || {
                value
                    .split_whitespace()
                    .filter_map(|n| n.parse().ok())
                    .collect::<Vec<u32>>()
            };
            let first = || numbers().first().copied().unwrap_or_default();
            match key {
                "Tgid" => status.tgid = first(),
                "PPid" => status.parent = first(),
                "NStgid" => status.ns_tgid = numbers(),
                "NSpid" => status.ns_pid = numbers(),
                "NSpgid" => status.ns_pgid = numbers(),
                "NSsid" => status.ns_sid = numbers(),
                "Umask" => status.umask = u32::from_str_radix(value.trim(), 8).unwrap_or(0o022),
                _ => {}
            }
        }
        status
    }
}

/// Returns the device number of the terminal that controls a process.
pub fn terminal(outer: u32) -> Option<u32> {
    let text = fs::read(format!("/proc/{outer}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = String::from_utf8_lossy(&text[end + 1..]).into_owned();
    let number: i64 = rest.split_whitespace().nth(4)?.parse().ok()?;
    u32::try_from(number).ok().filter(|number| *number != 0)
}

/// Returns the outer numbers of the threads of a process.
pub fn threads(process: u32) -> Vec<u32> {
    numbers(&format!("/proc/{process}/task"))
}

/// Returns the numbers among the names of a directory of the machine's `/proc`.
pub fn numbers(directory: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The processes of a step.
#[derive(Debug)]
pub struct Pids {
    init: u32,
    /// How many namespaces lie outside the step's own: index of its numbers in the lists of [`Status`].
    depth: usize,
    own_namespace: bool,
    /// The link that stands for the namespace.
    namespace: Option<Vec<u8>>,
    /// Outer numbers by inner ones, as last seen; checked before use.
    seen: HashMap<u32, u32>,
}

impl Pids {
    /// `init` is the process that all of the step's descend from.
    ///
    /// With a namespace of its own, the step is known by it as soon as its first process calls: [`Self::meet`].
    pub fn new(init: u32, own_namespace: bool) -> Self {
        Self {
            init,
            depth: 0,
            own_namespace,
            namespace: None,
            seen: HashMap::new(),
        }
    }

    /// Says whether the step has a namespace of its own.
    pub fn own_namespace(&self) -> bool {
        self.own_namespace
    }

    /// Takes the namespace from a process of the step; the first one says it for all.
    pub fn meet(&mut self, tid: u32) {
        if !self.own_namespace || self.namespace.is_some() {
            return;
        }
        self.namespace = resolve::read_magic(&format!("/proc/{tid}/ns/pid")).ok();
        let status = Status::of(tid).unwrap_or_default();
        self.depth = status.ns_pid.len().saturating_sub(1);
    }

    /// Returns the number that a list of [`Status`] has inside the step; 0 for what is outside of it.
    pub fn inner(&self, numbers: &[u32]) -> u32 {
        numbers.get(self.depth).copied().unwrap_or(0)
    }

    /// Returns the inner number of a process given by its outer one; 0 for what is outside.
    pub fn inner_of(&self, outer: u32) -> u32 {
        Status::of(outer)
            .filter(|_| self.belongs(outer))
            .map_or(0, |status| self.inner(&status.ns_pid))
    }

    /// Returns the outer number of a process or thread of the step.
    pub fn outer(&mut self, inner: u32) -> Option<u32> {
        if !self.own_namespace {
            return (self.belongs(inner)).then_some(inner);
        }
        if let Some(&outer) = self.seen.get(&inner) {
            if self.is(outer, inner) {
                return Some(outer);
            }
            self.seen.remove(&inner);
        }
        self.refresh();
        self.seen.get(&inner).copied()
    }

    /// Returns the outer number of a thread of a process.
    pub fn thread(&self, process: u32, inner: u32) -> Option<u32> {
        threads(process)
            .into_iter()
            .find(|&outer| self.inner_thread(outer) == Some(inner))
    }

    /// Returns the inner number of a thread.
    pub fn inner_thread(&self, outer: u32) -> Option<u32> {
        Status::of(outer).map(|status| self.inner(&status.ns_pid))
    }

    /// Returns the inner and outer numbers of all processes.
    pub fn all(&mut self) -> Vec<(u32, u32)> {
        self.refresh();
        self.seen
            .iter()
            .map(|(&inner, &outer)| (inner, outer))
            .collect()
    }

    /// Notes a process that was seen anyway.
    pub fn note(&mut self, inner: u32, outer: u32) {
        /// Stops a step that starts threads without end from filling memory.
        const MAX_SEEN: usize = 65_536;
        if inner != 0 && self.seen.len() < MAX_SEEN {
            self.seen.insert(inner, outer);
        }
    }

    fn is(&self, outer: u32, inner: u32) -> bool {
        Status::of(outer).is_some_and(|status| self.inner(&status.ns_pid) == inner)
            && self.belongs(outer)
    }

    /// Says whether a process is one of the step's.
    pub fn belongs(&self, outer: u32) -> bool {
        match &self.namespace {
            Some(namespace) => resolve::read_magic(&format!("/proc/{outer}/ns/pid"))
                .is_ok_and(|own| own == *namespace),
            None => !self.own_namespace && self.descends(outer),
        }
    }

    /// Says whether a process is the one that holds the step: the builder's, although it has a number in the namespace.
    pub fn is_holder(&self, outer: u32) -> bool {
        self.own_namespace
            && Status::of(outer).is_none_or(|status| self.inner(&status.ns_tgid) == 1)
    }

    /// Says whether the process whose directory in `/proc` this is, is one of the step's.  Numbers are given anew when a
    /// process has ended; a handle stays with the process that it was opened for.
    pub fn owns(&self, directory: BorrowedFd<'_>) -> bool {
        if let Some(namespace) = &self.namespace {
            return readlinkat(directory, c"ns/pid", Vec::new())
                .is_ok_and(|own| own.as_bytes() == *namespace);
        }
        let Some(status) = Status::at(directory).filter(|_| !self.own_namespace) else {
            return false;
        };
        // A thread is its process's, a process its parent's.
        let is_thread = status.ns_pid.first() != Some(&status.tgid);
        status.tgid != self.init
            && if is_thread {
                self.belongs(status.tgid)
            } else {
                status.parent == self.init || self.belongs(status.parent)
            }
    }

    fn descends(&self, outer: u32) -> bool {
        /// Stops a chain that changes while it is followed.
        const MAX_DEPTH: usize = 4096;
        let mut pid = outer;
        for _ in 0..MAX_DEPTH {
            if pid == self.init {
                // The process that holds the step is the builder's, and none of the step's business.
                return outer != self.init;
            }
            match Status::of(pid) {
                Some(status) if status.tgid != pid => pid = status.tgid,
                Some(status) if status.parent > 1 => pid = status.parent,
                _ => return false,
            }
        }
        false
    }

    fn refresh(&mut self) {
        self.seen.clear();
        for outer in numbers("/proc") {
            if !self.belongs(outer) {
                continue;
            }
            if let Some(status) = Status::of(outer) {
                self.note(self.inner(&status.ns_tgid), outer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_status_is_read() {
        let text = "Name:\tsh: x\nUmask:\t0027\nTgid:\t70\nPPid:\t69\nNStgid:\t70\t5\nNSpid:\t71\t6\nNSpgid:\t70\t5\nNSsid:\t1\t0\n";
        let status = Status::parse(text);
        assert_eq!((status.tgid, status.parent, status.umask), (70, 69, 0o027));
        let pids = Pids {
            init: 60,
            depth: 1,
            own_namespace: true,
            namespace: None,
            seen: HashMap::new(),
        };
        assert_eq!(
            (
                pids.inner(&status.ns_pid),
                pids.inner(&status.ns_tgid),
                pids.inner(&[])
            ),
            (6, 5, 0)
        );
    }

    #[test]
    fn own_processes_are_told_from_others() {
        let pids = Pids::new(std::process::id(), false);
        let mut child = std::process::Command::new("sleep")
            .arg("20")
            .spawn()
            .expect("spawn");
        assert!(pids.belongs(child.id()) && !pids.belongs(1) && !pids.belongs(std::process::id()));
        let directory = |pid: u32| fs::File::open(format!("/proc/{pid}")).expect("directory");
        let owns = |directory: &fs::File| pids.owns(directory.as_fd());
        let own = directory(child.id());
        assert!(owns(&own) && !owns(&directory(1)) && !owns(&directory(std::process::id())));
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(!pids.belongs(child.id()));
        assert!(!owns(&own), "a handle leads to whoever has the number now");
    }
}
