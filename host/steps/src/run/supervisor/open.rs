//! open(2) and its kin, and chdir(2): what lies in a graft is opened here, beneath the supervisor's own handles,
//! and given to the step as a descriptor.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use stepwell_sys::resolve::{self, Links};

use super::call::{Answer, Call, Stop};
use super::nodes::{HostFile, Magic, Node, Within, follow, open_host};
use super::path::{AT_FDCWD, GraftPlace, Place, TreePlace, locate, near};
use super::step::Step;
use super::{create, dev, owner, pidtext, procfs, secrets, stubs};
use crate::run::types::Ids;

/// open(path, flags, mode)
#[cfg(target_arch = "x86_64")]
pub fn open(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    open_file(
        step,
        call,
        AT_FDCWD,
        &call.path(0)?,
        OpenHow::new(call.uint(1), call.uint(2)),
    )
}

/// creat(path, mode)
#[cfg(target_arch = "x86_64")]
pub fn creat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
    open_file(
        step,
        call,
        AT_FDCWD,
        &call.path(0)?,
        OpenHow::new(flags.bits(), call.uint(1)),
    )
}

/// openat(dirfd, path, flags, mode)
pub fn openat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    open_file(
        step,
        call,
        call.int(0),
        &call.path(1)?,
        OpenHow::new(call.uint(2), call.uint(3)),
    )
}

/// openat2(dirfd, path, how, size)
pub fn openat2(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let mut how = [0; 24];
    if call.arg(3) < how.len() as u64 {
        return Err(Stop::CarryOn);
    }
    call.read(call.arg(2), &mut how)?;
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| how[at + i]));
    // Whoever restricts the resolution means the kernel's: what it finds in the skeleton is right for listing,
    // and harmless.
    if word(16) != 0 {
        step.entered = true;
        return Err(Stop::CarryOn);
    }
    open_file(
        step,
        call,
        call.int(0),
        &call.path(1)?,
        OpenHow::new(word(0) as u32, word(8) as u32),
    )
}

/// chdir(path): the kernel's, once the skeleton is there.
pub fn chdir(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let path = call.path(0)?;
    if step.is_plain(call, &path) {
        return Ok(Answer::CarryOn);
    }
    if let Place::Graft(GraftPlace {
        path: place,
        node: Node::Directory,
        ..
    }) = locate(step, call, AT_FDCWD, &path, true)?
    {
        step.entered = true;
        stubs::open(step, &place, OFlags::RDONLY)?;
        // The kernel goes the step's own way, through the links of the graft.
        let literal =
            super::path::squeeze(&super::path::absolute(step, call.tid(), AT_FDCWD, &path)?);
        if super::path::in_graft(&literal) && literal != place {
            enter_by_links(step, call.tid(), &literal)?;
        }
    }
    Ok(Answer::CarryOn)
}

/// Has the skeleton ready for a path that goes by links of a graft.
fn enter_by_links(step: &mut Step, tid: u32, path: &[u8]) -> Result<(), Stop> {
    if path.starts_with(b"/sys/") {
        stubs::open(step, path, OFlags::RDONLY)?;
        return Ok(());
    }
    for graft in [&b"/proc"[..], b"/dev"] {
        stubs::list(step, graft, OFlags::RDONLY)?;
    }
    enter_own(step, tid)
}

/// Has `self` of the skeleton lead to the caller, and its threads there: the kernel may be asked for `self/task` beneath a
/// descriptor of `/proc`.
fn enter_own(step: &mut Step, tid: u32) -> Result<(), Stop> {
    if let Some((pid, tid)) = procfs::own(step, tid) {
        stubs::list(step, format!("/proc/{pid}/task").as_bytes(), OFlags::RDONLY)?;
        stubs::lead_to(step, pid, tid)?;
    }
    Ok(())
}

/// How a file is to be opened.
#[derive(Debug, Clone, Copy)]
pub struct OpenHow {
    /// Flags.
    pub flags: OFlags,
    /// Mode of a new file.
    pub mode: u32,
}

impl OpenHow {
    fn new(flags: u32, mode: u32) -> Self {
        Self {
            flags: OFlags::from_bits_retain(flags),
            mode: mode & 0o7777,
        }
    }

    /// Says whether the file must not be there yet.
    pub fn exclusive(self) -> bool {
        self.flags.contains(OFlags::CREATE | OFlags::EXCL)
    }

    /// Says whether the file may be written to.
    pub fn writes(self) -> bool {
        let access = self.flags & OFlags::RWMODE;
        !self.flags.contains(OFlags::PATH)
            && (access != OFlags::RDONLY || self.flags.intersects(OFlags::TRUNC))
    }

    /// Says whether what is in the file goes.
    fn truncates(self) -> bool {
        self.flags.contains(OFlags::TRUNC) && self.writes() && !self.exclusive()
    }

