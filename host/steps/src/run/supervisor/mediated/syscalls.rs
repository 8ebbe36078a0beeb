//! The tables of what stands in for the kernel, and of what is refused because nothing does.
//!
//! A call that names a file and is in neither table would be a way around: the test below compares with the list of
//! all of them.

use stepwell_sys::seccomp::{Action, Condition, Rule};

use super::super::call::Handler;
use super::{attributes, datagrams, files, messages, names, others, sockets, watches};
use crate::run::narrow;

/// A row: number, name, who does the kernel's part.
type Row = (i64, &'static str, Handler);

macro_rules! rows {
    ($($number:ident => $handler:path),* $(,)?) => {
        &[$((libc::$number, stringify!($number), $handler)),*]
    };
}

const ROWS: &[Row] = rows! {
    SYS_openat => files::openat, SYS_openat2 => files::openat2, SYS_truncate => files::truncate,
    SYS_mkdirat => names::mkdirat, SYS_mknodat => names::mknodat, SYS_symlinkat => names::symlinkat,
    SYS_unlinkat => names::unlinkat, SYS_renameat2 => names::renameat2, SYS_linkat => names::linkat,
    SYS_renameat => names::renameat, SYS_chdir => names::chdir, SYS_fchdir => names::fchdir,
    SYS_getcwd => names::getcwd, SYS_umask => names::umask,
    SYS_newfstatat => attributes::newfstatat, SYS_fstat => attributes::fstat, SYS_statx => attributes::statx,
    SYS_faccessat => attributes::faccessat, SYS_faccessat2 => attributes::faccessat2,
    SYS_readlinkat => attributes::readlinkat, SYS_fchmodat => attributes::fchmodat,
    SYS_fchmodat2 => attributes::fchmodat2, SYS_fchownat => attributes::chown, SYS_statfs => attributes::statfs,
    SYS_setxattr => attributes::setxattr, SYS_lsetxattr => attributes::lsetxattr,
    SYS_getxattr => attributes::getxattr, SYS_lgetxattr => attributes::lgetxattr,
    SYS_listxattr => attributes::listxattr, SYS_llistxattr => attributes::llistxattr,
    SYS_removexattr => attributes::removexattr, SYS_lremovexattr => attributes::lremovexattr,
    SYS_inotify_init1 => watches::init1, SYS_inotify_add_watch => watches::add,
    SYS_uname => super::uname, SYS_connect => sockets::connect, SYS_bind => sockets::bind,
    SYS_sendmsg => messages::sendmsg, SYS_sendmmsg => messages::sendmmsg,
};

#[cfg(target_arch = "x86_64")]
const LEGACY: &[Row] = rows! {
    SYS_open => files::open, SYS_creat => files::creat, SYS_mkdir => names::mkdir, SYS_mknod => names::mknod,
    SYS_symlink => names::symlink, SYS_unlink => names::unlink, SYS_rmdir => names::rmdir,
    SYS_rename => names::rename, SYS_link => names::link,
    SYS_stat => attributes::stat, SYS_lstat => attributes::lstat, SYS_access => attributes::access,
    SYS_readlink => attributes::readlink, SYS_chmod => attributes::chmod, SYS_chown => attributes::chown,
    SYS_lchown => attributes::chown, SYS_utimes => attributes::utimes, SYS_futimesat => attributes::futimesat,
    SYS_utime => attributes::utime, SYS_inotify_init => watches::init,
};
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[Row] = &[];

/// Calls of which only some name a file: with an argument that is not zero, or that is this.
const UTIMENSAT: Row = (libc::SYS_utimensat, "SYS_utimensat", attributes::utimensat);
const SOCKET: Row = (libc::SYS_socket, "SYS_socket", sockets::socket);
const PAIR: Row = (
    libc::SYS_socketpair,
    "SYS_socketpair",
    datagrams::socketpair,
);
const SENDTO: Row = (libc::SYS_sendto, "SYS_sendto", messages::sendto);

/// Calls about another process, which is the caller where the argument of this index is 0.
const ABOUT: &[(Row, u8)] = &[
    ((libc::SYS_prlimit64, "SYS_prlimit64", others::first), 0),
    (
        (
            libc::SYS_sched_setaffinity,
            "SYS_sched_setaffinity",
            others::first,
        ),
        0,
    ),
    (
        (
            libc::SYS_sched_setscheduler,
            "SYS_sched_setscheduler",
            others::first,
        ),
        0,
    ),
    (
        (
            libc::SYS_sched_setparam,
            "SYS_sched_setparam",
            others::first,
        ),
        0,
    ),
    (
        (libc::SYS_sched_setattr, "SYS_sched_setattr", others::first),
        0,
    ),
    (
        (libc::SYS_migrate_pages, "SYS_migrate_pages", others::first),
        0,
    ),
    ((libc::SYS_move_pages, "SYS_move_pages", others::first), 0),
    ((libc::SYS_tkill, "SYS_tkill", others::first), 0),
    (
        (
            libc::SYS_rt_sigqueueinfo,
            "SYS_rt_sigqueueinfo",
            others::first,
        ),
        0,
    ),
    ((libc::SYS_pidfd_open, "SYS_pidfd_open", others::first), 0),
    ((libc::SYS_kill, "SYS_kill", others::kill), 0),
    ((libc::SYS_tgkill, "SYS_tgkill", others::thread_signal), 0),
    (
        (
            libc::SYS_rt_tgsigqueueinfo,
            "SYS_rt_tgsigqueueinfo",
            others::thread_signal,
        ),
        0,
    ),
    (
        (libc::SYS_setpriority, "SYS_setpriority", others::priority),
        1,
    ),
    (
        (libc::SYS_ioprio_set, "SYS_ioprio_set", others::priority),
        1,
    ),
];

/// Calls newer than the C library's list; the same numbers on all architectures.
const SYS_OPEN_TREE_ATTR: i64 = 467;
const SYS_FILE_GETATTR: i64 = 468;
const SYS_FILE_SETATTR: i64 = 469;
const SYS_STATMOUNT: i64 = 457;
const SYS_LISTMOUNT: i64 = 458;

/// What is refused: number, name, error, reason.
const REFUSED: &[(i64, &str, i32, &str)] = &[
    (
        libc::SYS_chroot,
        "chroot",
        libc::EPERM,
        "a root within the root would have to be resolved too",
    ),
    (
        libc::SYS_clone3,
        "clone3",
        libc::ENOSYS,
        "its flags are in memory, where no filter sees them; programs fall back to clone",
    ),
    (
        libc::SYS_unshare,
        "unshare",
        libc::EPERM,
        "in a user namespace of its own a step could leave the tree",
    ),
    (
        libc::SYS_setns,
        "setns",
        libc::EPERM,
        "namespaces are not the step's",
    ),
    (
        libc::SYS_ptrace,
        "ptrace",
        libc::EPERM,
        "the step is traced already",
    ),
    (
        libc::SYS_fanotify_init,
        "fanotify_init",
        libc::ENOSYS,
        "a watch is set by a path",
    ),
    (
        libc::SYS_fanotify_mark,
        "fanotify_mark",
        libc::ENOSYS,
        "a watch is set by a path",
    ),
    (
        libc::SYS_name_to_handle_at,
        "name_to_handle_at",
        libc::EOPNOTSUPP,
        "a path that nothing resolves",
    ),
    (
        libc::SYS_open_by_handle_at,
        "open_by_handle_at",
        libc::EPERM,
        "opens by no path at all",
    ),
    (libc::SYS_mount, "mount", libc::EPERM, "no mounts"),
    (libc::SYS_umount2, "umount2", libc::EPERM, "no mounts"),
    (libc::SYS_pivot_root, "pivot_root", libc::EPERM, "no mounts"),
    (libc::SYS_open_tree, "open_tree", libc::EPERM, "no mounts"),
    (libc::SYS_move_mount, "move_mount", libc::EPERM, "no mounts"),
    (libc::SYS_fsopen, "fsopen", libc::EPERM, "no mounts"),
    (libc::SYS_fspick, "fspick", libc::EPERM, "no mounts"),
    (libc::SYS_fsconfig, "fsconfig", libc::EPERM, "no mounts"),
    (libc::SYS_fsmount, "fsmount", libc::EPERM, "no mounts"),
    (
        libc::SYS_mount_setattr,
        "mount_setattr",
        libc::EPERM,
        "no mounts",
    ),
    (
        SYS_OPEN_TREE_ATTR,
        "open_tree_attr",
        libc::EPERM,
        "no mounts",
    ),
    (
        SYS_STATMOUNT,
        "statmount",
        libc::ENOSYS,
        "tells of the machine's mounts",
    ),
    (
        SYS_LISTMOUNT,
        "listmount",
        libc::ENOSYS,
        "tells of the machine's mounts",
    ),
    (
        SYS_FILE_GETATTR,
        "file_getattr",
        libc::ENOSYS,
        "a path that nothing resolves",
    ),
    (
        SYS_FILE_SETATTR,
        "file_setattr",
        libc::ENOSYS,
        "a path that nothing resolves",
    ),
    (
        libc::SYS_swapon,
        "swapon",
        libc::EPERM,
        "a path that nothing resolves",
    ),
    (
        libc::SYS_swapoff,
        "swapoff",
        libc::EPERM,
        "a path that nothing resolves",
    ),
    (
        libc::SYS_acct,
        "acct",
        libc::EPERM,
        "a path that nothing resolves",
    ),
    (
        libc::SYS_quotactl,
        "quotactl",
        libc::EPERM,
        "a path that nothing resolves",
    ),
];

#[cfg(target_arch = "x86_64")]
const LEGACY_REFUSED: &[(i64, &str, i32, &str)] = &[(
    libc::SYS_uselib,
    "uselib",
    libc::ENOSYS,
    "a path that nothing resolves",
)];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY_REFUSED: &[(i64, &str, i32, &str)] = &[];

/// Flags of clone(2) that are refused: new namespaces (mount, cgroup, uts, ipc, user, pid, net), and a child
/// that is not traced.
const CLONE_FLAGS: &[u64] = &[
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
    0x0080_0000,
];

/// Returns who does the kernel's part of which call.
pub fn handlers() -> impl Iterator<Item = (i32, Handler)> {
    [ROWS, LEGACY, &[UTIMENSAT, SOCKET, PAIR, SENDTO]]
        .into_iter()
        .flatten()
        .map(|(nr, _, handler)| (*nr as i32, *handler))
        .chain(handlers_about_others())
}

/// Returns who looks at calls about other processes.
pub fn handlers_about_others() -> impl Iterator<Item = (i32, Handler)> {
    ABOUT
        .iter()
        .map(|((nr, _, handler), _)| (*nr as i32, *handler))
}

/// Of the calls about other processes those that signal.  A call that the supervisor is asked about can be interrupted by a
/// signal, which these never are elsewhere (measured: `kill` in a shell whose child just stopped, EINTR in two of six
/// runs), so they are looked at only where nothing else keeps signals inside, and by the tracer, whom nothing interrupts.
const SIGNALS: &[i64] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
];

