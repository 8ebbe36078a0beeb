//! Memory of another process: what the arguments of its system calls point to (process_vm_readv(2)), and the
//! tag by which a process and all it forks are told apart (prlimit(2)).
//!
//! Addresses and lengths come from the other process and are not believed: every read is bounded, and an
//! address that is not mapped is an error, never a fault of ours.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use crate::error::{Context, SysError, SysResult};

/// Longest path that a system call takes, with its terminating zero (`PATH_MAX`).
pub const MAX_PATH: usize = 4096;

/// Every architecture's page size is a multiple of this.
const PAGE: u64 = 4096;

/// What the first read takes at most: paths are short, and a page has to be copied only rarely.
const FIRST_READ: usize = 256;

/// Reads a string that ends in a zero byte, of at most `max` bytes with it.
///
/// # Errors
/// `EFAULT` where there is no memory, `ENAMETOOLONG` where no zero comes, `ESRCH` where nobody is.
pub fn read_string(tid: u32, address: u64, max: usize) -> SysResult<Vec<u8>> {
    let mut text = Vec::new();
    while text.len() < max {
        let at = address.wrapping_add(text.len() as u64);
        let to_page_end = (PAGE - at % PAGE) as usize;
        let first = if text.is_empty() {
            FIRST_READ
        } else {
            MAX_PATH
        };
        let want = to_page_end.min(first).min(max - text.len());
        let start = text.len();
        text.resize(start + want, 0);
        let got = transfer_in(tid, at, &mut text[start..])?;
        if let Some(zero) = text[start..start + got].iter().position(|byte| *byte == 0) {
            text.truncate(start + zero);
            return Ok(text);
        }
        text.truncate(start + got);
    }
    Err(SysError::new(
        "process_vm_readv",
        format!("string of {tid}"),
        Errno::NAMETOOLONG,
    ))
}

/// Fills `buffer` from `address`.
///
/// # Errors
/// As [`read_string`]; a part that is not mapped is `EFAULT`.
pub fn read(tid: u32, address: u64, buffer: &mut [u8]) -> SysResult<()> {
    let want = buffer.len();
    let got = if want == 0 {
        0
    } else {
        transfer_in(tid, address, buffer)?
    };
    complete("process_vm_readv", tid, got, want)
}

/// Writes `bytes` to `address`.
///
/// # Errors
/// `EFAULT` where the memory is not there or not writable.
pub fn write(tid: u32, address: u64, bytes: &[u8]) -> SysResult<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel only reads the local buffer, which is as long as it is told; the remote address is
    // checked by the kernel and is not ours.
    let got = unsafe {
        libc::process_vm_writev(tid as i32, &raw const local, 1, &raw const remote, 1, 0)
    };
    let got =
        usize::try_from(got).map_err(|_| SysError::last("process_vm_writev", format!("{tid}")))?;
    complete("process_vm_writev", tid, got, bytes.len())
}

/// Writes `bytes` to `address` even where the process itself may only read (its constants).
///
/// # Errors
/// `EFAULT` and the like.
pub fn write_forced(tid: u32, address: u64, bytes: &[u8]) -> SysResult<()> {
    let path = format!("/proc/{tid}/mem");
    let memory = OpenOptions::new()
        .write(true)
        .open(&path)
        .context("open", path.as_str())?;
    memory.write_all_at(bytes, address).context("pwrite", path)
}

