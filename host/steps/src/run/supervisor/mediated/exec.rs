//! execve(2) of a step: stopped before the kernel looks at the path, pointed at the file that was found beneath the
//! root, and looked after when the new program is there.
//!
//! The kernel is given the machine's path of a static program, or of the image's dynamic linker, in memory of the
//! step's.  Should that be exchanged meanwhile, Landlock lets nothing be executed but files of the tree, and a process
//! that executes anything but what was found is killed before its first instruction.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::PoisonError;

use rustix::io::Errno;
use stepwell_sys::SysResult;
use stepwell_sys::error::SysError;
use stepwell_sys::memory;
use stepwell_sys::ptrace::{Registers, Resume, Status};
use stepwell_sys::resolve;

use super::super::call::Call;
use super::super::exec::change_identity;
use super::super::lock;
use super::super::step::Step;
use super::attributes::{inode_numbers, is_inode};
use super::load::{self, Load};
use super::processes::{Program, Room};
use super::programs::{self, Found};
use super::stack::Words;
use super::trace::{Loop, called};

/// Memory that is mapped for paths and arguments in a process that has none of the tracer's yet; parts of it are used
/// in turn, since processes that share their memory may execute at the same time.
const ROOM: u64 = 128 << 10;
const PARTS: u64 = 8;

/// Stops a step from having the tracer read arguments without end; the kernel's own limit is lower.
const MAX_ARGUMENTS: usize = 1 << 20;

/// An execve(2) that the kernel is at.
pub struct Pending {
    found: Found,
    /// The registers before anything was changed.
    registers: Registers,
    /// Numbers of the inode that the kernel is to execute.
    inode: (u32, u32, u64),
}

/// What the kernel is given.
struct Request {
    target: Vec<u8>,
    found: Found,
    inode: (u32, u32, u64),
    /// The arguments, where they change: addresses, after those of the new ones.
    arguments: Option<Vec<u64>>,
    /// How wide these addresses are.
    words: Words,
}

