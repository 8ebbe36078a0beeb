//! Unix sockets: their addresses are paths, so binding and connecting is done here.
//!
//! A descriptor of a step cannot be taken out of it everywhere, so such sockets are made here, injected, and kept
//! until they have an address.  Datagram sockets are refused, because every message of theirs may carry a path.

use std::collections::HashMap;
use std::collections::HashSet;
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
use super::ways;

/// Stops a step that makes sockets without end and never uses them from filling the supervisor's table.
const MAX_KEPT: usize = 512;

/// Longest address (`struct sockaddr_storage`).
const MAX_ADDRESS: u64 = 128;

/// Where the path starts in `struct sockaddr_un`.
const PATH_AT: usize = 2;

/// Sockets that may get an address yet, and abstract names of the step's.
#[derive(Debug, Default)]
pub struct Sockets {
    kept: HashMap<u64, OwnedFd>,
    /// In the order they were made.
    order: std::collections::VecDeque<u64>,
    abstract_names: HashSet<Vec<u8>>,
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
    /// Of another family.
    Other,
}

fn address(call: &Call<'_>) -> Result<Address, Stop> {
    let length = u64::from(call.uint(2));
    if length > MAX_ADDRESS {
        return Err(Errno::INVAL.into());
    }
    let mut bytes = vec![0; length as usize];
    call.read(call.arg(1), &mut bytes)?;
    let family = match bytes.get(..PATH_AT) {
        Some(head) => u16::from_ne_bytes([head[0], head[1]]),
        None => return Err(Errno::INVAL.into()),
    };
    if i32::from(family) != libc::AF_UNIX {
        return Ok(Address::Other);
    }
    let path = &bytes[PATH_AT..];
    Ok(match path.first() {
        None => return Err(Errno::INVAL.into()),
        Some(0) => Address::Abstract(path[1..].to_vec()),
        Some(_) => Address::Path(
            path.split(|byte| *byte == 0)
                .next()
                .unwrap_or_default()
                .to_vec(),
        ),
    })
}

/// Finds our end of a socket of the caller's.
fn kept(step: &mut Step, call: &Call<'_>) -> Result<Option<(u64, OwnedFd)>, Stop> {
    let link = format!("/proc/{}/fd/{}", call.tid(), call.int(0));
    let text = resolve::read_magic(&link).map_err(|_| Errno::BADF)?;
    let number = text
        .strip_prefix(b"socket:[")
        .and_then(|rest| rest.strip_suffix(b"]"))
        .ok_or(Errno::NOTSOCK)?;
    let inode = String::from_utf8_lossy(number)
        .parse()
        .map_err(|_| Errno::NOTSOCK)?;
    match super::state(step)?.sockets.kept.get(&inode) {
        Some(socket) => {
            let socket = socket.try_clone().map_err(|_| Errno::MFILE)?;
            Ok(Some((inode, socket)))
        }
        None => Ok(None),
    }
}

/// connect(fd, address, length)
pub fn connect(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let Some((inode, socket)) = kept(step, call)? else {
        return other_family(call);
    };
    let target = match address(call)? {
        Address::Other => return Err(Errno::INVAL.into()),
        Address::Abstract(name) => own_abstract(step, &name)?,
        Address::Path(path) => {
            let handle = ways::inode(step, call, AT_FDCWD, &path, true)?;
            if FileType::from_raw_mode(fs::fstat(&handle)?.st_mode) != FileType::Socket {
                return Err(Errno::CONNREFUSED.into());
            }
            return connected(step, inode, &socket, &unix(&ways::own_link(&handle))?);
        }
    };
    connected(step, inode, &socket, &target)
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
    let Some((inode, socket)) = kept(step, call)? else {
        return other_family(call);
    };
    match address(call)? {
        Address::Other => return Err(Errno::INVAL.into()),
        Address::Abstract(name) => {
            net::bind(&socket, &SocketAddrUnix::new_abstract_name(&name)?)?;
            let names = &mut super::state(step)?.sockets.abstract_names;
            if names.len() < MAX_KEPT {
                names.insert(name);
            }
        }
        Address::Path(path) => {
            let entry = ways::entry(step, call, AT_FDCWD, &path)?;
            if entry.fixed || entry.name().as_bytes().ends_with(b"/") {
                return Err(Errno::ADDRINUSE.into());
            }
            let link = ways::own_link(&entry.parent).join(entry.name());
            net::bind(&socket, &unix(&link)?)?;
            let mode = 0o777 & !step.umask(call.tid());
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = fs::openat(&entry.parent, entry.name(), flags, fs::Mode::empty())?;
            ways::change_mode(std::os::fd::AsFd::as_fd(&made), mode)?;
        }
    }
    super::state(step)?.sockets.forget(inode);
    Ok(Answer::Value(0))
}

/// Lets the kernel carry out what is about another family of addresses: no path is in it.
fn other_family(call: &Call<'_>) -> Result<Answer, Stop> {
    match address(call)? {
        Address::Other => Ok(Answer::CarryOn),
        Address::Path(_) | Address::Abstract(_) => Err(Errno::ACCESS.into()),
    }
}
