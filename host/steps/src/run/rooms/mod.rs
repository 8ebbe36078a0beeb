//! Rooms: the directories that stand for file systems in memory, `/dev/shm` and mounts of the kind tmpfs, each with a size that
//! what is in it must not outgrow.
//!
//! Nobody keeps the size of a directory, so a thread of the builder's looks now and then what is in there ([`look`]), in every
//! tier alike; a step that has more there than fits is ended.  Where the kernel makes file systems in memory it keeps
//! their sizes, and nobody looks ([`super::world`]).  A room that nothing was ever put into costs one statx(2) a look.

mod look;

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{self, AtFlags, OFlags};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};
use stepwell_sys::error::Context;
use stepwell_sys::resolve::{self, Links};
use stepwell_sys::{SysError, SysResult};

use self::look::{Inode, Look};
use super::bounds::LOOK;
use super::mounts::{MountPoint, Mounts};

/// Where memory is shared.
pub const SHARED_MEMORY: &str = "/dev/shm";

/// Looks take at most one part of so many of a processor.
const SHARE: u32 = 20;

/// The longest time between two looks, however long they take: it bounds what is put there meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A room that is to be looked at.
#[derive(Debug)]
struct Room {
    told: Told,
    /// A handle on the directory.
    dir: OwnedFd,
    look: Look,
}

/// A room, as the supervisor tells of it.
#[derive(Debug, Clone)]
pub struct Told {
    /// Absolute path in the step, without links.
    pub path: Vec<u8>,
    /// What fits in, in bytes.
    pub size: u64,
    /// What was in it when it was last looked at.
    pub used: Arc<AtomicU64>,
}

/// A room that has more in it than fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Full {
    pub path: String,
    pub size: u64,
}

/// The rooms of a step.
#[derive(Debug, Default)]
pub(super) struct Rooms(Vec<Room>);

impl Rooms {
    /// Opens them; everything that is mounted stands in its place.
    ///
    /// # Errors
    /// A room that cannot be opened.
    pub fn open(tree: impl AsFd, shm_size: u64, mounts: &Mounts) -> SysResult<Self> {
        let mut sizes = vec![(SHARED_MEMORY.as_bytes().to_vec(), Some(shm_size))];
        let points = mounts.points();
        // What is mounted there is in its place.
        sizes.retain(|(path, _)| points.iter().all(|point| point.path != *path));
        sizes.extend(mounts.in_memory_sizes());
        let mounted = mounted(&tree, &points)?;
        let mut rooms = Vec::new();
        for (path, size) in sizes {
            let Some(size) = size else { continue };
            let dir = open_at(&tree, &path)?;
            rooms.push(Room {
                look: Look::new(&dir, mounted.clone())
                    .context("statx", String::from_utf8_lossy(&path))?,
                dir,
                told: Told {
                    path,
                    size,
                    used: Arc::default(),
                },
            });
        }
        Ok(Self(rooms))
    }

    /// Returns what the supervisor tells of them.
    pub fn told(&self) -> Vec<Told> {
        self.0.iter().map(|room| room.told.clone()).collect()
    }

    /// Looks at those in which something is, or was; `processes` descend from that one.
    fn full(&mut self, processes: Option<Pid>) -> Option<Full> {
        let mut used = Vec::new();
        for room in &mut self.0 {
            if room.look.is_touched(&room.dir) {
                used.push(room);
            }
        }
        if used.is_empty() {
            return None;
        }
        let open = processes.map_or_else(Vec::new, look::open_without_name);
        used.iter_mut().find_map(|room| room.full(&open))
    }

    /// Looks after the step has ended, when everything is as it left it.
    fn full_at_last(&mut self) -> Option<Full> {
        self.0.iter_mut().find_map(|room| room.full(&[]))
    }
}

