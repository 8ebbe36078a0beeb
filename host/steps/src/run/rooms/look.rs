//! What takes how much in a room: its files by the blocks that they have, and open files that have no name any more.
//!
//! A look must not be noticed.  No time of a file is changed, and a directory is listed, which inotify(7) tells, only after
//! something was put into it or taken out.  It is no wall: a step that moves its files about while it is looked at, or hides them deeper
//! than is looked, can have more in a room than fits, as it can anywhere else in its tree.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use rustix::process::Pid;
use stepwell_sys::resolve;
use stepwell_sys::usage;

/// What each name counts at least: about the memory that an inode takes (`BOGO_INODE_SIZE` in mm/shmem.c).  It stops a step
/// from making looks long with empty files.
const NAME: u64 = 1024;

/// As many directories below each other are looked at; each takes a descriptor meanwhile.
const DEPTH: usize = 128;

/// As many names fit into a room at most: as many as the kernel allows where a machine has 8 GiB of memory (tmpfs(5), `nr_inodes`).
/// They are kept in memory.
const NAMES: u64 = 1 << 20;

/// Block size of a file system in memory.
const PAGE: u64 = 4096;

/// Times of files are those of the last tick of a clock, on kernels before 6.13: so long after a change another one may have the same
/// time.
const TICK: Duration = Duration::from_millis(50);

/// What a file is asked for.
pub const STATX: StatxFlags = StatxFlags::BASIC_STATS;

/// Device and number.
pub type Inode = (u32, u32, u64);

/// Time of a directory's last change.
type Changed = (i64, u32);

/// Returns which file it is.
pub fn inode(stat: &Statx) -> Inode {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

fn changed(time: &StatxTimestamp) -> Changed {
    (time.tv_sec, time.tv_nsec)
}

/// An open file without a name.
#[derive(Debug)]
pub struct Open {
    /// The path that it had, as links in `/proc` show it.
    path: Vec<u8>,
    inode: Inode,
    bytes: u64,
}

/// Lists the files that have no name any more and that descendants of `init` have open, as far as `/proc` shows them: files that are
/// only mapped, or on their way through a socket, are missing.
pub fn open_without_name(init: Pid) -> Vec<Open> {
    let mut found = Vec::new();
    usage::removed_files_of_descendants(init, &mut |path, link| {
        let stat = fs::statx(fs::CWD, link, AtFlags::empty(), STATX);
        found.extend(
            stat.ok()
                .filter(|stat| stat.stx_nlink == 0)
                .map(|stat| Open {
                    path,
                    inode: inode(&stat),
                    bytes: bytes(&stat),
                }),
        );
    });
    found
}

/// What a file takes: its blocks, without those that a file system holds ready behind its end.
fn bytes(stat: &Statx) -> u64 {
    let blocks = stat.stx_blocks.saturating_mul(512);
    blocks
        .min(stat.stx_size.div_ceil(PAGE).saturating_mul(PAGE))
        .max(NAME)
}

/// What is known of a room from one look to the next.
#[derive(Debug)]
pub struct Look {
    /// The directory's time when nothing was in it.
    untouched: Option<Changed>,
    /// Roots of what is mounted, which is not in the room wherever it lies.
    mounted: HashSet<Inode>,
    /// Names in directories, by the time at which they were those.
    known: HashMap<Inode, (Changed, Vec<CString>)>,
}

impl Look {
    /// Begins with a room in which nothing is.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn new(room: &OwnedFd, mounted: HashSet<Inode>) -> Result<Self, Errno> {
        let stat = fs::statx(room, c"", AtFlags::EMPTY_PATH, STATX)?;
        Ok(Self {
            untouched: Some(changed(&stat.stx_ctime)),
            mounted,
            known: HashMap::new(),
        })
    }

    /// Says whether anything was ever put into the room.
    pub fn is_touched(&mut self, room: &OwnedFd) -> bool {
        if let Some(before) = self.untouched {
            let now = fs::statx(room, c"", AtFlags::EMPTY_PATH, STATX);
            if now.is_ok_and(|stat| changed(&stat.stx_ctime) == before) {
                return false;
            }
            self.untouched = None;
        }
        true
    }

    /// Adds up what is in the room, until it is more than `most`.  What cannot be looked at does not count.
    pub fn sum(&mut self, room: &OwnedFd, most: u64, open: &[Open]) -> u64 {
        let mut walk = Walk {
            sum: 0,
            names: 0,
            most,
            counted: HashSet::new(),
            old: std::mem::take(&mut self.known),
            new: HashMap::new(),
            mounted: &self.mounted,
        };
        walk.removed(room, open);
        walk.tree(room);
        self.known = walk.new;
        walk.sum
    }
}

