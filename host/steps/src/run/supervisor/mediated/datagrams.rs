//! Unix datagram sockets: each message may carry a path, so every send that could is carried out here ([`super::messages`]), on a
//! copy of the socket that is kept for as long as a process of the step has it.
//!
//! A copy keeps a socket open, so that messages would wait forever for a server that has ended.  So whenever a process ends or
//! executes a program, and before anything is sent by a name, it is looked who still has which ([`Datagrams::let_go`]).

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use rustix::fs;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use stepwell_sys::resolve;

use super::super::call::{Answer, Call, Stop};
use super::super::pids::numbers;
use super::super::step::Step;
use super::processes::Processes;

/// Stops a step from using up the supervisor's descriptors: so many such sockets there can be at a time.
const MAX_KEPT: usize = 512;

/// Stops a step that makes such sockets without end from filling memory with their numbers.
const MAX_GONE: usize = 1 << 20;

/// A socket.
#[derive(Debug)]
struct Datagram {
    socket: OwnedFd,
    /// A thread that had it when it was last looked for.
    holder: u32,
    name: Option<Name>,
}

/// The name of a socket that is bound to a path.
#[derive(Debug)]
pub struct Name {
    /// What the kernel says that it is: receivers reply to it.
    pub text: Vec<u8>,
    /// Handle on the socket's file.
    pub file: OwnedFd,
    /// Handle on the directory, by whose number the text begins; while it is open, no other has that.
    pub _directory: OwnedFd,
}

/// The Unix datagram sockets of a step, by the numbers of their inodes.
#[derive(Debug, Default)]
pub struct Datagrams {
    kept: HashMap<u64, Datagram>,
    /// Those that nobody had any more.  Should one turn up again (it was on its way through another socket), nothing is sent by
    /// it that could carry a path.
    gone: HashSet<u64>,
    /// How many sends wait for a receiver.
    pub waiting: Arc<AtomicUsize>,
}

impl Datagrams {
    /// Says whether the step has never made one, so that no message of its carries a path.
    pub fn are_none(&self) -> bool {
        self.kept.is_empty() && self.gone.is_empty()
    }

    /// Returns a copy of a socket; none where it is of another kind.
    ///
    /// # Errors
    /// `EACCES` for one that was gone.
    pub fn get(&self, inode: u64) -> Result<Option<OwnedFd>, Errno> {
        if self.gone.contains(&inode) {
            return Err(Errno::ACCESS);
        }
        let kept = self.kept.get(&inode);
        kept.map(|datagram| datagram.socket.try_clone().map_err(|_| Errno::MFILE))
            .transpose()
    }

    fn keep(&mut self, tid: u32, socket: &OwnedFd) -> Result<(), Errno> {
        if self.kept.len() >= MAX_KEPT || self.gone.len() >= MAX_GONE {
            return Err(Errno::NFILE);
        }
        let datagram = Datagram {
            socket: socket.try_clone().map_err(|_| Errno::MFILE)?,
            holder: tid,
            name: None,
        };
        self.kept.insert(fs::fstat(socket)?.st_ino, datagram);
        Ok(())
    }

    /// Notes that a socket is bound to a path.
    pub fn name(&mut self, inode: u64, name: Name) {
        if let Some(datagram) = self.kept.get_mut(&inode) {
            datagram.name = Some(name);
        }
    }

    /// Returns the file of the socket whose name the kernel gives as this.
    pub fn named(&self, text: &[u8]) -> Option<OwnedFd> {
        let mut names = self.kept.values().filter_map(|d| d.name.as_ref());
        let name = names.find(|name| name.text == text)?;
        name.file.try_clone().ok()
    }

    /// Closes the copies of sockets that no process of the step has.
    pub fn let_go(&mut self, processes: &Processes) {
        let mut seen: HashMap<u32, HashSet<u64>> = HashMap::new();
        let mut has = |tid: u32, inode: u64| {
            let sockets = seen.entry(tid).or_insert_with(|| sockets_of(tid));
            sockets.contains(&inode)
        };
        let mut lost: Vec<u64> = Vec::new();
        for (inode, datagram) in &self.kept {
            if !has(datagram.holder, *inode) {
                lost.push(*inode);
            }
        }
        if lost.is_empty() {
            return;
        }
        let threads = processes.threads();
        for inode in lost {
            let holder = threads.iter().find(|tid| has(**tid, inode));
            match (holder, self.kept.get_mut(&inode)) {
                (Some(holder), Some(datagram)) => datagram.holder = *holder,
                _ => {
                    self.kept.remove(&inode);
                    self.gone.insert(inode);
                }
            }
        }
    }
}