/// Returns who looks at a call that signals.
pub fn about_signals(number: i64) -> Option<Handler> {
    let row = ABOUT
        .iter()
        .find(|((nr, ..), _)| *nr == number && SIGNALS.contains(nr));
    row.map(|((.., handler), _)| *handler)
}

/// Returns the rules for limits and priorities of other processes, for tiers without a pid namespace: Landlock keeps signals
/// and tracing inside, and knows nothing of these.
pub fn rules_about_limits() -> Vec<Rule> {
    let mut rules = rules_about_others();
    rules.retain(|rule| !SIGNALS.contains(&rule.nr));
    rules
}

/// Returns the rules for calls about other processes.
fn rules_about_others() -> Vec<Rule> {
    let notify = |(row, index): &(Row, u8)| Rule {
        when: vec![condition(*index, u32::MAX.into(), 0, true)],
        ..Rule::new(
            row.0,
            row.1.trim_start_matches("SYS_"),
            Action::Notify,
            "processes of the machine have numbers too",
        )
    };
    // Whole groups and users, of which the caller's has the number 0 as well.
    let refuse = |(nr, name, process): (i64, &str, u64)| Rule {
        when: vec![condition(0, u32::MAX.into(), process, true)],
        ..Rule::new(
            nr,
            name,
            Action::Errno(libc::EPERM as u16),
            "they are the builder's",
        )
    };
    let whole = [
        (libc::SYS_setpriority, "setpriority", 0),
        (libc::SYS_ioprio_set, "ioprio_set", 1),
    ];
    whole
        .into_iter()
        .map(refuse)
        .chain(ABOUT.iter().map(notify))
        .collect()
}