    /// Says whether a new inode may come of it.
    pub fn creates(self) -> bool {
        self.flags.contains(OFlags::CREATE) || self.flags.contains(OFlags::TMPFILE)
    }

    /// An `O_PATH` descriptor cannot be injected (the kernel answers EBADF): one for reading has to do.
    fn injectable(mut self) -> Self {
        if self.flags.contains(OFlags::PATH) {
            self.flags &= OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        }
        self
    }

    fn follows(self) -> bool {
        !self.flags.contains(OFlags::NOFOLLOW)
            && !self.flags.contains(OFlags::CREATE | OFlags::EXCL)
    }

    /// Answers with an open file.
    pub fn inject(self, file: OwnedFd) -> Answer {
        Answer::Inject {
            file,
            close_on_exec: self.flags.contains(OFlags::CLOEXEC),
        }
    }

    /// The flags for opening what is there.
    fn existing(self) -> OFlags {
        self.flags - (OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW)
    }
}

fn open_file(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    how: OpenHow,
) -> Result<Answer, Stop> {
    let is_settled = if step.emulates() && how.creates() {
        step.makes_plain(call, path)
    } else if step.keeps_owners() && how.truncates() {
        step.is_plain(call, path)
    } else {
        step.is_plain(call, path) || near(step, call, dirfd, path, how.follows()).is_some()
    };
    if is_settled {
        return Ok(Answer::CarryOn);
    }
    match locate(step, call, dirfd, path, how.follows())? {
        Place::Descriptor(_) => Ok(Answer::CarryOn),
        Place::Tree(place) => open_tree(step, call, &place, how),
        Place::Graft(place) => open_graft(step, call, &place, how),
    }
}

fn open_tree(
    step: &mut Step,
    call: &Call<'_>,
    place: &TreePlace,
    how: OpenHow,
) -> Result<Answer, Stop> {
    if let Ok(handle) = &place.handle
        && let Some(file) = secrets::open(step, call, handle, how)?
    {
        return Ok(how.inject(file));
    }
    if step.emulates()
        && how.creates()
        && let Some(file) = create::open_new(step, call, place, how)?
    {
        return Ok(how.inject(file));
    }
    if step.keeps_owners()
        && how.truncates()
        && let Ok(handle) = &place.handle
    {
        owner::lose_capabilities(step, handle.as_fd())?;
    }
    if let Ok(handle) = &place.handle
        && step.ids == Ids::RealOwners
        && how.creates()
        && !how.exclusive()
        && !how.flags.contains(OFlags::PATH)
        && step.identity(call.tid()).uid.fs != 0
        && is_regular(handle)?
        && owner::is_among_strangers(handle.as_fd())
    {
        // With O_CREAT the kernel opens files in `/tmp` for their owner alone, and takes everybody for root
        // (proc_sys_fs(5), `protected_regular`).
        call.check()?;
        return Ok(how.inject(reopen(handle.as_fd(), how.existing())?));
    }
    if !place.redirected {
        return Ok(Answer::CarryOn);
    }
    let how = how.injectable();
    // A fifo must not block the supervisor, and the mode of a new file is the step's own affair.
    let mode = Mode::from_raw_mode(how.mode & !step.umask(call.tid()));
    let links = if how.follows() {
        Links::Follow
    } else {
        Links::FollowButLast
    };
    let blocking = !how.flags.intersects(OFlags::NONBLOCK | OFlags::PATH);
    let mode = if how.creates() { mode } else { Mode::empty() };
    let flags = if blocking {
        how.flags | OFlags::NONBLOCK
    } else {
        how.flags
    };
    let file = resolve::create(&step.root, &place.path, flags, mode, links)?;
    if blocking {
        wait_again(file.as_fd())?;
    }
    Ok(how.inject(file))
}

fn is_regular(handle: &OwnedFd) -> Result<bool, Errno> {
    let mode = fs::fstat(handle)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::RegularFile)
}

/// Takes back that reads and writes do not block.
fn wait_again(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = fs::fcntl_getfl(file)?;
    fs::fcntl_setfl(file, flags - OFlags::NONBLOCK)
}

fn open_graft(
    step: &mut Step,
    call: &Call<'_>,
    place: &GraftPlace,
    how: OpenHow,
) -> Result<Answer, Stop> {
    let how = how.injectable();
    let exclusive = how.exclusive();
    match &place.node {
        Node::Missing => return Err(Errno::NOENT.into()),
        Node::Native => return Ok(Answer::CarryOn),
        _ if exclusive => return Err(Errno::EXIST.into()),
        Node::Directory => {}
        _ if place.slash || how.flags.contains(OFlags::DIRECTORY) => {
            return Err(Errno::NOTDIR.into());
        }
        _ => {}
    }
    let file = match &place.node {
        Node::Directory if how.writes() || how.creates() => return Err(Errno::ISDIR.into()),
        Node::Directory => {
            step.entered = true;
            let listed = stubs::list(step, &place.path, OFlags::RDONLY)?;
            if place.path == b"/proc" {
                enter_own(step, call.tid())?;
            }
            listed
        }
        Node::File(file) => open_host_file(step, file, how)?,
        Node::Text(_) if how.writes() => return Err(Errno::ACCESS.into()),
        Node::Text(text) => memory_file(&pidtext::content(step, *text)?)?,
        Node::Magic(magic) if how.follows() => open_magic(step, magic, how)?,
        Node::PtyMaster => dev::open_pty_master(step, how.existing())?,
        Node::Terminal => dev::open_terminal(step, call.tid(), how.existing())?,
        // A link is opened itself with O_PATH and O_NOFOLLOW alone.
        _ => return Err(Errno::LOOP.into()),
    };
    Ok(how.inject(file))
}

