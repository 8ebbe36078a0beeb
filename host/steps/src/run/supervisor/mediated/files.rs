//! open(2) and its kin: the file is opened here, beneath the tree's root, and the step is given the descriptor.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use stepwell_sys::notify::Listener;

use super::super::call::{Answer, Call, Stop};
use super::super::path::AT_FDCWD;
use super::super::step::Step;
use super::ways;

/// Stops a step that opens named pipes without end, whose other side nobody opens, from using up threads.
const MAX_WAITING: usize = 256;

/// Flags that openat2(2) knows; open(2) ignores others.
const KNOWN: u32 = 0o37_777_703;

/// open(path, flags, mode)
pub fn open(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    answer(
        step,
        call,
        AT_FDCWD,
        &ways::path(call, 0)?,
        (call.uint(1), call.uint(2)),
    )
}

/// creat(path, mode)
pub fn creat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let flags = (OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC).bits();
    answer(
        step,
        call,
        AT_FDCWD,
        &ways::path(call, 0)?,
        (flags, call.uint(1)),
    )
}

/// openat(dirfd, path, flags, mode)
pub fn openat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    answer(
        step,
        call,
        call.int(0),
        &ways::path(call, 1)?,
        (call.uint(2), call.uint(3)),
    )
}

/// openat2(dirfd, path, how, size)
pub fn openat2(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let mut how = [0; 24];
    if call.arg(3) < how.len() as u64 {
        return Err(Errno::INVAL.into());
    }
    call.read(call.arg(2), &mut how)?;
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| how[at + i]));
    let (flags, mode) = (word(0) as u32, word(8) as u32);
    let resolve = ResolveFlags::from_bits_retain(word(16));
    let path = ways::path(call, 1)?;
    if resolve.is_empty() {
        return answer(step, call, call.int(0), &path, (flags, mode));
    }
    open_restricted(step, call, &path, (flags, mode), resolve)
}

/// Opens beneath the caller's directory, or from the root with restrictions of the caller's.
fn open_restricted(
    step: &Step,
    call: &Call<'_>,
    path: &[u8],
    (flags, mode): (u32, u32),
    resolve: ResolveFlags,
) -> Result<Answer, Stop> {
    let flags = injectable(OFlags::from_bits_retain(flags & KNOWN));
    let mode = new_mode(step, call, flags, mode);
    let within = resolve.intersects(ResolveFlags::BENEATH | ResolveFlags::IN_ROOT);
    let open = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = if within {
        let base = ways::directory(step, call.tid(), call.int(0))?;
        fs::openat2(&base, path, open, mode, resolve)?
    } else {
        let whole = super::super::path::absolute(step, call.tid(), call.int(0), path)
            .map_err(|_| Errno::NOENT)?;
        fs::openat2(
            &step.root,
            whole,
            open,
            mode,
            resolve | ResolveFlags::IN_ROOT,
        )?
    };
    inject(file, flags)
}

/// An `O_PATH` descriptor cannot be injected (the kernel answers EBADF): one for reading has to do, which waits for
/// nobody either.
fn injectable(flags: OFlags) -> OFlags {
    if flags.contains(OFlags::PATH) {
        flags & (OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC) | OFlags::NONBLOCK
    } else {
        flags
    }
}

fn creates(flags: OFlags) -> bool {
    flags.contains(OFlags::CREATE) || flags.contains(OFlags::TMPFILE)
}

fn new_mode(step: &Step, call: &Call<'_>, flags: OFlags, mode: u32) -> Mode {
    if creates(flags) {
        Mode::from_raw_mode(mode & 0o7777 & !step.umask(call.tid()))
    } else {
        Mode::empty()
    }
}

fn answer(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    (flags, mode): (u32, u32),
) -> Result<Answer, Stop> {
    let wanted = OFlags::from_bits_retain(flags & KNOWN);
    let flags = injectable(wanted);
    let mode = new_mode(step, call, flags, mode);
    let way = ways::way(step, call, dirfd, path)?;
    let exclusive = flags.contains(OFlags::CREATE | OFlags::EXCL);
    let follow = !flags.contains(OFlags::NOFOLLOW) && !exclusive;
    // The supervisor must not wait for the other side of a pipe.
    let own = flags | OFlags::NONBLOCK;
    let masked = creates(flags) && mode.bits() & step.builder_umask() != 0;
    // To open a pipe for reading, even for a moment, would let those go on who wait for a reader.
    if !flags.contains(OFlags::NONBLOCK)
        && flags & OFlags::RWMODE == OFlags::RDONLY
        && let Ok(pipe) = ways::open(step, &way, OFlags::PATH, Mode::empty(), follow)
        && is_pipe(&pipe)
    {
        return wait(step, call, pipe, flags);
    }
    let result = ways::as_root(step, call, &way, || {
        let open = |flags: OFlags| {
            let mode = if creates(flags) { mode } else { Mode::empty() };
            ways::open(step, &way, flags, mode, follow)
        };
        if !masked || flags.contains(OFlags::TMPFILE) || exclusive {
            return open(own).map(|file| (file, masked));
        }
        // Whose mask took something from the mode is only to be known of a file that was not there.
        match open(own - OFlags::CREATE) {
            Err(Errno::NOENT) => match open(own | OFlags::EXCL) {
                Err(Errno::EXIST) => open(own).map(|file| (file, false)),
                other => other.map(|file| (file, true)),
            },
            other => other.map(|file| (file, false)),
        }
    });
    match result {
        Ok((file, made)) => {
            if made {
                fs::fchmod(&file, mode)?;
            }
            inject(file, flags)
        }
        // Nobody reads the pipe yet.
        Err(Errno::NXIO) if !flags.contains(OFlags::NONBLOCK) => {
            let handle = ways::open(step, &way, OFlags::PATH, Mode::empty(), follow)?;
            if is_pipe(&handle) {
                wait(step, call, handle, flags)
            } else {
                Err(Errno::NXIO.into())
            }
        }
        // A handle on a link cannot be given; the C library opens one to find out that links have no modes.
        Err(Errno::LOOP) if wanted.contains(OFlags::PATH | OFlags::NOFOLLOW) => {
            Err(Errno::OPNOTSUPP.into())
        }
        Err(errno) => Err(errno.into()),
    }
}