/// One look.
struct Walk<'a> {
    sum: u64,
    names: u64,
    most: u64,
    /// Files with several names, or without one, that have been added.
    counted: HashSet<Inode>,
    old: HashMap<Inode, (Changed, Vec<CString>)>,
    new: HashMap<Inode, (Changed, Vec<CString>)>,
    mounted: &'a HashSet<Inode>,
}

impl Walk<'_> {
    fn removed(&mut self, room: &OwnedFd, open: &[Open]) {
        let Some(path) = resolve::path_of(room) else {
            return;
        };
        let within = |file: &&Open| {
            file.path
                .strip_prefix(&path[..])
                .is_some_and(|rest| rest.starts_with(b"/"))
        };
        for file in open.iter().filter(within) {
            if self.counted.insert(file.inode) {
                self.sum += file.bytes;
            }
        }
    }

    fn tree(&mut self, room: &OwnedFd) {
        let mut stack: Vec<(OwnedFd, Vec<CString>)> = Vec::new();
        if let Some(level) = self.enter(room, c".") {
            stack.push(level);
        }
        while let Some((dir, below)) = stack.last_mut() {
            if self.sum > self.most {
                return;
            }
            let Some(name) = below.pop() else {
                stack.pop();
                continue;
            };
            let dir = dir.as_fd();
            if let Some(level) = self.enter(dir, &name)
                && stack.len() < DEPTH
            {
                stack.push(level);
            }
        }
    }

    /// Adds the files of a directory; returns a handle on it and the names of the directories in it.
    fn enter(&mut self, above: impl AsFd, name: &CStr) -> Option<(OwnedFd, Vec<CString>)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::openat(above, name, flags, Mode::empty()).ok()?;
        let stat = fs::statx(&dir, c"", AtFlags::EMPTY_PATH, STATX).ok()?;
        let names = self.names(&dir, &stat)?;
        let mut below = Vec::new();
        for name in &names {
            let Ok(stat) = fs::statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW, STATX) else {
                continue;
            };
            if self.mounted.contains(&inode(&stat)) {
                continue;
            }
            self.names += 1;
            if self.names > NAMES {
                self.sum = self.most.saturating_add(1);
            }
            if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory {
                self.sum += NAME;
                below.push(name.clone());
            } else if stat.stx_nlink == 1 || self.counted.insert(inode(&stat)) {
                self.sum += bytes(&stat);
            } else {
                self.sum += NAME;
            }
            if self.sum > self.most {
                break;
            }
        }
        self.new
            .insert(inode(&stat), (changed(&stat.stx_ctime), names));
        Some((dir, below))
    }

    /// Returns the names in a directory, which is listed only where it was changed.
    fn names(&mut self, dir: &OwnedFd, stat: &Statx) -> Option<Vec<CString>> {
        let time = changed(&stat.stx_ctime);
        if let Some((then, names)) = self.old.remove(&inode(stat))
            && then == time
            && is_over(time)
        {
            return Some(names);
        }
        list(dir, NAMES)
    }
}

/// Says whether a change at that time can be followed by none that has the same time.
fn is_over(time: Changed) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let time = Duration::new(time.0.unsigned_abs(), time.1);
    time + TICK < now
}