fn open_host_file(step: &Step, file: &HostFile, how: OpenHow) -> Result<OwnedFd, Errno> {
    if how.writes() && !file.writable {
        let mounted_read_only = file.within == Within::Sys || file.path.starts_with("sys/");
        return Err(if mounted_read_only {
            Errno::ROFS
        } else {
            Errno::ACCESS
        });
    }
    let opened = open_host(
        step,
        file.within,
        &file.path,
        how.existing() - OFlags::TRUNC,
    )?;
    if is_ours(file, opened.as_fd())? {
        return copy(opened);
    }
    Ok(opened)
}

/// Says whether a file of the machine's belongs to this process, which then is root of the machine or of a container.  A
/// descriptor for reading would let the step, whose root is the same user, change the file's mode and owner, and what is in
/// `/sys` may be memory of devices.
fn is_ours(file: &HostFile, opened: BorrowedFd<'_>) -> Result<bool, Errno> {
    // Of `/proc/sys` and of processes the kernel lets nobody change these, but of their networks.
    let names: Vec<&str> = file.path.split('/').collect();
    let changeable = match file.within {
        Within::Sys => true,
        Within::Proc => match names[..] {
            ["sys", ..] => false,
            [process, second, ..] => process.parse::<u32>().is_err() || second == "net",
            _ => true,
        },
        Within::Dev => false,
    };
    Ok(changeable && fs::fstat(opened)?.st_uid == rustix::process::geteuid().as_raw())
}

/// Gives the content of a file instead of the file.
fn copy(file: OwnedFd) -> Result<OwnedFd, Errno> {
    /// Stops a file without end from filling memory.
    const MAX_COPY: u64 = 32 << 20;
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(MAX_COPY)
        .read_to_end(&mut content)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    memory_file(&content)
}

/// Makes a file of made-up content, open for reading.
fn memory_file(content: &[u8]) -> Result<OwnedFd, Errno> {
    let memory = fs::memfd_create(c"graft", MemfdFlags::CLOEXEC)?;
    let mut memory = std::fs::File::from(memory);
    memory
        .write_all(content)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    fs::fchmod(&memory, Mode::from_raw_mode(0o444))?;
    reopen(memory.as_fd(), OFlags::RDONLY)
}

/// Opens what a link of `/proc/PID` leads to, again.
fn open_magic(step: &Step, magic: &Magic, how: OpenHow) -> Result<OwnedFd, Errno> {
    let target = follow(step, &magic.link)?;
    let stat = fs::fstat(&target)?;
    match FileType::from_raw_mode(stat.st_mode) {
        // A step never gets a directory outside its tree.
        FileType::Directory => {
            let path = resolve::path_of(&target).ok_or(Errno::NOENT)?;
            step.inside(&path).ok_or(Errno::ACCESS)?;
        }
        FileType::Symlink => return Err(Errno::LOOP),
        _ if how.writes() && is_the_machines(target.as_fd())? => return Err(Errno::ACCESS),
        _ => {}
    }
    reopen(target.as_fd(), how.existing())
}

/// Says whether a file is one of the machine's `/proc` or `/sys`, which a step was given for reading.
fn is_the_machines(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    const SYSFS_MAGIC: u64 = 0x6265_6572;
    const CGROUP_MAGICS: [u64; 2] = [0x0027_e0eb, 0x6367_7270];
    let kind = fs::fstatfs(file)?.f_type as u64;
    Ok(kind == fs::PROC_SUPER_MAGIC as u64 || kind == SYSFS_MAGIC || CGROUP_MAGICS.contains(&kind))
}

/// Opens a file again with other flags; never blocks.
pub fn reopen(file: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let blocking = !flags.intersects(OFlags::NONBLOCK | OFlags::PATH);
    let extra = OFlags::CLOEXEC
        | OFlags::NOCTTY
        | if blocking {
            OFlags::NONBLOCK
        } else {
            OFlags::empty()
        };
    let opened = fs::open(path, flags | extra, Mode::empty())?;
    if blocking {
        wait_again(opened.as_fd())?;
    }
    Ok(opened)
}
