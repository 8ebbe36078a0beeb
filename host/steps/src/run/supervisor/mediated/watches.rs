//! inotify(7): a watch is set by a path, so instances are made here, injected, and kept, and watches are set here by handles.
//!
//! A descriptor of a step cannot be taken out of it everywhere.  So that an instance is known again by the descriptor that a
//! step names, its first watch is on a file of the supervisor's own, and `/proc/PID/fdinfo` shows that file's number.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{self, MemfdFlags};
use rustix::io::Errno;

use super::super::call::{Answer, Call, Stop};
use super::super::path::AT_FDCWD;
use super::super::step::Step;
use super::ways;

/// Stops a step from using up the instances of its user (`fs.inotify.max_user_instances` is 128 mostly): to the oldest no
/// watch can be added any more.
const MAX_KEPT: usize = 32;

/// Number of the first watch of an instance (inotify(7) counts from 1).
const MARK: &str = "inotify wd:1 ";

/// An instance that watches may be added to.
#[derive(Debug)]
struct Instance {
    queue: OwnedFd,
    /// Inode of the file that is watched first.
    mark: u64,
    /// Keeps the number from being given anew.
    _file: OwnedFd,
}

/// The instances of a step, in the order they were made.
#[derive(Debug, Default)]
pub struct Watches(VecDeque<Instance>);

/// inotify_init1(flags)
pub fn init1(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let flags = CreateFlags::from_bits(call.uint(0)).ok_or(Errno::INVAL)?;
    make(step, flags)
}

/// inotify_init()
#[cfg(target_arch = "x86_64")]
pub fn init(step: &mut Step, _: &Call<'_>) -> Result<Answer, Stop> {
    make(step, CreateFlags::empty())
}

fn make(step: &mut Step, flags: CreateFlags) -> Result<Answer, Stop> {
    let kept = &mut super::state(step)?.watches.0;
    while kept.len() >= MAX_KEPT {
        kept.pop_front();
    }
    let queue = inotify::init(flags | CreateFlags::CLOEXEC)?;
    let file = fs::memfd_create(c"watched", MemfdFlags::CLOEXEC)?;
    // Nobody moves it, so it never tells of anything.
    inotify::add_watch(&queue, ways::own_link(&file), WatchFlags::MOVE_SELF)?;
    let injected = rustix::io::fcntl_dupfd_cloexec(&queue, 0)?;
    kept.push_back(Instance {
        mark: fs::fstat(&file)?.st_ino,
        queue,
        _file: file,
    });
    Ok(Answer::Inject {
        file: injected,
        close_on_exec: flags.contains(CreateFlags::CLOEXEC),
    })
}

/// inotify_add_watch(fd, path, mask)
pub fn add(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let mark = mark(call)?;
    let mask = WatchFlags::from_bits_retain(call.uint(2));
    let path = ways::path(call, 1)?;
    let follow = !mask.contains(WatchFlags::DONT_FOLLOW);
    let handle = ways::inode(step, call, AT_FDCWD, &path, follow)?;
    let kept = &super::state(step)?.watches.0;
    // It was one of too many.
    let instance = kept.iter().find(|i| i.mark == mark).ok_or(Errno::NOSPC)?;
    // By the handle's link, which is to be followed, and no link behind it.
    let mask = mask - WatchFlags::DONT_FOLLOW;
    let watch = inotify::add_watch(&instance.queue, ways::own_link(handle.as_fd()), mask)?;
    Ok(Answer::Value(watch.into()))
}

/// Returns the inode of the first watch of the instance that a call names.
fn mark(call: &Call<'_>) -> Result<u64, Errno> {
    let path = format!("/proc/{}/fdinfo/{}", call.tid(), call.int(0));
    let text = std::fs::read_to_string(path).map_err(|_| Errno::BADF)?;
    mark_in(&text).ok_or(Errno::INVAL)
}

/// Takes it from the lines about an instance (proc_pid_fdinfo(5)); numbers are hexadecimal.
fn mark_in(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(MARK))?;
    let number = line.split(' ').find_map(|word| word.strip_prefix("ino:"))?;
    u64::from_str_radix(number, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_watch_is_the_mark() {
        let text = "pos:\t0\nflags:\t02000000\ninotify wd:12 ino:7 sdev:1 mask:2 ignored_mask:0\ninotify wd:1 ino:4e2c sdev:1 mask:800 ignored_mask:0\n";
        assert_eq!(mark_in(text), Some(0x4e2c));
        assert_eq!(mark_in("pos:\t0\ninotify wd:12 ino:7 sdev:1\n"), None);
        assert_eq!(mark_in("pos:\t0\n"), None);
    }
}
