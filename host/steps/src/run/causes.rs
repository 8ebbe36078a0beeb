//! Who refuses what: the policies that commonly stand in the way of a tier, how to tell them, and what to change.
//!
//! Pure: conclusions from [`Facts`].  `stepwell doctor` shows them all, [`super::tier`] gives the likeliest one as the
//! reason for a choice.  A policy is a row in [`POLICIES`].

use serde::Serialize;
use stepwell_sys::probe::{Attempt, Facts};

/// Something that tiers are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facility {
    /// A user namespace, with pid, ipc and uts namespaces in it.
    UserNamespace,
    /// chroot(2) in a user namespace.
    UserNamespaceChroot,
    /// A user namespace with all ids of this one.
    FullIdMap,
    /// chroot(2) as this process is.
    Chroot,
    /// Tracing a child.
    Ptrace,
    /// Confining a process with Landlock.
    Landlock,
    /// A seccomp filter with a notification descriptor.
    Listener,
    /// openat2(2).
    Openat2,
    /// pidfd_open(2) and pidfd_send_signal(2).
    Pidfd,
    /// Reading the memory of a child.
    ReadMemory,
}

use Facility::{
    Chroot, FullIdMap, Landlock, Listener, Openat2, Pidfd, Ptrace, ReadMemory, UserNamespace,
    UserNamespaceChroot,
};

impl Facility {
    /// Returns what came of trying it.
    pub fn attempt(self, facts: &Facts) -> &Attempt {
        match self {
            UserNamespace => &facts.user_namespace,
            UserNamespaceChroot => &facts.user_namespace_chroot,
            FullIdMap => &facts.full_id_map,
            Chroot => &facts.chroot,
            Ptrace => &facts.ptrace,
            Landlock => &facts.landlock_confines,
            Listener => &facts.listener,
            Openat2 => &facts.openat2,
            Pidfd => &facts.pidfd,
            ReadMemory => &facts.read_memory,
        }
    }

    /// Returns its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            UserNamespace => "a user namespace",
            UserNamespaceChroot => "chroot in a user namespace",
            FullIdMap => "a user namespace with all ids",
            Chroot => "chroot",
            Ptrace => "tracing a child",
            Landlock => "confinement by Landlock",
            Listener => "a seccomp listener",
            Openat2 => "openat2",
            Pidfd => "handles of processes",
            ReadMemory => "reading the memory of a child",
        }
    }
}

/// A policy that may have refused something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The policy.
    pub policy: &'static str,
    /// What shows that it is in force here; none where nothing tells, and it is one that commonly answers so.
    pub evidence: Option<String>,
    /// What an administrator could change.
    pub change: &'static str,
}

/// What this machine shows of a policy.
enum Sign {
    /// It is in force.
    Seen(String),
    /// It may be; nothing tells.
    Unknown,
    /// It is not.
    Absent,
}

/// A policy: what it refuses, with which errors (none: any), who it is, how it shows, what to change.
type Policy = (
    &'static [Facility],
    &'static [i32],
    &'static str,
    fn(&Facts) -> Sign,
    &'static str,
);

const NAMESPACES: &[Facility] = &[UserNamespace, UserNamespaceChroot, FullIdMap];

