//! Calls of 32-bit programs: which native call each of them is, and in what it differs.
//!
//! The table is the only thing that knows their numbers.  Filter rules get them from here ([`rules`]), and a call that is asked
//! about is made the native one ([`widen`]) before anybody looks at it, so that rows, rules and handlers are the same for
//! programs of either kind.  What is left are the structures that are written to memory: who writes one asks for the [`Form`].
//!
//! x32 programs are no such: their numbers are native ones with a bit, and they are refused by the filter.

use stepwell_sys::notify::Notification;
use stepwell_sys::seccomp::{AUDIT_ARCH, Rule};

/// In what a call differs from the native one, beside its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In nothing: it is the native call, or its arguments mean the same.
    Same,
    /// Ids have 16 bits: in these arguments, in lists, and in what is returned.
    ShortIds(&'static [usize]),
    /// `struct stat64`.
    Stat64,
    /// `struct stat` with 16-bit ids and 32-bit lengths.
    Stat,
    /// `struct statfs`.
    Statfs,
    /// `struct statfs64`, whose length is an argument between path and structure.
    Statfs64,
    /// `struct rlimit` of two 32-bit numbers.
    Limit,
    /// The same where the largest number is 2^31 - 1.
    OldLimit,
    /// A length of 32 bits, with its sign, is argument 1.
    Length,
    /// A length of 64 bits is in arguments 1 and 2.
    LongLength,
    /// Times of two 32-bit numbers, in a `struct utimbuf` of one.
    Times,
    /// Times of two 64-bit numbers, of which the second has only 32 that count.
    LongTimes,
    /// `struct msghdr` and what it points to.
    Message,
    /// The offset, argument 5, is a number of pages.
    Pages,
    /// Nobody has made it since libc 5: it is not there.
    Gone,
}

/// A call of 32-bit programs.
struct Narrow {
    nr: u32,
    native: i64,
    form: Form,
}

/// `NATIVE: NUMBER FORM, …;` with a row for each number.
macro_rules! calls {
    ($($native:ident: $($nr:literal $form:expr),+;)*) => {
        &[$($(Narrow { nr: $nr, native: libc::$native, form: $form }),+),*]
    };
}

use Form::{
    Gone, Length, Limit, LongLength, LongTimes, Message, OldLimit, Pages, Same, ShortIds, Stat,
    Stat64, Statfs, Statfs64, Times,
};

