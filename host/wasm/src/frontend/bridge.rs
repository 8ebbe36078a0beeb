//! Between a guest, which runs on a thread of its own, and the caller's [`FrontendHost`], which stays on the caller's
//! thread: what the guest wants is sent over as an errand.
//!
//! A store owns its data for good, so it cannot borrow the caller's host; and a thread of its own gives the guest a
//! stack of known size.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use stepwell_model::{Op, Platform};

use super::{AccessError, DirectoryEntry, EntryStat, FrontendHost, ResolveError, ResolvedImage};
use crate::engine::GUEST_STACK;
use crate::error::GuestError;

/// Stack of the thread: the guest's, and what the host needs on top of it.
const THREAD_STACK: usize = GUEST_STACK + (2 << 20);

type Errand = Box<dyn FnOnce(&mut dyn FrontendHost) + Send>;

/// The guest's end.
pub struct Bridge(Sender<Errand>);

/// Runs `guest` on a thread of its own, and its errands here.
pub fn with_host<R: Send>(
    host: &mut dyn FrontendHost,
    guest: impl FnOnce(Bridge) -> R + Send,
) -> Result<R, GuestError> {
    let (sender, errands): (_, Receiver<Errand>) = channel();
    thread::scope(|scope| {
        let running = thread::Builder::new()
            .name("frontend".into())
            .stack_size(THREAD_STACK)
            .spawn_scoped(scope, || guest(Bridge(sender)))
            .map_err(|e| GuestError::Engine {
                operation: "start a thread for the frontend",
                reason: e.to_string(),
            })?;
        // Ends when the guest's store, and with it the bridge, is gone.
        for errand in errands {
            errand(host);
        }
        Ok(running
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

impl Bridge {
    /// Has the host do something; none where the host is gone because it panicked.
    fn ask<R: Send + 'static>(
        &self,
        what: impl FnOnce(&mut dyn FrontendHost) -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, answer) = channel();
        let errand = move |host: &mut dyn FrontendHost| {
            // The guest waits for it, unless its thread died.
            let _ = sender.send(what(host));
        };
        self.0.send(Box::new(errand)).ok()?;
        answer.recv().ok()
    }
}

fn gone<T>() -> Result<T, AccessError> {
    Err(AccessError::Io("the build has ended".into()))
}

impl FrontendHost for Bridge {
    fn open_context(&mut self, context: &str) -> Result<(), AccessError> {
        let context = context.to_owned();
        self.ask(move |host| host.open_context(&context))
            .unwrap_or_else(gone)
    }

    fn read(&mut self, context: &str, path: &str, max: u64) -> Result<Vec<u8>, AccessError> {
        let (context, path) = (context.to_owned(), path.to_owned());
        self.ask(move |host| host.read(&context, &path, max))
            .unwrap_or_else(gone)
    }

    fn stat(&mut self, context: &str, path: &str) -> Result<EntryStat, AccessError> {
        let (context, path) = (context.to_owned(), path.to_owned());
        self.ask(move |host| host.stat(&context, &path))
            .unwrap_or_else(gone)
    }

    fn list(&mut self, context: &str, path: &str) -> Result<Vec<DirectoryEntry>, AccessError> {
        let (context, path) = (context.to_owned(), path.to_owned());
        self.ask(move |host| host.list(&context, &path))
            .unwrap_or_else(gone)
    }

    fn context_time(&mut self, context: &str) -> Result<Option<i64>, AccessError> {
        let context = context.to_owned();
        self.ask(move |host| host.context_time(&context))
            .unwrap_or_else(gone)
    }

    fn fetched_time(&mut self, op: &Op) -> Result<Option<i64>, AccessError> {
        let op = op.clone();
        self.ask(move |host| host.fetched_time(&op))
            .unwrap_or_else(gone)
    }

    fn resolve_image(
        &mut self,
        reference: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError> {
        let (reference, platform) = (reference.to_owned(), platform.clone());
        self.ask(move |host| host.resolve_image(&reference, &platform))
            .unwrap_or_else(|| Err(ResolveError::Unavailable("the build has ended".into())))
    }
}
