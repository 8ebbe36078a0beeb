//! Seccomp filters (seccomp(2)): rules are data, each with its reason; this file turns them into a BPF
//! program and installs it, with or without a notification descriptor.
//!
//! It must not know what any rule is for.  Answering notifications is [`crate::notify`]'s work.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Context, SysError, SysResult};

/// One rule: a system call and what becomes of it.  A call that no rule names is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Number of the system call on this architecture.
    pub nr: i64,
    /// Name of the system call, for people.
    pub name: String,
    /// What becomes of it.
    pub action: Action,
    /// All must hold for the rule to apply; none means always.  At most four.
    pub when: Vec<Condition>,
    /// Why the rule is there.
    pub reason: String,
    /// Numbers of the same call in 32-bit programs, for which the rule holds as well; there may be several, since some calls
    /// came again with wider ids and times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub narrow: Vec<u32>,
}

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The supervisor is asked.
    Notify,
    /// The tracer is asked; without one it fails with ENOSYS.
    Trace,
    /// It fails with this error number.
    Errno(u16),
    /// It is carried out, whatever later rules say.
    Allow,
}

/// A condition on one argument (0 to 5): `argument & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Index of the argument.
    pub argument: u8,
    /// Bits that are looked at.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
    /// Whether the condition is turned round: `argument & mask != value`.
    pub negate: bool,
}

impl Rule {
    /// Makes a rule without conditions.
    pub fn new(nr: i64, name: &str, action: Action, reason: &str) -> Self {
        Self {
            nr,
            name: name.to_owned(),
            action,
            when: Vec::new(),
            reason: reason.to_owned(),
            narrow: Vec::new(),
        }
    }

    /// Makes a rule for a call that 32-bit programs alone have.
    pub fn narrow_only(nr: u32, name: &str, action: Action, reason: &str) -> Self {
        Self::new(NO_CALL, name, action, reason).also_narrow(&[nr])
    }

    /// Has the rule hold for 32-bit programs too, in which the call has these numbers.
    #[must_use]
    pub fn also_narrow(mut self, numbers: &[u32]) -> Self {
        self.narrow = numbers.to_vec();
        self
    }
}

/// Number of no call.
const NO_CALL: i64 = -1;

/// What becomes of calls of the other binary interface of this machine (32-bit programs).  Their numbers mean other calls, so
/// that only rules which say them hold for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherAbi {
    /// They are carried out, but for those of [`Rule::narrow`].
    Allow,
    /// They fail with ENOSYS: where a rule is a wall and not a convenience.
    Deny,
}

/// A whole filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The rules; of several for one call the first that applies counts.
    pub rules: Vec<Rule>,
    /// What becomes of 32-bit programs.
    pub other_abi: OtherAbi,
}

impl Filter {
    /// Says whether the kernel may ask about a call of this machine's own interface.
    pub fn asks_about(&self, nr: i64) -> bool {
        let asks = |rule: &Rule| rule.nr == nr && rule.action == Action::Notify;
        self.rules.iter().any(asks)
    }
}

/// This machine's own interface, as filters and notifications name it.
#[cfg(target_arch = "x86_64")]
pub const AUDIT_ARCH: u32 = 0xC000_003E;
/// This machine's own interface, as filters and notifications name it.
#[cfg(target_arch = "aarch64")]
pub const AUDIT_ARCH: u32 = 0xC000_00B7;

/// Bit of the numbers of x32, an interface of x86-64 that has the same architecture word.
const X32_BIT: u32 = 0x4000_0000;

// Offsets in `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_EQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_GE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// One instruction: operation, jump distances if true and if false, operand.
type Instruction = (u16, u8, u8, u32);

