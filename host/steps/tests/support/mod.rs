//! Trees, modes and assertions for the tests of the sandbox.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// An ordinary user where the tests run as root: a number that no account has to have.
const ORDINARY: u32 = 4242;

const APPLETS: &[&str] = &[
    "[", "cat", "chmod", "chown", "chroot", "cp", "cut", "echo", "env", "false", "grep", "head",
    "hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mount", "mv", "nc", "ping", "pwd", "rm",
    "rmdir", "sed", "setsid", "sh", "sleep", "stat", "test", "touch", "tr", "true", "unshare",
    "wc", "wget", "yes",
];

/// Who runs a step, and in which tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub uid: u32,
    pub isolation: &'static str,
    /// How the builder is confined: as docker confines a container's root (`docker`), as Kubernetes does an ordinary
    /// user (`restricted`), or not at all; `ids` is no confinement, but the user [`ORDINARY`] with subordinate ids.
    pub container: &'static str,
}

impl Mode {
    /// Says whether `/proc`, `/dev` and `/sys` of its steps are the kernel's own.
    pub fn has_kernel_world(self) -> bool {
        self.container == "ids"
    }

    /// Says whether a security policy denies the builder something.
    pub fn is_confined(self) -> bool {
        !matches!(self.container, "" | "ids")
    }

    /// Gives a file to the user whose builds these are.
    pub fn own(self, path: &Path) {
        let id = Some(if self.container == "ids" {
            ORDINARY
        } else {
            self.uid
        });
        chown(path, id, id).expect("chown");
    }
}

fn modes() -> Vec<Mode> {
    let me = rustix::process::getuid().as_raw();
    let mode = |uid, isolation, container| Mode {
        uid,
        isolation,
        container,
    };
    if me != 0 {
        return vec![
            mode(me, "userns", ""),
            mode(me, "mediated", ""),
            mode(me, "auto", "restricted"),
        ];
    }
    vec![
        mode(ORDINARY, "userns", ""),
        mode(0, "userns", "ids"),
        mode(0, "userns", ""),
        mode(0, "chroot", ""),
        mode(0, "auto", "docker"),
        mode(ORDINARY, "mediated", ""),
        mode(ORDINARY, "auto", "restricted"),
    ]
}

/// Runs `test` in a fresh busybox tree of each mode.
pub fn each_mode(test: impl Fn(&TestTree)) {
    for mode in modes() {
        let tree = TestTree::busybox(mode);
        eprintln!("mode: {mode:?}");
        test(&tree);
    }
}

pub struct TestTree {
    dir: tempfile::TempDir,
    mode: Mode,
}

impl TestTree {
    pub fn empty(mode: Mode) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("sandbox")
            .tempdir_in("/var/tmp")
            .expect("directory");
        fs::create_dir(dir.path().join("root")).expect("root");
        let runner = dir.path().join("step-runner");
        // The build directory may be out of reach for an ordinary user.
        let built = env!("CARGO_BIN_EXE_step-runner");
        fs::hard_link(built, &runner)
            .or_else(|_| fs::copy(built, &runner).map(drop))
            .expect("runner");
        let tree = Self { dir, mode };
        for path in [tree.dir.path(), &tree.path("")] {
            mode.own(path);
        }
        tree
    }

    fn busybox(mode: Mode) -> Self {
        let tree = Self::empty(mode);
        for dir in ["bin", "tmp", "etc"] {
            fs::create_dir(tree.path(dir)).expect("directory");
            mode.own(&tree.path(dir));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .chain(["/bin".into(), "/usr/bin".into()])
            .map(|dir| dir.join("busybox"))
            .find(|file| file.exists());
        fs::copy(
            found.expect("the tests need a static busybox: install `busybox-static`"),
            tree.path("bin/busybox"),
        )
        .expect("copy");
        mode.own(&tree.path("bin/busybox"));
        for name in APPLETS {
            symlink("busybox", tree.path("bin").join(name)).expect("link");
        }
        tree
    }

    /// A fresh tree of the same mode.
    pub fn another(&self) -> Self {
        Self::busybox(self.mode)
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    pub fn write(&self, name: &str, content: &str, mode: u32) {
        fs::write(self.path(name), content).expect("write");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("chmod");
        self.mode.own(&self.path(name));
    }

    pub fn step<'a>(&'a self, args: &'a [&'a str]) -> Step<'a> {
        Step {
            tree: self,
            args: args.to_vec(),
            options: Vec::new(),
        }
    }

    pub fn sh(&self, script: &str) -> Ran {
        self.step(&["sh", "-c", script]).run()
    }

    /// A command outside of any step, as the same user.
    pub fn outside(&self, args: &[&str]) -> Command {
        let mut command = Command::new(args[0]);
        command.args(&args[1..]).stdin(Stdio::null());
        self.as_user(command)
    }

    fn as_user(&self, mut command: Command) -> Command {
        if self.mode.uid != rustix::process::getuid().as_raw() {
            command.uid(self.mode.uid).gid(self.mode.uid);
        }
        command
    }

    /// A number of seconds that no other test sleeps, to know processes by.
    pub fn mark(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!(
            "{}.{:03}",
            1_000_000 + std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        )
    }
}

