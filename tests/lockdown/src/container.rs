//! Runs commands in a container by runc, as a row of [`crate::environment`] has it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use stepwell_test_support::cmd::{output, run, tool};
use stepwell_test_support::workspace;

use crate::environment::{Environment, Maker, Proc};
use crate::root::Root;
use crate::site::{self, Built, EPOCH, Site};

/// Where the site and the volume are in the container.
const SITE: &str = "/site";
const VOLUME: &str = "/work";

/// What is seen of the site.
const PARTS: [&str; 3] = ["bin", "base", "context"];

/// A container of an environment; each command gets a new one with the same root and volume.
pub struct Container<'a> {
    environment: &'a Environment,
    site: &'a Site,
    root: Root,
    volume: PathBuf,
}

impl<'a> Container<'a> {
    /// Makes its root and its volume.
    pub fn new(environment: &'a Environment, site: &'a Site) -> Self {
        assert!(
            stepwell_test_support::is_root(),
            "NOT RUN: containers are made by runc, which needs the machine's root"
        );
        let root = Root::new(&site.path(&format!("root-{}", environment.name)));
        root.libraries_of(&site.path("bin/stepwell"));
        let (uid, gid) = environment.user;
        let known = if environment.passwd && uid != 0 {
            format!("builder:x:{uid}:{gid}::/work:/bin/sh\n")
        } else {
            String::new()
        };
        root.file(
            "etc/passwd",
            format!("root:x:0:0:root:/root:/bin/sh\n{known}"),
        );
        root.world_writable(&VOLUME[1..]);
        for part in PARTS {
            root.world_writable(&format!("{}/{part}", &SITE[1..]));
        }
        if environment.denial.is_some() {
            deny_mounts(&root);
        }
        let volume = site.volume(&format!("work-{}", environment.name), environment.user);
        Self {
            environment,
            site,
            root,
            volume,
        }
    }

    /// Where the volume is outside.
    pub fn volume(&self) -> &Path {
        &self.volume
    }

    /// Builds there.
    pub fn build(&self, more: &[&str]) -> Built {
        let command = site::build(Path::new(SITE), Path::new(VOLUME), more);
        Built::of(&mut self.command(&command), &self.volume)
    }

    /// Runs the command that shows the denial, and panics where there is none.
    pub fn shows_its_denial(&self) {
        let (script, wanted) = self.environment.control;
        let command = ["sh", "-c", script].map(str::to_owned);
        let output = output(&mut self.command(&command)).expect("runc runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && wanted.split('|').any(|part| told.contains(part)),
            "{}: `{script}` has to say `{wanted}`: {told}",
            self.environment.name
        );
    }

    /// The command of this machine that runs a command in the container.
    pub fn command(&self, command: &[String]) -> Command {
        if self.environment.maker == Maker::Chroot {
            return self.in_chroot(command);
        }
        let bundle = self.site.path(&format!("bundle-{}", self.environment.name));
        std::fs::create_dir_all(&bundle).expect("the bundle");
        let denial = self
            .environment
            .denial
            .map(|mode| ["/bin/deny_mounts", mode]);
        let args: Vec<&str> = denial
            .iter()
            .flatten()
            .copied()
            .chain(command.iter().map(String::as_str))
            .collect();
        let config = self.config(&args).to_string();
        std::fs::write(bundle.join("config.json"), config).expect("its configuration");
        let mut runc = tool("runc");
        runc.arg("--root")
            .arg(self.site.path("runc"))
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(format!("{}-{}", self.environment.name, std::process::id()));
        runc
    }