impl Filter {
    /// Translates the rules into a BPF program.
    ///
    /// Calls that no rule names are decided from number and architecture alone, which the kernel recognises and
    /// answers from a bitmap without running the program.
    pub fn program(&self) -> Vec<Instruction> {
        let mut other = self.other();
        let mut program = vec![
            (LOAD, 0, 0, OFFSET_ARCH),
            // The native numbers are beyond what a conditional jump reaches.
            (JUMP_EQ, 0, 1, AUDIT_ARCH),
            (JUMP, 0, 0, other.len() as u32),
        ];
        program.append(&mut other);
        program.extend([
            (LOAD, 0, 0, OFFSET_NR),
            (JUMP_GE, 0, 1, X32_BIT),
            (RETURN, 0, 0, errno(libc::ENOSYS)),
        ]);
        for rule in self.rules.iter().filter(|rule| rule.nr != NO_CALL) {
            program.extend(rule.instructions(rule.nr as u32, Width::Native));
        }
        program.push((RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
        program
    }

    /// What becomes of 32-bit programs.
    fn other(&self) -> Vec<Instruction> {
        if self.other_abi == OtherAbi::Deny {
            return vec![(RETURN, 0, 0, errno(libc::ENOSYS))];
        }
        let mut program = vec![(LOAD, 0, 0, OFFSET_NR)];
        for rule in &self.rules {
            for nr in &rule.narrow {
                program.extend(rule.instructions(*nr, Width::Narrow));
            }
        }
        program.push((RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
        program
    }
}

impl Rule {
    fn instructions(&self, nr: u32, width: Width) -> Vec<Instruction> {
        let verdict = match self.action {
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Action::Trace => libc::SECCOMP_RET_TRACE,
            Action::Errno(number) => errno(i32::from(number)),
            Action::Allow => libc::SECCOMP_RET_ALLOW,
        };
        let mut checks: Vec<Instruction> = Vec::new();
        for condition in &self.when {
            checks.extend(condition.instructions(width));
        }
        checks.push((RETURN, 0, 0, verdict));
        if !self.when.is_empty() {
            // The number again, for the rules that follow.
            checks.push((LOAD, 0, 0, OFFSET_NR));
            let end = checks.len() - 1;
            for (at, instruction) in checks
                .iter_mut()
                .enumerate()
                .filter(|(_, i)| i.0 == JUMP_EQ)
            {
                let out = (end - at - 1) as u8;
                // FAIL marks the branch that leaves the rule.
                instruction.1 = if instruction.1 == FAIL {
                    out
                } else {
                    instruction.1
                };
                instruction.2 = if instruction.2 == FAIL {
                    out
                } else {
                    instruction.2
                };
            }
        }
        let mut all = vec![(JUMP_EQ, 0, checks.len() as u8, nr)];
        all.append(&mut checks);
        all
    }
}

const FAIL: u8 = u8::MAX;

/// How many bits of an argument the kernel looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Native,
    /// 32.  A 64-bit program may make such calls too (`int 0x80`), and the filter is shown the whole of its registers.
    Narrow,
}

impl Condition {
    /// The two halves of the argument are loaded, masked and compared one after the other (BPF knows 32 bits).
    fn instructions(self, width: Width) -> Vec<Instruction> {
        let base = OFFSET_ARGS + 8 * u32::from(self.argument);
        let half = |offset: u32, shift: u32| {
            [
                (LOAD, 0, 0, base + offset),
                (AND, 0, 0, (self.mask >> shift) as u32),
                (JUMP_EQ, 0, FAIL, (self.value >> shift) as u32),
            ]
        };
        let (mut low, mut high) = (half(0, 0), half(4, 32));
        if width == Width::Narrow {
            if self.negate {
                (low[2].1, low[2].2) = (FAIL, 0);
            }
            return low.to_vec();
        }
        if self.negate {
            // Different in the low half: holds, so the three instructions of the high half are skipped.
            (low[2].1, low[2].2) = (0, 3);
            (high[2].1, high[2].2) = (FAIL, 0);
        }
        low.into_iter().chain(high).collect()
    }
}

const fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | (number as u32 & libc::SECCOMP_RET_DATA)
}

/// Installs a filter for this thread and everything it executes or forks, for good.  Without CAP_SYS_ADMIN it
/// takes `no_new_privs` to be set before.
pub fn install(filter: &Filter) -> SysResult<()> {
    seccomp(filter, 0).map(drop)
}

/// Installs a filter and returns the descriptor on which notifications arrive.
///
/// EBUSY means that an outer filter has such a descriptor already: there can be one only.
pub fn install_with_listener(filter: &Filter) -> SysResult<OwnedFd> {
    const NEW_LISTENER: libc::c_ulong = 1 << 3;
    // A notified call is interrupted by fatal signals only, once it was received (Linux 5.19).
    const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
    let fd = match seccomp(filter, NEW_LISTENER | WAIT_KILLABLE_RECV) {
        Err(error) if error.errno == Errno::INVAL => seccomp(filter, NEW_LISTENER)?,
        other => other?,
    };
    // SAFETY: the kernel made the descriptor for this call, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn seccomp(filter: &Filter, flags: libc::c_ulong) -> SysResult<i32> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    let mut program: Vec<libc::sock_filter> = filter
        .program()
        .into_iter()
        .map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k })
        .collect();
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(SysError::new(
            "seccomp",
            format!("a filter of {} instructions", program.len()),
            Errno::INVAL,
        ));
    };
    let header = libc::sock_fprog {
        len,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the header points to `len` instructions that outlive the call; the kernel copies and checks them.
    match unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &header) } {
        -1 => Err(SysError::last("seccomp", "SECCOMP_SET_MODE_FILTER")),
        fd => Ok(fd as i32),
    }
}

