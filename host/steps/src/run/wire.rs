//! What the init and the builder tell each other over the control socket: one JSON text a message, some with a
//! descriptor.

use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use stepwell_sys::descriptor;
use stepwell_sys::process::Ending;
use stepwell_sys::{SysError, SysResult};

/// Longest message.
const LONGEST: usize = 16 << 10;

/// From the builder to the init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to-init", rename_all = "kebab-case")]
pub enum ToInit {
    /// The plan, in a memory file, and the root directory of the tree: the two descriptors of this message.
    Plan,
    /// The id maps are written.
    IdsMapped,
    /// The process is traced.
    Traced,
}

/// From the init to the builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from-init", rename_all = "kebab-case")]
pub enum FromInit {
    /// The new user namespace waits for its id maps.
    MapIds,
    /// Pid 1 of the step's pid namespace is this process of the builder's; a handle on it comes along.
    Holder {
        /// Its number.
        pid: u32,
    },
    /// The filter is installed; its notification descriptor comes along.
    Supervise,
    /// This process waits for its tracer.
    Trace {
        /// Its number.
        pid: u32,
    },
    /// A step of the plan could not be carried out.
    Failed {
        /// What was to be done.
        doing: String,
        /// Why it was not.
        error: String,
    },
    /// The program could not be executed.
    NotExecuted {
        /// The kernel's answer.
        errno: i32,
    },
    /// The step's process exited.
    Exited {
        /// With this status.
        code: i32,
    },
    /// A signal killed the step's process.
    Signalled {
        /// Its number.
        signal: i32,
    },
}

impl From<Ending> for FromInit {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Exited(code) => Self::Exited { code },
            Ending::Signalled(signal) => Self::Signalled { signal },
        }
    }
}

/// Sends a message.
pub fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> SysResult<()> {
    let text = serde_json::to_vec(message).map_err(|_| not_a_message("sendmsg"))?;
    descriptor::send(socket, &text, fds)
}

/// Receives a message; none means that the other side is gone.
pub fn receive<T: for<'a> Deserialize<'a>>(
    socket: BorrowedFd<'_>,
) -> SysResult<Option<(T, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; LONGEST];
    let (length, fds) = descriptor::receive(socket, &mut buffer)?;
    if length == 0 {
        return Ok(None);
    }
    let message =
        serde_json::from_slice(&buffer[..length]).map_err(|_| not_a_message("recvmsg"))?;
    Ok(Some((message, fds)))
}

fn not_a_message(call: &'static str) -> SysError {
    SysError::new(call, "a message of the init", rustix::io::Errno::BADMSG)
}
