//! What the integration tests share: a world with a registry, base images, a store and a context, in which an ordinary user
//! runs `stepwell`.
#![forbid(unsafe_code)]

pub mod archive;
pub mod children;
pub mod denial;
pub mod proxy;
pub mod way;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use stepwell_test_support::cmd::{output, run, tool};
use stepwell_test_support::registry::Registry;
use stepwell_test_support::{base, program, user};
use tempfile::TempDir;

/// A registry, a store and a context of one test; all of it goes with this value.
pub struct World {
    dir: TempDir,
    /// The registry; it holds `busybox:1`, and `debian:12` where the world was made with it.
    pub registry: Registry,
}

/// What a run of `stepwell` did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl World {
    /// A world with the busybox base.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("stepwell-it-")
            .tempdir_in("/var/tmp")
            .expect("a work directory");
        let registry = Registry::start(&dir.path().join("registry")).expect("the registry");
        base::push(
            &base::busybox().expect("the busybox base"),
            &registry.host(),
            "busybox:1",
        )
        .expect("busybox in the registry");
        std::fs::create_dir(dir.path().join("context")).expect("the context");
        Self { dir, registry }
    }

    /// A world with the Debian base as well.
    pub fn with_debian() -> Self {
        let world = Self::new();
        base::push(
            &base::debian().expect("the Debian base"),
            &world.registry.host(),
            "debian:12",
        )
        .expect("Debian in the registry");
        world
    }

    /// A path in the world's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the context, and the directories that it needs.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path("context").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent"))
            .expect("a directory of the context");
        std::fs::write(&path, content).expect("a file of the context");
        self
    }

    /// Writes the Dockerfile; `@BUSYBOX@` and `@DEBIAN@` stand for the bases.
    pub fn dockerfile(&self, text: &str) -> &Self {
        self.file("Dockerfile", self.expand(text))
    }

    /// Replaces `@BUSYBOX@`, `@DEBIAN@` and `@REGISTRY@`.
    pub fn expand(&self, text: &str) -> String {
        let host = self.registry.host();
        text.replace("@BUSYBOX@", &format!("{host}/busybox:1"))
            .replace("@DEBIAN@", &format!("{host}/debian:12"))
            .replace("@REGISTRY@", &host)
    }

    /// `stepwell build ARGS CONTEXT` as the ordinary user, with plain progress unless the arguments are about it.
    pub fn build_command(&self, args: &[&str]) -> Command {
        self.build_command_in("store", args)
    }

    /// The same with another store of this world.
    pub fn build_command_in(&self, store: &str, args: &[&str]) -> Command {
        user::ordinary(self.plain_command(store, args))
    }

    /// The same by whoever runs the tests.
    pub fn plain_command(&self, store: &str, args: &[&str]) -> Command {
        self.give();
        let mut command = Command::new(program::debug());
        let is_set = |a: &&str| *a == "--quiet" || a.starts_with("--progress");
        let progress = (!args.iter().any(is_set)).then_some("--progress=plain");
        command
            .arg("build")
            .args(progress)
            .arg("--root")
            .arg(self.path(store))
            .args(args.iter().map(|a| self.expand(a)))
            .arg(self.path("context"));
        command
    }

    /// Gives the world to the ordinary user, but for stores, which are the user's already: chown(2) clears setuid bits and
    /// changes times, and somebody may be at work in them.
    pub fn give(&self) {
        for entry in std::fs::read_dir(self.dir.path()).expect("the world's directory") {
            let entry = entry.expect("an entry");
            if !entry.file_name().to_string_lossy().starts_with("store") {
                user::give(&entry.path()).expect("the user's files");
            }
        }
        if stepwell_test_support::is_root() {
            run(Command::new("chown").arg(user::NAME).arg(self.dir.path()))
                .expect("the user's directory");
        }
    }

    /// Ids of the processes that belong to a store: they name it in their arguments, or live in one of its trees.
    pub fn processes_of(&self, store: &str) -> Vec<String> {
        let path = self.path(store);
        let name = path.to_str().expect("a path");
        let is_of = |process: &Path| {
            let lives = ["root", "cwd", "exe"]
                .iter()
                .any(|l| std::fs::read_link(process.join(l)).is_ok_and(|p| p.starts_with(&path)));
            lives
                || std::fs::read(process.join("cmdline"))
                    .is_ok_and(|line| String::from_utf8_lossy(&line).contains(name))
        };
        std::fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .filter(|e| e.file_name().as_encoded_bytes()[0].is_ascii_digit() && is_of(&e.path()))
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Runs `stepwell build`.
    pub fn build(&self, args: &[&str]) -> Ran {
        ran(&mut self.build_command(args))
    }

    /// Runs `stepwell explain` and returns what it prints.
    pub fn explain(&self, args: &[&str]) -> String {
        let mut command = Command::new(program::debug());
        command
            .args(["explain", "--progress=quiet", "--root"])
            .arg(self.path("store"));
        command
            .args(args.iter().map(|a| self.expand(a)))
            .arg(self.path("context"));
        user::give(self.dir.path()).expect("the user's directory");
        let ran = ran(&mut user::ordinary(command));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    }

    /// Runs `stepwell build`, which has to succeed.
    pub fn built(&self, args: &[&str]) -> Ran {
        let ran = self.build(args);
        assert_eq!(ran.code, Some(0), "the build failed:\n{}", ran.err);
        ran
    }

    /// Builds with `--push` and returns the digest of the manifest.
    pub fn pushed(&self, name: &str, args: &[&str]) -> String {
        let metadata = self.path(&format!("metadata-{}.json", name.replace('/', "-")));
        let tag = format!("@REGISTRY@/{name}:latest");
        let all: Vec<&str> = [
            "--push",
            "--tag",
            &tag,
            "--metadata-file",
            metadata.to_str().expect("a path"),
        ]
        .iter()
        .copied()
        .chain(args.iter().copied())
        .collect();
        self.built(&all);
        let json: Value =
            serde_json::from_slice(&std::fs::read(&metadata).expect("the metadata")).expect("JSON");
        json["containerimage.digest"]
            .as_str()
            .expect("a digest")
            .to_owned()
    }

    /// Fetches an image with skopeo and unpacks it with umoci; returns the bundle (`config.json`, `rootfs`).
    pub fn fetched(&self, name: &str) -> PathBuf {
        let layout = self.path(&format!("layout-{name}"));
        let bundle = self.path(&format!("bundle-{name}"));
        run(tool("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--src-tls-verify=false",
            ])
            .arg(format!("docker://{}/{name}:latest", self.registry.host()))
            .arg(format!("oci:{}:latest", layout.display())))
        .expect("skopeo takes the image");
        let mut unpack = tool("umoci");
        unpack
            .args(["unpack", "--image"])
            .arg(format!("{}:latest", layout.display()));
        if !stepwell_test_support::is_root() {
            unpack.arg("--rootless");
        }
        run(unpack.arg(&bundle)).expect("umoci takes the image");
        bundle
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Ran {
    /// Asserts the exit code and that the error output contains every one of `parts`.
    #[track_caller]
    pub fn failed_with(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        for part in parts {
            assert!(
                self.err.contains(part),
                "`{part}` is missing in:\n{}",
                self.err
            );
        }
    }

    /// The lines that the steps printed, as plain progress shows them.
    pub fn printed(&self) -> Vec<String> {
        const TOLD: [&str; 7] = ["[", "DONE", "CACHED", "ERROR", "pull", "push", "unpack"];
        let lines = self.err.lines().filter(|line| line.starts_with('#'));
        let lines = lines.filter_map(|line| line.split_once(' ').map(|(_, text)| text));
        lines
            .filter(|text| !TOLD.iter().any(|word| text.starts_with(word)))
            .map(str::to_owned)
            .collect()
    }

    /// Number of steps that were carried out, and number of steps that were taken from the cache.
    pub fn steps(&self) -> (usize, usize) {
        let count = |word: &str| {
            self.err
                .lines()
                .filter(|l| l.split_whitespace().nth(1) == Some(word))
                .count()
        };
        (count("DONE"), count("CACHED"))
    }
}

/// Runs a command to its end.
pub fn ran(command: &mut Command) -> Ran {
    output(command).expect("the program runs").into()
}

/// Puts a command behind another one, which executes it: `wrapper ARGS… command ARGS…`, in the command's environment.
pub fn under(wrapper: &Command, command: &Command) -> Command {
    let mut both = Command::new(wrapper.get_program());
    both.args(wrapper.get_args())
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in wrapper.get_envs().chain(command.get_envs()) {
        match value {
            Some(value) => both.env(name, value),
            None => both.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        both.current_dir(dir);
    }
    both
}

/// Lists a directory tree as lines `type mode uid:gid path content-or-target`, sorted.
pub fn listing(root: &Path) -> Vec<String> {
    let script = r#"cd "$1" && find . -mindepth 1 \( -type f -printf '%y %m %U:%G %p ' -exec sh -c 'sha256sum < "$1"' sh {} \; \) -o \( -type l -printf '%y %m %U:%G %p %l\n' \) -o -printf '%y %m %U:%G %p\n'"#;
    let text = run(Command::new("sh").args(["-c", script, "sh"]).arg(root)).expect("a listing");
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
