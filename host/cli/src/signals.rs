//! SIGINT, SIGTERM and SIGHUP give the build up: steps are ended, what is half-written goes, finished work stays.

use stepwell_build::CancelToken;
use tokio::signal::unix::{SignalKind, signal};

/// Cancels `cancel` at the first such signal; at the second one the process ends at once.
pub fn cancel_on_signal(cancel: &CancelToken) {
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
            .enable_io()
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
            for again in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => (),
                    _ = terminate.recv() => (),
                    _ = hangup.recv() => (),
                }
                cancel.cancel();
                if again {
                    std::process::exit(crate::exit::INTERRUPTED.into());
                }
            }
        });
    });
}
