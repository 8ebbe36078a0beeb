//! Raises the engine's epoch at a steady pace, from one thread that lives only while guests run.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::Engine;

/// Time between two checks of a guest's clock: a guest stops at most this long after its time is over.
const TICK: Duration = Duration::from_millis(10);

/// Raises the epoch while at least one [`Running`] lives.
pub struct Ticker {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    guests: usize,
    thread: bool,
}

/// Says that a guest runs, as long as it lives.
pub struct Running<'a>(&'a Shared);

impl Ticker {
    pub fn new(engine: Engine) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine,
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    /// Starts ticking, unless another guest's ticks are there already.
    pub fn run(&self) -> Running<'_> {
        let mut state = self.shared.lock();
        state.guests += 1;
        if !state.thread {
            state.thread = true;
            let shared = Arc::clone(&self.shared);
            thread::spawn(move || shared.tick());
        }
        Running(&self.shared)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        let mut state = self.lock();
        while state.guests > 0 {
            let (next, timeout) = self
                .changed
                .wait_timeout(state, TICK)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() {
                self.engine.increment_epoch();
            }
        }
        state.thread = false;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.guests -= 1;
        if state.guests == 0 {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_ends_with_the_last_guest_and_comes_back() {
        let ticker = Ticker::new(Engine::default());
        for _ in 0..3 {
            let (a, b) = (ticker.run(), ticker.run());
            drop(a);
            assert!(ticker.shared.lock().thread);
            drop(b);
            let mut tries = 0;
            while ticker.shared.lock().thread {
                tries += 1;
                assert!(tries < 500, "the ticker's thread does not end");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
