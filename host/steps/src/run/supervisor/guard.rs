//! Mount points: what is mounted to be read answers EROFS to whoever wants to change it, and no mount point can be removed or
//! moved away (EBUSY), as where something is really mounted.
//!
//! For the step's sake only: the path may change between our look and the kernel's, so security does not rest on it.
//! What is lent to a step is a private copy (see [`crate::run::mounts`]).  Only steps that have mounts are asked.

use rustix::io::Errno;
use stepwell_sys::resolve::{self, Links};
use stepwell_sys::seccomp::{Action, Condition, Rule};

use super::call::{Call, Stop};
use super::path::{AT_FDCWD, absolute, split, squeeze};
use super::step::Step;
use crate::run::mounts::MountPoint;

/// What a call does to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Takes the name away.
    Remove,
    /// Makes the name.
    Create,
    /// Changes what it leads to.
    Change,
    /// Opens it: the flags are in this argument.
    Open(usize),
    /// Opens it as `creat` does.
    Creat,
    /// Asks for rights: they are in this argument.
    Access(usize),
}

/// When a call is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// There is a mount.
    Mount,
    /// There is a mount of a file.
    File,
    /// There is a mount that is only to be read.
    ReadOnly,
}

/// A path among the arguments of a call.
#[derive(Debug, Clone, Copy)]
struct Path {
    /// Argument with the directory; none for the working directory.
    dir: Option<usize>,
    /// Argument with the text.
    text: usize,
    deed: Deed,
}

/// A call.
struct Row {
    nr: i64,
    name: &'static str,
    when: When,
    /// Only calls in which this argument has this flag.
    flag: Option<(u8, u64)>,
    paths: &'static [Path],
}

const fn at(dir: usize, text: usize, deed: Deed) -> Path {
    Path {
        dir: Some(dir),
        text,
        deed,
    }
}

#[cfg(target_arch = "x86_64")]
const fn plain(text: usize, deed: Deed) -> Path {
    Path {
        dir: None,
        text,
        deed,
    }
}

/// Makes one row after the other.
macro_rules! rows {
    ($($number:ident $when:ident [$($path:expr),+]),* $(,)?) => {
        &[$(Row { nr: libc::$number, name: stringify!($number), when: When::$when, flag: None, paths: &[$($path),+] }),*]
    };
}

use Deed::{Access, Change, Create, Open, Remove};

const ROWS: &[Row] = rows! {
    SYS_renameat Mount [at(0, 1, Remove), at(2, 3, Remove)],
    SYS_renameat2 Mount [at(0, 1, Remove), at(2, 3, Remove)],
    SYS_unlinkat File [at(0, 1, Remove)],
    SYS_openat ReadOnly [at(0, 1, Open(2))],
    SYS_faccessat ReadOnly [at(0, 1, Access(2))],
    SYS_faccessat2 ReadOnly [at(0, 1, Access(2))],
    SYS_linkat ReadOnly [at(2, 3, Create)],
    SYS_mkdirat ReadOnly [at(0, 1, Create)],
    SYS_mknodat ReadOnly [at(0, 1, Create)],
    SYS_symlinkat ReadOnly [at(1, 2, Create)],
    SYS_fchmodat ReadOnly [at(0, 1, Change)],
    SYS_fchmodat2 ReadOnly [at(0, 1, Change)],
    SYS_fchownat ReadOnly [at(0, 1, Change)],
    SYS_utimensat ReadOnly [at(0, 1, Change)],
    SYS_truncate ReadOnly [Path { dir: None, text: 0, deed: Change }],
    SYS_setxattr ReadOnly [Path { dir: None, text: 0, deed: Change }],
    SYS_lsetxattr ReadOnly [Path { dir: None, text: 0, deed: Change }],
    SYS_removexattr ReadOnly [Path { dir: None, text: 0, deed: Change }],
    SYS_lremovexattr ReadOnly [Path { dir: None, text: 0, deed: Change }],
};

/// Removing directories, where no file is mounted.
const REMOVE_DIR: Row = Row {
    nr: libc::SYS_unlinkat,
    name: "SYS_unlinkat",
    when: When::Mount,
    flag: Some((2, libc::AT_REMOVEDIR as u64)),
    paths: &[at(0, 1, Remove)],
};

#[cfg(target_arch = "x86_64")]
const LEGACY: &[Row] = rows! {
    SYS_rename Mount [plain(0, Remove), plain(1, Remove)],
    SYS_rmdir Mount [plain(0, Remove)],
    SYS_unlink File [plain(0, Remove)],
    SYS_open ReadOnly [plain(0, Open(1))],
    SYS_creat ReadOnly [plain(0, Deed::Creat)],
    SYS_access ReadOnly [plain(0, Access(1))],
    SYS_link ReadOnly [plain(1, Create)],
    SYS_mkdir ReadOnly [plain(0, Create)],
    SYS_mknod ReadOnly [plain(0, Create)],
    SYS_symlink ReadOnly [plain(1, Create)],
    SYS_chmod ReadOnly [plain(0, Change)],
    SYS_chown ReadOnly [plain(0, Change)],
    SYS_lchown ReadOnly [plain(0, Change)],
    SYS_utime ReadOnly [plain(0, Change)],
    SYS_utimes ReadOnly [plain(0, Change)],
    SYS_futimesat ReadOnly [at(0, 1, Change)],
};

#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[Row] = &[];

fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain([&REMOVE_DIR]).chain(LEGACY)
}

/// What of a step's mounts decides which calls are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Guarded {
    /// Whether there is a mount.
    pub any: bool,
    /// Whether one of them is of a file.
    pub files: bool,
    /// Whether one of them is only to be read.
    pub read_only: bool,
}

