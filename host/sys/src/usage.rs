//! What a process and all that descend from it use, as `/proc` shows it.

use std::fs;
use std::os::unix::ffi::OsStringExt;

use rustix::process::Pid;

use crate::process::{descendants, status_field};

/// What a family of processes uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Threads, so that a process counts at least once.
    pub tasks: u64,
    /// Bytes of memory that is theirs alone: what files hold as well is not counted.
    pub memory: u64,
}

/// Adds up what descends from `root`, without itself.  Whoever ends meanwhile is left out.
pub fn of_descendants(root: Pid) -> Usage {
    let mut sum = Usage::default();
    for pid in descendants(root) {
        let path = format!("/proc/{}/status", pid.as_raw_nonzero());
        let status = fs::read_to_string(path).unwrap_or_default();
        let one = Usage::parse(&status);
        sum.tasks += one.tasks;
        sum.memory += one.memory;
    }
    sum
}

/// Goes through the open files without a name of all that descends from `root`, as far as `/proc` shows them: `found` gets the path that
/// each had, and the link in `/proc` that leads to it.
pub fn removed_files_of_descendants(root: Pid, found: &mut dyn FnMut(Vec<u8>, &str)) {
    const REMOVED: &[u8] = b" (deleted)";
    for pid in descendants(root) {
        let dir = format!("/proc/{}/fd", pid.as_raw_nonzero());
        // Whoever has ended meanwhile has no file open.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let link = entry.path();
            let Ok(target) = fs::read_link(&link) else {
                continue;
            };
            let target = target.into_os_string().into_vec();
            if let (Some(path), Some(link)) = (target.strip_suffix(REMOVED), link.to_str()) {
                found(path.to_vec(), link);
            }
        }
    }
}

impl Usage {
    /// Takes it from the text of `/proc/PID/status` (proc_pid_status(5)).
    fn parse(status: &str) -> Self {
        let number = |field| {
            let words = status_field(status, field)?.split_whitespace();
            words.clone().next()?.parse::<u64>().ok()
        };
        Self {
            tasks: number("Threads").unwrap_or(0),
            // In kB; a process that has ended has no such line.
            memory: number("RssAnon").unwrap_or(0) << 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "Name:\tx\nVmRSS:\t    900 kB\nRssAnon:\t     520 kB\nThreads:\t13\n";
        let usage = Usage {
            tasks: 13,
            memory: 520 << 10,
        };
        assert_eq!(Usage::parse(text), usage);
        assert_eq!(Usage::parse(""), Usage::default());
    }

    #[test]
    fn children_are_counted() {
        let mut child = std::process::Command::new("sleep")
            .arg("20")
            .spawn()
            .expect("spawn");
        let usage = of_descendants(rustix::process::getpid());
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(usage.tasks >= 1 && usage.memory > 0, "{usage:?}");
    }
}