/// Likelier ones first.
const POLICIES: &[Policy] = &[
    (
        &[UserNamespace],
        &[libc::EPERM],
        "the kernel, which gives a process in a chroot no user namespace",
        chrooted,
        "start the builder outside of that chroot",
    ),
    (
        &[UserNamespace],
        &[libc::ENOSPC, libc::EUSERS],
        "the sysctl user.max_user_namespaces",
        |f| match f.max_user_namespaces {
            Some(0) => Sign::Seen("/proc/sys/user/max_user_namespaces is 0".to_owned()),
            _ => Sign::Unknown,
        },
        "set it to some thousands on the node (`sysctl -w user.max_user_namespaces=15000`)",
    ),
    (
        NAMESPACES,
        &[libc::EPERM, libc::EACCES],
        "AppArmor (kernel.apparmor_restrict_unprivileged_userns)",
        |f| {
            sysctl(
                f.apparmor_restricts_userns == Some(true),
                "kernel/apparmor_restrict_unprivileged_userns is 1",
            )
        },
        "install an AppArmor profile for stepwell that has `userns,`, or set that sysctl to 0",
    ),
    (
        &[UserNamespace],
        &[libc::EPERM],
        "the sysctl kernel.unprivileged_userns_clone",
        |f| {
            sysctl(
                f.unprivileged_userns_clone == Some(false),
                "kernel/unprivileged_userns_clone is 0",
            )
        },
        "set it to 1",
    ),
    (
        &[UserNamespace],
        &[libc::EPERM, libc::ENOSYS, libc::EACCES],
        "the seccomp profile of the container",
        filtered,
        "allow `unshare` and `clone` with CLONE_NEWUSER in it (docker: `--security-opt seccomp=FILE`; Kubernetes: \
         `seccompProfile` of type `Localhost`)",
    ),
    (
        &[UserNamespaceChroot],
        &[libc::EPERM, libc::ENOSYS, libc::EACCES],
        "a seccomp profile that allows chroot(2) only with CAP_SYS_CHROOT",
        filtered,
        "allow `chroot` in the seccomp profile of the container",
    ),
    (
        NAMESPACES,
        &[libc::EPERM, libc::EACCES],
        "the security profile of this process",
        confined,
        "allow user namespaces and their capabilities in it (AppArmor: `userns,` and `capability,`; SELinux: \
         `user_namespace create` for its type)",
    ),
    (
        &[UserNamespace],
        &[libc::ENOSYS, libc::EINVAL],
        "a kernel that is built without user namespaces",
        |_| Sign::Unknown,
        "take one with CONFIG_USER_NS",
    ),
    (
        &[Chroot],
        &[libc::EPERM],
        "the lack of CAP_SYS_CHROOT",
        |f| match f.capabilities.iter().any(|c| c == "CAP_SYS_CHROOT") {
            true => Sign::Absent,
            false => Sign::Seen("CapEff in /proc/self/status is without it".to_owned()),
        },
        "run as root in the container, with CAP_SYS_CHROOT as docker gives it",
    ),
    (
        &[Chroot],
        &[],
        "the seccomp profile of the container",
        filtered,
        "allow `chroot` in it",
    ),
    (
        &[Ptrace, ReadMemory],
        &[libc::EPERM],
        "the sysctl kernel.yama.ptrace_scope",
        |f| match f.ptrace_scope {
            Some(scope @ 2..) => {
                Sign::Seen(format!("/proc/sys/kernel/yama/ptrace_scope is {scope}"))
            }
            _ => Sign::Absent,
        },
        "set it to 1 or 0",
    ),
    (
        &[Ptrace],
        &[],
        "a seccomp profile, or another tracer",
        |_| Sign::Unknown,
        "allow `ptrace` in the profile, as that of every current container runtime does",
    ),
    (
        &[ReadMemory],
        &[],
        "a seccomp profile",
        |_| Sign::Unknown,
        "allow `process_vm_readv` in the profile",
    ),
    (
        &[Landlock],
        &[libc::EOPNOTSUPP],
        "a kernel in which Landlock is switched off",
        |_| Sign::Unknown,
        "add `landlock` to the kernel's `lsm=`",
    ),
    (
        &[Landlock],
        &[],
        "a kernel before 5.13, one without Landlock, or a seccomp profile",
        |_| Sign::Unknown,
        "add `landlock` to the kernel's `lsm=` and allow its three calls in the profile",
    ),
    (
        &[Listener],
        &[libc::EBUSY],
        "another seccomp listener on this container",
        |_| Sign::Unknown,
        "start the container without a seccomp agent",
    ),
    (
        &[Listener],
        &[],
        "a kernel before 5.14 or a seccomp profile",
        |_| Sign::Unknown,
        "allow `seccomp` in the profile",
    ),
    (
        &[Openat2],
        &[],
        "a kernel before 5.6 or a seccomp profile",
        |_| Sign::Unknown,
        "allow `openat2` in the profile",
    ),
    (
        &[Pidfd],
        &[],
        "a kernel before 5.3 or a seccomp profile",
        |_| Sign::Unknown,
        "allow `pidfd_open` and `pidfd_send_signal`",
    ),
    (
        &[FullIdMap],
        &[],
        "a security policy of this machine",
        |_| Sign::Unknown,
        "allow the builder to write the id maps of its children",
    ),
    (
        &[UserNamespace, UserNamespaceChroot],
        &[],
        "a security policy of this machine",
        |_| Sign::Unknown,
        "look for a denial in the kernel's log (`dmesg`, `ausearch -m avc`), and allow what it names",
    ),
];

/// Returns who may have refused it, those first that show; nobody where it works.
pub fn causes(facility: Facility, facts: &Facts) -> Vec<Cause> {
    let Some(errno) = facility.attempt(facts).errno() else {
        return Vec::new();
    };
    let fits =
        |row: &&Policy| row.0.contains(&facility) && (row.1.is_empty() || row.1.contains(&errno));
    let (mut seen, mut possible) = (Vec::new(), Vec::new());
    for (_, _, policy, sign, change) in POLICIES.iter().filter(fits) {
        let cause = |evidence| Cause {
            policy,
            evidence,
            change,
        };
        match sign(facts) {
            Sign::Seen(evidence) => seen.push(cause(Some(evidence))),
            Sign::Unknown => possible.push(cause(None)),
            Sign::Absent => {}
        }
    }
    seen.extend(possible);
    seen
}

fn chrooted(facts: &Facts) -> Sign {
    match facts.chrooted {
        Some(true) => Sign::Seen("no mount is at `/` in /proc/self/mountinfo".to_owned()),
        _ => Sign::Absent,
    }
}

fn sysctl(set: bool, evidence: &str) -> Sign {
    match set {
        true => Sign::Seen(format!("/proc/sys/{evidence}")),
        false => Sign::Absent,
    }
}

fn filtered(facts: &Facts) -> Sign {
    match facts.seccomp_filtered {
        true => Sign::Seen("`Seccomp: 2` in /proc/self/status".to_owned()),
        false => Sign::Absent,
    }
}

fn confined(facts: &Facts) -> Sign {
    match facts.profile.as_deref() {
        None | Some("unconfined") => Sign::Absent,
        Some(profile) => Sign::Seen(format!("/proc/self/attr/current says `{profile}`")),
    }
}