/// A step that is about to be run.
pub struct Step<'a> {
    tree: &'a TestTree,
    args: Vec<&'a str>,
    options: Vec<&'a str>,
}

impl<'a> Step<'a> {
    pub fn options(mut self, options: &[&'a str]) -> Self {
        self.options.extend(options);
        self
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(self.tree.dir.path().join("step-runner"));
        command
            .args(["--isolation", self.tree.mode.isolation])
            .args(&self.options);
        if !self.tree.mode.container.is_empty() {
            command.args(["--container", self.tree.mode.container]);
        }
        command
            .arg(self.tree.path(""))
            .args(&self.args)
            .stdin(Stdio::null())
            .env_clear();
        self.tree.as_user(command)
    }

    pub fn run(&self) -> Ran {
        let output = self.command().output().expect("runner");
        Ran {
            output,
            what: format!("{:?} {:?}", self.tree.mode, self.args),
        }
    }
}

/// What came of a step.
pub struct Ran {
    output: Output,
    what: String,
}

impl Ran {
    fn told(&self) -> String {
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(3000)]).into_owned();
        format!(
            "{}\nstdout: {}\nstderr: {}",
            self.what,
            text(&self.output.stdout),
            text(&self.output.stderr)
        )
    }

    #[track_caller]
    pub fn code(self, want: i32) -> Self {
        assert_eq!(self.output.status.code(), Some(want), "{}", self.told());
        self
    }

    #[track_caller]
    pub fn code_not(self, unwanted: i32) -> Self {
        assert_ne!(self.output.status.code(), Some(unwanted), "{}", self.told());
        self
    }

    #[track_caller]
    pub fn stdout(self, want: &str) -> Self {
        assert_eq!(
            String::from_utf8_lossy(&self.output.stdout),
            want,
            "{}",
            self.told()
        );
        self
    }

    #[track_caller]
    pub fn stdout_has(self, want: &str) -> Self {
        assert!(
            String::from_utf8_lossy(&self.output.stdout).contains(want),
            "{want:?} is missing: {}",
            self.told()
        );
        self
    }

    #[track_caller]
    pub fn stdout_len(self, want: usize) -> Self {
        assert_eq!(self.output.stdout.len(), want, "{}", self.told());
        self
    }

    #[track_caller]
    pub fn stderr(self, want: &str) -> Self {
        assert_eq!(
            String::from_utf8_lossy(&self.output.stderr),
            want,
            "{}",
            self.told()
        );
        self
    }

    #[track_caller]
    pub fn stderr_has(self, want: &str) -> Self {
        assert!(
            String::from_utf8_lossy(&self.output.stderr).contains(want),
            "{want:?} is missing: {}",
            self.told()
        );
        self
    }
}

/// Counts processes of this machine that have `mark` as an argument.
pub fn alive_with(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let has = |dir: PathBuf| {
        let line = fs::read(dir.join("cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|arg| arg == mark.as_bytes())
    };
    entries
        .map(|e| e.path())
        .filter(|dir| {
            dir.file_name()
                .is_some_and(|n| n.to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        })
        .filter(|dir| has(dir.clone()))
        .count()
}
