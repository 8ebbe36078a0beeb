//! Subordinate ids (subuid(5), newuidmap(1)): with them, a user namespace of an ordinary user has ids enough to hold the
//! owners of an image's files for real.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

use crate::error::{Context, SysError, SysResult};
use crate::process::{self, Ending, Forked};

/// Images use numbers up to 65535 (nobody is 65534).
pub const ENOUGH: u64 = 65_536;

/// The helpers that map subordinate ids, and the ranges that a user has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubordinateIds {
    /// `newuidmap` and `newgidmap`.
    pub helpers: (PathBuf, PathBuf),
    /// Ranges of user ids: first and count.
    pub users: Vec<(u32, u32)>,
    /// Ranges of group ids: first and count.
    pub groups: Vec<(u32, u32)>,
}

impl SubordinateIds {
    /// Looks for the helpers in the directories `path`, and for the ranges of the user who has one of the names or
    /// numbers `user`; none where something is missing, or where too few ids are to be had for images.
    pub fn find(user: &[String], path: &[PathBuf]) -> Option<Self> {
        let users = ranges(Path::new("/etc/subuid"), user);
        let groups = ranges(Path::new("/etc/subgid"), user);
        // The caller's own id is one more.
        let enough = |ranges: &[(u32, u32)]| {
            1 + ranges
                .iter()
                .map(|(_, count)| u64::from(*count))
                .sum::<u64>()
                >= ENOUGH
        };
        (enough(&users) && enough(&groups)).then_some(())?;
        Some(Self {
            helpers: helpers(path)?,
            users,
            groups,
        })
    }

    /// Maps the ids of the process `pid`, which has a new user namespace without maps: 0 is the user's own, the others
    /// follow.  Has to be called by a process outside of that namespace.
    pub fn map(&self, pid: u32, (uid, gid): (u32, u32)) -> SysResult<()> {
        let run = |helper: &Path, own: u32, ranges: &[(u32, u32)]| {
            let output = Command::new(helper)
                .args(arguments(pid, own, ranges))
                .output()
                .context("execve", helper.to_string_lossy())?;
            if output.status.success() {
                return Ok(());
            }
            let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(SysError::new("newuidmap", told, Errno::PERM))
        };
        run(&self.helpers.0, uid, &self.users)?;
        run(&self.helpers.1, gid, &self.groups)
    }

    /// Starts a process that maps this process's ids once it is told to; it has to be started before this process enters
    /// a user namespace, where setuid programs are worth nothing.
    pub(crate) fn mapper(&self, own: (u32, u32)) -> SysResult<Mapper> {
        let (go, tell) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe2", "")?;
        let pid = std::process::id();
        match process::fork()? {
            Forked::Child => {
                drop(tell);
                let told = matches!(rustix::io::read(&go, &mut [0; 1]), Ok(1));
                let mapped = told && self.map(pid, own).is_ok();
                crate::process::exit_now(i32::from(!mapped))
            }
            Forked::Parent(child) => Ok(Mapper { child, tell }),
        }
    }
}

/// A process that waits to map the ids of its parent.
pub(crate) struct Mapper {
    child: rustix::process::Pid,
    tell: std::os::fd::OwnedFd,
}

impl Mapper {
    /// Has the ids mapped, and says whether they are.
    pub(crate) fn map(self) -> SysResult<bool> {
        let told = rustix::io::write(&self.tell, b"x").context("write", "pipe");
        self.end()
            .and_then(|ending| told.map(|_| ending == Ending::Exited(0)))
    }

    /// Lets the process go without mapping anything.
    pub(crate) fn end(self) -> SysResult<Ending> {
        drop(self.tell);
        process::wait_for(self.child)
    }
}

/// Finds `newuidmap` and `newgidmap`.
pub fn helpers(path: &[PathBuf]) -> Option<(PathBuf, PathBuf)> {
    let find = |program: &str| {
        path.iter()
            .map(|dir| dir.join(program))
            .find(|file| file.is_file())
    };
    find("newuidmap").zip(find("newgidmap"))
}

/// Reads the ranges of a user from a file of the form of `/etc/subuid`.
pub fn ranges(file: &Path, user: &[String]) -> Vec<(u32, u32)> {
    parse(&fs::read_to_string(file).unwrap_or_default(), user)
}

/// Parses `/etc/subuid` (subuid(5)): the ranges of the user that has one of these names or numbers.
fn parse(text: &str, user: &[String]) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        user.iter().any(|u| u == name).then_some(())?;
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    text.lines().filter_map(range).collect()
}

/// What `newuidmap` is told: `PID 0 OWN 1 1 FIRST COUNT …`.
fn arguments(pid: u32, own: u32, ranges: &[(u32, u32)]) -> Vec<String> {
    let mut numbers = vec![pid, 0, own, 1];
    let mut inside = 1;
    for (first, count) in ranges {
        numbers.extend([inside, *first, *count]);
        inside = inside.saturating_add(*count);
    }
    numbers.iter().map(u32::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_of_one_user() {
        let text = "root:1:2\ntester:100000:65536\n4242:300000:10\nbad\n";
        let who = ["tester".to_owned(), "4242".to_owned()];
        assert_eq!(parse(text, &who), [(100_000, 65_536), (300_000, 10)]);
    }

    #[test]
    fn ranges_follow_each_other_inside() {
        assert_eq!(
            arguments(7, 1000, &[(100_000, 65_535), (300_000, 10)]).join(" "),
            "7 0 1000 1 1 100000 65535 65536 300000 10"
        );
    }
}
