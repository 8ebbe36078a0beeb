//! Rules of the filter that are walls: what is refused in every tier, and what stands in for what the kernel does not
//! give: a pid namespace, Landlock, a network namespace.
//!
//! Pure: part of [`super::plan`].  They hold for 32-bit programs too ([`super::narrow`]).  Where the table of their calls is not
//! whole (ARM), those programs are refused where there are rules of the second kind.

use stepwell_model::op::Network;
use stepwell_sys::probe::Facts;
use stepwell_sys::seccomp::{Action, Condition, Rule};

use super::plan::{Shape, StepProcess};

/// First version of Landlock that keeps signals and abstract sockets inside.
const LANDLOCK_SCOPES: u32 = 6;

/// Returns the rules that hold in every tier: what no build needs and what is a way out, or lays the kernel open, where
/// another wall has a gap.
pub(super) fn refused() -> Vec<Rule> {
    let rule = |row: &Refused| {
        Rule::new(
            row.nr,
            row.name,
            Action::Errno(row.errno as u16),
            row.reason,
        )
    };
    REFUSED.iter().map(rule).chain(controls()).collect()
}

/// A call that is refused in every tier.
struct Refused {
    nr: i64,
    name: &'static str,
    errno: i32,
    reason: &'static str,
}

const fn refuse(nr: i64, name: &'static str, errno: i32, reason: &'static str) -> Refused {
    Refused {
        nr,
        name,
        errno,
        reason,
    }
}

const KEYS: &str = "a step inherits the session keyring of the builder, and may read what is in it";
const SURFACE: &str = "no build needs it, and it lays much of the kernel open";

const REFUSED: &[Refused] = &[
    refuse(libc::SYS_add_key, "add_key", libc::ENOSYS, KEYS),
    refuse(libc::SYS_request_key, "request_key", libc::ENOSYS, KEYS),
    refuse(libc::SYS_keyctl, "keyctl", libc::ENOSYS, KEYS),
    refuse(
        libc::SYS_open_by_handle_at,
        "open_by_handle_at",
        libc::EPERM,
        "opens a file by no path at all, so no root is in its way",
    ),
    refuse(libc::SYS_bpf, "bpf", libc::EPERM, SURFACE),
    refuse(
        libc::SYS_perf_event_open,
        "perf_event_open",
        libc::EPERM,
        SURFACE,
    ),
    refuse(libc::SYS_userfaultfd, "userfaultfd", libc::EPERM, SURFACE),
    refuse(
        libc::SYS_io_uring_setup,
        "io_uring_setup",
        libc::ENOSYS,
        "its calls would go around the filter; programs fall back to the calls themselves",
    ),
];

/// An ioctl(2) of file systems that is refused in every tier: type and number, which is all of a request but the length of its
/// structure and the direction, in which 32-bit programs differ.
struct Control {
    kind: u8,
    number: u8,
    reason: &'static str,
}

const fn control(kind: u8, number: u8, reason: &'static str) -> Control {
    Control {
        kind,
        number,
        reason,
    }
}

const UNSEEN: &str = "exchanges the contents of two files of the caller's and leaves their times as they were, so that no \
                      comparison of the tree with its index sees it";
const SUBVOLUME: &str = "in a subvolume numbers of inodes are given a second time, and older kernels make snapshots of \
                         what is outside of the root";

/// Type of the requests of btrfs, `FICLONE` among them.
const BTRFS: u8 = 0x94;

/// Type of those of bcachefs.
const BCACHEFS: u8 = 0xbc;

const CONTROLS: &[Control] = &[
    control(b'f', 15, UNSEEN),        // EXT4_IOC_MOVE_EXT
    control(b'X', 109, UNSEEN),       // XFS_IOC_SWAPEXT
    control(b'X', 129, UNSEEN),       // XFS_IOC_EXCHANGE_RANGE
    control(b'X', 131, UNSEEN),       // XFS_IOC_COMMIT_RANGE
    control(0xf5, 9, UNSEEN),         // F2FS_IOC_MOVE_RANGE
    control(BTRFS, 1, SUBVOLUME),     // BTRFS_IOC_SNAP_CREATE
    control(BTRFS, 14, SUBVOLUME),    // BTRFS_IOC_SUBVOL_CREATE
    control(BTRFS, 23, SUBVOLUME),    // BTRFS_IOC_SNAP_CREATE_V2
    control(BTRFS, 24, SUBVOLUME),    // BTRFS_IOC_SUBVOL_CREATE_V2
    control(BCACHEFS, 16, SUBVOLUME), // BCH_IOCTL_SUBVOLUME_CREATE
];

/// Bits of a request that are its type and number.
const CONTROL_BITS: u64 = 0xffff;

fn controls() -> impl Iterator<Item = Rule> {
    CONTROLS.iter().map(|control| Rule {
        when: vec![Condition {
            argument: 1,
            mask: CONTROL_BITS,
            value: u64::from(control.kind) << 8 | u64::from(control.number),
            negate: false,
        }],
        ..Rule::new(
            libc::SYS_ioctl,
            "ioctl",
            Action::Errno(libc::EPERM as u16),
            control.reason,
        )
    })
}

