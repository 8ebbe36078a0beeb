//! The ways to build: who builds, in which tier, and what is denied to the builder.
//!
//! A test that is about steps takes all ways, because a Dockerfile must not be able to tell them apart.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use stepwell_test_support::cmd::run;
use stepwell_test_support::{is_root, not_run, program, user};

use crate::{Ran, World, denial, ran, under};

/// Who builds, and in which tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Whether root builds, or the ordinary user.
    pub root: bool,
    /// Value of `--isolation`.
    pub isolation: &'static str,
    /// What is denied: a mode of `helpers/deny_mounts.c`.
    pub denied: Option<&'static str>,
    /// Whether the ordinary user has subordinate ids, which are real ones for a step.
    pub ids: bool,
}

impl Way {
    /// The ordinary user in a user namespace.
    pub const USERNS: Self = Self::of(false, "userns");
    /// The same with subordinate ids, and so with file systems of the kernel's.
    pub const IDS: Self = Self {
        ids: true,
        ..Self::of(false, "userns")
    };
    /// The ordinary user with nothing.
    pub const MEDIATED: Self = Self::of(false, "mediated");
    /// The same where the kernel really denies everything, so that no other tier can be had.
    pub const RESTRICTED: Self = Self {
        denied: Some("restricted"),
        ..Self::of(false, "auto")
    };
    /// Root of a container under docker's defaults, where the tier can only be `chroot`.
    pub const DOCKER: Self = Self {
        denied: Some("docker"),
        ..Self::of(true, "auto")
    };
    /// Root of the machine, with user namespaces and real ids.
    pub const ROOT: Self = Self::of(true, "userns");

    /// The same without a user namespace around the step.
    pub const ROOT_CHROOT: Self = Self::of(true, "chroot");

    const fn of(root: bool, isolation: &'static str) -> Self {
        Self {
            root,
            isolation,
            denied: None,
            ids: false,
        }
    }

    /// `stepwell build ARGS CONTEXT` with a store of this way's own.
    pub fn command(self, world: &World, args: &[&str]) -> Command {
        let isolation = format!("--isolation={}", self.isolation);
        let args: Vec<&str> = [&*isolation]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let build = if self.root {
            let mut command = Command::new(program::debug());
            command
                .args(["build", "--progress=plain", "--root"])
                .arg(world.path(&self.store()))
                .args(args)
                .arg(world.path("context"));
            command
        } else if self.ids {
            user::with_helpers(world.plain_command(&self.store(), &args))
        } else {
            world.build_command_in(&self.store(), &args)
        };
        match self.denied {
            None => build,
            Some(mode) => under(&denial::denial(world, mode), &build),
        }
    }

    /// Says why it cannot be gone here, if it cannot.
    pub fn missing(self) -> Option<&'static str> {
        if self.root && !is_root() {
            Some("building as root needs root")
        } else if self.ids && !user::has_subordinate_ids() {
            Some("this user has no subordinate ids, or no helper that may map them")
        } else {
            None
        }
    }

    /// Name of this way's store in the world.
    pub fn store(self) -> String {
        let who = match (self.root, self.ids) {
            (true, _) => "root",
            (false, true) => "ids",
            (false, false) => "user",
        };
        let denied = self.denied.unwrap_or("free");
        format!("store-{who}-{}-{denied}", self.isolation)
    }

    /// Builds.
    pub fn build(self, world: &World, args: &[&str]) -> Ran {
        ran(&mut self.command(world, args))
    }

    /// Builds, which has to succeed.
    #[track_caller]
    pub fn built(self, world: &World, args: &[&str]) -> Ran {
        let ran = self.build(world, args);
        assert_eq!(ran.code, Some(0), "{self:?}:\n{}", ran.err);
        ran
    }

    /// Runs another command of the program as who builds.
    pub fn ran(self, command: Command) -> Ran {
        if self.root {
            ran(&mut { command })
        } else if self.ids {
            ran(&mut user::with_helpers(command))
        } else {
            ran(&mut user::ordinary(command))
        }
    }

    /// Builds, and lists the entries of each layer.
    #[track_caller]
    pub fn layers(self, world: &World, args: &[&str]) -> Vec<Vec<String>> {
        let dest = world.path(&format!("{}.oci", self.store()));
        let _ = std::fs::remove_dir_all(&dest);
        let output = format!("type=oci,tar=false,dest={}", dest.display());
        let args: Vec<&str> = ["--output", &output]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.built(world, &args);
        let json = |path: PathBuf| -> Value {
            serde_json::from_slice(&std::fs::read(path).expect("a file of the layout"))
                .expect("JSON")
        };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            dest.join("blobs").join(digest.replace(':', "/"))
        };
        let manifest = json(blob(&json(dest.join("index.json"))["manifests"][0]));
        let layers = manifest["layers"].as_array().expect("layers");
        let list = |layer: &Value| {
            let text = run(Command::new("tar").arg("-tf").arg(blob(layer))).expect("a layer");
            text.lines().map(str::to_owned).collect()
        };
        layers.iter().map(list).collect()
    }

    /// Finds a file of a running step: its tree is on the store's disk, so that a test sees from outside what a step is
    /// doing.
    pub fn inside(self, world: &World, path: &str) -> Option<PathBuf> {
        let trees = std::fs::read_dir(world.path(&self.store()).join("v1/trees")).ok()?;
        let found = trees.flatten().map(|t| t.path().join("root").join(path));
        found.into_iter().find(|p| p.exists())
    }
}

/// Runs `test` for the ordinary user in every tier, and for root in those that root has, where root runs the tests.
pub fn each_way(test: impl Fn(Way)) {
    for (root, isolation) in [
        (false, "userns"),
        (false, "chroot"),
        (false, "mediated"),
        (true, "userns"),
        (true, "chroot"),
    ] {
        let way = Way::of(root, isolation);
        if let Some(why) = way.missing() {
            not_run(why);
            continue;
        }
        eprintln!("{way:?}");
        test(way);
    }
}

/// Runs `test` in the strictest surroundings of each tier, as the ones that a tier is for: an ordinary user with user
/// namespaces, with one id and with many, and one without anything, root of a container without user namespaces, and root of the
/// machine, who has real ids.
pub fn each_tier(test: impl Fn(Way)) {
    for way in [
        Way::USERNS,
        Way::IDS,
        Way::RESTRICTED,
        Way::DOCKER,
        Way::ROOT,
    ] {
        if let Some(why) = way.missing() {
            not_run(why);
            continue;
        }
        eprintln!("{way:?}");
        test(way);
    }
}
