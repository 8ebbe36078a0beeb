//! What a guest may use, and the meter that counts it.  The limits with a flag are those of
//! [`GuestLimits`]; the constants here have none, because no honest guest comes near them.

use std::time::{Duration, Instant};

use stepwell_model::request::GuestLimits;
use wasmtime::ResourceLimiter;

/// Bytes that one call may hand to the host.  Stops a guest that lets a million list elements point at the same large
/// string, which the host would copy a million times.
pub const CALL_BYTES: usize = 64 << 20;

/// Bytes of operations that a graph may be made of.  Stops a guest that adds arguments to one vertex for ever.
pub const GRAPH_BYTES: u64 = 128 << 20;

/// Handles that a guest may hold at once.  Stops a guest that makes resources and drops none.
pub const HANDLES: usize = 100_000;

/// Images that a guest may ask for.  Stops a guest that uses the host to flood a registry, or that prolongs the build
/// for ever: the time of these calls does not count as the guest's.
pub const RESOLVES: u32 = 1_000;

/// Elements of all tables.  Stops a guest that grows tables in place of memories.
pub const TABLE_ELEMENTS: usize = 1_000_000;

/// Core instances, memories and tables that one component may be made of.  Interpreters that were linked from many
/// modules need some dozens.
pub const INSTANCES: usize = 1_000;

/// A limit that a guest reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// Linear memory.
    #[error("it needs more memory than the {} allowed (`--guest-memory`)", bytes(*.0))]
    Memory(u64),
    /// Time.
    #[error("it ran for longer than the {:?} allowed (`--guest-time`)", .0)]
    Time(Duration),
    /// Vertices.
    #[error("its graph has more than the {0} vertices allowed (`--guest-vertices`)")]
    Vertices(usize),
    /// Calls into the host.
    #[error("it called the host more than the {0} times allowed (`--guest-calls`)")]
    HostCalls(u64),
    /// Bytes read from contexts.
    #[error("it read more than the {} of context files allowed (`--guest-read`)", bytes(*.0))]
    BytesRead(u64),
    /// Bytes of diagnostics and configuration.
    #[error("its messages and image configuration take more than the {} allowed (`--guest-output`)", bytes(*.0))]
    Output(u64),
    /// [`GRAPH_BYTES`].
    #[error("its graph takes more than {}", bytes(*.0))]
    GraphBytes(u64),
    /// [`CALL_BYTES`].
    #[error("it handed more than {} to the host in one call", bytes(*.0))]
    CallBytes(u64),
    /// [`HANDLES`].
    #[error("it holds more than {0} handles")]
    Handles(usize),
    /// [`RESOLVES`].
    #[error("it asked for more than {0} images")]
    Resolves(u32),
    /// [`TABLE_ELEMENTS`].
    #[error("its tables have more than {0} elements")]
    TableElements(usize),
}

/// Counts what one guest uses in one build.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: GuestLimits,
    memory: u64,
    table_elements: usize,
    host_calls: u64,
    bytes_read: u64,
    output: u64,
    graph_bytes: u64,
    resolves: u32,
    started: Instant,
    excluded: Duration,
}

impl Meter {
    pub fn new(limits: &GuestLimits) -> Self {
        Self {
            limits: limits.clone(),
            memory: 0,
            table_elements: 0,
            host_calls: 0,
            bytes_read: 0,
            output: 0,
            graph_bytes: 0,
            resolves: 0,
            started: Instant::now(),
            excluded: Duration::ZERO,
        }
    }

    pub fn limits(&self) -> &GuestLimits {
        &self.limits
    }

    pub fn call(&mut self) -> Result<(), LimitReached> {
        let allowed = self.limits.host_calls;
        add(&mut self.host_calls, 1, allowed, LimitReached::HostCalls)
    }

    pub fn read(&mut self, bytes: u64) -> Result<(), LimitReached> {
        let allowed = self.limits.bytes_read;
        add(
            &mut self.bytes_read,
            bytes,
            allowed,
            LimitReached::BytesRead,
        )
    }

    /// Bytes that may still be read.
    pub fn readable(&self) -> u64 {
        self.limits.bytes_read.saturating_sub(self.bytes_read)
    }

    pub fn output(&mut self, bytes: usize) -> Result<(), LimitReached> {
        let allowed = self.limits.output;
        add(
            &mut self.output,
            bytes as u64,
            allowed,
            LimitReached::Output,
        )
    }

    pub fn graph(&mut self, bytes: usize) -> Result<(), LimitReached> {
        let count = &mut self.graph_bytes;
        add(count, bytes as u64, GRAPH_BYTES, LimitReached::GraphBytes)
    }

    pub fn resolve(&mut self) -> Result<(), LimitReached> {
        self.resolves += 1;
        if self.resolves > RESOLVES {
            return Err(LimitReached::Resolves(RESOLVES));
        }
        Ok(())
    }

    /// Takes `time` that the host spent waiting for others off the guest's time.
    pub fn exclude(&mut self, time: Duration) {
        self.excluded += time;
    }

    pub fn in_time(&self) -> Result<(), LimitReached> {
        if self.started.elapsed().saturating_sub(self.excluded) > self.limits.time {
            return Err(LimitReached::Time(self.limits.time));
        }
        Ok(())
    }
}

fn add(
    count: &mut u64,
    more: u64,
    allowed: u64,
    error: fn(u64) -> LimitReached,
) -> Result<(), LimitReached> {
    *count = count.saturating_add(more);
    if *count > allowed {
        return Err(error(allowed));
    }
    Ok(())
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let allowed = self.limits.memory;
        add(&mut self.memory, more, allowed, LimitReached::Memory)?;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.table_elements += desired.saturating_sub(current);
        if self.table_elements > TABLE_ELEMENTS {
            return Err(LimitReached::TableElements(TABLE_ELEMENTS).into());
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        INSTANCES
    }

    fn memories(&self) -> usize {
        INSTANCES
    }
}

/// Writes a number of bytes for people.
fn bytes(n: u64) -> String {
    match n {
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{} KiB", n >> 10),
        n => format!("{n} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_only_above_it() {
        let limits = GuestLimits {
            host_calls: 2,
            memory: 100,
            ..GuestLimits::default()
        };
        let mut meter = Meter::new(&limits);
        assert_eq!(meter.call(), Ok(()));
        assert_eq!(meter.call(), Ok(()));
        assert_eq!(meter.call(), Err(LimitReached::HostCalls(2)));
        assert!(meter.memory_growing(0, 60, None).is_ok());
        assert!(meter.memory_growing(0, 41, None).is_err());
    }

    #[test]
    fn counters_do_not_wrap() {
        let mut meter = Meter::new(&GuestLimits::default());
        let allowed = meter.limits().bytes_read;
        assert!(meter.read(u64::MAX).is_err());
        assert_eq!(meter.read(u64::MAX), Err(LimitReached::BytesRead(allowed)));
        assert_eq!(meter.readable(), 0);
    }

    #[test]
    fn errors_name_the_flag() {
        let text = LimitReached::Memory(256 << 20).to_string();
        assert_eq!(
            text,
            "it needs more memory than the 256 MiB allowed (`--guest-memory`)"
        );
    }
}