/// Rules that stand in for what the kernel does not give here.
pub(super) fn walls(process: &StepProcess, facts: &Facts, shape: &Shape) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !shape.pid_namespace {
        rules.extend(process_walls(process, facts, shape));
    }
    if process.network == Network::None && !shape.network_namespace {
        rules.extend(network_wall(shape.traced));
    }
    if shape.own_root {
        rules.extend(user_namespace_answers());
    }
    rules
}

/// In a chroot the kernel refuses user namespaces with EPERM, which programs know.  Where a step is in none, nobody may make one
/// either (`NoUserNamespaces`), but the kernel's answer is ENOSPC; clone3, whose flags these rules do not see, gets that.
fn user_namespace_answers() -> impl Iterator<Item = Rule> {
    let flag = libc::CLONE_NEWUSER as u64;
    let calls = [(libc::SYS_unshare, "unshare"), (libc::SYS_clone, "clone")];
    calls.into_iter().map(move |(nr, name)| Rule {
        when: vec![Condition {
            argument: 0,
            mask: flag,
            value: flag,
            negate: false,
        }],
        ..Rule::new(
            nr,
            name,
            Action::Errno(libc::EPERM as u16),
            "a step makes no user namespace",
        )
    })
}

/// Without a network namespace there is no loopback of the step's own, so there are no sockets but those of the
/// machine itself (Unix, and netlink, which C libraries ask for addresses).
fn network_wall(traced: bool) -> Vec<Rule> {
    let other_than = |family: i32| Condition {
        argument: 0,
        mask: u64::from(u32::MAX),
        value: family as u64,
        negate: true,
    };
    let reason = "without a network namespace the step would have the builder's network";
    let rule = Rule::new(
        libc::SYS_socket,
        "socket",
        Action::Errno(libc::EAFNOSUPPORT as u16),
        reason,
    );
    let rule = Rule {
        when: vec![other_than(libc::AF_UNIX), other_than(libc::AF_NETLINK)],
        ..rule
    };
    let mut rules = vec![rule];
    // A tracer has it become socket(2), for which the rule above holds.
    #[cfg(target_arch = "x86_64")]
    rules.extend((!traced).then(|| Rule {
        when: vec![Condition {
            argument: 0,
            mask: u64::from(u32::MAX),
            value: SYS_SOCKET,
            negate: false,
        }],
        // Of what family the socket is, is in memory.
        ..Rule::narrow_only(
            super::narrow::SOCKETCALL,
            "socketcall",
            Action::Errno(libc::EAFNOSUPPORT as u16),
            reason,
        )
    }));
    rules
}

/// What socketcall(2) is to do: make a socket (include/uapi/linux/net.h).
#[cfg(target_arch = "x86_64")]
const SYS_SOCKET: u64 = 1;

/// Rules that keep a step without a pid namespace from the processes of others, where Landlock does not.
fn process_walls(process: &StepProcess, facts: &Facts, shape: &Shape) -> Vec<Rule> {
    let scoped = shape.landlock && facts.landlock.is_some_and(|abi| abi >= LANDLOCK_SCOPES);
    let mut rules = Vec::new();
    if !scoped {
        let everybody = std::iter::once(-1_i64);
        let protected = process.protected.iter().map(|pid| i64::from(*pid));
        for pid in everybody
            .chain(protected.clone())
            .chain(protected.map(|pid| -pid))
        {
            for (nr, name) in SIGNAL_CALLS {
                rules.push(deny(
                    *nr,
                    name,
                    Some(pid),
                    "without a pid namespace the builder and everybody else are in reach",
                ));
            }
        }
        for (nr, name) in [
            (libc::SYS_pidfd_open, "pidfd_open"),
            (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
        ] {
            rules.push(deny(
                nr,
                name,
                None,
                "a handle on a process cannot be told from one on the builder",
            ));
        }
    }
    if !shape.landlock {
        for (nr, name) in TRACING_CALLS {
            rules.push(deny(
                *nr,
                name,
                None,
                "without a pid namespace and Landlock others of the same user could be traced",
            ));
        }
    }
    rules
}

/// Calls whose first argument is a process to be signalled.
const SIGNAL_CALLS: &[(i64, &str)] = &[
    (libc::SYS_kill, "kill"),
    (libc::SYS_tkill, "tkill"),
    (libc::SYS_tgkill, "tgkill"),
    (libc::SYS_rt_sigqueueinfo, "rt_sigqueueinfo"),
    (libc::SYS_rt_tgsigqueueinfo, "rt_tgsigqueueinfo"),
];

const TRACING_CALLS: &[(i64, &str)] = &[
    (libc::SYS_ptrace, "ptrace"),
    (libc::SYS_process_vm_readv, "process_vm_readv"),
    (libc::SYS_process_vm_writev, "process_vm_writev"),
    (libc::SYS_pidfd_getfd, "pidfd_getfd"),
    (libc::SYS_process_madvise, "process_madvise"),
    (libc::SYS_kcmp, "kcmp"),
];

fn deny(nr: i64, name: &str, pid: Option<i64>, reason: &str) -> Rule {
    // The kernel takes pids as 32-bit numbers, whatever the upper half of the register says.
    let when = pid.map(|pid| Condition {
        argument: 0,
        mask: u64::from(u32::MAX),
        value: u64::from(pid as u32),
        negate: false,
    });
    Rule {
        when: when.into_iter().collect(),
        ..Rule::new(nr, name, Action::Errno(libc::EPERM as u16), reason)
    }
}
