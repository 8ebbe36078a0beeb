//! The table of system calls that the supervisor is asked about: number, when, why, and who answers.
//!
//! As few as possible: each costs a step two switches of context.  A filter sees numbers and flags but no paths,
//! so a call that takes a path is asked about whatever the path is.  To add a call: one row.

use stepwell_sys::seccomp::{Action, Condition, Rule};

use super::call::{Call, Handler};
use super::step::Step;
use super::{chmod, create, credentials, exec, guard, names, open, owner, stat, statfs, xattr};
use crate::run::types::{FilterNeeds, Ids};

/// When a call is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Always: it may name something in `/proc`, `/dev` or `/sys`.
    Graft,
    /// Only while ids of processes are emulated.
    Ids,
    /// Only while owners of files are emulated.
    Owners,
    /// Only while ids of processes are emulated and owners of files are real.
    RealOwners,
}

impl When {
    fn holds(self, ids: Ids, kernel_world: bool) -> bool {
        match self {
            Self::Graft => ids != Ids::Real || !kernel_world,
            Self::Ids => ids != Ids::Real,
            Self::Owners => ids == Ids::Emulated,
            Self::RealOwners => ids == Ids::RealOwners,
        }
    }
}

/// Which of the calls of one number are meant.
#[derive(Debug, Clone, Copy)]
enum Only {
    All,
    /// The argument has one of these values.
    Argument(u8, &'static [u64]),
    /// The argument has this flag.
    WithFlag(u8, u64),
    /// The argument lacks this flag; while owners are emulated, all calls are.
    WithoutFlag(u8, u64),
}

/// A row of the table.
pub struct Row {
    /// Number of the system call.
    pub nr: i64,
    /// Its name.
    pub name: &'static str,
    /// Answers it.
    pub handler: Handler,
    when: When,
    only: Only,
    /// Whether calls beneath a descriptor (argument 0) may be left to the kernel; see [`is_left`].
    beneath: bool,
    reason: &'static str,
}

const fn row(
    nr: i64,
    name: &'static str,
    when: When,
    handler: Handler,
    reason: &'static str,
) -> Row {
    Row {
        nr,
        name,
        handler,
        when,
        only: Only::All,
        beneath: false,
        reason,
    }
}

impl Row {
    /// Says whether this call is one of those that the row is about.
    pub fn asks(&self, step: &Step, call: &Call<'_>) -> bool {
        let meant = match self.only {
            Only::WithFlag(argument, flag) => call.arg(argument.into()) & flag == flag,
            Only::Argument(argument, values) => {
                values.contains(&u64::from(call.uint(argument.into())))
            }
            Only::All | Only::WithoutFlag(..) => true,
        };
        meant && self.when.holds(step.ids, step.kernel_world)
    }

    const fn only(mut self, only: Only) -> Self {
        self.only = only;
        self
    }

