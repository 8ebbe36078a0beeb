//! The stack of a new program: what the kernel has put there for the dynamic linker, which is all that it has executed, is
//! made to tell of the program.
//!
//! From its top: how many arguments there are, their addresses, a zero, those of the environment, a zero, and the auxiliary
//! vector (getauxval(3)).  [`super::load`] maps what is told of.

use rustix::io::Errno;
use stepwell_sys::error::{SysError, SysResult};
use stepwell_sys::memory;
use stepwell_sys::ptrace::Registers;

use super::elf::{Elf, PAGE};

/// Stops a process from making the tracer read its stack without end.
const MAX_STACK: usize = 1 << 21;

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;
const AT_EXECFN: u64 = 31;

/// How wide a program's addresses are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// In bytes.
    pub width: usize,
}

impl Words {
    /// Those of a program, or of a call.
    pub fn of(registers: &Registers) -> Self {
        Self {
            width: if registers.is_narrow() { 4 } else { 8 },
        }
    }

    /// Takes numbers out of memory.
    pub fn read(self, bytes: &[u8]) -> impl Iterator<Item = u64> {
        bytes.chunks_exact(self.width).map(|chunk| {
            // Little endian, as all machines are that are traced.
            let digits = chunk.iter().rev();
            digits.fold(0, |number, byte| number << 8 | u64::from(*byte))
        })
    }

    /// Lays numbers out in memory.
    pub fn write(self, words: &[u64]) -> Vec<u8> {
        let bytes = |word: &u64| word.to_le_bytes().into_iter().take(self.width);
        words.iter().flat_map(bytes).collect()
    }
}

/// What is at the top of a new program's stack, to the end of the auxiliary vector.
pub struct Stack {
    words: Vec<u64>,
    kind: Words,
    /// Where the auxiliary vector starts.
    vector: usize,
}

impl Stack {
    /// Reads it.
    ///
    /// # Errors
    /// There is none, or its arguments are without end.
    pub fn read(tid: u32, top: u64, kind: Words) -> SysResult<Self> {
        let mut words = Vec::new();
        let mut address = top;
        while words.len() * kind.width < MAX_STACK {
            let length = (PAGE - address % PAGE) as usize;
            let mut bytes = vec![0; length];
            memory::read(tid, address, &mut bytes)?;
            words.extend(kind.read(&bytes));
            if let Some(vector) = auxiliary(&words)
                && let Some(end) = words[vector..]
                    .chunks_exact(2)
                    .position(|pair| pair[0] == AT_NULL)
            {
                words.truncate(vector + 2 * (end + 1));
                return Ok(Self {
                    words,
                    kind,
                    vector,
                });
            }
            address += length as u64;
        }
        Err(SysError::new(
            "execve",
            "arguments of a new program",
            Errno::TOOBIG,
        ))
    }

    fn entry(&mut self, key: u64) -> Option<&mut u64> {
        let mut pairs = self.words[self.vector..].chunks_exact_mut(2);
        pairs.find(|pair| pair[0] == key).map(|pair| &mut pair[1])
    }

    /// Corrects it for a program that was mapped `moved` from its addresses, beside the linker that the kernel has loaded.
    pub fn tell_of(&mut self, program: &Elf, moved: u64, linker: &Elf) {
        let base = self
            .entry(AT_ENTRY)
            .map_or(0, |entry| entry.wrapping_sub(linker.entry));
        let values = [
            (AT_PHDR, program.headers.wrapping_add(moved)),
            (AT_PHNUM, program.header_count.into()),
            (AT_ENTRY, program.entry.wrapping_add(moved)),
            (AT_BASE, base),
        ];
        for (key, value) in values {
            if let Some(old) = self.entry(key) {
                *old = value;
            }
        }
    }

    /// Puts it in place of what was read from `top`, with a name for the program; returns the new top.
    ///
    /// # Errors
    /// `EFAULT` where there is no room below the old one.
    pub fn write(mut self, tid: u32, top: u64, name: &[u8]) -> SysResult<u64> {
        let mut text = name.to_vec();
        text.push(0);
        // Everything moves down to make room for the name, in steps that keep the alignment.
        let new_top = top - text.len().next_multiple_of(16) as u64;
        let name_at = new_top + (self.kind.width * self.words.len()) as u64;
        if let Some(old) = self.entry(AT_EXECFN) {
            *old = name_at;
        }
        let mut bytes = self.kind.write(&self.words);
        bytes.extend(&text);
        memory::write(tid, new_top, &bytes)?;
        Ok(new_top)
    }
}

/// Finds where the auxiliary vector starts: after the arguments and the environment, each ended by a zero.
fn auxiliary(words: &[u64]) -> Option<usize> {
    let count = usize::try_from(*words.first()?).ok()?;
    let environment = count.checked_add(2)?;
    let end = words
        .get(environment..)?
        .iter()
        .position(|word| *word == 0)?;
    let start = environment + end + 1;
    (start < words.len()).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auxiliary_vector_is_found() {
        let stack = [2, 10, 11, 0, 20, 0, AT_ENTRY, 5, AT_NULL, 0];
        assert_eq!(auxiliary(&stack), Some(6));
        assert_eq!(auxiliary(&stack[..5]), None);
        assert_eq!(auxiliary(&[u64::MAX, 1]), None);
        assert_eq!(auxiliary(&[]), None);
    }

    #[test]
    fn words_are_as_wide_as_the_programs() {
        let words = [7, 0xffff_fffe];
        for width in [4, 8] {
            let bytes = Words { width }.write(&words);
            assert_eq!(bytes.len(), 2 * width);
            assert_eq!(Words { width }.read(&bytes).collect::<Vec<_>>(), words);
        }
    }
}
