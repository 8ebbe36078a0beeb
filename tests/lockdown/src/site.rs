//! What is built in every environment: a base image, a context and the program, all of it in one directory, and no network.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use stepwell_test_support::cmd::{output, run, tool};
use stepwell_test_support::{base, cache_dir, program, user};
use tempfile::TempDir;

/// All times in the images.
pub const EPOCH: &str = "1700000000";

/// Something to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// A busybox image: a second or two.
    Busybox,
    /// A Debian image with packages that bring users, setuid programs and scripts.
    Debian,
}

const BUSYBOX: &str = "\
FROM base AS build
COPY greeting /src/greeting
RUN id -u > /who && ls /proc/self/fd > /dev/null && cat /src/greeting | tr a-z A-Z > /shout
RUN mkdir -p /data/a && echo x > /data/a/f && ln -s f /data/a/link && chown -R 5:6 /data && chmod 4750 /data/a/f
FROM base
RUN echo app:x:1000:77::/home/app:/bin/sh >> /etc/passwd && echo team:x:77: >> /etc/group && mkfifo /pipe
RUN mkdir -p /home/app && chown 1000:77 /home/app
COPY --from=build --chown=app:team /shout /who /home/app/
COPY --from=build /data /data
USER app
RUN cd ~ && id -un >> who && test \"$(stat -c %U:%G shout)\" = app:team && test \"$(readlink /data/a/link)\" = f
";

const DEBIAN: &str = "\
FROM base
ENV DEBIAN_FRONTEND=noninteractive SOURCE_DATE_EPOCH=1700000000
COPY debs /debs
RUN dpkg --install /debs/*.deb && rm -rf /debs /var/log/* /var/cache/*
RUN hello > /greeting && bash -c 'cat <(id -u)' >> /greeting && test -u /usr/bin/sudo
RUN useradd --create-home --uid 1000 app && install -d -o app -g app /data && tar -C / -cf - etc/pam.d etc/sudoers usr/bin/sudo | tar -C /data -xpf -
USER app
RUN id -un > /data/who
";

/// Packages of the Debian workload: one that is small, one with a setuid program, configuration files and scripts.
const PACKAGES: &[&str] = &["hello", "sudo"];

/// A directory with all that a build needs.
pub struct Site {
    dir: TempDir,
}

/// What a build in some environment came to.
#[derive(Debug)]
pub struct Built {
    /// Exit status.
    pub code: Option<i32>,
    /// What it told.
    pub told: String,
    /// Its metadata; null where there is none.
    pub metadata: Value,
}

impl Built {
    /// Runs a command that builds, and reads what it leaves in `work`.
    pub fn of(command: &mut Command, work: &Path) -> Self {
        let output = output(command).expect("the builder runs");
        let metadata = std::fs::read(work.join("metadata.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            code: output.status.code(),
            told: String::from_utf8_lossy(&output.stderr).into_owned(),
            metadata: metadata.unwrap_or(Value::Null),
        }
    }

    /// Digest of the image.
    #[track_caller]
    pub fn digest(&self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.told);
        let digest = self.metadata["containerimage.digest"].as_str();
        digest.expect("a digest").to_owned()
    }

    /// The tier that its RUN steps got.
    pub fn tier(&self) -> &str {
        let tier = self.metadata["stepwell.isolation"]["tier"].as_str();
        tier.unwrap_or("not told")
    }

    /// Why it was no better one, as text.
    pub fn reasons(&self) -> String {
        self.metadata["stepwell.isolation"]["reasons"].to_string()
    }
}

impl Site {
    /// Lays everything out: `base` (an OCI layout), `context`, and `bin/stepwell`; readable by everybody.
    pub fn new(workload: Workload) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("stepwell-lockdown-")
            .tempdir_in("/var/tmp")
            .expect("a work directory");
        let site = Self { dir };
        let base = match workload {
            Workload::Busybox => base::busybox(),
            Workload::Debian => base::debian(),
        };
        let copy = |from: &Path, to: &str| {
            run(Command::new("cp").arg("-r").arg(from).arg(site.path(to))).expect("a copy");
        };
        copy(&base.expect("the base image"), "base");
        std::fs::create_dir(site.path("bin")).expect("a directory");
        // It is large: another name for it will do, where that can be.
        let program = program::debug();
        std::fs::hard_link(&program, site.path("bin/stepwell"))
            .unwrap_or_else(|_| copy(&program, "bin/stepwell"));
        std::fs::create_dir(site.path("context")).expect("the context");
        let write = |name: &str, text: &str| {
            std::fs::write(site.path("context").join(name), text).expect("a file of the context");
        };
        match workload {
            Workload::Busybox => {
                write("Dockerfile", BUSYBOX);
                write("greeting", "hello from outside\n");
            }
            Workload::Debian => {
                write("Dockerfile", DEBIAN);
                copy(&packages().expect("the packages"), "context/debs");
            }
        }
        run(Command::new("chmod")
            .arg("-R")
            .arg("a+rX")
            .arg(site.dir.path()))
        .expect("modes");
        site
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes an empty directory in it that belongs to a user.
    pub fn volume(&self, name: &str, (uid, gid): (u32, u32)) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).expect("a volume");
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).expect("its owner");
        path
    }

    /// Builds as an ordinary user of this machine, where nothing is denied.
    pub fn built_outside(&self) -> Built {
        let work = self.path("outside");
        std::fs::create_dir(&work).expect("a directory");
        user::give(&work).expect("the user's directory");
        let command = build(self.dir.path(), &work, &[]);
        let mut build = Command::new(&command[0]);
        build.args(&command[1..]).env("SOURCE_DATE_EPOCH", EPOCH);
        let built = Built::of(&mut user::ordinary(build), &work);
        assert_eq!(built.tier(), "userns", "{}", built.told);
        built
    }
}

/// The command that builds, where the site is at `site` and `work` can be written to.
pub fn build(site: &Path, work: &Path, more: &[&str]) -> Vec<String> {
    let [site, work] = [site, work].map(|p| p.to_str().expect("a path").to_owned());
    let mut command = vec![format!("{site}/bin/stepwell"), "build".to_owned()];
    let ours = [
        "--progress=plain".to_owned(),
        format!("--root={work}/store"),
        format!("--build-context=base=oci-layout://{site}/base"),
        format!("--output=type=oci,dest={work}/image.tar"),
        format!("--metadata-file={work}/metadata.json"),
    ];
    command.extend(ours);
    command.extend(more.iter().map(|a| (*a).to_owned()));
    command.push(format!("{site}/context"));
    command
}

/// Downloads the packages once, and returns their directory.
fn packages() -> Result<PathBuf, String> {
    let dir = cache_dir().join("lockdown/debs");
    std::fs::create_dir_all(&dir).map_err(|e| format!("`{}`: {e}", dir.display()))?;
    let there: Vec<String> = std::fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    let missing = |p: &&&str| !there.iter().any(|f| f.starts_with(&format!("{p}_")));
    let missing: Vec<_> = PACKAGES.iter().filter(missing).collect();
    if !missing.is_empty() {
        let mut download = tool("apt-get");
        // The account that apt would change to cannot reach the cache directory.
        download.args(["-o", "APT::Sandbox::User=root", "download", "-qq"]);
        run(download.args(missing).current_dir(&dir))?;
    }
    Ok(dir)
}