/// The numbers of `arch/x86/entry/syscalls/syscall_32.tbl`.
#[cfg(target_arch = "x86_64")]
const CALLS: &[Narrow] = calls! {
    SYS_open: 5 Same; SYS_creat: 8 Same; SYS_openat: 295 Same; SYS_openat2: 437 Same;
    SYS_execve: 11 Same; SYS_chdir: 12 Same;
    SYS_stat: 106 Stat, 195 Stat64, 18 Gone; SYS_lstat: 107 Stat, 196 Stat64, 84 Gone; SYS_fstat: 108 Stat, 197 Stat64, 28 Gone;
    SYS_newfstatat: 300 Stat64; SYS_statx: 383 Same;
    SYS_statfs: 99 Statfs, 268 Statfs64; SYS_fstatfs: 100 Statfs, 269 Statfs64;
    SYS_readlink: 85 Same; SYS_readlinkat: 305 Same; SYS_access: 33 Same; SYS_faccessat: 307 Same; SYS_faccessat2: 439 Same;
    SYS_chmod: 15 Same; SYS_fchmod: 94 Same; SYS_fchmodat: 306 Same; SYS_fchmodat2: 452 Same;
    SYS_chown: 182 ShortIds(&[1, 2]), 212 Same; SYS_lchown: 16 ShortIds(&[1, 2]), 198 Same;
    SYS_fchown: 95 ShortIds(&[1, 2]), 207 Same; SYS_fchownat: 298 Same;
    SYS_mkdir: 39 Same; SYS_mkdirat: 296 Same; SYS_mknod: 14 Same; SYS_mknodat: 297 Same;
    SYS_symlink: 83 Same; SYS_symlinkat: 304 Same; SYS_link: 9 Same; SYS_linkat: 303 Same;
    SYS_rename: 38 Same; SYS_renameat: 302 Same; SYS_renameat2: 353 Same;
    SYS_unlink: 10 Same; SYS_unlinkat: 301 Same; SYS_rmdir: 40 Same;
    SYS_truncate: 92 Length, 193 LongLength; SYS_utime: 30 Times; SYS_utimes: 271 Times; SYS_futimesat: 299 Times; SYS_utimensat: 320 Times, 412 LongTimes;
    SYS_fchdir: 133 Same; SYS_getcwd: 183 Same; SYS_umask: 60 Same; SYS_uname: 122 Same, 109 Gone, 59 Gone;
    SYS_inotify_init: 291 Same; SYS_inotify_init1: 332 Same; SYS_inotify_add_watch: 292 Same;
    SYS_execveat: 358 Same; SYS_clone: 120 Same; SYS_fork: 2 Same; SYS_vfork: 190 Same;
    SYS_chroot: 61 Same; SYS_unshare: 310 Same; SYS_setns: 346 Same; SYS_fanotify_init: 338 Same; SYS_fanotify_mark: 339 Same;
    SYS_name_to_handle_at: 341 Same; SYS_mount: 21 Same; SYS_umount2: 52 Same, 22 Same; SYS_pivot_root: 217 Same;
    SYS_swapon: 87 Same; SYS_swapoff: 115 Same; SYS_acct: 51 Same; SYS_quotactl: 131 Same; SYS_uselib: 86 Same;
    SYS_mmap: 192 Pages; SYS_munmap: 91 Same; SYS_close: 6 Same;
    SYS_setxattr: 226 Same; SYS_lsetxattr: 227 Same; SYS_fsetxattr: 228 Same;
    SYS_getxattr: 229 Same; SYS_lgetxattr: 230 Same; SYS_fgetxattr: 231 Same;
    SYS_listxattr: 232 Same; SYS_llistxattr: 233 Same; SYS_flistxattr: 234 Same;
    SYS_removexattr: 235 Same; SYS_lremovexattr: 236 Same; SYS_fremovexattr: 237 Same;
    SYS_getuid: 24 ShortIds(&[]), 199 Same; SYS_geteuid: 49 ShortIds(&[]), 201 Same;
    SYS_getgid: 47 ShortIds(&[]), 200 Same; SYS_getegid: 50 ShortIds(&[]), 202 Same;
    SYS_getresuid: 165 ShortIds(&[]), 209 Same; SYS_getresgid: 171 ShortIds(&[]), 211 Same;
    SYS_setuid: 23 ShortIds(&[0]), 213 Same; SYS_setgid: 46 ShortIds(&[0]), 214 Same;
    SYS_setreuid: 70 ShortIds(&[0, 1]), 203 Same; SYS_setregid: 71 ShortIds(&[0, 1]), 204 Same;
    SYS_setresuid: 164 ShortIds(&[0, 1, 2]), 208 Same; SYS_setresgid: 170 ShortIds(&[0, 1, 2]), 210 Same;
    SYS_setfsuid: 138 ShortIds(&[0]), 215 Same; SYS_setfsgid: 139 ShortIds(&[0]), 216 Same;
    SYS_getgroups: 80 ShortIds(&[]), 205 Same; SYS_setgroups: 81 ShortIds(&[]), 206 Same;
    SYS_capget: 184 Same; SYS_capset: 185 Same; SYS_prctl: 172 Same;
    SYS_prlimit64: 340 Same; SYS_getrlimit: 191 Limit, 76 OldLimit; SYS_setrlimit: 75 Limit;
    SYS_setpriority: 97 Same; SYS_ioprio_set: 289 Same; SYS_sched_setscheduler: 156 Same; SYS_sched_setparam: 154 Same;
    SYS_sched_setaffinity: 241 Same; SYS_sched_setattr: 351 Same; SYS_migrate_pages: 294 Same; SYS_move_pages: 317 Same;
    SYS_kill: 37 Same; SYS_tkill: 238 Same; SYS_tgkill: 270 Same; SYS_rt_sigqueueinfo: 178 Same; SYS_rt_tgsigqueueinfo: 335 Same;
    SYS_pidfd_open: 434 Same; SYS_pidfd_send_signal: 424 Same; SYS_pidfd_getfd: 438 Same;
    SYS_ptrace: 26 Same; SYS_process_vm_readv: 347 Same; SYS_process_vm_writev: 348 Same; SYS_process_madvise: 440 Same; SYS_kcmp: 349 Same;
    SYS_socket: 359 Same; SYS_socketpair: 360 Same; SYS_bind: 361 Same; SYS_connect: 362 Same; SYS_listen: 363 Same; SYS_accept4: 364 Same;
    SYS_getsockopt: 365 Same; SYS_setsockopt: 366 Same; SYS_getsockname: 367 Same; SYS_getpeername: 368 Same; SYS_shutdown: 373 Same;
    SYS_sendto: 369 Same; SYS_sendmsg: 370 Message; SYS_sendmmsg: 345 Message;
    SYS_recvfrom: 371 Same; SYS_recvmsg: 372 Same; SYS_recvmmsg: 337 Same;
    SYS_add_key: 286 Same; SYS_request_key: 287 Same; SYS_keyctl: 288 Same; SYS_open_by_handle_at: 342 Same;
    SYS_bpf: 357 Same; SYS_perf_event_open: 336 Same; SYS_userfaultfd: 374 Same; SYS_io_uring_setup: 425 Same; SYS_ioctl: 54 Same;
};