/// Kills a process.
pub fn kill(tid: u32) {
    if let Some(pid) = rustix::process::Pid::from_raw(tid as i32) {
        // Whoever is gone needs no signal.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// A thread stopped before its execve(2).
pub fn begin(this: &mut Loop, tid: u32, mut registers: Registers) -> SysResult<()> {
    let request = {
        let mut step = lock(&this.step);
        step.counters.notified += 1;
        prepare(&mut step, tid, &registers)
    };
    let request = match request {
        Ok(request) => request,
        Err(errno) => {
            registers.fail(errno.raw_os_error());
            this.tracer.set_registers(tid, &registers)?;
            return this.tracer.resume(tid, Resume::Freely, 0);
        }
    };
    let original = registers;
    let need = request.size();
    let Some(mut place) = room(this, tid, &mut registers, need)? else {
        return this.tracer.resume(tid, Resume::Freely, 0);
    };
    let vector = match request.write(tid, place) {
        Ok(vector) => vector,
        // The program has unmapped what it does not know.
        Err(_) => {
            keep_room(this, tid, None);
            match room(this, tid, &mut registers, need)? {
                Some(new) => place = new,
                None => return this.tracer.resume(tid, Resume::Freely, 0),
            }
            request.write(tid, place)?
        }
    };
    let at = usize::from(called(&original) == libc::SYS_execveat);
    let (argv, envp) = (original.argument(1 + at), original.argument(2 + at));
    let argv = vector.unwrap_or(argv);
    let (number, arguments) =
        load::spelled(&registers, libc::SYS_execve, [place, argv, envp, 0, 0, 0])?;
    registers.set_call(number, arguments);
    this.tracer.set_registers(tid, &registers)?;
    let pending = Pending {
        found: request.found,
        registers: original,
        inode: request.inode,
    };
    this.pending.insert(tid, pending);
    this.tracer.resume(tid, Resume::ToCall, 0)
}

fn prepare(step: &mut Step, tid: u32, registers: &Registers) -> Result<Request, Errno> {
    let number = called(registers);
    let at = number == libc::SYS_execveat;
    let (dirfd, path, argv, flags) = if at {
        let flags = registers.argument(4) as u32;
        (
            registers.argument(0) as i32,
            registers.argument(1),
            registers.argument(2),
            flags,
        )
    } else {
        (
            libc::AT_FDCWD,
            registers.argument(0),
            registers.argument(1),
            0,
        )
    };
    let path = memory::read_string(tid, path, memory::MAX_PATH).map_err(|e| match e.errno {
        Errno::NAMETOOLONG => Errno::NAMETOOLONG,
        _ => Errno::FAULT,
    })?;
    let call = Call::stopped(tid, number as i32, [0; 6]);
    let found = programs::find(step, &call, dirfd, &path, flags)?;
    let words = Words::of(registers);
    let executed = found.linker.as_ref().map_or(&*found.file, |(file, _)| file);
    let arguments = if found.prefix.is_empty() {
        None
    } else {
        Some(read_vector(tid, argv, words)?)
    };
    Ok(Request {
        words,
        target: host_path(step, tid, executed, at.then_some(dirfd))?,
        inode: inode_numbers(executed)?,
        found,
        arguments,
    })
}

/// Returns the path by which the kernel finds a file, whatever the step's root is thought to be.
fn host_path(step: &Step, tid: u32, file: &OwnedFd, fd: Option<i32>) -> Result<Vec<u8>, Errno> {
    let path = resolve::path_of(file).ok_or(Errno::NOENT)?;
    if step.inside(&path).is_some() && !path.ends_with(b" (deleted)") {
        return Ok(path);
    }
    // A memory file has no path but that of its descriptor.
    let own = |fd: i32| {
        is_inode(
            &format!("/proc/{tid}/fd/{fd}"),
            inode_numbers(file).unwrap_or_default(),
        )
    };
    let mut numbers = fd.into_iter().chain(
        std::fs::read_dir(format!("/proc/{tid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                std::str::from_utf8(entry.file_name().as_bytes())
                    .ok()?
                    .parse()
                    .ok()
            }),
    );
    let number = numbers.find(|fd| own(*fd)).ok_or(Errno::ACCESS)?;
    Ok(format!("/proc/self/fd/{number}").into_bytes())
}

fn read_vector(tid: u32, mut address: u64, words: Words) -> Result<Vec<u64>, Errno> {
    let mut vector = Vec::new();
    if address == 0 {
        return Ok(vector);
    }
    const CHUNK: usize = 512;
    loop {
        // Not beyond the page, which may be the last one.
        let in_page = (super::elf::PAGE - address % super::elf::PAGE) as usize;
        let mut bytes = vec![0; CHUNK.min(in_page.max(words.width)) / words.width * words.width];
        memory::read(tid, address, &mut bytes).map_err(|_| Errno::FAULT)?;
        for word in words.read(&bytes) {
            match word {
                0 => return Ok(vector),
                pointer => vector.push(pointer),
            }
        }
        if vector.len() > MAX_ARGUMENTS {
            return Err(Errno::TOOBIG);
        }
        address += bytes.len() as u64;
    }
}

impl Request {
    /// How much memory the path and the arguments take.
    fn size(&self) -> u64 {
        let texts: usize = self.found.prefix.iter().map(|text| text.len() + 1).sum();
        let words = self
            .arguments
            .as_ref()
            .map_or(0, |a| a.len() + self.found.prefix.len() + 2);
        (self.target.len() + 1 + texts + 8 * words + 16) as u64
    }

    /// Writes path and arguments, and returns where the vector of the arguments is.
    fn write(&self, tid: u32, room: u64) -> SysResult<Option<u64>> {
        let mut bytes = self.target.clone();
        bytes.push(0);
        let Some(old) = &self.arguments else {
            memory::write(tid, room, &bytes)?;
            return Ok(None);
        };
        let mut vector = Vec::new();
        for text in &self.found.prefix {
            vector.push(room + bytes.len() as u64);
            bytes.extend(text);
            bytes.push(0);
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let address = room + bytes.len() as u64;
        vector.extend(old.iter().skip(1));
        vector.push(0);
        bytes.extend(self.words.write(&vector));
        memory::write(tid, room, &bytes)?;
        Ok(Some(address))
    }
}

/// Returns memory of the process that the tracer may write to; none when the process was not to be had any more.
///
/// Where there is none, or too little, the execve becomes an mmap first, and is made again after it.
fn room(this: &mut Loop, tid: u32, registers: &mut Registers, need: u64) -> SysResult<Option<u64>> {
    let part = ROOM / PARTS;
    let is_near =
        |room: &Room| !registers.is_narrow() || room.address + ROOM <= u64::from(u32::MAX);
    let known = known_room(this, tid).filter(is_near);
    if let Some(Room { address, next }) = known.filter(|_| need <= part) {
        let next_one = (next + 1) % PARTS;
        keep_room(
            this,
            tid,
            Some(Room {
                address,
                next: next_one,
            }),
        );
        return Ok(Some(address + next * part));
    }
    let size = super::elf::up(need.max(ROOM));
    let mut mapping = *registers;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let arguments = [0, size, protection, flags, u64::MAX, 0];
    let (number, arguments) = load::spelled(registers, libc::SYS_mmap, arguments)?;
    mapping.set_call(number, arguments);
    this.tracer.set_registers(tid, &mapping)?;
    let mut held = load::go_to(this, tid, Resume::ToCall, Status::Call)?;
    let address = this.tracer.registers(tid)?.result();
    let mut again = *registers;
    again.again();
    this.tracer.set_registers(tid, &again)?;
    held.append(&mut load::go_to(
        this,
        tid,
        Resume::Freely,
        Status::Filtered,
    )?);
    load::deliver(tid, &held);
    *registers = this.tracer.registers(tid)?;
    let Ok(address) = u64::try_from(address) else {
        registers.fail(libc::ENOMEM);
        this.tracer.set_registers(tid, registers)?;
        return Ok(None);
    };
    if size == ROOM {
        keep_room(this, tid, Some(Room { address, next: 1 }));
    }
    Ok(Some(address))
}

fn known_room(this: &Loop, tid: u32) -> Option<Room> {
    let room = this.processes(|processes| processes.of(tid).room.clone())?;
    *room.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep_room(this: &Loop, tid: u32, room: Option<Room>) {
    if let Some(kept) = this.processes(|processes| processes.of(tid).room.clone()) {
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = room;
    }
}

/// The kernel has refused a program.
pub fn failed(this: &mut Loop, tid: u32) -> SysResult<()> {
    let Some(pending) = this.pending.remove(&tid) else {
        return this.tracer.resume(tid, Resume::Freely, 0);
    };
    let mut registers = pending.registers;
    registers.set_result_of(&this.tracer.registers(tid)?);
    this.tracer.set_registers(tid, &registers)?;
    this.tracer.resume(tid, Resume::Freely, 0)
}

/// A new program is in place and has not run an instruction.
pub fn succeeded(this: &mut Loop, tid: u32) -> SysResult<()> {
    let former = this.tracer.message(tid)?;
    let pending = this.pending.remove(&former);
    let expected = pending.filter(|p| is_inode(&format!("/proc/{tid}/exe"), p.inode));
    let Some(Pending { found, .. }) = expected else {
        return Err(SysError::new(
            "execve",
            "a file that was exchanged",
            Errno::ACCESS,
        ));
    };
    let load = {
        let mut step = lock(&this.step);
        let call = Call::stopped(tid, 0, [0; 6]);
        if step.emulates() {
            // Who it is is a matter of the step's own; a program runs as whom it may.
            let _ = change_identity(&mut step, &call, &found.file);
        }
        let program = Program {
            file: found.file.clone(),
        };
        if let Some(mediated) = &mut step.mediated {
            mediated.processes.executed(former, tid, program);
        }
        Load::new(&mut step, &call, &found)
    };
    let load = load.map_err(|errno| SysError::new("mmap", "program", errno))?;
    load.carry_out(this, tid)?;
    this.tracer.resume(tid, Resume::Freely, 0)
}
