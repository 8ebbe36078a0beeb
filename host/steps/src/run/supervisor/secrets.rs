//! Files whose content is in memory only: secrets of `RUN --mount=type=secret`.
//!
//! In the tree stands an empty file; who opens it gets a memory file, who looks at it sees its size.  The file is known by
//! its inode, so whatever path leads to it.  Each time it is opened there is a new memory file, so that what one process
//! does to it (nothing can be written, but there are modes and positions) is not seen by others.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Statx, Uid};
use rustix::io::Errno;
use stepwell_sys::descriptor;
use stepwell_sys::meta::InodeId;

use super::call::Call;
use super::open::{OpenHow, reopen};
use super::step::Step;
use crate::run::mounts::{Owner, SecretFile};

/// The capability to read any file (capabilities(7)).
const DAC_OVERRIDE: u32 = 1;

/// Opens a secret; none where the handle is of another file.
///
/// # Errors
/// `EROFS` for writing, `EACCES` where the caller has no right to read.
pub fn open(
    step: &Step,
    call: &Call<'_>,
    handle: &OwnedFd,
    how: OpenHow,
) -> Result<Option<OwnedFd>, Errno> {
    let Some(secret) = find(step, handle) else {
        return Ok(None);
    };
    if how.exclusive() {
        return Err(Errno::EXIST);
    }
    if how.writes() {
        return Err(Errno::ROFS);
    }
    if how.flags.contains(OFlags::DIRECTORY) {
        return Err(Errno::NOTDIR);
    }
    if !may_read(step, call.tid(), secret.owner) {
        return Err(Errno::ACCESS);
    }
    let memory = descriptor::sealed_memory_file("secret", secret.content.reveal())
        .map_err(|error| error.errno)?;
    if !step.keeps_owners() {
        let (uid, gid) = (secret.owner.uid, secret.owner.gid);
        fs::fchown(&memory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fs::fchmod(&memory, Mode::from_raw_mode(secret.owner.mode))?;
    // The builder may read whatever the mode says: it made the file.
    reopen(memory.as_fd(), OFlags::RDONLY).map(Some)
}

/// Looks at a secret; none where the handle is of another file.
pub fn stat(step: &Step, handle: &OwnedFd) -> Option<Statx> {
    let secret = find(step, handle)?;
    let mask = InodeId::STATX | fs::StatxFlags::MNT_ID;
    let mut stat = fs::statx(handle, c"", AtFlags::EMPTY_PATH, mask).ok()?;
    stat.stx_mode = (stat.stx_mode & !0o7777) | secret.owner.mode as u16 & 0o7777;
    (stat.stx_uid, stat.stx_gid) = (secret.owner.uid, secret.owner.gid);
    stat.stx_size = secret.content.reveal().len() as u64;
    stat.stx_blocks = stat.stx_size.div_ceil(512);
    Some(stat)
}

fn find<'a>(step: &'a Step, handle: &OwnedFd) -> Option<&'a SecretFile> {
    if step.secrets.is_empty() {
        return None;
    }
    let stat = fs::statx(handle, c"", AtFlags::EMPTY_PATH, InodeId::STATX).ok()?;
    let inode = InodeId::of(&stat);
    let same_device = (stat.stx_dev_major, stat.stx_dev_minor) == step.device;
    step.secrets
        .iter()
        .find(|secret| same_device && secret.inode == inode)
}

/// What of a process decides whether it may read.
struct Reader {
    uid: u32,
    groups: Vec<u32>,
    any: bool,
}

fn may_read(step: &Step, tid: u32, owner: Owner) -> bool {
    let Some(reader) = reader(step, tid) else {
        return false;
    };
    let right = if reader.uid == owner.uid {
        0o400
    } else if reader.groups.contains(&owner.gid) {
        0o040
    } else {
        0o004
    };
    reader.any || owner.mode & right != 0
}

fn reader(step: &Step, tid: u32) -> Option<Reader> {
    if step.emulates() {
        let identity = step.identity(tid);
        let mut groups = identity.groups.to_vec();
        groups.push(identity.gid.fs);
        return Some(Reader {
            uid: identity.uid.fs,
            groups,
            any: identity.can(DAC_OVERRIDE),
        });
    }
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let numbers = |text: &str| -> Vec<u32> {
        text.split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    };
    let mut groups = numbers(line("Groups")?);
    // Real, effective, saved and that of the file system (proc_pid_status(5)).
    groups.push(*numbers(line("Gid")?).get(3)?);
    let effective = u64::from_str_radix(line("CapEff")?.trim(), 16).ok()?;
    Some(Reader {
        uid: *numbers(line("Uid")?).get(3)?,
        groups,
        any: effective & (1 << DAC_OVERRIDE) != 0,
    })
}
