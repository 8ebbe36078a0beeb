//! Loading a program as the kernel would have: its segments are mapped into the process that so far holds the
//! dynamic linker alone, and the auxiliary vector is made to say so.
//!
//! The linker then finds what it always finds, whichever it is.  The mapping is done by system calls that are put
//! into the stopped process one by one; the file comes as an injected descriptor.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use stepwell_sys::error::{SysError, SysResult};
use stepwell_sys::memory;
use stepwell_sys::ptrace::{Registers, Resume, Status};

use super::super::call::Call;
use super::super::step::Step;
use super::elf::{Elf, PAGE, Segment, down, up};
use super::programs::{Found, readable};
use super::stack::{Stack, Words};
use super::trace::Loop;
use crate::run::narrow;

/// Longest name of a thread, with its zero.
const MAX_NAME: usize = 16;

/// Below the stack, so that nothing is overwritten.
const BELOW_STACK: u64 = 1024;

/// What is to be done to a process that has a new program.
pub struct Load {
    /// The program and its headers, and those of the linker, which the kernel has loaded.
    program: Option<(OwnedFd, Elf, Elf)>,
    /// What the program was called.
    name: Vec<u8>,
}

impl Load {
    /// Prepares it.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(step: &mut Step, call: &Call<'_>, found: &Found) -> Result<Self, Errno> {
        let mut program = None;
        if let Some((_, linker)) = &found.linker {
            let file = readable(step, &found.file)?;
            let copy = file.try_clone().map_err(|_| Errno::MFILE)?;
            super::state(step)?.expect(call.tid(), copy);
            program = Some((file, found.elf.clone(), linker.clone()));
        }
        Ok(Self {
            program,
            name: found.name.clone(),
        })
    }

    /// Does it; the process is at its first instruction afterwards.
    ///
    /// # Errors
    /// The process is not fit to go on.
    pub fn carry_out(self, this: &mut Loop, tid: u32) -> SysResult<()> {
        let mut held = go_to(this, tid, Resume::ToCall, Status::Call)?;
        let start = this.tracer.registers(tid)?;
        let code = this.tracer.peek(tid, start.instruction())?;
        this.tracer
            .poke(tid, start.instruction(), start.with_call(code))?;
        let mut calls = Calls {
            this,
            tid,
            start,
            held: Vec::new(),
        };
        calls.name(&self.name)?;
        let placed = match &self.program {
            Some((_, program, _)) => Some(calls.map(program)?),
            None => None,
        };
        held.append(&mut calls.held);
        this.tracer.poke(tid, start.instruction(), code)?;
        let words = Words::of(&start);
        let mut stack = Stack::read(tid, start.stack(), words)?;
        if let (Some((_, program, linker)), Some(moved)) = (&self.program, placed) {
            stack.tell_of(program, moved, linker);
        }
        let mut end = start;
        end.set_stack(stack.write(tid, start.stack(), &self.name)?);
        this.tracer.set_registers(tid, &end)?;
        deliver(tid, &held);
        Ok(())
    }
}

/// Lets a thread go on until it is at `wanted`; returns the signals that came meanwhile, which are lost unless they are
/// [delivered](deliver).
///
/// # Errors
/// It ended, or came somewhere else.
#[must_use = "signals would be lost"]
pub fn go_to(this: &Loop, tid: u32, how: Resume, wanted: Status) -> SysResult<Vec<i32>> {
    let mut held = Vec::new();
    loop {
        this.tracer.resume(tid, how, 0)?;
        match this.tracer.wait_for(tid)? {
            status if status == wanted => return Ok(held),
            Status::Signal(signal) => held.push(signal),
            Status::Gone => return Err(gone(tid)),
            Status::Stopped | Status::Started | Status::Call | Status::Other => {}
            Status::Forked | Status::Executed | Status::Filtered => {
                return Err(SysError::new(
                    "ptrace",
                    format!("unexpected stop of {tid}"),
                    Errno::PROTO,
                ));
            }
        }
    }
}

fn gone(tid: u32) -> SysError {
    SysError::new("ptrace", format!("{tid}"), Errno::SRCH)
}

/// Returns number and arguments of a native call as a thread makes it that has these registers.
///
/// # Errors
/// `EOVERFLOW` where a 32-bit program cannot make it.
pub fn spelled(
    registers: &Registers,
    number: i64,
    arguments: [u64; 6],
) -> SysResult<(i64, [u64; 6])> {
    if !registers.is_narrow() {
        return Ok((number, arguments));
    }
    narrow::narrowed(number, arguments).ok_or_else(|| {
        let subject = format!("{number} put into a program of 32 bits");
        SysError::new("system call", subject, Errno::OVERFLOW)
    })
}