fn transfer_in(tid: u32, address: u64, buffer: &mut [u8]) -> SysResult<usize> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: buffer.len(),
    };
    // SAFETY: the kernel writes at most the length of the local buffer into it; the remote address is checked
    // by the kernel and is not ours.
    let got =
        unsafe { libc::process_vm_readv(tid as i32, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(got).map_err(|_| SysError::last("process_vm_readv", format!("{tid}")))
}

fn complete(call: &'static str, tid: u32, got: usize, want: usize) -> SysResult<()> {
    if got == want {
        Ok(())
    } else {
        Err(SysError::new(call, format!("{tid}"), Errno::FAULT))
    }
}

/// The number that tag 0 stands for: far above any time that a program could be limited to.
const TAG_BASE: u64 = 1 << 61;

/// How many tags there are.
pub const MAX_TAG: u64 = 1 << 32;

/// Reads the tag of a process.
///
/// A tag is a number that the kernel copies at fork(2), keeps at execve(2) and shares between the threads of
/// a process, so that whoever wants to know what a process inherited need not follow forks.  It is kept in the
/// soft limit of `RLIMIT_RTTIME`, which limits nothing but real-time threads, and those by milliseconds.
///
/// # Errors
/// `ESRCH` where nobody is, `EPERM` where the process is not ours.
pub fn tag(tid: u32) -> SysResult<Option<u64>> {
    let limit = realtime_limit(tid)?;
    let tag = limit.rlim_cur.checked_sub(TAG_BASE);
    Ok(tag.filter(|tag| *tag < MAX_TAG))
}

/// Tags a process and all that it will fork.
///
/// # Errors
/// As [`tag`]; `EINVAL` where the hard limit is lower than any tag, `ERANGE` from [`MAX_TAG`] on.
pub fn set_tag(tid: u32, tag: u64) -> SysResult<()> {
    let subject = || format!("{tid}");
    if tag >= MAX_TAG {
        return Err(SysError::new("prlimit", subject(), Errno::RANGE));
    }
    // The hard limit stays: to raise it again takes a privilege on the machine.
    let limit = libc::rlimit64 {
        rlim_cur: TAG_BASE + tag,
        ..realtime_limit(tid)?
    };
    let nowhere = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the kernel reads `limit` and is told to write nothing.
    let result =
        unsafe { libc::prlimit64(tid as i32, libc::RLIMIT_RTTIME, &raw const limit, nowhere) };
    if result == 0 {
        Ok(())
    } else {
        Err(SysError::last("prlimit", subject()))
    }
}

fn realtime_limit(tid: u32) -> SysResult<libc::rlimit64> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let nothing = std::ptr::null::<libc::rlimit64>();
    // SAFETY: no new limit is given; the kernel writes the old one to `limit`, which outlives the call.
    let result =
        unsafe { libc::prlimit64(tid as i32, libc::RLIMIT_RTTIME, nothing, &raw mut limit) };
    if result == 0 {
        Ok(limit)
    } else {
        Err(SysError::last("prlimit", format!("{tid}")))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn reads_and_writes_what_is_there_and_nothing_else() {
        let me = std::process::id();
        let text = b"/a/path\0tail".to_vec();
        let address = text.as_ptr() as u64;
        assert_eq!(read_string(me, address, 64).expect("string"), b"/a/path");
        assert_eq!(
            read_string(me, address, 4).expect_err("no zero").errno,
            Errno::NAMETOOLONG
        );
        let mut head = [0; 4];
        read(me, address, &mut head).expect("read");
        assert_eq!(&head, b"/a/p");
        let target = vec![b'x'; 3];
        write(me, target.as_ptr() as u64, b"abc").expect("write");
        assert_eq!(std::hint::black_box(&target), b"abc");
        for bad in [0, 8, u64::MAX - 2, 1 << 63] {
            assert_eq!(
                read_string(me, bad, 64).expect_err("unmapped").errno,
                Errno::FAULT,
                "{bad:#x}"
            );
            assert_eq!(
                write(me, bad, b"abc").expect_err("unmapped").errno,
                Errno::FAULT,
                "{bad:#x}"
            );
        }
    }

    #[test]
    fn a_tag_is_inherited() {
        let mut child = Command::new("sh")
            .args(["-c", "read x; sleep 30 & echo $!; read x; kill $!"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        assert_eq!(tag(child.id()).expect("tag"), None);
        set_tag(child.id(), 41).expect("set");
        assert_eq!(tag(child.id()).expect("tag"), Some(41));
        assert_eq!(
            set_tag(child.id(), MAX_TAG).expect_err("too large").errno,
            Errno::RANGE
        );
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(b"\n").expect("write");
        let mut grandchild = String::new();
        let stdout = child.stdout.take().expect("stdout");
        BufReader::new(stdout)
            .read_line(&mut grandchild)
            .expect("read");
        let grandchild = grandchild.trim().parse().expect("pid");
        assert_eq!(
            tag(grandchild).expect("tag"),
            Some(41),
            "forked and executed"
        );
        stdin.write_all(b"\n").expect("write");
        child.wait().expect("wait");
    }
}