fn list(dir: &OwnedFd, most: u64) -> Option<Vec<CString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |flags| fs::openat(dir, c".", flags, Mode::empty());
    // Who is not the owner may not ask for that.
    let listed = open(flags | OFlags::NOATIME)
        .or_else(|_| open(flags))
        .ok()?;
    let mut names = Vec::new();
    for entry in Dir::new(listed).ok()? {
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() as u64 > most {
            break;
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, hard_link, read_dir, remove_file, write};

    use std::mem::MaybeUninit;

    use rustix::fs::inotify;

    use super::*;

    struct Room {
        _outer: tempfile::TempDir,
        path: std::path::PathBuf,
        dir: OwnedFd,
        look: Look,
    }

    impl Room {
        fn new(mounted: &[&str]) -> Self {
            let outer = tempfile::tempdir_in("/var/tmp").expect("directory");
            let path = outer.path().join("room");
            create_dir(&path).expect("room");
            for name in mounted {
                create_dir(path.join(name)).expect("mount");
            }
            let dir: OwnedFd = std::fs::File::open(&path).expect("room").into();
            let inode = |name: &&str| {
                let stat = fs::statx(&dir, *name, AtFlags::empty(), STATX).expect("stat");
                inode(&stat)
            };
            let mounted = mounted.iter().map(inode).collect();
            let look = Look::new(&dir, mounted).expect("room");
            Self {
                _outer: outer,
                path,
                dir,
                look,
            }
        }

        fn sum(&mut self) -> u64 {
            self.look.sum(&self.dir, u64::MAX, &[])
        }
    }

    #[test]
    fn files_count_by_blocks_and_once() {
        let mut room = Room::new(&["elsewhere"]);
        assert!(!room.look.is_touched(&room.dir));
        write(room.path.join("elsewhere/file"), [1; 80_000]).expect("file");
        assert!(!room.look.is_touched(&room.dir));
        assert_eq!(room.sum(), 0, "what is mounted in a room is not in it");
        create_dir(room.path.join("d")).expect("directory");
        assert!(room.look.is_touched(&room.dir));
        write(room.path.join("d/file"), [1; 40_000]).expect("file");
        hard_link(room.path.join("d/file"), room.path.join("again")).expect("link");
        assert_eq!(room.sum(), 40_960 + 2 * NAME, "a file, a link, a directory");
        let sparse = std::fs::File::create(room.path.join("sparse")).expect("file");
        sparse.set_len(1 << 40).expect("length");
        assert_eq!(room.sum(), 40_960 + 3 * NAME);
    }

    #[test]
    fn changes_are_seen_in_whatever_was_listed_before() {
        let mut room = Room::new(&[]);
        create_dir(room.path.join("d")).expect("directory");
        for number in 0..20_u64 {
            write(room.path.join(format!("d/{number}")), "x").expect("file");
            assert_eq!(room.sum(), NAME + (number + 1) * PAGE);
        }
        // A directory that was not changed is not listed again; its files are looked at all the same.
        std::thread::sleep(2 * TICK);
        let before = room.sum();
        write(room.path.join("d/3"), [1; 9 << 10]).expect("file");
        assert_eq!(room.sum(), before + 2 * PAGE);
        assert_eq!(read_dir(&room.path).expect("list").count(), 1);
        assert_eq!(
            heard(&mut room, Room::sum),
            [],
            "a watcher hears of no look"
        );
        remove_file(room.path.join("d/3")).expect("remove");
        assert_eq!(room.sum(), before - PAGE);
    }

    /// Returns what inotify(7) tells of a room while something is done.
    fn heard<T>(room: &mut Room, work: impl FnOnce(&mut Room) -> T) -> Vec<inotify::ReadFlags> {
        let watcher = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
            .expect("inotify");
        inotify::add_watch(&watcher, &room.path, inotify::WatchFlags::ALL_EVENTS).expect("watch");
        work(room);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&watcher, &mut buffer);
        std::iter::from_fn(|| Some(events.next().ok()?.events())).collect()
    }

    #[test]
    fn a_look_changes_no_time_and_ends_where_too_much_is_found() {
        let mut room = Room::new(&[]);
        for number in 0..100 {
            write(room.path.join(format!("{number}")), "x").expect("file");
        }
        let old = fs::Timestamps {
            last_access: rustix::time::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
            last_modification: rustix::time::Timespec {
                tv_sec: 2,
                tv_nsec: 0,
            },
        };
        fs::futimens(&room.dir, &old).expect("times");
        assert_eq!(room.look.sum(&room.dir, 10 * PAGE, &[]), 11 * PAGE);
        assert_eq!(room.sum(), 100 * PAGE);
        let stat = fs::fstat(&room.dir).expect("stat");
        assert_eq!((stat.st_atime, stat.st_mtime), (1, 2));
    }

    #[test]
    fn open_files_without_a_name_are_in_the_room() {
        let mut room = Room::new(&[]);
        let path = room.path.join("gone");
        let script = r#"exec 3>"$0"; head -c 50000 /dev/zero >&3; rm "$0"; echo; read x"#;
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("shell");
        let mut said = child.stdout.take().expect("output");
        std::io::Read::read_exact(&mut said, &mut [0]).expect("its word");
        let open = open_without_name(rustix::process::getpid());
        let sum = room.look.sum(&room.dir, u64::MAX, &open);
        drop(child.stdin.take());
        child.wait().expect("end");
        assert_eq!(sum, 53_248);
        assert_eq!(room.sum(), 0);
    }
}
