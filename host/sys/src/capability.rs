//! Capabilities (capabilities(7)): which a process holds, and giving them up for good.

use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use crate::error::{Context, SysResult};

/// A set of capabilities.
pub use rustix::thread::CapabilitySet as Capabilities;

/// What a step keeps: the set that docker gives to containers, less `CAP_SYS_CHROOT`, with which a process
/// leaves a chroot again (steps that are in none get it all the same), and less `CAP_MKNOD`: no device control group
/// stands between a step and the disks here.
pub const STEP: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Number of the last capability a kernel may know: the width of the set.
const WIDTH: u32 = 64;

/// Returns the effective capabilities of this thread.
pub fn effective() -> SysResult<CapabilitySet> {
    Ok(thread::capabilities(None).context("capget", "")?.effective)
}

/// Returns the names (`CAP_CHOWN`, …) of a set, in the kernel's order.
pub fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect()
}

/// Gives up everything but `keep` for what is executed next: bounding, inheritable and ambient sets.
///
/// Without `no_new_privs` the permitted set stays as it is until execve(2), which for user 0 takes it from the
/// bounding set.  With it, execve(2) cannot give anything back, so the permitted set is cut here and a bounding
/// set that may not be touched does not matter.
pub fn limit_next_program(keep: CapabilitySet, no_new_privs: bool) -> SysResult<()> {
    match limit_bounding(keep) {
        Err(error) if !(no_new_privs && error.errno == Errno::PERM) => return Err(error),
        _ => {}
    }
    let ambient = thread::clear_ambient_capability_set();
    ignore_unknown(ambient).context("prctl", "PR_CAP_AMBIENT_CLEAR_ALL")?;
    let now = thread::capabilities(None).context("capget", "")?;
    let kept = if no_new_privs {
        keep
    } else {
        CapabilitySet::all()
    };
    let sets = CapabilitySets {
        effective: now.effective & kept,
        permitted: now.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    thread::set_capabilities(None, sets).context("capset", "")
}

fn limit_bounding(keep: CapabilitySet) -> SysResult<()> {
    for number in 0..WIDTH {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(one) {
            continue;
        }
        // The kernel answers EINVAL above its last capability.
        match thread::remove_capability_from_bounding_set(one) {
            Err(Errno::INVAL) => break,
            other => other.context("prctl", format!("PR_CAPBSET_DROP {number}"))?,
        }
    }
    Ok(())
}

/// Uses a capability on this process alone, for throw-away processes: a security module may let a user namespace
/// be made and then refuse all that it gives, which no number in `/proc` tells (AppArmor on Ubuntu since 23.10).
pub fn is_usable() -> SysResult<()> {
    let one = CapabilitySet::SYS_BOOT;
    thread::remove_capability_from_bounding_set(one)
        .context("prctl", "PR_CAPBSET_DROP in a user namespace")
}

fn ignore_unknown(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    if result == Err(Errno::INVAL) {
        Ok(())
    } else {
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_what_package_managers_need_and_nothing_that_leads_out() {
        assert!(STEP.contains(CapabilitySet::CHOWN | CapabilitySet::SETFCAP));
        for gone in [
            CapabilitySet::SYS_CHROOT,
            CapabilitySet::SYS_ADMIN,
            CapabilitySet::SYS_PTRACE,
            CapabilitySet::DAC_READ_SEARCH,
        ] {
            assert!(!STEP.intersects(gone));
        }
        assert_eq!(names(CapabilitySet::CHOWN), ["CAP_CHOWN"]);
    }
}
