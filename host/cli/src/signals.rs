//! SIGINT, SIGTERM and SIGHUP give the build up: steps are ended, what is half-written goes, finished work stays.

use std::time::Duration;

use stepwell_build::{BuildError, CancelToken};
use tokio::signal::unix::{SignalKind, signal};

/// How long the build may take to end by itself.  What cannot be asked to end (a registry that says nothing, a disk that hangs)
/// is left to the exit of the process: steps end with it, and the next process tidies the store up.
const GRACE: Duration = Duration::from_millis(900);

/// Cancels `cancel` at the first such signal; the process ends at the second one, or when the time for ending is over.
pub fn cancel_on_signal(cancel: &CancelToken) {
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        else {
            return;
        };
        runtime.block_on(async {
            let signals = [
                SignalKind::interrupt(),
                SignalKind::terminate(),
                SignalKind::hangup(),
            ]
            .map(signal);
            let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals else {
                return;
            };
            let mut arrives = async || {
                tokio::select! {
                    _ = interrupt.recv() => (),
                    _ = terminate.recv() => (),
                    _ = hangup.recv() => (),
                }
            };
            arrives().await;
            cancel.cancel();
            let _ = tokio::time::timeout(GRACE, arrives()).await;
            crate::exit::failed(&BuildError::Interrupted);
            std::process::exit(crate::exit::INTERRUPTED.into());
        });
    });
}
