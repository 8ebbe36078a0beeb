//! Messages of Unix datagram sockets: sendto(2), sendmsg(2), sendmmsg(2).
//!
//! What a step wants to be sent is read once, names are resolved beneath the root, and the message is sent on the copy of the
//! socket that is kept here ([`super::datagrams`]).  The supervisor waits for no receiver: a thread does, and answers late.
//! Messages of other sockets are the kernel's.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fs::{self, OFlags};
use rustix::io::Errno;
use rustix::net::{self, SendAncillaryBuffer, SendFlags, sockopt};
use stepwell_sys::memory;
use stepwell_sys::notify::Listener;

use super::super::call::{Answer, Call, Stop};
use super::super::step::Step;
use super::sockets::{self, Target};
use super::stack::Words;
use crate::run::narrow::Form;

/// Stops a step that sends without end to who does not receive from using up threads.
const MAX_WAITING: usize = 256;

/// How long a thread waits until it tries again, at first and at most.  The kernel tells only those of a full queue that wait in it,
/// which nobody could end with the step.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// Most parts of a message, and most messages of a call (`UIO_MAXIOV`).
const MAX_PARTS: u64 = 1024;

/// Most bytes beside a message that are looked at.
const MAX_CONTROL: u64 = 4096;

/// A message and where it goes.
struct Message {
    data: Vec<u8>,
    /// None where the socket is connected.
    to: Option<Target>,
    flags: SendFlags,
}

impl Message {
    /// Sends it, if that can be done at once.
    fn send(&self, socket: &OwnedFd) -> Result<usize, Errno> {
        let flags = self.flags | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let parts = [IoSlice::new(&self.data)];
        let mut nothing = SendAncillaryBuffer::default();
        match &self.to {
            None => net::sendmsg(socket, &parts, &mut nothing, flags),
            Some(to) => net::sendmsg_addr(socket, &to.address, &parts, &mut nothing, flags),
        }
    }
}

/// How it is told that a message was sent.
#[derive(Clone, Copy)]
enum Told {
    /// Its length is returned.
    Length,
    /// Its length is written there, and the number of messages is returned.
    At(u64),
}

impl Told {
    fn tell(self, tid: u32, length: usize) -> Result<i64, Errno> {
        let Self::At(address) = self else {
            return Ok(length as i64);
        };
        let bytes = (length as u32).to_ne_bytes();
        memory::write(tid, address, &bytes).map_err(|_| Errno::FAULT)?;
        Ok(1)
    }
}

/// sendto(fd, data, length, flags, address, length); without an address it is the kernel's
pub fn sendto(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let Some(socket) = sockets::datagram(step, call)? else {
        return sockets::other_family(call, call.arg(4), call.uint(5));
    };
    let to = destination(step, call, call.arg(4), call.uint(5))?;
    let parts = [(call.arg(1), call.arg(2))];
    let message = Message {
        data: data(call, &socket, &parts)?,
        to,
        flags: SendFlags::from_bits_retain(call.uint(3)),
    };
    deliver(step, call, socket, message, Told::Length)
}

/// sendmsg(fd, message, flags)
pub fn sendmsg(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let Some(socket) = sockets::datagram(step, call)? else {
        return Ok(Answer::CarryOn);
    };
    let message = message(step, call, &socket, (call.arg(1), call.uint(2)))?;
    deliver(step, call, socket, message, Told::Length)
}

/// sendmmsg(fd, messages, count, flags)
pub fn sendmmsg(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let Some(socket) = sockets::datagram(step, call)? else {
        return Ok(Answer::CarryOn);
    };
    let layout = Layout::of(call);
    let count = u64::from(call.uint(2)).min(MAX_PARTS);
    for number in 0..count {
        let at = call.arg(1) + number * layout.each;
        let told = Told::At(at + layout.size);
        let sent = message(step, call, &socket, (at, call.uint(3))).and_then(|message| {
            if number == 0 {
                return deliver(
                    step,
                    call,
                    socket.try_clone().map_err(|_| Errno::MFILE)?,
                    message,
                    told,
                );
            }
            let length = message.send(&socket)?;
            Ok(Answer::Value(told.tell(call.tid(), length)?))
        });
        match sent {
            Ok(Answer::Value(_)) => {}
            // Those before are sent, which is told first.
            Err(_) if number > 0 => return Ok(Answer::Value(number as i64)),
            other => return other,
        }
    }
    Ok(Answer::Value(count as i64))
}

/// Sends a message, or has a thread do it when there is room for it.
fn deliver(
    step: &mut Step,
    call: &Call<'_>,
    socket: OwnedFd,
    message: Message,
    told: Told,
) -> Result<Answer, Stop> {
    let mut result = message.send(&socket);
    if result == Err(Errno::AGAIN) {
        // Nobody may be left to receive anything.
        sockets::let_go(step)?;
        result = message.send(&socket);
    }
    let is_patient = !message.flags.contains(SendFlags::DONTWAIT)
        && !fs::fcntl_getfl(&socket)?.contains(OFlags::NONBLOCK);
    match result {
        Err(Errno::AGAIN) if is_patient => wait(step, call, socket, message, told),
        Err(errno) => Err(errno.into()),
        Ok(length) => Ok(Answer::Value(told.tell(call.tid(), length)?)),
    }
}

