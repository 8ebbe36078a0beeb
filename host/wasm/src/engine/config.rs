// The settings of the engine.  The build script includes this very file, because code that was compiled ahead of time is
// only accepted by an engine with the same settings.

use wasmtime::{Config, WasmBacktraceDetails};

/// Stack that a guest may use, in bytes: stops a guest that recurses for ever.
pub const GUEST_STACK: usize = 512 << 10;

/// Returns the settings that decide how guests are compiled and run.
pub fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .generate_address_map(false);
    config
}
