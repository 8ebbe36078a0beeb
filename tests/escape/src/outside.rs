//! What is outside of every step and of the step's own user, so that nothing but Stepwell's walls keeps a step from it: a
//! secret, a program, sockets, a process.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use stepwell_integration_tests::denial::compile_all;
use stepwell_integration_tests::way::Way;
use stepwell_integration_tests::{World, listing};
use stepwell_test_support::cmd::run;
use stepwell_test_support::user;

use crate::helper;

/// Files of the machine's whose modes root could change through a descriptor that is open for reading.
const MACHINE: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/urandom",
    "/dev/ptmx",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/version",
    "/sys/devices/system/cpu/online",
    "/sys/kernel/mm/transparent_hugepage/enabled",
];

/// Everything outside.
pub struct Outside {
    victim: Child,
    stream: UnixListener,
    datagram: UnixDatagram,
    by_name: UnixListener,
    before: Vec<String>,
}

impl Outside {
    /// Makes it, open to everybody, in the world's directory `outside`.
    pub fn new(world: &World, way: Way) -> Self {
        let dir = world.path("outside");
        std::fs::create_dir(&dir).expect("a directory");
        std::fs::write(dir.join("secret"), "the machine's secret\n").expect("a file");
        std::fs::write(dir.join("mode"), "").expect("a file");
        let account = "outsider:x:77:77::/:/bin/sh\n";
        std::fs::write(dir.join("passwd"), account).expect("a file");
        compile_all(&[helper("escaped.c")], &["-static"], &dir.join("program"));
        let name = SocketAddr::from_abstract_name(format!("stepwell{}", dir.display()))
            .expect("a name without a path");
        let by_name = UnixListener::bind_addr(&name).expect("a socket by name");
        let stream = UnixListener::bind(dir.join("socket")).expect("a socket");
        let datagram = UnixDatagram::bind(dir.join("datagram")).expect("a socket");
        for waits in [&stream, &by_name] {
            waits.set_nonblocking(true).expect("a socket");
        }
        datagram.set_nonblocking(true).expect("a socket");
        run(Command::new("chmod").args(["-R", "a+rwX"]).arg(&dir)).expect("modes");
        world.give();
        let mut sleep = Command::new("sleep");
        sleep.arg("1000").stdin(Stdio::null());
        let mut sleep = if way.root {
            sleep
        } else {
            user::ordinary(sleep)
        };
        Self {
            victim: sleep.spawn().expect("a process"),
            stream,
            datagram,
            by_name,
            before: seen(&dir),
        }
    }

    /// Processes that are not the step's: one of its user's, and the test's own.
    pub fn strangers(&self) -> String {
        format!("{} {}", self.victim.id(), std::process::id())
    }

    /// Asserts that nothing outside has changed, and that nobody came.
    #[track_caller]
    pub fn is_untouched(&mut self, world: &World) {
        assert_eq!(
            seen(&world.path("outside")),
            self.before,
            "what is outside has changed"
        );
        let ended = self.victim.try_wait().expect("its state");
        assert!(ended.is_none(), "a process outside was killed: {ended:?}");
        assert!(self.stream.accept().is_err(), "somebody came by path");
        assert!(self.by_name.accept().is_err(), "somebody came by name");
        assert!(
            self.datagram.recv(&mut [0]).is_err(),
            "a message came by path"
        );
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

/// Names, modes and contents of what is outside.
fn seen(dir: &Path) -> Vec<String> {
    let mut seen = listing(dir);
    for path in MACHINE {
        if let Ok(data) = std::fs::metadata(path) {
            seen.push(format!("{path} {:o}", data.permissions().mode()));
        }
    }
    seen
}