    /// The same for a chroot, whose mounts are in a name space that ends with the command.
    fn in_chroot(&self, command: &[String]) -> Command {
        let script = r#"
root=$1 site=$2 volume=$3 user=$4 proc=$5 epoch=$6; shift 6
for part in bin base context; do mount --bind "$site/$part" "$root/site/$part" || exit 125; done
mount --bind "$volume" "$root/work" && mount --rbind /dev "$root/dev" || exit 125
if [ "$proc" = yes ]; then mount -t proc proc "$root/proc" || exit 125; fi
exec env -i PATH=/bin HOME=/ SOURCE_DATE_EPOCH="$epoch" /usr/sbin/chroot --userspec="$user" "$root" "$@""#;
        let (uid, gid) = self.environment.user;
        let proc = if self.environment.proc == Proc::Absent {
            "no"
        } else {
            "yes"
        };
        let mut unshare = tool("unshare");
        unshare.args(["--mount", "sh", "-c", script, "sh"]);
        unshare
            .arg(self.root.path())
            .arg(self.site.path(""))
            .arg(&self.volume);
        unshare
            .args([&format!("{uid}:{gid}"), proc, EPOCH])
            .args(command);
        unshare
    }

    fn config(&self, args: &[&str]) -> Value {
        let e = self.environment;
        let capabilities = json!({
            "bounding": e.capabilities, "effective": e.capabilities, "permitted": e.capabilities
        });
        let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|n| json!({"type": n}));
        let mut config = json!({
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": e.user.0, "gid": e.user.1},
                "args": args,
                "env": ["PATH=/bin", "HOME=/", format!("SOURCE_DATE_EPOCH={EPOCH}")],
                "cwd": "/",
                "capabilities": capabilities,
                "noNewPrivileges": e.no_new_privs,
            },
            "root": {"path": self.root.path(), "readonly": e.read_only},
            "hostname": "container",
            "mounts": self.mounts(),
            "linux": {
                "namespaces": namespaces,
            },
        });
        if e.proc == Proc::Masked {
            config["linux"]["maskedPaths"] = json!(MASKED);
            config["linux"]["readonlyPaths"] = json!(READ_ONLY);
        }
        if let Some(profile) = e.seccomp.seccomp(e.capabilities) {
            config["linux"]["seccomp"] = profile;
        }
        if e.no_user_namespaces {
            without_user_namespaces(&mut config);
        }
        config
    }

    fn mounts(&self) -> Vec<Value> {
        let bind = |from: &Path, to: &str, how: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["bind", how]});
        let new = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
        let part = |name: &str| bind(&self.site.path(name), &format!("{SITE}/{name}"), "ro");
        let [bin, base, context] = PARTS.map(part);
        vec![
            new("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            new("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755"]),
            new(
                "/dev/pts",
                "devpts",
                &[
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                ],
            ),
            new(
                "/dev/shm",
                "tmpfs",
                &["nosuid", "noexec", "nodev", "mode=1777"],
            ),
            new("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            bin,
            base,
            context,
            bind(&self.volume, VOLUME, "rw"),
        ]
    }
}

/// What container runtimes cover.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// What they make read-only.
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Puts the container into a user namespace with all ids, whose limit of further ones is 0; the machine's own limit is not
/// touched.
fn without_user_namespaces(config: &mut Value) {
    let all = json!([{"containerID": 0, "hostID": 0, "size": 4_294_967_295_u32}]);
    config["linux"]["uidMappings"] = all.clone();
    config["linux"]["gidMappings"] = all;
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "user"}));
    }
    // The limit that is written is that of the namespace of whoever writes.
    let script = r#"pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); exec nsenter --user --target "$pid" sh -c 'echo 0 > /proc/sys/user/max_user_namespaces'"#;
    let path = format!(
        "PATH={}",
        stepwell_test_support::tools::path().to_string_lossy()
    );
    config["hooks"]["createRuntime"] =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": [path]}]);
}

/// Compiles the program that denies mounts into a root.
fn deny_mounts(root: &Root) {
    let source = workspace().join("tests/integration/helpers/deny_mounts.c");
    let mut gcc = tool("gcc");
    gcc.args(["-O1", "-static", "-Wall", "-Wextra", "-Werror"]);
    run(gcc
        .arg(source)
        .arg("-o")
        .arg(root.path().join("bin/deny_mounts")))
    .expect("gcc compiles the helper");
    run(Command::new("chmod")
        .arg("a+rx")
        .arg(root.path().join("bin/deny_mounts")))
    .expect("mode");
}
