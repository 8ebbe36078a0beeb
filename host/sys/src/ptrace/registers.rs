//! The registers of a stopped thread, by what they mean for a system call (x86-64).

use std::mem::MaybeUninit;

use super::Tracer;
use crate::error::SysResult;
use crate::seccomp::AUDIT_ARCH;

/// Length of the instruction `syscall`.
const CALL_LENGTH: u64 = 2;

/// The instruction `syscall`, as the low bytes of a word.
const CALL: u64 = 0x050f;

/// The instruction `int $0x80`, by which 32-bit programs make calls; it has the same length.
const NARROW_CALL: u64 = 0x80cd;

/// Errors are the last so many numbers.
const ERRORS: u32 = 4095;

/// All registers of a thread.
#[derive(Debug, Clone, Copy)]
pub struct Registers {
    all: libc::user_regs_struct,
    narrow: bool,
}

impl Registers {
    /// Says whether the call that the thread is at is one of 32-bit programs, which a 64-bit program may make too; after
    /// execve(2), whether the new program is one.
    pub fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// Returns the number of the system call at whose entry the thread stopped.
    pub fn call(&self) -> i64 {
        self.all.orig_rax as i64
    }

    /// Returns an argument of the call, 0 to 5.
    pub fn argument(&self, index: usize) -> u64 {
        let r = &self.all;
        if self.narrow {
            // The kernel looks at no more of them.
            [r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp][index] & u64::from(u32::MAX)
        } else {
            [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9][index]
        }
    }

    /// Sets an argument of the call.
    pub fn set_argument(&mut self, index: usize, value: u64) {
        let r = &mut self.all;
        if self.narrow {
            *[
                &mut r.rbx, &mut r.rcx, &mut r.rdx, &mut r.rsi, &mut r.rdi, &mut r.rbp,
            ][index] = value & u64::from(u32::MAX);
        } else {
            *[
                &mut r.rdi, &mut r.rsi, &mut r.rdx, &mut r.r10, &mut r.r8, &mut r.r9,
            ][index] = value;
        }
    }

    /// Makes another call of the one at whose entry the thread stopped.
    pub fn set_call(&mut self, number: i64, arguments: [u64; 6]) {
        self.all.orig_rax = number as u64;
        for (index, value) in arguments.into_iter().enumerate() {
            self.set_argument(index, value);
        }
    }

    /// Leaves the call out, at whose entry the thread stopped: it fails with this error.
    pub fn fail(&mut self, errno: i32) {
        self.leave_out((-errno).into());
    }

    /// Leaves the call out, at whose entry the thread stopped: it returns this.
    pub fn leave_out(&mut self, result: i64) {
        self.all.orig_rax = u64::MAX;
        self.all.rax = result as u64;
    }

    /// Returns what the call returned, at whose exit the thread stopped.
    pub fn result(&self) -> i64 {
        match self.all.rax as u32 {
            address if self.narrow && address < u32::MAX - ERRORS => address.into(),
            error if self.narrow => (error as i32).into(),
            _ => self.all.rax as i64,
        }
    }

    /// Takes the result over from other registers.
    pub fn set_result_of(&mut self, other: &Self) {
        self.all.rax = other.all.rax;
    }

    /// Has the thread make the call again that it was stopped at the entry of, with all that these registers say.
    pub fn again(&mut self) {
        self.all.rax = self.all.orig_rax;
        self.all.orig_rax = u64::MAX;
        self.all.rip -= CALL_LENGTH;
    }

    /// Has a thread that is in no call go on at `address`, where there is the instruction for one.
    pub fn call_from(&mut self, address: u64, number: i64, arguments: [u64; 6]) {
        self.set_call(number, arguments);
        self.all.rax = number as u64;
        self.all.orig_rax = u64::MAX;
        self.all.rip = address;
    }

    /// Returns the address of the next instruction.
    pub fn instruction(&self) -> u64 {
        self.all.rip
    }

    /// Returns the top of the stack.
    pub fn stack(&self) -> u64 {
        self.all.rsp
    }

    /// Moves the top of the stack.
    pub fn set_stack(&mut self, address: u64) {
        self.all.rsp = address;
    }

    /// Puts the instruction for a system call in place of the first bytes of a word of code.
    pub fn with_call(&self, word: u64) -> u64 {
        (word & !0xffff) | if self.narrow { NARROW_CALL } else { CALL }
    }
}

impl Tracer {
    /// Reads the registers of a stopped thread.
    ///
    /// # Errors
    /// `ESRCH` when it was killed meanwhile.
    pub fn registers(&self, tid: u32) -> SysResult<Registers> {
        let mut registers = MaybeUninit::<libc::user_regs_struct>::zeroed();
        self.request(
            libc::PTRACE_GETREGS,
            "PTRACE_GETREGS",
            tid,
            0,
            registers.as_mut_ptr() as u64,
        )?;
        Ok(Registers {
            // SAFETY: the structure holds numbers only, for which zeroes are valid too; the kernel has filled it.
            all: unsafe { registers.assume_init() },
            narrow: self.interface(tid)? != AUDIT_ARCH,
        })
    }

    /// Sets the registers of a stopped thread.
    ///
    /// # Errors
    /// `ESRCH` when it was killed meanwhile.
    pub fn set_registers(&self, tid: u32, registers: &Registers) -> SysResult<()> {
        self.request(
            libc::PTRACE_SETREGS,
            "PTRACE_SETREGS",
            tid,
            0,
            (&raw const registers.all) as u64,
        )
        .map(drop)
    }

    /// Returns the interface by which a stopped thread makes its call, as filters name it.
    fn interface(&self, tid: u32) -> SysResult<u32> {
        // What kind of stop it is; the interface; and more.
        let mut info = [0_u32; 32];
        let size = std::mem::size_of_val(&info) as u64;
        let data = info.as_mut_ptr() as u64;
        let name = "PTRACE_GET_SYSCALL_INFO";
        self.request(libc::PTRACE_GET_SYSCALL_INFO, name, tid, size, data)?;
        Ok(info[1])
    }
}
