//! The socket of an SSH agent in a step: a listener of the builder's, which passes on to the user's agent what it is
//! told, and back.  The step never gets a descriptor or a path of the agent's own socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use stepwell_sys::SysResult;
use stepwell_sys::error::Context;

/// Connections at once: stops a step from having the builder start threads without end.
const CONNECTIONS: usize = 64;

/// A listener, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Agent {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Makes the socket `name` in `dir` and listens on it.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(dir: &OwnedFd, name: &[u8], agent: &Path) -> SysResult<Self> {
        // A socket's path may have 108 bytes; that of a tree may have more.
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        path.push(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
        let listener = UnixListener::bind(&path).context("bind", "socket for the agent")?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).context("eventfd2", "")?;
        let seen = stop.try_clone().context("dup", "eventfd")?;
        let agent = agent.to_owned();
        let thread = std::thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || serve(&listener, &seen, &agent))
            .context("clone", "thread for the agent")?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &UnixListener, stop: &OwnedFd, agent: &Path) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut watched = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        if poll(&mut watched, None).is_err() && watched[1].revents().is_empty() {
            continue;
        }
        if !watched[1].revents().is_empty() {
            return;
        }
        let Ok((client, _)) = listener.accept() else {
            continue;
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS {
            continue;
        }
        // An agent that does not answer is one that hangs up: the client says so.
        let Ok(server) = UnixStream::connect(agent) else {
            continue;
        };
        open.fetch_add(1, Ordering::Relaxed);
        let open = open.clone();
        std::thread::spawn(move || {
            relay(&client, &server);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Passes on in both directions until both sides have ended.
fn relay(client: &UnixStream, server: &UnixStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| pass(client, server));
        pass(server, client);
    });
}

fn pass(mut from: &UnixStream, mut to: &UnixStream) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
