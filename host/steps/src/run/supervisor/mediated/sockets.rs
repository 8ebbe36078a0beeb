//! Unix sockets: their addresses are paths, so binding and connecting is done here.
//!
//! A descriptor of a step cannot be taken out of it everywhere, so such sockets are made here, injected, and kept
//! until they have an address, and those of datagrams for longer ([`super::datagrams`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, FileType, OFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use stepwell_sys::resolve;

use super::super::call::{Answer, Call, Stop};
use super::super::path::AT_FDCWD;
use super::super::step::Step;
use super::datagrams::{self, Datagrams, Name};
use super::ways;

/// Stops a step that makes sockets without end and never uses them from filling the supervisor's table.
const MAX_KEPT: usize = 512;

/// Stops a step that binds without end from using up the supervisor's descriptors: older names are known by their paths alone.
const MAX_NAMES: usize = 64;

/// Longest address (`struct sockaddr_storage`).
const MAX_ADDRESS: u64 = 128;

/// Where the path starts in `struct sockaddr_un`.
const PATH_AT: usize = 2;

/// Sockets that may get an address yet, and abstract names of the step's.
#[derive(Debug, Default)]
pub struct Sockets {
    kept: HashMap<u64, OwnedFd>,
    /// In the order they were made.
    order: VecDeque<u64>,
    abstract_names: HashSet<Vec<u8>>,
    pub datagrams: Datagrams,
    /// Names of sockets that listen, the last ones.
    names: VecDeque<Name>,
}

impl Sockets {
    fn keep(&mut self, inode: u64, socket: OwnedFd) {
        while self.order.len() >= MAX_KEPT {
            if let Some(oldest) = self.order.pop_front() {
                self.kept.remove(&oldest);
            }
        }
        self.order.push_back(inode);
        self.kept.insert(inode, socket);
    }

    fn name(&mut self, name: Name) {
        self.names.truncate(MAX_NAMES - 1);
        self.names.push_front(name);
    }

    /// Returns the file of the socket whose name the kernel gives as this.
    fn named(&self, text: &[u8]) -> Option<OwnedFd> {
        let listens = || self.names.iter().find(|name| name.text == text);
        let file = || listens()?.file.try_clone().ok();
        self.datagrams.named(text).or_else(file)
    }

    fn forget(&mut self, inode: u64) {
        self.kept.remove(&inode);
        self.order.retain(|other| *other != inode);
    }
}

/// socket(AF_UNIX, type, protocol)
pub fn socket(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let flags = SocketFlags::from_bits_retain(call.uint(1));
    let kind = match call.int(1) & 0xf {
        libc::SOCK_STREAM => SocketType::STREAM,
        libc::SOCK_SEQPACKET => SocketType::SEQPACKET,
        kind if datagrams::is_one(kind) => return datagrams::socket(step, call),
        _ => return Err(Errno::PROTONOSUPPORT.into()),
    };
    let flags = flags & (SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
    let own = flags | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, kind, own, None)?;
    let copy = socket.try_clone().map_err(|_| Errno::MFILE)?;
    let inode = fs::fstat(&socket)?.st_ino;
    super::state(step)?.sockets.keep(inode, copy);
    Ok(Answer::Inject {
        file: socket,
        close_on_exec: flags.contains(SocketFlags::CLOEXEC),
    })
}

/// What an address of a call is.
enum Address {
    Path(Vec<u8>),
    Abstract(Vec<u8>),
    /// Of the family alone: the kernel is to find a name.
    Unnamed,
    /// Of no family: what a socket is connected to is forgotten.
    Nothing,
    /// Of another family.
    Other,
}

fn address(call: &Call<'_>, at: u64, length: u32) -> Result<Address, Stop> {
    let length = u64::from(length);
    if length > MAX_ADDRESS {
        return Err(Errno::INVAL.into());
    }
    let mut bytes = vec![0; length as usize];
    call.read(at, &mut bytes)?;
    let family = match bytes.get(..PATH_AT) {
        Some(head) => u16::from_ne_bytes([head[0], head[1]]),
        None => return Err(Errno::INVAL.into()),
    };
    match i32::from(family) {
        libc::AF_UNIX => {}
        libc::AF_UNSPEC => return Ok(Address::Nothing),
        _ => return Ok(Address::Other),
    }
    let path = &bytes[PATH_AT..];
    Ok(match path.first() {
        None => Address::Unnamed,
        Some(0) => Address::Abstract(path[1..].to_vec()),
        Some(_) => Address::Path(
            path.split(|byte| *byte == 0)
                .next()
                .unwrap_or_default()
                .to_vec(),
        ),
    })
}