/// Sets `no_new_privs`: no program executed from now on gains privileges.
pub fn set_no_new_privs() -> SysResult<()> {
    rustix::thread::set_no_new_privs(true).context("prctl", "PR_SET_NO_NEW_PRIVS")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, on a number, an architecture and arguments.
    fn run(filter: &Filter, nr: u32, arch: u32, args: [u64; 6]) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&nr.to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        for (i, arg) in args.iter().enumerate() {
            data[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_le_bytes());
        }
        let program = filter.program();
        let (mut at, mut acc) = (0, 0u32);
        loop {
            let (code, jt, jf, k) = program[at];
            at += 1;
            match code {
                LOAD => {
                    acc = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap())
                }
                AND => acc &= k,
                JUMP_EQ => at += usize::from(if acc == k { jt } else { jf }),
                JUMP_GE => at += usize::from(if acc >= k { jt } else { jf }),
                JUMP => at += k as usize,
                RETURN => return k,
                other => panic!("instruction {other}"),
            }
        }
    }

    fn rule(nr: i64, action: Action, when: Vec<Condition>) -> Rule {
        Rule {
            when,
            ..Rule::new(nr, "call", action, "test")
        }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;

    #[test]
    fn first_rule_that_applies_decides() {
        let low = Condition {
            argument: 1,
            mask: 0xff,
            value: 0x39,
            negate: false,
        };
        let not = Condition {
            argument: 0,
            mask: u64::MAX,
            value: u64::MAX,
            negate: true,
        };
        let filter = Filter {
            rules: vec![
                rule(10, Action::Notify, vec![low]),
                rule(10, Action::Errno(1), vec![not]),
                rule(11, Action::Notify, vec![]),
                rule(12, Action::Notify, vec![low, not]),
            ],
            other_abi: OtherAbi::Deny,
        };
        let call = |nr, a, b| run(&filter, nr, AUDIT_ARCH, [a, b, 0, 0, 0, 0]);
        assert_eq!(call(10, 0, 0x1239), NOTIFY);
        assert_eq!(call(10, 7, 0), errno(1));
        assert_eq!(call(10, 7 << 32, 0), errno(1));
        assert_eq!(call(10, u64::MAX, 0), ALLOW);
        assert_eq!(call(11, 0, 0), NOTIFY);
        assert_eq!(call(12, 1, 0x39), NOTIFY);
        assert_eq!(call(12, u64::MAX, 0x39), ALLOW);
        assert_eq!(call(12, u64::from(u32::MAX), 0x39), NOTIFY);
        assert_eq!(call(13, 0, 0), ALLOW);
        assert_eq!(call(X32_BIT | 11, 0, 0), errno(libc::ENOSYS));
        assert_eq!(run(&filter, 11, 0x4000_0003, [0; 6]), errno(libc::ENOSYS));
    }

    /// What is let by for want of rules is not let by where a rule names its number.
    #[test]
    fn some_rules_hold_for_32_bit_programs_too() {
        const I386: u32 = 0x4000_0003;
        let condition = |negate| Condition {
            argument: 1,
            mask: u64::MAX,
            value: 7,
            negate,
        };
        let mut filter = Filter {
            rules: vec![
                rule(250, Action::Errno(1), vec![]).also_narrow(&[288]),
                rule(10, Action::Errno(2), vec![]),
                rule(11, Action::Notify, vec![]).also_narrow(&[12, 13]),
                rule(20, Action::Notify, vec![condition(false)]).also_narrow(&[21]),
                rule(20, Action::Errno(3), vec![condition(true)]).also_narrow(&[21]),
                Rule::narrow_only(102, "call", Action::Errno(4), "test"),
            ],
            other_abi: OtherAbi::Allow,
        };
        let narrow = |filter: &Filter, nr| run(filter, nr, I386, [0; 6]);
        assert_eq!(narrow(&filter, 288), errno(1));
        assert_eq!(narrow(&filter, 102), errno(4));
        for nr in [12, 13] {
            assert_eq!(narrow(&filter, nr), NOTIFY, "{nr}");
        }
        for nr in [250, 10, 11, 20] {
            assert_eq!(narrow(&filter, nr), ALLOW, "{nr}");
        }
        // The kernel looks at 32 bits, whatever the filter is shown.
        for (value, verdict) in [(7, NOTIFY), (7 | 1 << 40, NOTIFY), (8, errno(3))] {
            assert_eq!(run(&filter, 21, I386, [0, value, 0, 0, 0, 0]), verdict);
        }
        assert_eq!(
            run(&filter, 20, AUDIT_ARCH, [0, 7 | 1 << 40, 0, 0, 0, 0]),
            errno(3)
        );
        assert_eq!(run(&filter, 102, AUDIT_ARCH, [0; 6]), ALLOW);
        assert_eq!(run(&filter, 250, AUDIT_ARCH, [0; 6]), errno(1));
        assert_eq!(run(&filter, 288, AUDIT_ARCH, [0; 6]), ALLOW);
        filter.other_abi = OtherAbi::Deny;
        assert_eq!(narrow(&filter, 10), errno(libc::ENOSYS));
    }
}