/// Of ARM there are the calls that are refused everywhere; for the others nobody answers there
/// (`arch/arm/tools/syscall.tbl`).
#[cfg(not(target_arch = "x86_64"))]
const CALLS: &[Narrow] = calls! {
    SYS_add_key: 309 Same; SYS_request_key: 310 Same; SYS_keyctl: 311 Same; SYS_open_by_handle_at: 371 Same;
    SYS_bpf: 386 Same; SYS_perf_event_open: 364 Same; SYS_userfaultfd: 388 Same; SYS_io_uring_setup: 425 Same; SYS_ioctl: 54 Same;
};

/// Number from which on all architectures have the same numbers.
const SAME_FOR_ALL: i64 = 424;

/// `socketcall(2)`, by which 32-bit C libraries make sockets: its arguments are in memory, where no filter sees them.
pub const SOCKETCALL: u32 = 102;

/// Says whether the table has every call that a rule may be about, so that 32-bit programs need not be refused where rules
/// are walls.
pub const IS_WHOLE: bool = cfg!(target_arch = "x86_64");

/// The numbers of a native call in 32-bit programs.
pub fn numbers(native: i64) -> Vec<u32> {
    let known = CALLS.iter().filter(|call| call.native == native);
    let mut numbers: Vec<u32> = known.map(|call| call.nr).collect();
    if numbers.is_empty() && native >= SAME_FOR_ALL && IS_WHOLE {
        numbers.extend(u32::try_from(native));
    }
    numbers
}

/// Returns the native number of a call of 32-bit programs, where the table has it.
pub fn native(nr: i64) -> Option<i64> {
    let known = CALLS.iter().find(|call| i64::from(call.nr) == nr);
    known.map(|call| call.native)
}

/// A page as mmap(2) of 32-bit programs counts them, whatever the machine's are.
const PAGE: u64 = 4096;

/// Returns a native call as a 32-bit program makes it: number and arguments.
///
/// None where there is no such call, or an argument is too large for it.
pub fn narrowed(native: i64, mut arguments: [u64; 6]) -> Option<(i64, [u64; 6])> {
    let mut known = CALLS.iter().filter(|call| call.native == native);
    let call = known.find(|call| matches!(call.form, Same | Pages | Message))?;
    if call.form == Pages {
        let offset = arguments[5];
        arguments[5] = offset.is_multiple_of(PAGE).then_some(offset / PAGE)?;
    }
    for argument in &mut arguments {
        // Descriptors may be negative.
        let negative = i32::try_from(*argument as i64).map(|number| number as u32);
        *argument = u32::try_from(*argument).or(negative).ok()?.into();
    }
    Some((call.nr.into(), arguments))
}

/// Has rules hold for 32-bit programs too.
pub fn rules(rules: Vec<Rule>) -> Vec<Rule> {
    let widened = rules.into_iter().map(|rule| {
        let numbers = numbers(rule.nr);
        // Those for 32-bit programs alone say their number themselves.
        if numbers.is_empty() {
            rule
        } else {
            rule.also_narrow(&numbers)
        }
    });
    widened.collect()
}