/// Returns the inode of a socket of the caller's.
fn inode(call: &Call<'_>) -> Result<u64, Errno> {
    let link = format!("/proc/{}/fd/{}", call.tid(), call.int(0));
    let text = resolve::read_magic(&link).map_err(|_| Errno::BADF)?;
    datagrams::socket_inode(&text).ok_or(Errno::NOTSOCK)
}

/// Finds our end of a socket of the caller's.
struct Kept {
    inode: u64,
    socket: OwnedFd,
    is_datagram: bool,
}

fn kept(step: &mut Step, call: &Call<'_>) -> Result<Option<Kept>, Stop> {
    let inode = inode(call)?;
    let sockets = &super::state(step)?.sockets;
    let datagram = sockets.datagrams.get(inode)?;
    let is_datagram = datagram.is_some();
    let stream = sockets.kept.get(&inode);
    let socket = match (datagram, stream) {
        (Some(socket), _) => socket,
        (None, Some(socket)) => socket.try_clone().map_err(|_| Errno::MFILE)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(Kept {
        inode,
        socket,
        is_datagram,
    }))
}

/// Finds our end of a datagram socket of the caller's.
///
/// # Errors
/// It is no socket, or nothing may be sent by it.
pub fn datagram(step: &mut Step, call: &Call<'_>) -> Result<Option<OwnedFd>, Stop> {
    let datagrams = &super::state(step)?.sockets.datagrams;
    if datagrams.are_none() {
        return Ok(None);
    }
    Ok(datagrams.get(inode(call)?)?)
}

/// Closes our ends of datagram sockets that nobody has.
///
/// # Errors
/// `ENOSYS` where paths are not mediated.
pub fn let_go(step: &mut Step) -> Result<(), Errno> {
    let mediated = super::state(step)?;
    mediated.sockets.datagrams.let_go(&mediated.processes);
    Ok(())
}

/// Where something is sent to, or connected.
pub struct Target {
    /// What the kernel is told.
    pub address: SocketAddrUnix,
    /// What the address leads to, by its number.
    _file: Option<OwnedFd>,
}

/// Finds what an address means.
///
/// # Errors
/// What the kernel would answer.
pub fn target(step: &mut Step, call: &Call<'_>, at: u64, length: u32) -> Result<Target, Stop> {
    let path = match address(call, at, length)? {
        Address::Path(path) => path,
        Address::Abstract(name) => {
            return Ok(Target {
                address: own_abstract(step, &name)?,
                _file: None,
            });
        }
        Address::Unnamed | Address::Nothing | Address::Other => return Err(Errno::INVAL.into()),
    };
    // A reply goes to the name that the kernel has told, and so do programs that have asked for their own (getsockname).
    let file = match super::state(step)?.sockets.named(&path) {
        Some(file) => file,
        None => ways::inode(step, call, AT_FDCWD, &path, true)?,
    };
    if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) != FileType::Socket {
        return Err(Errno::CONNREFUSED.into());
    }
    Ok(Target {
        address: unix(&ways::own_link(&file))?,
        _file: Some(file),
    })
}

/// connect(fd, address, length)
pub fn connect(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let Some(kept) = kept(step, call)? else {
        return other_family(call, call.arg(1), call.uint(2));
    };
    if kept.is_datagram {
        let_go(step)?;
        if let Address::Nothing = address(call, call.arg(1), call.uint(2))? {
            net::connect_unspec(&kept.socket)?;
            return Ok(Answer::Value(0));
        }
    }
    let target = target(step, call, call.arg(1), call.uint(2))?;
    if kept.is_datagram {
        net::connect(&kept.socket, &target.address)?;
        return Ok(Answer::Value(0));
    }
    connected(step, kept.inode, &kept.socket, &target.address)
}

