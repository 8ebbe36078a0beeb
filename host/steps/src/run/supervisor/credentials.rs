//! Calls about a process's own ids and privileges, while ids are emulated.  The rules are in [`super::identity`].

use rustix::io::Errno;
use stepwell_sys::memory;

use super::call::{Answer, Call, Stop};
use super::identity::{Identity, MAX_GROUPS};
use super::step::Step;
#[cfg(target_arch = "x86_64")]
use crate::run::narrow::Form;

/// Carries out a change of the caller's identity.
fn change(
    step: &mut Step,
    call: &Call<'_>,
    change: impl FnOnce(&mut Identity) -> Result<(), Errno>,
) -> Result<Answer, Stop> {
    let old = step.identity(call.tid());
    let mut new = (*old).clone();
    change(&mut new)?;
    become_identity(step, call, &old, new)?;
    Ok(Answer::Value(0))
}

/// Gives the caller, and all that it will fork, another identity.
///
/// # Errors
/// `EAGAIN` when a step has made up too many.
pub fn become_identity(
    step: &mut Step,
    call: &Call<'_>,
    old: &Identity,
    new: Identity,
) -> Result<(), Stop> {
    if new == *old {
        return Ok(());
    }
    let number = step.identities.number(new)?;
    call.check()?;
    memory::set_tag(call.tid(), number).map_err(|error| Stop::Fail(error.errno))
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident => $kind:ident . $which:ident;)*) => {
        $($(#[$doc])* pub fn $name(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
            // The kernel says the same as long as everybody is root.
            if step.identities.only_root() && step.mediated.is_none() {
                return Ok(Answer::CarryOn);
            }
            Ok(Answer::Value(call.form().id(step.identity(call.tid()).$kind.$which).into()))
        })*
    };
}

getters! {
    /// getuid()
    getuid => uid.real;
    /// geteuid()
    geteuid => uid.effective;
    /// getgid()
    getgid => gid.real;
    /// getegid()
    getegid => gid.effective;
}

/// getresuid(real, effective, saved)
pub fn getresuid(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    give_three(call, step.identity(call.tid()).uid)
}

/// getresgid(real, effective, saved)
pub fn getresgid(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    give_three(call, step.identity(call.tid()).gid)
}

fn give_three(call: &Call<'_>, four: super::identity::Four) -> Result<Answer, Stop> {
    for (index, id) in [four.real, four.effective, four.saved]
        .into_iter()
        .enumerate()
    {
        call.write(call.arg(index), &call.form().id_bytes(id))?;
    }
    Ok(Answer::Value(0))
}

/// setuid(uid)
pub fn setuid(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(step, call, |it| it.setuid(call.uint(0)))
}

/// setgid(gid)
pub fn setgid(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(step, call, |it| it.setgid(call.uint(0)))
}

/// setreuid(real, effective)
pub fn setreuid(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(step, call, |it| it.setreuid(call.uint(0), call.uint(1)))
}

/// setregid(real, effective)
pub fn setregid(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(step, call, |it| it.setregid(call.uint(0), call.uint(1)))
}

/// setresuid(real, effective, saved)
pub fn setresuid(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(step, call, |it| {
        it.setresuid([0, 1, 2].map(|index| call.uint(index)))
    })
}

/// setresgid(real, effective, saved)
pub fn setresgid(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(step, call, |it| {
        it.setresgid([0, 1, 2].map(|index| call.uint(index)))
    })
}

/// setfsuid(uid)
pub fn setfsuid(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let old = call.form().id(step.identity(call.tid()).uid.fs);
    change(step, call, |it| {
        it.setfsuid(call.uint(0));
        Ok(())
    })?;
    Ok(Answer::Value(old.into()))
}

/// setfsgid(gid)
pub fn setfsgid(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let old = call.form().id(step.identity(call.tid()).gid.fs);
    change(step, call, |it| {
        it.setfsgid(call.uint(0));
        Ok(())
    })?;
    Ok(Answer::Value(old.into()))
}

/// getgroups(size, list)
pub fn getgroups(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let identity = step.identity(call.tid());
    let (count, size) = (identity.groups.len(), call.int(0));
    if size < 0 || (size > 0 && (size as usize) < count) {
        return Err(Errno::INVAL.into());
    }
    if size > 0 {
        let bytes: Vec<u8> = identity
            .groups
            .iter()
            .flat_map(|group| call.form().id_bytes(*group))
            .collect();
        call.write(call.arg(1), &bytes)?;
    }
    Ok(Answer::Value(count as i64))
}

/// setgroups(size, list)
pub fn setgroups(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let size = call.uint(0) as usize;
    if size > MAX_GROUPS {
        return Err(Errno::INVAL.into());
    }
    let mut bytes = vec![0; size * call.form().id_size()];
    call.read(call.arg(1), &mut bytes)?;
    let groups = call.form().ids(&bytes);
    change(step, call, |it| it.setgroups(groups))
}

/// Versions of the structures of capget(2); the first has room for 32 capabilities, the others for 64.
const CAP_VERSION_1: u32 = 0x1998_0330;
const CAP_VERSION_2: u32 = 0x2007_1026;
const CAP_VERSION_3: u32 = 0x2008_0522;

/// Reads the head of capget(2) and capset(2): how many words there are, and whose they are.
fn cap_header(call: &Call<'_>) -> Result<(usize, u32), Stop> {
    let mut header = [0; 8];
    call.read(call.arg(0), &mut header)?;
    let version = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
    let pid = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    match version {
        CAP_VERSION_1 => Ok((1, pid)),
        CAP_VERSION_2 | CAP_VERSION_3 => Ok((2, pid)),
        // The kernel writes the version that it likes.
        _ => Err(Stop::CarryOn),
    }
}

