//! What an execve(2) comes down to: the kernel's rules for `#!` lines and dynamic linkers, with every path resolved
//! beneath the tree's root.
//!
//! It changes nothing; [`super::exec`] has the kernel execute what is found here.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{self, FileType, OFlags};
use rustix::io::Errno;

use super::super::call::{Call, Stop};
use super::super::nodes::{self, Magic, Node};
use super::super::path::{GraftPlace, Place, TreePlace, locate};
use super::super::step::Step;
use super::attributes::path_inside;
use super::elf::{Elf, HEAD};
use super::ways;

/// How many interpreters of interpreters there may be (the kernel's limit).
const MAX_NESTING: usize = 5;

/// Longest `#!` line (`BINPRM_BUF_SIZE`).
const MAX_LINE: usize = 256;

/// What is to be executed.
#[derive(Debug)]
pub struct Found {
    /// The program.
    pub file: Arc<OwnedFd>,
    /// Its headers.
    pub elf: Elf,
    /// Its dynamic linker.
    pub linker: Option<(OwnedFd, Elf)>,
    /// Arguments that take the place of the first one.
    pub prefix: Vec<Vec<u8>>,
    /// The path that was asked for.
    pub name: Vec<u8>,
}

/// Finds out what a call executes.
///
/// # Errors
/// What the kernel would answer.
pub fn find(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    flags: u32,
) -> Result<Found, Errno> {
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW as u32 == 0;
    if path.is_empty() && flags & libc::AT_EMPTY_PATH as u32 == 0 {
        return Err(Errno::NOENT);
    }
    let (mut file, meant) = executable(step, call, dirfd, path, follow)?;
    let name = match meant {
        // As in the other tiers, where the kernel is given what `/proc/self/exe` stands for.
        Some(text) => text,
        None if path.is_empty() => format!("/dev/fd/{dirfd}").into_bytes(),
        None => path.to_vec(),
    };
    let mut prefix: Vec<Vec<u8>> = Vec::new();
    for _ in 0..=MAX_NESTING {
        let head = head_of(step, &file)?;
        let Some((interpreter, argument)) = script(&head)? else {
            return program(step, call, file, &head, prefix, name);
        };
        let script = prefix.first().cloned().unwrap_or_else(|| name.clone());
        let mut front = vec![interpreter.clone()];
        front.extend(argument);
        front.push(script);
        front.extend(prefix.into_iter().skip(1));
        prefix = front;
        (file, _) = executable(step, call, libc::AT_FDCWD, &interpreter, true)?;
    }
    Err(Errno::LOOP)
}

fn program(
    step: &mut Step,
    call: &Call<'_>,
    file: OwnedFd,
    head: &[u8],
    prefix: Vec<Vec<u8>>,
    name: Vec<u8>,
) -> Result<Found, Errno> {
    let elf = Elf::parse(head).ok_or(Errno::NOEXEC)?;
    let linker = match &elf.interpreter {
        None => None,
        Some(path) => {
            let (file, _) = executable(step, call, libc::AT_FDCWD, path, true)?;
            let head = head_of(step, &file)?;
            let linker = Elf::parse(&head).filter(|linker| {
                linker.relocatable && linker.interpreter.is_none() && linker.narrow == elf.narrow
            });
            Some((file, linker.ok_or(Errno::from_raw_os_error(libc::ELIBBAD))?))
        }
    };
    Ok(Found {
        file: Arc::new(file),
        elf,
        linker,
        prefix,
        name,
    })
}