/// Returns the inodes of a thread's sockets.
fn sockets_of(tid: u32) -> HashSet<u64> {
    let directory = format!("/proc/{tid}/fd");
    numbers(&directory)
        .into_iter()
        .filter_map(|fd| socket_inode(&resolve::read_magic(&format!("{directory}/{fd}")).ok()?))
        .collect()
}

/// Takes the inode from what a link to a socket says.
pub fn socket_inode(link: &[u8]) -> Option<u64> {
    let number = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Says of what kind a socket is to be, where it is one of these (`SOCK_RAW` is another word for it).
pub fn is_one(kind: i32) -> bool {
    [libc::SOCK_DGRAM, libc::SOCK_RAW].contains(&(kind & 0xf))
}

/// Splits the flags off a kind of socket.
fn flags(call: &Call<'_>) -> SocketFlags {
    SocketFlags::from_bits_retain(call.uint(1)) & (SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

/// Takes note of new sockets.
fn keep(step: &mut Step, call: &Call<'_>, sockets: &[&OwnedFd]) -> Result<(), Stop> {
    let mediated = super::state(step)?;
    let datagrams = &mut mediated.sockets.datagrams;
    if datagrams.kept.len() + sockets.len() > MAX_KEPT {
        datagrams.let_go(&mediated.processes);
    }
    for socket in sockets {
        datagrams.keep(call.tid(), socket)?;
    }
    Ok(())
}

/// socket(AF_UNIX, SOCK_DGRAM, protocol)
pub fn socket(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let flags = flags(call);
    let own = flags | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, own, None)?;
    keep(step, call, &[&socket])?;
    Ok(Answer::Inject {
        file: socket,
        close_on_exec: flags.contains(SocketFlags::CLOEXEC),
    })
}

/// socketpair(AF_UNIX, SOCK_DGRAM, protocol, two numbers)
pub fn socketpair(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    if !is_one(call.int(1)) {
        return Ok(Answer::CarryOn);
    }
    // Nothing is made where the numbers could not be told.
    call.write(call.arg(3), &[0xff; 8])?;
    let flags = flags(call);
    let own = flags | SocketFlags::CLOEXEC;
    let (one, other) = net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, own, None)?;
    keep(step, call, &[&one, &other])?;
    Ok(Answer::InjectTwo {
        files: [one, other],
        close_on_exec: flags.contains(SocketFlags::CLOEXEC),
        numbers: call.arg(3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &str) -> OwnedFd {
        std::fs::File::open(path).expect("open").into()
    }

    #[test]
    fn what_nobody_has_any_more_is_let_go() {
        let me = std::process::id();
        let mut processes = Processes::new(open("/"));
        processes.of_mut(me);
        let mut all = Datagrams::default();
        let (one, other) = net::socketpair(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a pair");
        // Whoever made it is gone, and somebody else has it.
        all.keep(u32::MAX / 4, &one).expect("room");
        all.let_go(&processes);
        let inode = fs::fstat(&one).expect("its inode").st_ino;
        assert!(matches!(all.get(inode), Ok(Some(_))) && !all.are_none());
        assert_eq!(all.kept[&inode].holder, me);
        // This process has every copy, too: so one that has none is asked.
        processes.ended(me);
        all.kept.get_mut(&inode).expect("it").holder = u32::MAX / 4;
        all.let_go(&processes);
        assert_eq!(all.get(inode).err(), Some(Errno::ACCESS));
        assert!(all.kept.is_empty() && !all.are_none());
        drop((one, other));
    }

    #[test]
    fn links_to_sockets_are_told_from_others() {
        assert_eq!(socket_inode(b"socket:[77]"), Some(77));
        for other in [&b"pipe:[77]"[..], b"/tmp/socket:[77]", b"socket:[]"] {
            assert_eq!(socket_inode(other), None);
        }
    }
}
