//! socketcall(2), by which C libraries of 32-bit programs make sockets: it becomes the call that it stands for.
//!
//! Its arguments are in memory, where no filter sees them, and another thread may change them after a look.  So the tracer reads
//! them once and puts them into the registers; the filter then sees the call that is carried out, and the supervisor is asked as
//! about any.  Afterwards the registers are what they were, for programs expect them back and a call that was interrupted is made
//! again with them.

use rustix::io::Errno;
use stepwell_sys::SysResult;
use stepwell_sys::memory;
use stepwell_sys::ptrace::{Registers, Resume};

use super::load::spelled;
use super::stack::Words;
use super::trace::Loop;
use crate::run::narrow;

/// The calls by the number in argument 0 (include/uapi/linux/net.h), and how many arguments are in memory; those that a call has
/// beyond that are 0.
const CALLS: &[(u64, i64, usize)] = &[
    (1, libc::SYS_socket, 3),
    (2, libc::SYS_bind, 3),
    (3, libc::SYS_connect, 3),
    (4, libc::SYS_listen, 2),
    // accept
    (5, libc::SYS_accept4, 3),
    (6, libc::SYS_getsockname, 3),
    (7, libc::SYS_getpeername, 3),
    (8, libc::SYS_socketpair, 4),
    // send and recv
    (9, libc::SYS_sendto, 4),
    (10, libc::SYS_recvfrom, 4),
    (11, libc::SYS_sendto, 6),
    (12, libc::SYS_recvfrom, 6),
    (13, libc::SYS_shutdown, 2),
    (14, libc::SYS_setsockopt, 5),
    (15, libc::SYS_getsockopt, 5),
    (16, libc::SYS_sendmsg, 3),
    (17, libc::SYS_recvmsg, 3),
    (18, libc::SYS_accept4, 4),
    (19, libc::SYS_recvmmsg, 5),
    (20, libc::SYS_sendmmsg, 4),
];

/// Says whether these are the registers of a thread that is about to make it.
pub fn is_one(registers: &Registers) -> bool {
    registers.is_narrow() && registers.call() == i64::from(narrow::SOCKETCALL)
}

/// A thread stopped before it.
pub fn begin(this: &mut Loop, tid: u32, registers: Registers) -> SysResult<()> {
    let mut changed = registers;
    match meant(tid, &registers) {
        Ok((number, arguments)) => {
            let (number, arguments) = spelled(&registers, number, arguments)?;
            changed.set_call(number, arguments);
            this.replaced.insert(tid, registers);
        }
        Err(errno) => changed.fail(errno.raw_os_error()),
    }
    this.tracer.set_registers(tid, &changed)?;
    let until = if this.replaced.contains_key(&tid) {
        Resume::ToCall
    } else {
        Resume::Freely
    };
    this.tracer.resume(tid, until, 0)
}

fn meant(tid: u32, registers: &Registers) -> Result<(i64, [u64; 6]), Errno> {
    let asked = registers.argument(0);
    let known = CALLS.iter().find(|(number, ..)| *number == asked);
    let (_, native, count) = *known.ok_or(Errno::INVAL)?;
    let words = Words::of(registers);
    let mut bytes = vec![0; count * words.width];
    memory::read(tid, registers.argument(1), &mut bytes).map_err(|_| Errno::FAULT)?;
    let mut arguments = [0; 6];
    for (argument, word) in arguments.iter_mut().zip(words.read(&bytes)) {
        *argument = word;
    }
    Ok((native, arguments))
}

/// The call that it became has been made.
pub fn end(this: &mut Loop, tid: u32) -> SysResult<()> {
    if let Some(mut original) = this.replaced.remove(&tid) {
        original.set_result_of(&this.tracer.registers(tid)?);
        this.tracer.set_registers(tid, &original)?;
    }
    this.tracer.resume(tid, Resume::Freely, 0)
}
