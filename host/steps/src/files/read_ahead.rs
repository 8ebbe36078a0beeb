//! Prepares items with several threads and hands them over in their order, a bounded number ahead.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::error::FilesError;

/// Items that may be ready or under way before they are taken.
const WINDOW: usize = 32;

/// Most threads: reading small files is bound by system calls, and the writer compresses beside it.
const MAX_THREADS: usize = 4;

/// So few items are prepared by the calling thread.
const FEW: usize = 8;

struct State<T> {
    next: usize,
    taken: usize,
    ready: BTreeMap<usize, T>,
    stopped: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// Prepares all `items` and hands each result to `take`, in order; an error of `take` ends it.
pub(super) fn run<I: Sync, T: Send>(
    items: &[I],
    prepare: impl Fn(&I) -> T + Sync,
    mut take: impl FnMut(T) -> Result<(), FilesError>,
) -> Result<(), FilesError> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS);
    if items.len() <= FEW {
        return items.iter().try_for_each(|item| take(prepare(item)));
    }
    let state = State {
        next: 0,
        taken: 0,
        ready: BTreeMap::new(),
        stopped: false,
    };
    let shared = Shared {
        state: Mutex::new(state),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        // Whatever ends this scope, also a panic of `take`, sets the threads free.
        let _stop = Stop(&shared);
        for _ in 0..threads {
            let work = || shared.work(items, &prepare);
            std::thread::Builder::new()
                .spawn_scoped(scope, work)
                .map_err(FilesError::Threads)?;
        }
        (0..items.len()).try_for_each(|index| match shared.take(index) {
            Some(item) => take(item),
            // A thread panicked; the scope passes it on when it ends.
            None => Ok(()),
        })
    })
}

impl<T> Shared<T> {
    fn work<I>(&self, items: &[I], prepare: &impl Fn(&I) -> T) {
        let stop = Stop(self);
        loop {
            let mut state = self.lock();
            while !state.stopped && state.next < items.len() && state.next >= state.taken + WINDOW {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopped || state.next == items.len() {
                break;
            }
            let index = state.next;
            state.next += 1;
            drop(state);
            let item = prepare(&items[index]);
            self.lock().ready.insert(index, item);
            self.changed.notify_all();
        }
        // It ended as it should: the others go on.
        std::mem::forget(stop);
    }

    fn take(&self, index: usize) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(item) = state.ready.remove(&index) {
                state.taken = index + 1;
                self.changed.notify_all();
                return Some(item);
            }
            if state.stopped {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops all threads when it is dropped.
struct Stop<'s, T>(&'s Shared<T>);

impl<T> Drop for Stop<'_, T> {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_never_far_ahead() {
        let items: Vec<usize> = (0..2000).collect();
        let taken = std::sync::atomic::AtomicUsize::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        let prepare = |item: &usize| {
            assert!(*item < taken.load(order) + 2 * WINDOW, "too far ahead");
            if item.is_multiple_of(7) {
                std::thread::yield_now();
            }
            *item
        };
        let mut seen = Vec::new();
        run(&items, prepare, |item| {
            seen.push(item);
            taken.store(seen.len(), order);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, items);
    }

    #[test]
    fn an_error_ends_it() {
        let items = [0; 500];
        let mut left = 100;
        let result = run(
            &items,
            |_| (),
            |()| {
                left -= 1;
                if left == 0 {
                    Err(FilesError::MissingInput { index: 7 })
                } else {
                    Ok(())
                }
            },
        );
        assert!(matches!(result, Err(FilesError::MissingInput { index: 7 })));
    }

    #[test]
    fn a_panic_is_passed_on() {
        let items: Vec<usize> = (0..500).collect();
        let result =
            std::panic::catch_unwind(|| run(&items, |item| assert_ne!(*item, 200), |()| Ok(())));
        assert!(result.is_err());
    }
}