/// capget(header, data)
pub fn capget(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let (words, pid) = cap_header(call)?;
    if call.arg(1) == 0 {
        return Ok(Answer::CarryOn);
    }
    let outer = if pid == 0 {
        Some(call.tid())
    } else {
        step.pids.outer(pid)
    };
    let caps = step.identity(outer.ok_or(Errno::SRCH)?).caps;
    let mut bytes = Vec::new();
    for word in 0..words {
        for set in [caps.effective, caps.permitted, caps.inheritable] {
            bytes.extend(((set >> (32 * word)) as u32).to_ne_bytes());
        }
    }
    call.write(call.arg(1), &bytes)?;
    Ok(Answer::Value(0))
}

/// capset(header, data)
pub fn capset(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let (words, _) = cap_header(call)?;
    let mut bytes = vec![0; words * 12];
    call.read(call.arg(1), &mut bytes)?;
    let mut sets = [0_u64; 3];
    for (index, b) in bytes.chunks_exact(4).enumerate() {
        let word = u64::from(u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        sets[index % 3] |= word << (32 * (index / 3));
    }
    let [effective, permitted, inheritable] = sets;
    change(step, call, |it| {
        let raises = permitted & !it.caps.permitted != 0;
        if raises || effective & !permitted != 0 {
            return Err(Errno::PERM);
        }
        (it.caps.effective, it.caps.permitted, it.caps.inheritable) =
            (effective, permitted, inheritable);
        it.caps.ambient &= permitted & inheritable;
        Ok(())
    })
}

/// prctl(option, …), those options that are about privileges
pub fn prctl(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    const CAP_AMBIENT_IS_SET: u64 = 1;
    const CAP_AMBIENT_RAISE: u64 = 2;
    const CAP_AMBIENT_LOWER: u64 = 3;
    const CAP_AMBIENT_CLEAR_ALL: u64 = 4;
    let identity = step.identity(call.tid());
    let bit = |index: usize| 1_u64.checked_shl(call.uint(index)).unwrap_or(0);
    let known = |index: usize| call.arg(index) <= 40;
    match call.int(0) {
        libc::PR_GET_KEEPCAPS => Ok(Answer::Value(identity.keep_caps.into())),
        libc::PR_SET_KEEPCAPS => change(step, call, |it| {
            it.keep_caps = call.arg(1) != 0;
            Ok(())
        }),
        libc::PR_CAPBSET_READ if known(1) => {
            Ok(Answer::Value((identity.caps.bounding & bit(1) != 0).into()))
        }
        libc::PR_CAPBSET_DROP if known(1) => change(step, call, |it| {
            it.caps.bounding &= !bit(1);
            Ok(())
        }),
        libc::PR_GET_SECUREBITS => Ok(Answer::Value(identity.securebits.into())),
        libc::PR_SET_SECUREBITS => change(step, call, |it| {
            it.securebits = call.uint(1);
            Ok(())
        }),
        libc::PR_GET_NO_NEW_PRIVS => Ok(Answer::Value(identity.no_new_privs.into())),
        libc::PR_SET_NO_NEW_PRIVS if call.arg(1) == 1 => change(step, call, |it| {
            it.no_new_privs = true;
            Ok(())
        }),
        libc::PR_CAP_AMBIENT => match call.arg(1) {
            CAP_AMBIENT_IS_SET => Ok(Answer::Value((identity.caps.ambient & bit(2) != 0).into())),
            CAP_AMBIENT_RAISE => change(step, call, |it| {
                if it.caps.permitted & it.caps.inheritable & bit(2) == 0 {
                    return Err(Errno::PERM);
                }
                it.caps.ambient |= bit(2);
                Ok(())
            }),
            CAP_AMBIENT_LOWER => change(step, call, |it| {
                it.caps.ambient &= !bit(2);
                Ok(())
            }),
            CAP_AMBIENT_CLEAR_ALL => change(step, call, |it| {
                it.caps.ambient = 0;
                Ok(())
            }),
            _ => Err(Errno::INVAL.into()),
        },
        _ => Err(Errno::INVAL.into()),
    }
}

/// What is shown as the limit that holds the tags: none.
const UNLIMITED: [u8; 16] = [0xff; 16];

/// The same as the oldest 32-bit programs know it.
#[cfg(target_arch = "x86_64")]
const OLD_UNLIMITED: &[u8] = &[0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f];

/// prlimit64(pid, RLIMIT_RTTIME, new, old)
pub fn prlimit(_: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    if call.uint(1) != libc::RLIMIT_RTTIME {
        return Ok(Answer::CarryOn);
    }
    if call.arg(3) != 0 {
        call.write(call.arg(3), &UNLIMITED)?;
    }
    Ok(Answer::Value(0))
}

/// getrlimit(RLIMIT_RTTIME, old)
#[cfg(target_arch = "x86_64")]
pub fn getrlimit(_: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let bytes = match call.form() {
        Form::Limit => &UNLIMITED[..8],
        Form::OldLimit => OLD_UNLIMITED,
        _ => &UNLIMITED,
    };
    call.write(call.arg(1), bytes)?;
    Ok(Answer::Value(0))
}

/// setrlimit(RLIMIT_RTTIME, new)
#[cfg(target_arch = "x86_64")]
pub fn setrlimit(_: &mut Step, _: &Call<'_>) -> Result<Answer, Stop> {
    Ok(Answer::Value(0))
}
