//! Architectures whose registers nobody has described here yet: tracing is refused, and so is the tier that needs it.

use rustix::io::Errno;

use super::Tracer;
use crate::error::{SysError, SysResult};

/// Registers that cannot be had: there is no value of this type.
#[derive(Debug, Clone, Copy)]
pub enum Registers {}

impl Registers {
    /// As on architectures that are described.
    pub fn call(&self) -> i64 {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn argument(&self, _: usize) -> u64 {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn set_argument(&mut self, _: usize, _: u64) {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn set_call(&mut self, _: i64, _: [u64; 6]) {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn fail(&mut self, _: i32) {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn leave_out(&mut self, _: i64) {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn result(&self) -> i64 {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn set_result_of(&mut self, _: &Self) {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn again(&mut self) {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn call_from(&mut self, _: u64, _: i64, _: [u64; 6]) {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn instruction(&self) -> u64 {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn stack(&self) -> u64 {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn set_stack(&mut self, _: u64) {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn with_call(&self, _: u64) -> u64 {
        match *self {}
    }
    /// As on architectures that are described.
    pub fn is_narrow(&self) -> bool {
        match *self {}
    }
}

impl Tracer {
    /// Refuses.
    ///
    /// # Errors
    /// `ENOSYS`, always.
    pub fn registers(&self, tid: u32) -> SysResult<Registers> {
        Err(SysError::new(
            "ptrace",
            format!("registers of {tid} on this architecture"),
            Errno::NOSYS,
        ))
    }

    /// Refuses.
    ///
    /// # Errors
    /// `ENOSYS`, always.
    pub fn set_registers(&self, _: u32, registers: &Registers) -> SysResult<()> {
        match *registers {}
    }
}