fn wait(
    step: &mut Step,
    call: &Call<'_>,
    socket: OwnedFd,
    message: Message,
    told: Told,
) -> Result<Answer, Stop> {
    let mut listener = call.share_listener()?;
    let waiting = super::state(step)?.sockets.datagrams.waiting.clone();
    if waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
        waiting.fetch_sub(1, Ordering::AcqRel);
        return Err(Errno::AGAIN.into());
    }
    let (id, tid) = (call.notification().id, call.tid());
    let counted = waiting.clone();
    let waits = std::thread::Builder::new()
        .name("message".to_owned())
        .spawn(move || {
            match try_again(&listener, id, &socket, &message) {
                Some(Ok(length)) => match told.tell(tid, length) {
                    Ok(value) => listener.succeed(id, value),
                    Err(errno) => listener.fail(id, errno),
                },
                Some(Err(errno)) => listener.fail(id, errno),
                None => false,
            };
            counted.fetch_sub(1, Ordering::AcqRel);
        });
    if waits.is_err() {
        waiting.fetch_sub(1, Ordering::AcqRel);
        return Err(Errno::AGAIN.into());
    }
    Ok(Answer::Later)
}

/// Tries until the message is sent, or nobody waits for that any more.
fn try_again(
    listener: &Listener,
    id: u64,
    socket: &OwnedFd,
    message: &Message,
) -> Option<Result<usize, Errno>> {
    let mut pause = FIRST_WAIT;
    while listener.is_valid(id) {
        match message.send(socket) {
            Err(Errno::AGAIN) => {}
            result => return Some(result),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_WAIT);
    }
    None
}

fn destination(
    step: &mut Step,
    call: &Call<'_>,
    address: u64,
    length: u32,
) -> Result<Option<Target>, Stop> {
    if address == 0 || length == 0 {
        return Ok(None);
    }
    sockets::let_go(step)?;
    sockets::target(step, call, address, length).map(Some)
}

/// Reads the parts of a message, if it is not too large for the socket.
fn data(call: &Call<'_>, socket: &OwnedFd, parts: &[(u64, u64)]) -> Result<Vec<u8>, Stop> {
    let most = sockopt::socket_send_buffer_size(socket)? as u64;
    let mut data = Vec::new();
    for (address, length) in parts {
        if data.len() as u64 + length.min(&most) > most || *length > most {
            return Err(Errno::MSGSIZE.into());
        }
        let start = data.len();
        data.resize(start + *length as usize, 0);
        call.read(*address, &mut data[start..])?;
    }
    Ok(data)
}

/// How `struct msghdr` and what belongs to it are laid out: seven words, of which the second is narrow.
struct Layout {
    words: Words,
    /// Length of a `struct msghdr`.
    size: u64,
    /// Length of a `struct mmsghdr`, in which a number follows.
    each: u64,
}

impl Layout {
    fn of(call: &Call<'_>) -> Self {
        let (width, size, each) = if call.form() == Form::Message {
            (4, 28, 32)
        } else {
            (8, 56, 64)
        };
        Self {
            words: Words { width },
            size,
            each,
        }
    }

    fn read(&self, call: &Call<'_>, address: u64, count: usize) -> Result<Vec<u64>, Stop> {
        let mut bytes = vec![0; count * self.words.width];
        call.read(address, &mut bytes)?;
        Ok(self.words.read(&bytes).collect())
    }
}

/// Reads a `struct msghdr` and what it points to.
fn message(
    step: &mut Step,
    call: &Call<'_>,
    socket: &OwnedFd,
    (address, flags): (u64, u32),
) -> Result<Message, Stop> {
    let layout = Layout::of(call);
    let words = layout.read(call, address, 7)?;
    let [name, name_length, parts, count, control, control_length, _] = words[..] else {
        return Err(Errno::FAULT.into());
    };
    if count > MAX_PARTS {
        return Err(Errno::MSGSIZE.into());
    }
    is_plain(call, &layout, control, control_length)?;
    let parts: Vec<(u64, u64)> = layout
        .read(call, parts, 2 * count as usize)?
        .chunks_exact(2)
        .map(|part| (part[0], part[1]))
        .collect();
    Ok(Message {
        to: destination(step, call, name, name_length as u32)?,
        data: data(call, socket, &parts)?,
        flags: SendFlags::from_bits_retain(flags),
    })
}

/// Refuses what goes beside a message and cannot be taken out of the step: descriptors.  Who it is from is told by the kernel.
fn is_plain(call: &Call<'_>, layout: &Layout, control: u64, length: u64) -> Result<(), Stop> {
    if control == 0 || length == 0 {
        return Ok(());
    }
    if length > MAX_CONTROL {
        return Err(Errno::NOBUFS.into());
    }
    let mut bytes = vec![0; length as usize];
    call.read(control, &mut bytes)?;
    let width = layout.words.width;
    let credentials = [libc::SOL_SOCKET, libc::SCM_CREDENTIALS];
    let mut rest = &bytes[..];
    while rest.len() >= width + 8 {
        let length = layout.words.read(&rest[..width]).next().unwrap_or_default();
        let number = |at: usize| i32::from_ne_bytes(std::array::from_fn(|i| rest[at + i]));
        if length < width as u64 + 8 || length > rest.len() as u64 {
            return Err(Errno::INVAL.into());
        }
        if [number(width), number(width + 4)] != credentials {
            return Err(Errno::OPNOTSUPP.into());
        }
        let next = (length as usize).next_multiple_of(width);
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(())
}