    /// Says that this call only looks, beneath a descriptor in argument 0.
    const fn looks_beneath(mut self) -> Self {
        self.beneath = true;
        self
    }
}

/// Makes one row after the other.
macro_rules! rows {
    ($when:ident, $reason:literal: $($number:ident => $handler:path),* $(,)?) => {
        &[$(row(libc::$number, stringify!($number), When::$when, $handler, $reason)),*]
    };
}

/// Calls newer than the C library's list; the same numbers on all architectures.
const SYS_SETXATTRAT: i64 = 463;
const SYS_GETXATTRAT: i64 = 464;
const SYS_LISTXATTRAT: i64 = 465;
const SYS_REMOVEXATTRAT: i64 = 466;

const AT_EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;
const AT_SYMLINK_FOLLOW: u64 = libc::AT_SYMLINK_FOLLOW as u64;
const S_ISGID: u64 = libc::S_ISGID as u64;
const RLIMIT_RTTIME: &[u64] = &[libc::RLIMIT_RTTIME as u64];

/// Options of prctl(2) that are about ids: keep-caps, bounding set, securebits, no-new-privileges, ambient set.
const PRCTL_OPTIONS: &[u64] = &[7, 8, 23, 24, 27, 28, 39, 47];

const PATHS: &[Row] = rows! { Graft, "the path may lead into a graft":
    SYS_openat => open::openat, SYS_openat2 => open::openat2, SYS_execve => exec::execve, SYS_chdir => open::chdir,
    SYS_getxattr => xattr::getxattr, SYS_lgetxattr => xattr::lgetxattr, SYS_listxattr => xattr::listxattr,
    SYS_llistxattr => xattr::llistxattr, SYS_setxattr => xattr::setxattr, SYS_lsetxattr => xattr::lsetxattr,
    SYS_removexattr => xattr::removexattr, SYS_lremovexattr => xattr::lremovexattr, SYS_fchmodat => chmod::fchmodat, SYS_fchmodat2 => chmod::fchmodat2, SYS_statfs => statfs::statfs, SYS_fstatfs => statfs::fstatfs,
};

#[cfg(target_arch = "x86_64")]
const LEGACY_PATHS: &[Row] = rows! { Graft, "the path may lead into a graft":
    SYS_open => open::open, SYS_creat => open::creat, SYS_readlink => stat::readlink, SYS_stat => stat::stat,
    SYS_lstat => stat::lstat, SYS_access => stat::access, SYS_chmod => chmod::chmod,
};

/// Makes rows of calls that look at what has a name beneath a descriptor.
macro_rules! looks {
    ($($number:ident => $handler:path),* $(,)?) => {
        &[$(row(libc::$number, stringify!($number), When::Graft, $handler, "the path may lead into a graft").looks_beneath()),*]
    };
}

const LOOKS: &[Row] = looks! {
    SYS_readlinkat => stat::readlinkat, SYS_statx => stat::statx, SYS_faccessat => stat::faccessat,
    SYS_faccessat2 => stat::faccessat,
};

const OTHERS: &[Row] = &[
    row(
        libc::SYS_newfstatat,
        "SYS_newfstatat",
        When::Graft,
        stat::newfstatat,
        "the path may lead into a graft",
    )
    .only(Only::WithoutFlag(3, AT_EMPTY_PATH))
    .looks_beneath(),
    row(
        libc::SYS_linkat,
        "SYS_linkat",
        When::Graft,
        chmod::linkat,
        "an unnamed file gets its name by /proc/self/fd",
    )
    .only(Only::WithFlag(4, AT_SYMLINK_FOLLOW)),
    row(
        libc::SYS_fchmod,
        "SYS_fchmod",
        When::RealOwners,
        chmod::fchmod,
        "the kernel takes the set-group-ID bit from a file of a group that the step's processes are not in",
    )
    .only(Only::WithFlag(1, S_ISGID)),
    row(
        libc::SYS_prctl,
        "SYS_prctl",
        When::Ids,
        credentials::prctl,
        "privileges of emulated ids",
    )
    .only(Only::Argument(0, PRCTL_OPTIONS)),
    row(
        libc::SYS_prlimit64,
        "SYS_prlimit64",
        When::Ids,
        credentials::prlimit,
        "this limit holds a process's tag",
    )
    .only(Only::Argument(1, RLIMIT_RTTIME)),
];

const OWNERS: &[Row] = rows! { Owners, "owners are emulated":
    SYS_fstat => stat::fstat, SYS_fgetxattr => xattr::fgetxattr, SYS_flistxattr => xattr::flistxattr,
};

const CHANGES: &[Row] = rows! { Ids, "whoever the caller is thought to be owns what it makes, and may change what is its own":
    SYS_fchown => owner::fchown, SYS_fchownat => owner::fchownat, SYS_mkdirat => create::mkdirat,
    SYS_mknodat => create::mknodat, SYS_symlinkat => create::symlinkat, SYS_fsetxattr => xattr::fsetxattr,
    SYS_fremovexattr => xattr::fremovexattr,
};

#[cfg(target_arch = "x86_64")]
const LEGACY_CHANGES: &[Row] = rows! { Ids, "whoever the caller is thought to be owns what it makes, and may change what is its own":
    SYS_chown => owner::chown, SYS_lchown => owner::lchown, SYS_mkdir => create::mkdir, SYS_mknod => create::mknod,
    SYS_symlink => create::symlink,
};

const CREDENTIALS: &[Row] = rows! { Ids, "ids are emulated":
    SYS_getuid => credentials::getuid, SYS_geteuid => credentials::geteuid, SYS_getgid => credentials::getgid,
    SYS_getegid => credentials::getegid, SYS_getresuid => credentials::getresuid, SYS_getresgid => credentials::getresgid,
    SYS_setuid => credentials::setuid, SYS_setgid => credentials::setgid, SYS_setreuid => credentials::setreuid,
    SYS_setregid => credentials::setregid, SYS_setresuid => credentials::setresuid, SYS_setresgid => credentials::setresgid,
    SYS_setfsuid => credentials::setfsuid, SYS_setfsgid => credentials::setfsgid, SYS_getgroups => credentials::getgroups,
    SYS_setgroups => credentials::setgroups, SYS_capget => credentials::capget, SYS_capset => credentials::capset,
};

#[cfg(target_arch = "x86_64")]
const LEGACY_LIMITS: &[Row] = &[
    row(
        libc::SYS_getrlimit,
        "SYS_getrlimit",
        When::Ids,
        credentials::getrlimit,
        "this limit holds a process's tag",
    )
    .only(Only::Argument(0, RLIMIT_RTTIME)),
    row(
        libc::SYS_setrlimit,
        "SYS_setrlimit",
        When::Ids,
        credentials::setrlimit,
        "this limit holds a process's tag",
    )
    .only(Only::Argument(0, RLIMIT_RTTIME)),
];

/// All rows of this architecture.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    let common = [PATHS, LOOKS, OTHERS, OWNERS, CHANGES, CREDENTIALS];
    #[cfg(target_arch = "x86_64")]
    let legacy = [LEGACY_PATHS, LEGACY_CHANGES, LEGACY_LIMITS];
    #[cfg(not(target_arch = "x86_64"))]
    let legacy: [&[Row]; 0] = [];
    common.into_iter().chain(legacy).flatten()
}

