//! Waits for the `git` program and those that it starts: until it ends, the build is given up, or nothing moves any more.
//!
//! git waits for ever for a server that says nothing, whatever the protocol is.  So it is looked at from outside whether its
//! process group reads, writes or computes, by the rule that transfers over http have
//! ([`stepwell_registry::Timeouts::idle`]).

use std::collections::HashMap;
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use stepwell_registry::Timeouts;
use stepwell_sys::group::{self, Usage};

/// How often it is looked whether the program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it is looked whether it does something, in parts of the time in which it has to.
const LOOKS: u32 = 10;
/// Processor time, in ticks, that is work and not the waiting for a byte now and then.
const WORK: u64 = 10;

/// How the wait ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The program ended by itself.
    Exit(ExitStatus),
    /// Nothing moved for too long; the program was ended.
    Stalled,
    /// The build was given up; the program was ended.
    Cancelled,
}

/// Waits for the leader of a process group.  Where it does not end by itself, its whole group is killed.
pub(super) fn wait(
    child: &mut Child,
    timeouts: &Timeouts,
    is_cancelled: &dyn Fn() -> bool,
) -> std::io::Result<Ended> {
    let mut watch = Watch::begin(child.id(), timeouts);
    let why = loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::Exit(status));
        }
        if is_cancelled() {
            break Ended::Cancelled;
        }
        if watch.is_stalled() {
            break Ended::Stalled;
        }
        sleep(LOOK_EVERY);
    };
    let _ = group::kill(child.id());
    child.wait()?;
    Ok(why)
}

/// What a process group did in the current window.
struct Watch<'t> {
    group: u32,
    timeouts: &'t Timeouts,
    seen: HashMap<u32, Usage>,
    /// When it last had done enough.
    since: Instant,
    looked: Instant,
    bytes: u64,
    ticks: u64,
}

impl<'t> Watch<'t> {
    fn begin(group: u32, timeouts: &'t Timeouts) -> Self {
        Self {
            group,
            timeouts,
            seen: HashMap::new(),
            since: Instant::now(),
            looked: Instant::now(),
            bytes: 0,
            ticks: 0,
        }
    }

    fn is_stalled(&mut self) -> bool {
        if self.looked.elapsed() < self.timeouts.idle / LOOKS {
            return false;
        }
        self.looked = Instant::now();
        self.look();
        let moved = self.bytes >= self.timeouts.min_bytes || self.ticks >= WORK;
        if moved {
            self.since = self.looked;
            (self.bytes, self.ticks) = (0, 0);
        }
        self.since.elapsed() >= self.timeouts.idle
    }

    fn look(&mut self) {
        let now = group::usage(self.group);
        for (id, usage) in &now {
            let before = self.seen.get(id);
            let known = before.and_then(|u| u.bytes).unwrap_or(0);
            match usage.bytes {
                Some(bytes) => self.bytes += bytes.saturating_sub(known),
                // Where the kernel does not tell what is read, the least computing has to be enough.
                None => self.ticks += WORK * ticks(usage, before),
            }
            self.ticks += ticks(usage, before);
        }
        self.seen = now;
    }
}

fn ticks(now: &Usage, before: Option<&Usage>) -> u64 {
    now.ticks.saturating_sub(before.map_or(0, |u| u.ticks))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    use super::*;

    fn start(program: &str, args: &[&str]) -> Child {
        let mut command = Command::new(program);
        command
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        group::start(&mut command).unwrap()
    }

    fn timeouts(idle: u64) -> Timeouts {
        Timeouts {
            idle: Duration::from_millis(idle),
            ..Timeouts::default()
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up() {
        // Its backlog takes the connection; nobody ever answers.
        let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut git = start("git", &["ls-remote", &format!("git://127.0.0.1:{port}/x")]);
        let ended = wait(&mut git, &timeouts(1_000), &|| false).unwrap();
        assert!(matches!(ended, Ended::Stalled), "{ended:?}");
        assert!(git.try_wait().unwrap().is_some());
    }

    #[test]
    fn a_transfer_that_stops_in_the_middle_is_given_up() {
        let mut half = start("sh", &["-c", "head -c 1000000 /dev/zero; sleep 1000; :"]);
        let ended = wait(&mut half, &timeouts(1_000), &|| false).unwrap();
        assert!(matches!(ended, Ended::Stalled), "{ended:?}");
    }

    #[test]
    fn who_reads_or_computes_is_waited_for() {
        for (program, args) in [
            ("sh", &["-c", "cat /dev/zero; :"][..]),
            ("sh", &["-c", "while :; do :; done"]),
        ] {
            let mut busy = start(program, args);
            // Two windows are over when it is given up.
            let began = Instant::now();
            let over = || began.elapsed() > Duration::from_millis(4_500);
            let ended = wait(&mut busy, &timeouts(2_000), &over).unwrap();
            assert!(matches!(ended, Ended::Cancelled), "{args:?}: {ended:?}");
        }
    }

    #[test]
    fn how_it_ended_is_told() {
        let ended = wait(
            &mut start("sh", &["-c", "exit 7"]),
            &timeouts(60_000),
            &|| false,
        );
        assert!(matches!(ended, Ok(Ended::Exit(s)) if s.code() == Some(7)));
    }
}