impl Guarded {
    /// Looks at the mounts of a step.
    pub fn of(points: &[MountPoint]) -> Self {
        Self {
            any: !points.is_empty(),
            files: points.iter().any(|point| point.is_file),
            read_only: points.iter().any(|point| point.read_only),
        }
    }

    fn asks(self, when: When) -> bool {
        match when {
            When::Mount => self.any,
            // Who may not write may not remove either.
            When::File => self.files || self.read_only,
            When::ReadOnly => self.read_only,
        }
    }
}

/// Returns the rules that make the kernel ask.
pub fn rules(guarded: Guarded) -> impl Iterator<Item = Rule> {
    rows().filter(move |row| guarded.asks(row.when)).map(|row| {
        let name = row.name.trim_start_matches("SYS_");
        let mut rule = Rule::new(row.nr, name, Action::Notify, "the path may lead to a mount");
        rule.when.extend(row.flag.map(|(argument, flag)| Condition {
            argument,
            mask: flag,
            value: flag,
            negate: false,
        }));
        rule
    })
}

/// Answers what a mount forbids.
///
/// # Errors
/// `EBUSY` and `EROFS`.
pub fn check(step: &Step, call: &Call<'_>) -> Result<(), Stop> {
    if step.mount_points.is_empty() {
        return Ok(());
    }
    let Some(row) = rows().find(|row| row.nr == i64::from(call.number())) else {
        return Ok(());
    };
    for path in row.paths {
        let dir = path.dir.map_or(AT_FDCWD, |index| call.int(index));
        let text = call.path(path.text)?;
        if !text.is_empty()
            && let Some(errno) = refusal(step, call, dir, &text, path.deed)
        {
            return Err(errno.into());
        }
    }
    Ok(())
}

fn refusal(step: &Step, call: &Call<'_>, dir: i32, text: &[u8], deed: Deed) -> Option<Errno> {
    let path = squeeze(&absolute(step, call.tid(), dir, text).ok()?);
    match deed {
        Remove => {
            let entry = entry(step, &path)?;
            if step.mount_points.iter().any(|point| point.path == entry) {
                return Some(Errno::BUSY);
            }
            frozen(step, split(&entry)?.0).then_some(Errno::ROFS)
        }
        Create => new(step, &path),
        Change => frozen(step, &existing(step, &path)?).then_some(Errno::ROFS),
        Open(index) => opened(step, &path, call.uint(index)),
        Deed::Creat => opened(step, &path, (libc::O_CREAT | libc::O_WRONLY) as u32),
        Access(index) => {
            const WRITE: u32 = 2;
            let writes = call.uint(index) & WRITE != 0;
            (writes && frozen(step, &existing(step, &path)?)).then_some(Errno::ROFS)
        }
    }
}

fn opened(step: &Step, path: &[u8], flags: u32) -> Option<Errno> {
    let has = |flag: i32| flags & flag as u32 == flag as u32;
    if has(libc::O_PATH) {
        return None;
    }
    let writes = flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32 || has(libc::O_TRUNC);
    match existing(step, path) {
        Some(there) => (writes && frozen(step, &there)).then_some(Errno::ROFS),
        None if has(libc::O_CREAT) => new(step, path),
        None => None,
    }
}

/// Refuses a new name.
fn new(step: &Step, path: &[u8]) -> Option<Errno> {
    let entry = entry(step, path)?;
    if resolve::handle(&step.root, &entry, Links::FollowButLast).is_ok() {
        // The kernel says that it is there.
        return None;
    }
    frozen(step, split(&entry)?.0).then_some(Errno::ROFS)
}

/// Returns where a name is, without links in the way to it.
fn entry(step: &Step, path: &[u8]) -> Option<Vec<u8>> {
    let (dir, name) = split(path)?;
    let dir = existing(step, dir)?;
    Some(if dir == b"/" {
        [b"/", name].concat()
    } else {
        [&dir[..], b"/", name].concat()
    })
}

/// Returns where a path leads, without links; none where there is nothing.
fn existing(step: &Step, path: &[u8]) -> Option<Vec<u8>> {
    let handle = resolve::handle(&step.root, path, Links::Follow).ok()?;
    let target = resolve::path_of(&handle)?;
    step.inside(&target).map(<[u8]>::to_vec)
}

/// Says whether nothing may be changed at a path: the nearest mount above it says so.
fn frozen(step: &Step, path: &[u8]) -> bool {
    let above = step.mount_points.iter().filter(|point| {
        path.strip_prefix(&point.path[..])
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    });
    // Of two at one place the later one lies above.
    above
        .max_by_key(|point| point.path.len())
        .is_some_and(|point| point.read_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(read_only: bool, is_file: bool) -> Vec<String> {
        let point = MountPoint {
            path: b"/m".to_vec(),
            read_only,
            is_file,
        };
        rules(Guarded::of(&[point])).map(|r| r.name).collect()
    }

    #[test]
    fn only_what_matters_is_asked_about() {
        assert_eq!(rules(Guarded::of(&[])).count(), 0);
        let (cache, bind, secret) = (asked(false, false), asked(true, false), asked(false, true));
        assert!(cache.contains(&"renameat2".into()) && !cache.contains(&"mkdirat".into()));
        assert!(bind.contains(&"mkdirat".into()) && bind.contains(&"truncate".into()));
        assert!(
            secret.iter().filter(|n| *n == "unlinkat").count() == 2
                && cache.iter().filter(|n| *n == "unlinkat").count() == 1,
            "of unlinkat, directories alone or everything"
        );
    }
}