/// Opens a handle on a file that may be executed; tells the path where it was named by a link of `/proc`.
fn executable(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    follow: bool,
) -> Result<(OwnedFd, Option<Vec<u8>>), Errno> {
    let mut meant = None;
    let handle = match locate(step, call, dirfd, path, follow) {
        Ok(Place::Descriptor(fd)) => ways::descriptor(call, fd)?,
        Ok(Place::Graft(GraftPlace {
            node: Node::Magic(Magic { link, text, .. }),
            ..
        })) => {
            meant = Some(text).filter(|text| text.starts_with(b"/"));
            nodes::follow(step, &link)?
        }
        Ok(Place::Graft(GraftPlace {
            node: Node::Missing,
            ..
        })) => return Err(Errno::NOENT),
        Ok(Place::Graft(GraftPlace {
            node: Node::Native, ..
        })) => ways::inode(step, call, dirfd, path, follow)?,
        Ok(Place::Graft(_)) => return Err(Errno::ACCESS),
        Ok(Place::Tree(TreePlace {
            handle: Ok(handle), ..
        })) => handle,
        Ok(Place::Tree(TreePlace {
            handle: Err(Errno::ACCESS),
            ..
        }))
        | Err(Stop::CarryOn) => ways::inode(step, call, dirfd, path, follow)?,
        Ok(Place::Tree(TreePlace {
            handle: Err(errno), ..
        }))
        | Err(Stop::Fail(errno)) => return Err(errno),
    };
    let stat = fs::fstat(&handle)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_mode & 0o111 != 0 => Ok((handle, meant)),
        FileType::Symlink => Err(Errno::LOOP),
        _ => Err(Errno::ACCESS),
    }
}

/// Opens a file of the tree for reading, whatever its mode, as the kernel does to execute it.
///
/// # Errors
/// What the file system answers.
pub fn readable(step: &Step, file: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = || fs::open(ways::own_link(file), flags, fs::Mode::empty());
    let opened = match open() {
        Err(Errno::ACCESS) if path_inside(step, file).is_some() => {
            let mut modes = ways::Opened::default();
            modes.open(file.as_fd());
            open()
        }
        other => other,
    }?;
    fs::fcntl_setfl(&opened, OFlags::empty())?;
    Ok(opened)
}

fn head_of(step: &Step, file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let file = File::from(readable(step, file)?);
    let mut head = vec![0; HEAD];
    let mut length = 0;
    while length < head.len() {
        match file.read_at(&mut head[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    head.truncate(length);
    Ok(head)
}

/// An interpreter and its argument.
type Script = (Vec<u8>, Option<Vec<u8>>);

/// Reads a `#!` line as the kernel does (fs/binfmt_script.c): interpreter, and at most one argument.
fn script(head: &[u8]) -> Result<Option<Script>, Errno> {
    let Some(rest) = head
        .get(..head.len().min(MAX_LINE))
        .and_then(|h| h.strip_prefix(b"#!"))
    else {
        return Ok(None);
    };
    let blank = |byte: &u8| b" \t".contains(byte);
    let end = rest.iter().position(|byte| *byte == b'\n');
    let line = &rest[..end.unwrap_or(rest.len())];
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let line = line.trim_ascii_start();
    let stop = line.iter().position(blank).unwrap_or(line.len());
    let (name, argument) = (&line[..stop], line[stop..].trim_ascii());
    let cut_off = end.is_none() && head.len() >= MAX_LINE && stop == line.len();
    if name.is_empty() || cut_off {
        return Err(Errno::NOEXEC);
    }
    let argument = (!argument.is_empty()).then(|| argument.to_vec());
    Ok(Some((name.to_vec(), argument)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_lines_are_read_as_the_kernel_does() {
        let read = |head: &[u8]| {
            script(head).map(|found| {
                found.map(|(name, argument)| {
                    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
                    (text(name), argument.map(text))
                })
            })
        };
        let found = |name: &str, argument: Option<&str>| {
            Ok(Some((name.to_owned(), argument.map(str::to_owned))))
        };
        assert_eq!(read(b"#!/bin/sh\necho"), found("/bin/sh", None));
        assert_eq!(
            read(b"#! /usr/bin/env  -S a b \t\n"),
            found("/usr/bin/env", Some("-S a b"))
        );
        assert_eq!(read(b"#!/bin/sh"), found("/bin/sh", None));
        assert_eq!(read(b"#!\n"), Err(Errno::NOEXEC));
        assert_eq!(
            read(&[b"#!/".to_vec(), vec![b'x'; 400]].concat()),
            Err(Errno::NOEXEC)
        );
        assert_eq!(read(b"\x7fELF"), Ok(None));
    }
}