fn own_abstract(step: &mut Step, name: &[u8]) -> Result<SocketAddrUnix, Errno> {
    // Only those of the step are in reach, as with Landlock.
    if !super::state(step)?.sockets.abstract_names.contains(name) {
        return Err(Errno::CONNREFUSED);
    }
    SocketAddrUnix::new_abstract_name(name)
}

fn unix(path: &Path) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(path)
}

fn connected(
    step: &mut Step,
    inode: u64,
    socket: &OwnedFd,
    target: &SocketAddrUnix,
) -> Result<Answer, Stop> {
    // The supervisor must not wait for the other side to accept.
    let flags = fs::fcntl_getfl(socket)?;
    fs::fcntl_setfl(socket, flags | OFlags::NONBLOCK)?;
    let result = net::connect(socket, target);
    fs::fcntl_setfl(socket, flags)?;
    result?;
    super::state(step)?.sockets.forget(inode);
    Ok(Answer::Value(0))
}

/// bind(fd, address, length)
pub fn bind(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let Some(kept) = kept(step, call)? else {
        return other_family(call, call.arg(1), call.uint(2));
    };
    match address(call, call.arg(1), call.uint(2))? {
        Address::Other | Address::Nothing => return Err(Errno::INVAL.into()),
        Address::Unnamed => {
            net::bind(&kept.socket, &SocketAddrUnix::new_unnamed())?;
            let given = SocketAddrUnix::try_from(net::getsockname(&kept.socket)?)?;
            if let Some(name) = given.abstract_name() {
                own_name(step, name.to_vec())?;
            }
        }
        Address::Abstract(name) => {
            net::bind(&kept.socket, &SocketAddrUnix::new_abstract_name(&name)?)?;
            own_name(step, name)?;
        }
        Address::Path(path) => {
            let name = bind_path(step, call, &kept.socket, &path)?;
            let sockets = &mut super::state(step)?.sockets;
            if kept.is_datagram {
                sockets.datagrams.name(kept.inode, name);
            } else {
                sockets.name(name);
            }
        }
    }
    super::state(step)?.sockets.forget(kept.inode);
    Ok(Answer::Value(0))
}

/// Notes that a name that is no path is the step's.
fn own_name(step: &mut Step, name: Vec<u8>) -> Result<(), Errno> {
    let names = &mut super::state(step)?.sockets.abstract_names;
    if names.len() < MAX_KEPT {
        names.insert(name);
    }
    Ok(())
}

fn bind_path(
    step: &mut Step,
    call: &Call<'_>,
    socket: &OwnedFd,
    path: &[u8],
) -> Result<Name, Stop> {
    let entry = ways::entry(step, call, AT_FDCWD, path)?;
    if entry.fixed || entry.name().as_bytes().ends_with(b"/") {
        return Err(Errno::ADDRINUSE.into());
    }
    // A number of its own, by which the name is known from others.
    let directory = entry.parent.try_clone().map_err(|_| Errno::MFILE)?;
    let link = ways::own_link(&directory).join(entry.name());
    net::bind(socket, &unix(&link)?)?;
    let mode = 0o777 & !step.umask(call.tid());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(&directory, entry.name(), flags, fs::Mode::empty())?;
    ways::change_mode(std::os::fd::AsFd::as_fd(&file), mode)?;
    Ok(Name {
        text: link.into_os_string().into_encoded_bytes(),
        file,
        _directory: directory,
    })
}

/// Lets the kernel carry out what is about another family of addresses: no path is in it.
///
/// # Errors
/// `EACCES` where it is about a path.
pub fn other_family(call: &Call<'_>, at: u64, length: u32) -> Result<Answer, Stop> {
    // Without a family there is no path either.
    if length < PATH_AT as u32 {
        return Ok(Answer::CarryOn);
    }
    match address(call, at, length)? {
        Address::Other | Address::Nothing => Ok(Answer::CarryOn),
        Address::Path(_) | Address::Abstract(_) | Address::Unnamed => Err(Errno::ACCESS.into()),
    }
}
