//! The registers of a stopped thread, by what they mean for a system call (x86-64).

use std::mem::MaybeUninit;

use super::Tracer;
use crate::error::SysResult;

/// Length of the instruction `syscall`.
const CALL_LENGTH: u64 = 2;

/// The instruction `syscall`, as the low bytes of a word.
const CALL: u64 = 0x050f;

/// All registers of a thread.
#[derive(Debug, Clone, Copy)]
pub struct Registers(libc::user_regs_struct);

impl Registers {
    /// Returns the number of the system call at whose entry the thread stopped.
    pub fn call(&self) -> i64 {
        self.0.orig_rax as i64
    }

    /// Returns an argument of the call, 0 to 5.
    pub fn argument(&self, index: usize) -> u64 {
        let r = &self.0;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9][index]
    }

    /// Sets an argument of the call.
    pub fn set_argument(&mut self, index: usize, value: u64) {
        let r = &mut self.0;
        *[
            &mut r.rdi, &mut r.rsi, &mut r.rdx, &mut r.r10, &mut r.r8, &mut r.r9,
        ][index] = value;
    }

    /// Makes another call of the one at whose entry the thread stopped.
    pub fn set_call(&mut self, number: i64, arguments: [u64; 6]) {
        self.0.orig_rax = number as u64;
        for (index, value) in arguments.into_iter().enumerate() {
            self.set_argument(index, value);
        }
    }

    /// Leaves the call out, at whose entry the thread stopped: it fails with this error.
    pub fn fail(&mut self, errno: i32) {
        self.0.orig_rax = u64::MAX;
        self.0.rax = i64::from(-errno) as u64;
    }

    /// Returns what the call returned, at whose exit the thread stopped.
    pub fn result(&self) -> i64 {
        self.0.rax as i64
    }

    /// Takes the result over from other registers.
    pub fn set_result_of(&mut self, other: &Self) {
        self.0.rax = other.0.rax;
    }

    /// Has the thread make the call again that it was stopped at the entry of, with all that these registers say.
    pub fn again(&mut self) {
        self.0.rax = self.0.orig_rax;
        self.0.orig_rax = u64::MAX;
        self.0.rip -= CALL_LENGTH;
    }

    /// Has a thread that is in no call go on at `address`, where there is the instruction for one.
    pub fn call_from(&mut self, address: u64, number: i64, arguments: [u64; 6]) {
        self.set_call(number, arguments);
        self.0.rax = number as u64;
        self.0.orig_rax = u64::MAX;
        self.0.rip = address;
    }

    /// Returns the address of the next instruction.
    pub fn instruction(&self) -> u64 {
        self.0.rip
    }

    /// Returns the top of the stack.
    pub fn stack(&self) -> u64 {
        self.0.rsp
    }

    /// Moves the top of the stack.
    pub fn set_stack(&mut self, address: u64) {
        self.0.rsp = address;
    }

    /// Puts the instruction for a system call in place of the first bytes of a word of code.
    pub fn with_call(word: u64) -> u64 {
        (word & !0xffff) | CALL
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
        // SAFETY: the structure holds numbers only, for which zeroes are valid too; the kernel has filled it.
        Ok(Registers(unsafe { registers.assume_init() }))
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
            (&raw const registers.0) as u64,
        )
        .map(drop)
    }
}