impl Room {
    fn full(&mut self, open: &[look::Open]) -> Option<Full> {
        let Told { path, size, used } = &self.told;
        let sum = self.look.sum(&self.dir, *size, open);
        used.store(sum, Ordering::Relaxed);
        (sum > *size).then(|| Full {
            path: String::from_utf8_lossy(path).into_owned(),
            size: *size,
        })
    }
}

fn open_at(tree: impl AsFd, path: &[u8]) -> SysResult<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    resolve::open(tree, path, flags, Links::None)
        .map_err(|errno| SysError::new("openat2", String::from_utf8_lossy(path), errno))
}

/// Everything that is mounted: what lies in a room there is no part of it.
fn mounted(tree: impl AsFd, points: &[MountPoint]) -> SysResult<HashSet<Inode>> {
    let inode = |point: &MountPoint| {
        let handle = resolve::handle(&tree, &point.path, Links::FollowButLast)?;
        let stat = fs::statx(&handle, c"", AtFlags::EMPTY_PATH, look::STATX)?;
        Ok(look::inode(&stat))
    };
    let named = |point: &MountPoint| {
        inode(point)
            .map_err(|errno| SysError::new("statx", String::from_utf8_lossy(&point.path), errno))
    };
    points.iter().map(named).collect()
}

/// The thread that looks; it is readable once a room is full.
#[derive(Debug)]
pub(super) struct Watch {
    thread: Option<JoinHandle<Option<Full>>>,
    end: Arc<OwnedFd>,
    full: Arc<OwnedFd>,
}

impl Watch {
    /// Starts to look at what the processes that descend from `init` have in the rooms.
    ///
    /// # Errors
    /// No thread, or no descriptor, is to be had.
    pub fn start(rooms: Rooms, init: Pid) -> SysResult<Option<Self>> {
        if rooms.0.is_empty() {
            return Ok(None);
        }
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map(Arc::new)
                .context("eventfd2", "watch of sizes")
        };
        let (end, full) = (event()?, event()?);
        let thread = {
            let (end, full) = (end.clone(), full.clone());
            std::thread::Builder::new()
                .name("sizes".to_owned())
                .spawn(move || {
                    let found = watch(rooms, init, &end);
                    signal(&full);
                    found
                })
                .context("clone", "watch of sizes")?
        };
        Ok(Some(Self {
            thread: Some(thread),
            end,
            full,
        }))
    }

    /// Says whether a room was found to be full.
    pub fn is_full(&self) -> bool {
        signalled(&self.full, Duration::ZERO)
    }

    /// Looks for the last time; nothing of the step is alive.
    pub fn finish(mut self) -> Option<Full> {
        self.join()
    }

    fn join(&mut self) -> Option<Full> {
        signal(&self.end);
        self.thread.take()?.join().ok().flatten()
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.full.as_fd()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.join();
    }
}

fn signal(event: &OwnedFd) {
    // It is written once, so that the counter cannot overflow.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// Looks until a room is full or the step has ended.
fn watch(mut rooms: Rooms, init: Pid, end: &OwnedFd) -> Option<Full> {
    let mut pause = LOOK;
    while !signalled(end, pause) {
        let begin = used_time();
        // What is removed and made anew while it is looked at may be counted twice, but hardly in two looks.
        let full = rooms.full(Some(init)).and_then(|_| rooms.full(Some(init)));
        if full.is_some() {
            return full;
        }
        let took = used_time().saturating_sub(begin);
        pause = (took * SHARE).clamp(LOOK, LONGEST_PAUSE);
    }
    rooms.full_at_last()
}

/// Waits for a signal; returns whether it came.
fn signalled(end: &OwnedFd, pause: Duration) -> bool {
    let timeout = Timespec::try_from(pause).ok();
    matches!(
        poll(&mut [PollFd::new(end, PollFlags::IN)], timeout.as_ref()),
        Ok(1..)
    )
}

/// The processor time of this thread: how busy the machine is makes no look rarer.
fn used_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
