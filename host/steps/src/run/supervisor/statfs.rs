//! statfs(2) and fstatfs(2): grafts say that they are what they stand for, since programs ask whether `/proc` is
//! mounted by the type of its file system.

use std::sync::atomic::Ordering;

use rustix::fs;
use rustix::io::Errno;
use stepwell_sys::resolve;

use super::call::{Answer, Call, Stop};
use super::nodes::{HostFile, Node, open_host};
use super::path::{AT_FDCWD, Place, in_graft, locate};
use super::step::Step;
use crate::run::narrow::Form;
use crate::run::rooms::Told;

// Types of file systems (statfs(2), include/uapi/linux/magic.h).
const PROC: u64 = 0x9fa0;
const SYSFS: u64 = 0x6265_6572;
const TMPFS: u64 = 0x0102_1994;

/// statfs(path, buffer)
pub fn statfs(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let place = match locate(step, call, AT_FDCWD, &call.path(0)?, true)? {
        Place::Graft(place) => place,
        Place::Tree(place) if place.handle.is_ok() => {
            return match room(step, &place.path) {
                Some(room) => answer_room(call, room),
                None => Ok(Answer::CarryOn),
            };
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
    let Some(inside) = target
        .ok()
        .and_then(|target| step.inside(&target).map(<[u8]>::to_vec))
    else {
        return Ok(Answer::CarryOn);
    };
    if let Some(room) = room(step, &inside) {
        return answer_room(call, room);
    }
    match &inside[..] {
        // Of `/dev`, a step may have real files open.
        inside if in_graft(inside) && !inside.starts_with(b"/dev/") => answer(call, kind(inside)),
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

/// Returns the room that a path of the tree lies in: of all that is mounted above it, it is the nearest.
fn room<'a>(step: &'a Step, path: &[u8]) -> Option<&'a Told> {
    let above = |mount: &[u8]| {
        path.strip_prefix(mount)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    let room = step
        .rooms
        .iter()
        .filter(|room| above(&room.path))
        .max_by_key(|room| room.path.len())?;
    let is_nearer = |path: &[u8]| above(path) && path.len() > room.path.len();
    let mut mounts = step.mount_points.iter();
    (!mounts.any(|mount| is_nearer(&mount.path))).then_some(room)
}

/// Fills a `struct statfs` for a room, with what was in it when it was last looked at.
fn answer_room(call: &Call<'_>, room: &Told) -> Result<Answer, Stop> {
    let used = room.used.load(Ordering::Relaxed).min(room.size);
    answer_sized(call, TMPFS, room.size, room.size - used)
}

/// Fills a `struct statfs` for a file system without blocks.
fn answer(call: &Call<'_>, kind: u64) -> Result<Answer, Stop> {
    answer_sized(call, kind, 0, 0)
}

/// Fills a `struct statfs` for a file system with so many bytes, of which so many are free.
fn answer_sized(call: &Call<'_>, kind: u64, bytes: u64, free: u64) -> Result<Answer, Stop> {
    const BLOCK: u64 = 4096;
    const NAME_LENGTH: u64 = 255;
    let (blocks, free) = (bytes / BLOCK, free / BLOCK);
    let words = [
        kind,
        BLOCK,
        blocks,
        free,
        free,
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
