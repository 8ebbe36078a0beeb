//! The graft `/dev`: the few devices that every program expects, and nothing of the machine's.
//!
//! `/dev/shm`, `/dev/mqueue` and whatever a step makes are ordinary files of the skeleton.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::nodes::{HostFile, Node, Within, open_host};
use super::pids;
use super::step::Step;

/// Devices that are the machine's own.
pub const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Links, and where they lead.
pub const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Says what a path beneath `/dev` stands for.
pub fn lookup(step: &Step, names: &[&str]) -> Node {
    let device = |name: &str| {
        Node::File(HostFile {
            within: Within::Dev,
            path: name.to_owned(),
            writable: true,
        })
    };
    match names {
        [] | ["pts"] => Node::Directory,
        [name] if DEVICES.contains(name) => {
            if step.real_devices {
                Node::Native
            } else {
                device(name)
            }
        }
        ["tty"] => {
            if step.real_devices {
                Node::Native
            } else {
                Node::Terminal
            }
        }
        // There is no console; what is written there goes nowhere.
        ["console"] => device("null"),
        ["ptmx"] | ["pts", "ptmx"] => Node::PtyMaster,
        ["pts", number] => match number.parse() {
            Ok(number) if step.ptys.contains(&number) => device(&format!("pts/{number}")),
            _ => Node::Missing,
        },
        [name] => match LINKS.iter().find(|(link, _)| link == name) {
            Some((_, target)) => Node::Link(target.as_bytes().to_vec()),
            None => Node::Native,
        },
        _ => Node::Native,
    }
}

/// Opens a new pseudo-terminal and remembers its number: the step may open its own terminals, not others'.
///
/// # Errors
/// What the machine answers; `EAGAIN` when the step has opened too many.
pub fn open_pty_master(step: &mut Step, flags: OFlags) -> Result<OwnedFd, Errno> {
    /// Stops a step from using up the machine's terminals.
    const MAX_PTYS: usize = 256;
    if step.ptys.len() >= MAX_PTYS {
        return Err(Errno::AGAIN);
    }
    let flags = flags & (OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC);
    let master = open_host(step, Within::Dev, "pts/ptmx", flags)
        .or_else(|_| open_host(step, Within::Dev, "ptmx", flags))?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let number = name
        .to_str()
        .ok()
        .and_then(|name| name.rsplit('/').next()?.parse().ok());
    step.ptys.insert(number.ok_or(Errno::NXIO)?);
    Ok(master)
}

/// Opens the terminal that controls the caller.
///
/// # Errors
/// `ENXIO` when there is none, or when it is not one of the step's own.
pub fn open_terminal(step: &Step, tid: u32, flags: OFlags) -> Result<OwnedFd, Errno> {
    /// Major number of the first range of pseudo-terminals (Documentation/admin-guide/devices.txt).
    const PTY_MAJOR: u32 = 136;
    let device = pids::terminal(tid).ok_or(Errno::NXIO)?;
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xfff00),
    );
    if major != PTY_MAJOR || !step.ptys.contains(&minor) {
        return Err(Errno::NXIO);
    }
    open_host(step, Within::Dev, &format!("pts/{minor}"), flags)
}
