//! Landlock (landlock(7)): a second wall behind chroot(2), and the one that keeps signals, tracing and abstract
//! sockets of a step away from everybody else.  It also denies mount(2) and its kin.
//!
//! Where the kernel has no Landlock, or an older one, less is enforced; [`abi`] says what there is.

use std::os::fd::AsFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::io::Errno;

use crate::error::{SysError, SysResult};

/// The newest version whose rights this file knows to be harmless for builds.
const KNOWN: ABI = ABI::V6;

/// Returns the version of Landlock that the kernel offers: ENOSYS where it is not built in or a filter hides it,
/// EOPNOTSUPP where it is switched off.
pub fn abi() -> SysResult<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel takes a null pointer and size 0, and returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            VERSION,
        )
    };
    match u32::try_from(version) {
        Ok(version) => Ok(version),
        Err(_) => Err(SysError::last("landlock_create_ruleset", "version")),
    }
}

/// Confines this process, and everything that descends from it, to the files beneath `root`, for good.  Without
/// CAP_SYS_ADMIN it takes `no_new_privs` to be set before.
///
/// Returns whether anything is enforced.
pub fn confine_beneath(root: impl AsFd) -> SysResult<bool> {
    let all = AccessFs::from_all(KNOWN);
    let failed = |what: &'static str| {
        move |error: landlock::RulesetError| SysError::new(what, chain(&error), last_or_invalid())
    };
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|r| r.scope(Scope::from_all(KNOWN)))
        .and_then(|r| r.create())
        .map_err(failed("landlock_create_ruleset"))?;
    let status = ruleset
        .add_rule(PathBeneath::new(root, all))
        .map_err(failed("landlock_add_rule"))?
        .no_new_privs(false)
        .restrict_self()
        .map_err(failed("landlock_restrict_self"))?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Joins an error and its causes, because the crate's own text leaves the kernel's answer out.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn last_or_invalid() -> Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .filter(|n| *n != 0)
        .map_or(Errno::INVAL, Errno::from_raw_os_error)
}