fn inject(file: OwnedFd, flags: OFlags) -> Result<Answer, Stop> {
    if !flags.contains(OFlags::NONBLOCK) {
        let kept = OFlags::APPEND | OFlags::DIRECT | OFlags::NOATIME;
        fs::fcntl_setfl(&file, flags & kept)?;
    }
    Ok(Answer::Inject {
        file,
        close_on_exec: flags.contains(OFlags::CLOEXEC),
    })
}

fn is_pipe(file: &OwnedFd) -> bool {
    fs::fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Opens of named pipes that wait for the other side, each in a thread of its own.
#[derive(Debug, Default)]
pub struct Waiting(Vec<(Arc<OwnedFd>, Arc<AtomicBool>)>);

impl Waiting {
    fn forget_done(&mut self) {
        self.0.retain(|(_, done)| !done.load(Ordering::Acquire));
    }
}

impl Drop for Waiting {
    /// The other side comes: nobody of the step is left to be deceived by it.
    fn drop(&mut self) {
        for (pipe, done) in self.0.drain(..) {
            let mut held = None;
            while !done.load(Ordering::Acquire) {
                let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
                held = held.or_else(|| fs::open(ways::own_link(&pipe), flags, Mode::empty()).ok());
                if held.is_none() {
                    break;
                }
                std::thread::yield_now();
            }
        }
    }
}

/// Has a thread open a named pipe, given by a handle, and answer when the other side is there.
fn wait(step: &mut Step, call: &Call<'_>, pipe: OwnedFd, flags: OFlags) -> Result<Answer, Stop> {
    let listener = call.share_listener()?;
    let waiting = &mut super::state(step)?.waiting;
    waiting.forget_done();
    if waiting.0.len() >= MAX_WAITING {
        return Err(Errno::MFILE.into());
    }
    let (handle, done) = (Arc::new(pipe), Arc::new(AtomicBool::new(false)));
    waiting.0.push((handle.clone(), done.clone()));
    let id = call.notification().id;
    let opens = std::thread::Builder::new()
        .name("named pipe".to_owned())
        .spawn(move || {
            answer_late(listener, id, &handle, flags);
            done.store(true, Ordering::Release);
        });
    opens.map_err(|_| Errno::AGAIN)?;
    Ok(Answer::Later)
}

fn answer_late(mut listener: Listener, id: u64, pipe: &OwnedFd, flags: OFlags) {
    let own = (flags - (OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW)) | OFlags::CLOEXEC;
    let opened = loop {
        match fs::open(ways::own_link(pipe), own, Mode::empty()) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    match opened {
        Ok(file) => {
            let close = flags.contains(OFlags::CLOEXEC);
            // The other side may be done and gone before this thread goes on: who opens the pipe next must not meet this copy.
            if let Err(error) = listener.hand_over(id, file, close) {
                // Nobody waits any more, or has room for it.
                listener.fail(id, error.errno);
            }
        }
        Err(errno) => {
            listener.fail(id, errno);
        }
    }
}

/// truncate(path, length)
pub fn truncate(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let path = ways::path(call, 0)?;
    let length = call.arg(1) as i64;
    let length = u64::try_from(length).map_err(|_| Errno::INVAL)?;
    let way = ways::way(step, call, AT_FDCWD, &path)?;
    let flags = OFlags::WRONLY | OFlags::NONBLOCK;
    let file = ways::as_root(step, call, &way, || {
        // Who reads from a pipe must not notice that somebody tried.
        let handle = ways::open(step, &way, OFlags::PATH, Mode::empty(), true)?;
        match FileType::from_raw_mode(fs::fstat(&handle)?.st_mode) {
            FileType::RegularFile => ways::open(step, &way, flags, Mode::empty(), true),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    })?;
    fs::ftruncate(&file, length)?;
    Ok(Answer::Value(0))
}