/// Returns the rules of the filter; they come before those of the other tiers.
pub fn rules() -> Vec<Rule> {
    let refused = [REFUSED, LEGACY_REFUSED].into_iter().flatten();
    let mut rules: Vec<Rule> = refused
        .map(|(nr, name, errno, why)| Rule::new(*nr, name, Action::Errno(*errno as u16), why))
        .collect();
    rules.extend(CLONE_FLAGS.iter().map(|flag| Rule {
        when: vec![condition(0, *flag, *flag, false)],
        ..Rule::new(
            libc::SYS_clone,
            "clone",
            Action::Errno(libc::EPERM as u16),
            "new namespaces and processes that are not traced",
        )
    }));
    for (nr, name) in [
        (libc::SYS_execve, "execve"),
        (libc::SYS_execveat, "execveat"),
    ] {
        rules.push(Rule::new(
            nr,
            name,
            Action::Trace,
            "the program is loaded by the tracer",
        ));
    }
    rules.push(Rule::narrow_only(
        narrow::SOCKETCALL,
        "socketcall",
        Action::Trace,
        "the tracer has it become the call that it stands for",
    ));
    let whole = [ROWS, LEGACY].into_iter().flatten();
    let notify = |row: &Row| {
        let name = row.1.trim_start_matches("SYS_");
        Rule::new(row.0, name, Action::Notify, "no path is left to the kernel")
    };
    rules.extend(whole.map(notify));
    rules.push(Rule {
        // Without a path it is about a descriptor.
        when: vec![condition(1, u64::MAX, 0, true)],
        ..notify(&UTIMENSAT)
    });
    rules.push(Rule {
        // Without an address it goes to whom the socket is connected to.
        when: vec![condition(4, u64::MAX, 0, true)],
        ..notify(&SENDTO)
    });
    rules.extend(socket_rules(notify(&SOCKET), &notify(&PAIR)));
    rules.extend(rules_about_others().into_iter().map(|rule| {
        if about_signals(rule.nr).is_some() {
            Rule {
                action: Action::Trace,
                ..rule
            }
        } else {
            rule
        }
    }));
    rules.push(Rule {
        when: vec![condition(
            0,
            u32::MAX.into(),
            libc::PR_SET_DUMPABLE as u64,
            false,
        )],
        ..Rule::new(
            libc::SYS_prctl,
            "prctl",
            // It succeeds and does nothing.
            Action::Errno(0),
            "agents hide their memory, without which the supervisor cannot answer them",
        )
    });
    rules
}

