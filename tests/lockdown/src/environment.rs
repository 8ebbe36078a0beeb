//! The containers that users' builds run in: one row for each.

use crate::seccomp::Profile;

/// A container, what its denial looks like, and what a build has to get there.
#[derive(Debug, Clone, Copy)]
pub struct Environment {
    /// Name of the row, and of its test.
    pub name: &'static str,
    /// Where users meet it.
    pub met: &'static str,
    /// How it is made.
    pub maker: Maker,
    /// User and group.
    pub user: (u32, u32),
    /// Whether `/etc/passwd` knows the user.
    pub passwd: bool,
    /// Effective capabilities.
    pub capabilities: &'static [&'static str],
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privs: bool,
    /// The seccomp profile.
    pub seccomp: Profile,
    /// What there is of `/proc`.
    pub proc: Proc,
    /// `readOnlyRootFilesystem: true`; one volume can be written to.
    pub read_only: bool,
    /// `user.max_user_namespaces` is 0.
    pub no_user_namespaces: bool,
    /// Mode of `helpers/deny_mounts.c` that the build is put under.
    pub denial: Option<&'static str>,
    /// A command that shows the denial, and what it has to say.
    pub control: (&'static str, &'static str),
    /// The tier that has to be chosen.
    pub tier: &'static str,
    /// What has to be said of why it is no better one.
    pub reason: &'static str,
}

/// How an environment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// A container, by runc.
    Runc,
    /// A chroot with `/proc` and `/dev`; nothing else of the row but its user holds for it.
    Chroot,
}

/// What there is of `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proc {
    /// As container runtimes make it: parts are covered, parts are read-only.
    Masked,
    /// All of it.
    Whole,
    /// Nothing; runc makes no such container.
    Absent,
}

/// What Docker, containerd and CRI-O (with two more) leave to root.
const DOCKER: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Kubernetes' profile `restricted`; other rows say how they differ.
const RESTRICTED: Environment = Environment {
    name: "kubernetes_restricted",
    met: "Kubernetes, `restricted`, seccomp `RuntimeDefault`",
    maker: Maker::Runc,
    user: (1000, 1000),
    passwd: true,
    capabilities: &[],
    no_new_privs: true,
    seccomp: Profile::RuntimeDefault,
    proc: Proc::Masked,
    read_only: false,
    no_user_namespaces: false,
    denial: None,
    control: ("unshare -U true", "Operation not permitted"),
    tier: "mediated",
    reason: "the seccomp profile of the container",
};

/// All of them.
pub const ENVIRONMENTS: &[Environment] = &[
    Environment {
        name: "docker_default",
        met: "`docker run`, root; Kubernetes, root, seccomp `RuntimeDefault`",
        user: (0, 0),
        capabilities: DOCKER,
        no_new_privs: false,
        tier: "chroot",
        ..RESTRICTED
    },
    Environment {
        name: "docker_user",
        met: "`docker run --user`",
        no_new_privs: false,
        ..RESTRICTED
    },
    Environment {
        name: "docker_root_without_capabilities",
        met: "`docker run --cap-drop=ALL`, root",
        user: (0, 0),
        no_new_privs: false,
        control: ("chroot / true", "Operation not permitted"),
        ..RESTRICTED
    },
    Environment {
        name: "kubernetes_baseline",
        met: "Kubernetes, `baseline`, no seccomp profile set",
        user: (0, 0),
        capabilities: DOCKER,
        no_new_privs: false,
        seccomp: Profile::Unconfined,
        control: (
            "mount -t tmpfs none /tmp",
            "permission denied|Operation not permitted",
        ),
        tier: "userns",
        reason: "[]",
        ..RESTRICTED
    },
    RESTRICTED,
    Environment {
        name: "openshift",
        met: "OpenShift, `restricted-v2`: any user id, group 0, no passwd entry",
        user: (1_000_650_000, 0),
        passwd: false,
        control: ("whoami", "unknown uid"),
        ..RESTRICTED
    },
    Environment {
        name: "read_only_root",
        met: "the same with `readOnlyRootFilesystem` and one volume",
        read_only: true,
        control: ("touch /tmp/x", "Read-only file system"),
        ..RESTRICTED
    },
    Environment {
        name: "masked_proc",
        met: "Kubernetes, a user, no seccomp profile set",
        seccomp: Profile::Unconfined,
        // What rootless BuildKit and Buildah need, and masking makes the kernel refuse.
        control: (
            "unshare -Urpf --mount-proc true",
            "Operation not permitted|permission denied",
        ),
        tier: "userns",
        reason: "[]",
        ..RESTRICTED
    },
    Environment {
        name: "max_user_namespaces_0",
        met: "hardened nodes (CIS, Bottlerocket): `user.max_user_namespaces=0`",
        seccomp: Profile::Unconfined,
        proc: Proc::Whole,
        no_user_namespaces: true,
        control: ("unshare -U true", "No space left on device"),
        reason: "user.max_user_namespaces",
        ..RESTRICTED
    },
    Environment {
        name: "landlock",
        met: "a security module that denies mount (Landlock)",
        seccomp: Profile::Unconfined,
        denial: Some("landlock"),
        control: (
            "unshare -Urm mount -t tmpfs none /tmp",
            "Operation not permitted|permission denied",
        ),
        tier: "userns",
        reason: "[]",
        ..RESTRICTED
    },
    Environment {
        name: "seccomp_eacces",
        met: "a seccomp profile that denies mount alone",
        seccomp: Profile::MountsAnswerEacces,
        control: (
            "unshare -Urm mount -t tmpfs none /tmp",
            "Permission denied|permission denied",
        ),
        tier: "userns",
        reason: "[]",
        ..RESTRICTED
    },
    Environment {
        name: "containers_common",
        met: "Podman or CRI-O, a user: namespaces, but no chroot",
        seccomp: Profile::ContainersCommon,
        control: ("unshare -Ur chroot / true", "Operation not permitted"),
        reason: "only with CAP_SYS_CHROOT",
        ..RESTRICTED
    },
    Environment {
        name: "chroot",
        met: "a chroot (schroot, sbuild), a user",
        maker: Maker::Chroot,
        no_new_privs: false,
        seccomp: Profile::Unconfined,
        proc: Proc::Whole,
        control: ("unshare -U true", "Operation not permitted"),
        reason: "gives a process in a chroot no user namespace",
        ..RESTRICTED
    },
];

/// Finds a row.
pub fn environment(name: &str) -> &'static Environment {
    ENVIRONMENTS
        .iter()
        .find(|e| e.name == name)
        .unwrap_or_else(|| panic!("no environment `{name}`"))
}
