//! Programs that a test starts, watches and waits for.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use stepwell_test_support::cmd::run;

use crate::{Ran, World};

/// Deadline of [`wait_until`]: far beyond what anything takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Starts a command, whose output is kept for [`finished`].
pub fn started(mut command: Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs")
}

/// Sends a signal (`INT`, `TERM`, …), by the shell's own `kill`: a small machine has no program of that name.
pub fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    run(Command::new("sh").args(["-c", "kill -s $0 $1", name, &id])).expect("the signal is sent");
}

/// Waits for what was started.
pub fn finished(child: Child) -> Ran {
    child.wait_with_output().expect("the program ends").into()
}

/// Waits until `condition` holds; says whether it does before `limit` is over.
pub fn within(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        sleep(Duration::from_millis(10));
    }
    true
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    assert!(within(LIMIT, condition), "{what} does not happen");
}

/// Asserts that no process of a store is left, or is about to end.
#[track_caller]
pub fn nobody_stays(world: &World, store: &str) {
    let gone = within(Duration::from_secs(3), || {
        world.processes_of(store).is_empty()
    });
    assert!(gone, "still there: {:?}", world.processes_of(store));
}