/// Makes the native call of a call that is asked about; says in what it differs.
pub fn widen(mut notification: Notification) -> (Notification, Form) {
    if notification.arch == AUDIT_ARCH {
        return (notification, Form::Same);
    }
    // A 64-bit program may make such a call, and its registers are wider than what the kernel looks at.
    for argument in &mut notification.args {
        *argument &= u64::from(u32::MAX);
    }
    let known = CALLS
        .iter()
        .find(|call| i64::from(call.nr) == i64::from(notification.nr));
    let Some(call) = known else {
        return (notification, Form::Same);
    };
    notification.nr = call.native as i32;
    match call.form {
        Form::ShortIds(arguments) => {
            for index in arguments {
                notification.args[*index] = long_id(notification.args[*index]);
            }
        }
        Form::Statfs64 => notification.args[1] = notification.args[2],
        Form::Length => notification.args[1] = i64::from(notification.args[1] as i32) as u64,
        Form::LongLength => notification.args[1] |= notification.args[2] << 32,
        _ => {}
    }
    (notification, call.form)
}

/// -1 means that an id stays.
fn long_id(id: u64) -> u64 {
    match id as u16 {
        u16::MAX => u32::MAX.into(),
        id => id.into(),
    }
}

impl Form {
    /// Makes what is returned of an id of a call: what does not fit is shown as nobody.
    pub fn id(self, id: u32) -> u32 {
        match self {
            Self::ShortIds(_) if id > u16::MAX.into() => NOBODY,
            _ => id,
        }
    }

    /// Lays an id out as it is in memory.
    pub fn id_bytes(self, id: u32) -> Vec<u8> {
        match self {
            Self::ShortIds(_) => (self.id(id) as u16).to_ne_bytes().to_vec(),
            _ => id.to_ne_bytes().to_vec(),
        }
    }

    /// Reads ids as they are in memory.
    pub fn ids(self, bytes: &[u8]) -> Vec<u32> {
        let number = |id: &[u8]| match *id {
            [a, b] => long_id(u16::from_ne_bytes([a, b]).into()) as u32,
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
            _ => u32::MAX,
        };
        bytes.chunks_exact(self.id_size()).map(number).collect()
    }

    /// Length of an id in memory.
    pub fn id_size(self) -> usize {
        if matches!(self, Self::ShortIds(_)) {
            2
        } else {
            4
        }
    }
}

/// What 16 bits show of an id that they cannot hold (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    const I386: u32 = 0x4000_0003;

    fn call(nr: i32, args: [u64; 6]) -> Notification {
        Notification {
            id: 1,
            tid: 2,
            nr,
            arch: I386,
            args,
        }
    }

    #[test]
    fn no_number_means_two_calls() {
        let mut numbers: Vec<u32> = CALLS.iter().map(|call| call.nr).collect();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }

    #[test]
    fn a_narrow_call_becomes_the_native_one() {
        let high = 1 << 40;
        let (wide, form) = widen(call(182, [high | 8, 0xffff, 5, 0, 0, 0]));
        assert_eq!(i64::from(wide.nr), libc::SYS_chown);
        assert_eq!(wide.args[..3], [8, u32::MAX.into(), 5]);
        assert_eq!((form.id(70_000), form.id(7)), (65_534, 7));
        assert_eq!(form.ids(&[7, 0, 0xff, 0xff]), [7, u32::MAX]);
        let (wide, form) = widen(call(268, [8, 84, 16, 0, 0, 0]));
        assert_eq!((wide.args[1], form), (16, Form::Statfs64));
        let (wide, _) = widen(call(92, [8, high | 0xffff_fffe, 0, 0, 0, 0]));
        assert_eq!(wide.args[1] as i64, -2);
        let (wide, _) = widen(call(193, [8, high | 5, high | 1, 0, 0, 0]));
        assert_eq!(wide.args[1], 1 << 32 | 5);
        let native = Notification {
            arch: AUDIT_ARCH,
            ..call(182, [high; 6])
        };
        assert_eq!(widen(native), (native, Form::Same));
    }
    #[test]
    fn a_native_call_is_made_by_32_bit_programs_too() {
        let map = [0, 4096, 5, 2, u64::MAX, 8192];
        let narrow = [0, 4096, 5, 2, u32::MAX.into(), 2];
        assert_eq!(narrowed(libc::SYS_mmap, map), Some((192, narrow)));
        assert_eq!(narrowed(libc::SYS_mmap, [0, 4096, 5, 2, 3, 100]), None);
        assert_eq!(narrowed(libc::SYS_munmap, [1 << 32, 0, 0, 0, 0, 0]), None);
        assert_eq!(narrowed(libc::SYS_gettid, [0; 6]), None);
        assert_eq!(
            (native(11), native(1)),
            (Some(libc::SYS_execve), None),
            "what is in the table, and what is not"
        );
    }
}