fn socket_rules(made: Rule, pair: &Rule) -> Vec<Rule> {
    let unix = condition(0, u64::from(u32::MAX), libc::AF_UNIX as u64, false);
    let kind = |kind: i32| condition(1, 0xf, kind as u64, false);
    let pair = |wanted: i32| Rule {
        when: vec![unix, kind(wanted)],
        ..pair.clone()
    };
    vec![
        pair(libc::SOCK_DGRAM),
        pair(libc::SOCK_RAW),
        Rule {
            when: vec![unix],
            ..made
        },
    ]
}

const fn condition(argument: u8, mask: u64, value: u64, negate: bool) -> Condition {
    Condition {
        argument,
        mask,
        value,
        negate,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_call_is_both_answered_and_refused() {
        let answered: HashSet<i64> = handlers().map(|(nr, _)| nr.into()).collect();
        let refused = [REFUSED, LEGACY_REFUSED].into_iter().flatten();
        assert!(refused.clone().all(|(nr, ..)| !answered.contains(nr)));
        let numbers: HashSet<i64> = refused.clone().map(|(nr, ..)| *nr).collect();
        assert_eq!(numbers.len(), refused.count(), "two rows for one call");
    }

    /// Of these only some are about a path: with one, with an address, of a family.
    const PARTIAL: &[i64] = &[
        libc::SYS_utimensat,
        libc::SYS_sendto,
        libc::SYS_socket,
        libc::SYS_socketpair,
    ];

    /// All calls of x86-64 Linux that take a path, or an address that may be one.
    #[cfg(target_arch = "x86_64")]
    const PATH_CALLS: &[i64] = &[
        2, 4, 6, 21, 42, 44, 46, 49, 59, 76, 80, 82, 83, 84, 85, 86, 87, 88, 89, 90, 92, 94, 132,
        133, 134, 137, 155, 161, 163, 165, 166, 167, 168, 179, 188, 189, 191, 192, 194, 195, 197,
        198, 235, 254, 257, 258, 259, 260, 261, 262, 263, 264, 265, 266, 267, 268, 269, 280, 301,
        303, 304, 307, 316, 322, 332, 428, 429, 430, 431, 432, 433, 437, 439, 442, 452, 457, 458,
        463, 464, 465, 466, 467, 468, 469,
    ];

    /// The same of 32-bit programs (`arch/x86/entry/syscalls/syscall_32.tbl`), with those that have their arguments in memory.
    #[cfg(target_arch = "x86_64")]
    const NARROW_PATH_CALLS: &[u32] = &[
        5, 8, 9, 10, 11, 12, 14, 15, 16, 18, 21, 22, 30, 33, 38, 39, 40, 51, 52, 61, 83, 84, 85,
        86, 87, 92, 99, 102, 106, 107, 115, 131, 133, 182, 183, 193, 195, 196, 198, 212, 217, 226,
        227, 229, 230, 232, 233, 235, 236, 268, 271, 292, 295, 296, 297, 298, 299, 300, 301, 302,
        303, 304, 305, 306, 307, 310, 320, 338, 339, 341, 342, 346, 345, 353, 358, 359, 360, 361,
        362, 369, 370, 383, 412, 428, 429, 430, 431, 432, 433, 435, 437, 439, 442, 452, 457, 458,
        463, 464, 465, 466, 467, 468, 469,
    ];

    #[cfg(target_arch = "x86_64")]
    fn whole_filter() -> Vec<Rule> {
        let needs = crate::run::types::FilterNeeds {
            ids: crate::run::types::Ids::Emulated,
            real_devices: false,
            kernel_world: false,
            names: false,
            pid_namespace: false,
            mediated: true,
            mounts: crate::run::supervisor::Guarded::default(),
        };
        narrow::rules(crate::run::supervisor::filter(&needs))
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_call_of_32_bit_programs_that_names_a_file_has_a_rule() {
        let rules = whole_filter();
        for nr in NARROW_PATH_CALLS {
            let first = rules.iter().find(|rule| rule.narrow.contains(nr));
            let first = first.unwrap_or_else(|| panic!("call {nr} goes to the kernel"));
            let whole = first.when.is_empty() || PARTIAL.contains(&first.nr);
            assert!(whole, "some of {} go to the kernel", first.name);
        }
        // What has a rule for the native number has one for theirs, if there is one.
        let known: &[i64] = &[libc::SYS_ptrace, libc::SYS_clone, libc::SYS_socketpair];
        for rule in rules.iter().filter(|rule| known.contains(&rule.nr)) {
            assert!(!rule.narrow.is_empty(), "{}", rule.name);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_call_that_names_a_file_has_a_rule() {
        let rules = whole_filter();
        for nr in PATH_CALLS {
            let first = rules.iter().find(|rule| rule.nr == *nr);
            let first = first.unwrap_or_else(|| panic!("call {nr} goes to the kernel"));
            let whole = first.when.is_empty() || PARTIAL.contains(nr);
            assert!(whole, "some of {} go to the kernel", first.name);
        }
        let answered: HashSet<i64> = handlers().map(|(nr, _)| nr.into()).collect();
        for rule in rules.iter().filter(|r| r.action == Action::Notify) {
            let kept = rule.reason != "no path is left to the kernel";
            assert!(
                kept || answered.contains(&rule.nr),
                "nobody answers {}",
                rule.name
            );
        }
    }
}
