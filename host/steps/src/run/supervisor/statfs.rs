//! statfs(2) and fstatfs(2): grafts say that they are what they stand for, since programs ask whether `/proc` is
//! mounted by the type of its file system.

use rustix::fs;
use rustix::io::Errno;
use stepwell_sys::resolve;

use super::call::{Answer, Call, Stop};
use super::nodes::{HostFile, Node, open_host};
use super::path::{AT_FDCWD, Place, in_graft, locate};
use super::step::Step;
use crate::run::narrow::Form;

// Types of file systems (statfs(2), include/uapi/linux/magic.h).
const PROC: u64 = 0x9fa0;
const SYSFS: u64 = 0x6265_6572;
const TMPFS: u64 = 0x0102_1994;

/// statfs(path, buffer)
pub fn statfs(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let place = match locate(step, call, AT_FDCWD, &call.path(0)?, true)? {
        Place::Graft(place) => place,
        Place::Tree(place) if is_shared_memory(&place.path) && place.handle.is_ok() => {
            return answer_sized(call, TMPFS, step.shm_size);
        }
        _ => return Ok(Answer::CarryOn),
    };
    match &place.node {
        Node::Native => Ok(Answer::CarryOn),
        Node::Missing => Err(Errno::NOENT.into()),
        Node::File(HostFile { within, path, .. }) => {
            let file = open_host(step, *within, path, fs::OFlags::PATH)?;
            answer(call, fs::fstatfs(&file)?.f_type as u64)
        }
        _ => answer(call, kind(&place.path)),
    }
}

/// fstatfs(fd, buffer)
pub fn fstatfs(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let target = resolve::read_magic(&step.descriptor_link(call.tid(), call.int(0)));
    match target
        .ok()
        .as_deref()
        .and_then(|target| step.inside(target))
    {
        Some(inside) if is_shared_memory(inside) => answer_sized(call, TMPFS, step.shm_size),
        // Of `/dev`, a step may have real files open.
        Some(inside) if in_graft(inside) && !inside.starts_with(b"/dev/") => {
            answer(call, kind(inside))
        }
        _ => Ok(Answer::CarryOn),
    }
}

fn kind(path: &[u8]) -> u64 {
    match path.get(1..4) {
        Some(b"pro") => PROC,
        Some(b"sys") => SYSFS,
        _ => TMPFS,
    }
}

/// `/dev/shm` is a directory like any other; its size is what was asked for, and is told, but not kept.
fn is_shared_memory(path: &[u8]) -> bool {
    path.strip_prefix(b"/dev/shm")
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Fills a `struct statfs` for a file system without blocks.
fn answer(call: &Call<'_>, kind: u64) -> Result<Answer, Stop> {
    answer_sized(call, kind, 0)
}

/// Fills a `struct statfs` for a file system that is empty.
fn answer_sized(call: &Call<'_>, kind: u64, bytes: u64) -> Result<Answer, Stop> {
    const BLOCK: u64 = 4096;
    const NAME_LENGTH: u64 = 255;
    let blocks = bytes / BLOCK;
    let words = [
        kind,
        BLOCK,
        blocks,
        blocks,
        blocks,
        0,
        0,
        0,
        NAME_LENGTH,
        BLOCK,
        0,
    ];
    give_statfs(call, words)
}

/// Fills a `struct statfs` (the same on all 64-bit architectures): type and block size; blocks and inodes (five numbers),
/// identity; longest name, fragment size, flags.
///
/// # Errors
/// `EOVERFLOW` where a 32-bit program's has no room for a number.
pub fn give_statfs(call: &Call<'_>, words: [u64; 11]) -> Result<Answer, Stop> {
    // How many bytes each word has, and all of them with the room behind (arch/x86/include/asm/compat.h for 32-bit programs).
    let (widths, size) = match call.form() {
        Form::Statfs => ([4, 4, 4, 4, 4, 4, 4, 8, 4, 4, 4], 64),
        Form::Statfs64 => ([4, 4, 8, 8, 8, 8, 8, 8, 4, 4, 4], 84),
        _ => ([8; 11], 120),
    };
    let mut out = Vec::with_capacity(size);
    for (word, width) in words.into_iter().zip(widths) {
        if width == 4 && word > u32::MAX.into() {
            return Err(Errno::OVERFLOW.into());
        }
        out.extend(&word.to_le_bytes()[..width]);
    }
    out.resize(size, 0);
    call.write(call.arg(1), &out)?;
    Ok(Answer::Value(0))
}