/// Sends signals again that came at the wrong moment.
pub fn deliver(tid: u32, signals: &[i32]) {
    for signal in signals {
        if let Some(pid) = rustix::process::Pid::from_raw(tid as i32)
            && let Some(signal) = rustix::process::Signal::from_named_raw(*signal)
        {
            // It may be gone.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// System calls put into a stopped process.
struct Calls<'a> {
    this: &'a Loop,
    tid: u32,
    start: Registers,
    held: Vec<i32>,
}

impl Calls<'_> {
    fn call(&mut self, number: i64, arguments: [u64; 6]) -> SysResult<u64> {
        let mut registers = self.start;
        let (number, arguments) = spelled(&registers, number, arguments)?;
        registers.call_from(self.start.instruction(), number, arguments);
        self.this.tracer.set_registers(self.tid, &registers)?;
        let trap = Status::Signal(libc::SIGTRAP);
        self.held
            .append(&mut go_to(self.this, self.tid, Resume::OneStep, trap)?);
        let result = self.this.tracer.registers(self.tid)?.result();
        u64::try_from(result).map_err(|_| {
            SysError::new(
                "system call",
                format!("{number} put into {}", self.tid),
                Errno::from_raw_os_error(-result as i32),
            )
        })
    }

    /// Names the thread after the program, not after the linker.
    fn name(&mut self, path: &[u8]) -> SysResult<()> {
        let base = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let mut name = base[..base.len().min(MAX_NAME - 1)].to_vec();
        name.push(0);
        let address = self.start.stack() - BELOW_STACK;
        memory::write(self.tid, address, &name)?;
        let name = libc::PR_SET_NAME as u64;
        // A filter of the step's own may refuse it.
        match self.call(libc::SYS_prctl, [name, address, 0, 0, 0, 0]) {
            Err(error) if error.errno == Errno::SRCH => Err(error),
            _ => Ok(()),
        }
    }

    /// Maps a program; returns by how much its addresses are moved.
    fn map(&mut self, program: &Elf) -> SysResult<u64> {
        let here = libc::AT_FDCWD as i64 as u64;
        let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
        let fd = self.call(libc::SYS_openat, [here, 0, flags, 0, 0, 0])?;
        let moved = self.reserve(program)?;
        for segment in &program.segments {
            self.map_segment(segment, moved, fd)?;
        }
        self.call(libc::SYS_close, [fd, 0, 0, 0, 0, 0])?;
        Ok(moved)
    }

    /// Finds a place for a program that can be anywhere.
    fn reserve(&mut self, program: &Elf) -> SysResult<u64> {
        if !program.relocatable {
            return Ok(0);
        }
        let (first, length) = program.span();
        let align = program.align();
        let spare = align - PAGE;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let none = libc::PROT_NONE as u64;
        let size = length + spare;
        let start = self.call(libc::SYS_mmap, [0, size, none, flags, u64::MAX, 0])?;
        let aligned = start.next_multiple_of(align);
        for (from, to) in [(start, aligned), (aligned + length, start + size)] {
            if to > from {
                self.call(libc::SYS_munmap, [from, to - from, 0, 0, 0, 0])?;
            }
        }
        Ok(aligned.wrapping_sub(first))
    }

    fn map_segment(&mut self, segment: &Segment, moved: u64, fd: u64) -> SysResult<()> {
        let address = segment.address.wrapping_add(moved);
        let (file_end, end) = (address + segment.file_size, address + segment.size);
        let within = address - down(address);
        let fixed = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        if segment.file_size > 0 {
            let length = segment.file_size + within;
            let offset = segment.offset.wrapping_sub(within);
            let protection = segment.protection;
            self.call(
                libc::SYS_mmap,
                [down(address), length, protection, fixed, fd, offset],
            )?;
        }
        if segment.size <= segment.file_size {
            return Ok(());
        }
        let zero_to = up(file_end).min(end);
        if segment.file_size > 0 && zero_to > file_end && segment.protection & 2 != 0 {
            let rest = up(file_end) - file_end;
            memory::write(self.tid, file_end, &vec![0; rest as usize])?;
        }
        let from = if segment.file_size > 0 {
            up(file_end)
        } else {
            down(address)
        };
        if up(end) > from {
            let anonymous = fixed | libc::MAP_ANONYMOUS as u64;
            let length = up(end) - from;
            self.call(
                libc::SYS_mmap,
                [from, length, segment.protection, anonymous, u64::MAX, 0],
            )?;
        }
        Ok(())
    }
}