/// Returns the rules that make the kernel ask the supervisor, and those that keep a step from going around it.
pub fn filter(needs: &FilterNeeds) -> Vec<Rule> {
    let emulated = needs.ids != Ids::Real;
    let first = if needs.mediated {
        super::mediated::rules()
    } else if !needs.pid_namespace {
        super::mediated::rules_about_limits()
    } else {
        Vec::new()
    };
    let rows = rows()
        .filter(|row| row.when.holds(needs.ids, needs.kernel_world))
        .flat_map(|row| {
            let mut rules = row_rules(row, !needs.ids.owners_are_real());
            if row.beneath && is_left(needs) {
                rules.iter_mut().for_each(|rule| rule.when.push(FROM_CWD));
            }
            rules
        });
    let mut rules: Vec<Rule> = first.into_iter().chain(rows).collect();
    rules.extend(guard::rules(needs.mounts));
    rules.extend(names::rules().filter(|_| needs.names));
    let refuse = |nr, name, reason| Rule::new(nr, name, Action::Errno(libc::ENOSYS as u16), reason);
    for (nr, name) in [
        (SYS_SETXATTRAT, "setxattrat"),
        (SYS_GETXATTRAT, "getxattrat"),
        (SYS_LISTXATTRAT, "listxattrat"),
        (SYS_REMOVEXATTRAT, "removexattrat"),
    ] {
        if emulated {
            rules.push(refuse(
                nr,
                name,
                "programs fall back to the older calls, which are emulated",
            ));
        }
    }
    rules
}

