//! Process groups: what those in one do, as `/proc` tells (proc(5)), and ending all of them at once.

use std::collections::HashMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::{fs, io};

use rustix::io::Errno;
use rustix::process::{self, Pid, Signal};

use crate::error::{Context, SysResult};

/// What a process did since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that it read and wrote, of sockets and pipes too; nothing where the kernel does not say.
    pub bytes: Option<u64>,
    /// Processor time, in clock ticks (a hundredth of a second each).
    pub ticks: u64,
}

/// Starts a program as the leader of a group of its own.  The kernel kills it when the thread that calls this ends, however that
/// does: so nobody goes on for a build that is gone.
pub fn start(command: &mut Command) -> io::Result<Child> {
    command.process_group(0);
    let die_with_parent =
        || process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
    // SAFETY: between fork and exec this makes one system call, and allocates and locks nothing.
    unsafe { command.pre_exec(die_with_parent) };
    command.spawn()
}

/// Says what each process of a group did so far, by its id.
pub fn usage(group: u32) -> HashMap<u32, Usage> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let ticks = ticks_in(&stat, group)?;
        let bytes = fs::read_to_string(format!("/proc/{id}/io")).ok();
        let bytes = bytes.map(|text| bytes_in(&text));
        Some((id, Usage { bytes, ticks }))
    })
    .collect()
}

/// Kills all processes of a group; one that is gone already is fine.
pub fn kill(group: u32) -> SysResult<()> {
    let Some(pid) = i32::try_from(group).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    match process::kill_process_group(pid, Signal::KILL) {
        Err(Errno::SRCH) => Ok(()),
        other => other.context("kill", format!("process group {group}")),
    }
}

/// User and system time in a line of `/proc/PID/stat`; nothing where the process is of another group.
fn ticks_in(stat: &str, group: u32) -> Option<u64> {
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    (number(2)? == u64::from(group)).then_some(number(11)? + number(12)?)
}

/// What `/proc/PID/io` says was read and written.
fn bytes_in(io: &str) -> u64 {
    let of = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        matches!(name, "rchar" | "wchar").then(|| value.parse().unwrap_or(0))
    };
    io.lines().filter_map(of).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn what_a_group_does_is_seen_and_ends() {
        let script = "dd if=/dev/zero of=/dev/null bs=1k 2>/dev/null & sleep 1000 & wait";
        let mut child = start(Command::new("sh").args(["-c", script])).unwrap();
        let bytes = || {
            let all = usage(child.id());
            assert!(all.contains_key(&child.id()), "{all:?}");
            all.values().filter_map(|u| u.bytes).sum::<u64>()
        };
        while bytes() < 1 << 20 {
            std::thread::yield_now();
        }
        kill(child.id()).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
        // Whoever it left behind is dead as well, and nobody is looked for in vain.
        kill(child.id()).unwrap();
    }

    #[test]
    fn a_leader_dies_with_who_started_it() {
        let begin = || start(Command::new("sleep").arg("1000")).unwrap();
        let mut child = std::thread::spawn(begin).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_line_is_read_whatever_the_name_is() {
        let stat = "7 (a) 1 9 (b)) S 1 42 42 0 -1 0 0 0 0 0 30 12 0 0 20 0 1 0 5 0 0";
        assert_eq!((ticks_in(stat, 42), ticks_in(stat, 7)), (Some(42), None));
        assert_eq!(bytes_in("rchar: 5\nwchar: 6\nsyscr: 7\n"), 11);
    }
}
