//! The seccomp profiles of container runtimes, as data: what they allow to everybody, what only with a capability, and
//! what they answer otherwise.
//!
//! Written from what moby's default profile (which Kubernetes calls `RuntimeDefault`) and that of Podman and CRI-O were
//! found to allow and to deny. 32-bit programs are left out: nothing here runs any.

use serde_json::{Value, json};

/// A profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// What Docker, containerd and Kubernetes' `RuntimeDefault` use.
    RuntimeDefault,
    /// What Podman and CRI-O use: namespaces and mounts are left to the kernel, and chroot(2) needs its capability.
    ContainersCommon,
    /// Everything but the mount family, which is answered as AppArmor answers it.
    MountsAnswerEacces,
    /// No profile.
    Unconfined,
}

/// Calls that everybody may make under the first two.
const ALLOWED: &str = "\
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_adjtime clock_getres
clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl
fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue
futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid
getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl
ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat
listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier
memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync
munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64
process_mrelease process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto
set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid
setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 socketpair splice stat statfs statmount statx symlink symlinkat sync sync_file_range
syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat uretprobe utime utimensat utimes vfork
vmsplice wait4 waitid write writev";

/// Calls that take one of these capabilities.
const WITH_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday clock_settime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    (
        "CAP_SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Calls that Podman's and CRI-O's profile allows to everybody on top.
const ALSO_IN_CONTAINERS_COMMON: &str = "\
clone clone3 fsconfig fsmount fsopen fspick get_mempolicy keyctl kcmp mbind mount mount_setattr move_mount open_tree
pidfd_getfd pivot_root set_mempolicy setns sethostname setdomainname umount2 unshare";

/// The mount family.
const MOUNTS: &str =
    "mount umount2 pivot_root open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr";

/// The flags of clone(2) that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;

const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
const EACCES: u32 = 13;

impl Profile {
    /// Returns the profile as a bundle's configuration has it, for a process with these capabilities.
    pub fn seccomp(self, capabilities: &[&str]) -> Option<Value> {
        let (default, rules) = match self {
            Self::Unconfined => return None,
            Self::RuntimeDefault => {
                let mut rules = common(capabilities);
                if !capabilities.contains(&"CAP_SYS_ADMIN") {
                    rules.extend(clone_without_namespaces());
                }
                (refuse(EPERM), rules)
            }
            Self::ContainersCommon => {
                let mut rules = common(capabilities);
                rules.push(allow(ALSO_IN_CONTAINERS_COMMON));
                rules.push(refused("chroot", EPERM, capabilities, "CAP_SYS_CHROOT"));
                rules.retain(|rule| !rule["names"].as_array().is_some_and(Vec::is_empty));
                (refuse(ENOSYS), rules)
            }
            Self::MountsAnswerEacces => {
                let names: Vec<_> = MOUNTS.split_whitespace().collect();
                let rule = json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": EACCES});
                (json!({"defaultAction": "SCMP_ACT_ALLOW"}), vec![rule])
            }
        };
        let mut profile = default;
        profile["architectures"] = json!([format!(
            "SCMP_ARCH_{}",
            std::env::consts::ARCH.to_uppercase()
        )]);
        profile["syscalls"] = json!(rules);
        Some(profile)
    }
}

fn refuse(errno: u32) -> Value {
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno})
}

fn common(capabilities: &[&str]) -> Vec<Value> {
    let with = WITH_CAPABILITY
        .iter()
        .filter(|(capability, _)| capabilities.contains(capability));
    let mut rules = vec![allow(ALLOWED)];
    rules.extend(with.map(|(_, names)| allow(names)));
    rules.extend(partly());
    rules
}

fn allow(names: &str) -> Value {
    json!({"names": names.split_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"})
}

/// A refusal with an error number of its own, for those without the capability.
fn refused(name: &str, errno: u32, capabilities: &[&str], unless: &str) -> Value {
    let names: Vec<_> = Some(name)
        .into_iter()
        .filter(|_| !capabilities.contains(&unless))
        .collect();
    json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno})
}

/// Calls that are allowed for some values of an argument.
fn partly() -> Vec<Value> {
    let when = |name: &str, op: &str, value: u64| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": op}]});
    // All address families but AF_ALG and AF_VSOCK.
    let mut rules = vec![
        when("socket", "SCMP_CMP_LT", 38),
        when("socket", "SCMP_CMP_EQ", 39),
        when("socket", "SCMP_CMP_GT", 40),
    ];
    // PER_LINUX, UNAME26, PER_LINUX32, both, and the question which it is.
    for value in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(when("personality", "SCMP_CMP_EQ", value));
    }
    rules
}

/// clone(2) without new namespaces; clone3(2), whose flags no filter can see, is not there.
fn clone_without_namespaces() -> [Value; 2] {
    [
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}),
    ]
}