/// The path is resolved from the working directory.
const FROM_CWD: Condition = Condition {
    argument: 0,
    mask: u32::MAX as u64,
    value: libc::AT_FDCWD as u32 as u64,
    negate: false,
};

/// Says whether looks at names beneath descriptors are left to the kernel, which is what `find` and `tar` do all day.
///
/// A program that has opened a directory of a graft sees its skeleton then: names and kinds, but no numbers of devices.  That will
/// not do where a look has to show another owner, or a mount.
fn is_left(needs: &FilterNeeds) -> bool {
    needs.ids.owners_are_real() && !needs.mediated && !needs.mounts.any
}

fn row_rules(row: &Row, emulated: bool) -> Vec<Rule> {
    let name = row.name.trim_start_matches("SYS_");
    let rule = |condition: Option<Condition>| {
        let mut rule = Rule::new(row.nr, name, Action::Notify, row.reason);
        rule.when.extend(condition);
        rule
    };
    match row.only {
        Only::All => vec![rule(None)],
        Only::WithoutFlag(..) if emulated => vec![rule(None)],
        Only::WithFlag(argument, flag) => {
            vec![rule(Some(Condition {
                argument,
                mask: flag,
                value: flag,
                negate: false,
            }))]
        }
        Only::WithoutFlag(argument, flag) => {
            vec![rule(Some(Condition {
                argument,
                mask: flag,
                value: 0,
                negate: false,
            }))]
        }
        Only::Argument(argument, values) => {
            // The kernel looks at 32 bits of these arguments.
            let mask = u32::MAX.into();
            values
                .iter()
                .map(|&value| {
                    rule(Some(Condition {
                        argument,
                        mask,
                        value,
                        negate: false,
                    }))
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ids: Ids) -> Vec<String> {
        let needs = FilterNeeds {
            ids,
            real_devices: false,
            pid_namespace: true,
            mounts: guard::Guarded::default(),
            mediated: false,
            kernel_world: false,
            names: false,
        };
        filter(&needs).into_iter().map(|rule| rule.name).collect()
    }

    #[test]
    fn no_call_has_two_rows_and_real_ids_ask_less() {
        let mut numbers: Vec<i64> = rows().map(|row| row.nr).collect();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
        let (real, emulated) = (names(Ids::Real), names(Ids::Emulated));
        assert!(real.iter().all(|name| emulated.contains(name)));
        assert!(!real.contains(&"getuid".to_owned()) && emulated.contains(&"getuid".to_owned()));
    }

    #[test]
    fn looks_beneath_descriptors_are_left_to_the_kernel_only_where_it_is_right() {
        let from_cwd = |ids, any, mediated| {
            let needs = FilterNeeds {
                ids,
                real_devices: false,
                pid_namespace: true,
                mounts: guard::Guarded {
                    any,
                    ..guard::Guarded::default()
                },
                mediated,
                kernel_world: false,
                names: false,
            };
            let rules = filter(&needs);
            let rule = rules
                .iter()
                .find(|rule| rule.nr == libc::SYS_newfstatat && rule.action == Action::Notify);
            rule.expect("a rule").when.contains(&FROM_CWD)
        };
        assert!(from_cwd(Ids::Real, false, false));
        assert!(!from_cwd(Ids::Emulated, false, false));
        assert!(!from_cwd(Ids::Real, true, false));
        assert!(!from_cwd(Ids::Emulated, false, true));
    }

    #[test]
    fn nothing_is_asked_about_where_the_kernel_makes_all_of_it() {
        let needs = FilterNeeds {
            ids: Ids::Real,
            real_devices: false,
            pid_namespace: true,
            mounts: guard::Guarded::default(),
            mediated: false,
            kernel_world: true,
            names: false,
        };
        assert_eq!(filter(&needs), []);
    }
}
