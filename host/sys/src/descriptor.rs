//! Descriptors: passing them between processes, closing them at exec, and files that are in memory only.

use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::error::{Context, SysError, SysResult};

/// Most descriptors that one message carries.
const MOST: usize = 4;

/// Makes two connected sockets that keep messages apart (`SOCK_SEQPACKET`).
pub fn message_pair() -> SysResult<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("socketpair", "AF_UNIX")
}

/// Sends one message with at most four descriptors.
pub fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> SysResult<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(SysError::new(
            "sendmsg",
            format!("{} descriptors", fds.len()),
            Errno::INVAL,
        ));
    }
    loop {
        match rustix::net::sendmsg(
            &socket,
            &[IoSlice::new(message)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Err(Errno::INTR) => {}
            other => return other.context("sendmsg", "control socket").map(drop),
        }
    }
}

/// Receives one message of at most `buffer.len()` bytes; a longer one is an error.  No bytes means that the
/// other side is gone.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> SysResult<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(Errno::INTR) => {}
            other => break other.context("recvmsg", "control socket")?,
        }
    };
    let fds = control
        .drain()
        .filter_map(|part| {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                Some(fds)
            } else {
                None
            }
        })
        .flatten()
        .collect();
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(SysError::new(
            "recvmsg",
            "a truncated message",
            Errno::MSGSIZE,
        ));
    }
    Ok((message.bytes, fds))
}

/// Has every descriptor from `first` on closed at exec.
pub fn close_at_exec_from(first: u32) -> SysResult<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now, so no owner of a descriptor is surprised.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        return Ok(());
    }
    match SysError::last("close_range", first.to_string()) {
        // Before Linux 5.11, or where a filter hides it: one by one.
        error if matches!(error.errno, Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
            close_each_at_exec(first)
        }
        error => Err(error),
    }
}

fn close_each_at_exec(first: u32) -> SysResult<()> {
    let entries = std::fs::read_dir("/proc/self/fd").context("open", "/proc/self/fd")?;
    let numbers: Vec<i32> = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    for fd in numbers.into_iter().filter(|fd| *fd >= first as i32) {
        // SAFETY: setting a flag of a descriptor does not end its life; one that is closed by now answers EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Makes a file in memory with this content, which nobody can change afterwards.
pub fn sealed_memory_file(name: &str, content: &[u8]) -> SysResult<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .context("memfd_create", name)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content).context("write", name)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).context("fcntl", name)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).context("lseek", name)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_message_carries_descriptors_and_stays_whole() {
        let (ours, theirs) = message_pair().unwrap();
        let file = sealed_memory_file("plan", b"content").unwrap();
        send(&ours, b"first", &[file.as_fd()]).unwrap();
        send(&ours, b"second", &[]).unwrap();
        let mut buffer = [0; 64];
        let (n, mut fds) = receive(&theirs, &mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"first");
        let mut text = String::new();
        std::fs::File::from(fds.pop().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "content");
        assert!(receive(&theirs, &mut [0; 2]).is_err());
        drop(ours);
        assert_eq!(receive(&theirs, &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn a_sealed_file_cannot_be_written() {
        let file = sealed_memory_file("secret", b"x").unwrap();
        assert_eq!(rustix::io::write(&file, b"y"), Err(Errno::PERM));
    }
}
