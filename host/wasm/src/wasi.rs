//! An empty WASI for guests that were compiled against one (Python, TinyGo, …): no directory, no socket, no argument, no
//! environment; clocks that stand still, randomness from a fixed seed, so that such a guest is as deterministic as
//! one without.  Built-in guests do not get it.

use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{
    Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiView,
};

use crate::error::GuestError;

/// Bytes that a guest may write to its standard output and error.  Stops a guest that prints for ever.
const PRINTED: usize = 64 << 10;

/// The empty WASI of one guest, and what it printed.
pub struct EmptyWasi {
    pub ctx: WasiCtx,
    printed: MemoryOutputPipe,
}

impl EmptyWasi {
    pub fn new() -> Self {
        let printed = MemoryOutputPipe::new(PRINTED);
        let ctx = WasiCtxBuilder::new()
            .stdout(printed.clone())
            .stderr(printed.clone())
            .wall_clock(StandsStill)
            .monotonic_clock(StandsStill)
            .secure_random(Deterministic::new(vec![0x5a]))
            .insecure_random(Deterministic::new(vec![0x5a]))
            .insecure_random_seed(0x5a)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        Self { ctx, printed }
    }

    /// Returns what the guest printed so far, as text.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&self.printed.contents()).into_owned()
    }
}

/// Links the empty WASI.
pub fn link<T: WasiView>(linker: &mut Linker<T>) -> Result<(), GuestError> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)
        .map_err(|e| GuestError::engine("link the empty WASI", &e))
}

struct StandsStill;

impl HostWallClock for StandsStill {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for StandsStill {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}
