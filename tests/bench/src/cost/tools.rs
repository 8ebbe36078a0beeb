//! The image that is worked in: Debian with a compiler, Python, and packages that are there to be installed.  It is made once, by
//! Stepwell, and kept beside the other base images.

use std::path::{Path, PathBuf};
use std::process::Command;

use stepwell_test_support::cmd::{run, tool};
use stepwell_test_support::registry::Registry;
use stepwell_test_support::{base, program, user};

use super::SCRIPT;

const DOCKERFILE: &str = "\
FROM @DEBIAN@
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3
COPY prog.c packages /cost/
RUN mkdir -p /cost/debs && cd /cost/debs && apt-get download $(cat /cost/packages) && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
";

const PROGRAM: &str = "\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) { char *s = strdup(argv[0]); printf(\"%s %d %d\\n\", s, argc, (int)getpid()); free(s); return 0; }
";

/// Small packages that need nothing that the image has not.
const PACKAGES: &str = "bsdextrautils bzip2 cpio ed file iputils-ping jq less libcap2-bin libjq1 libmagic1 libmagic-mgc libonig5 netbase nano patch xz-utils\n";

/// What is the same for all ways.
pub struct Prepared {
    /// The image as an OCI layout.
    pub layout: PathBuf,
    /// The same in a registry.
    pub image: String,
    /// Directory for whatever a way needs.
    pub work: PathBuf,
    /// Whether the unoptimised program is measured.
    pub debug: bool,
    /// How often everything is done.
    pub rounds: u32,
}

impl Prepared {
    /// The program that is measured.
    pub fn program(&self) -> PathBuf {
        program_of(self.debug)
    }

    /// A directory of the ordinary user's.
    pub fn dir(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.work.join(name);
        std::fs::create_dir_all(&dir).map_err(|e| format!("`{}`: {e}", dir.display()))?;
        user::give(&dir)?;
        Ok(dir)
    }

    /// The image's file system in a directory, with the script in it.
    pub fn unpacked(&self) -> Result<PathBuf, String> {
        let root = self.work.join("root");
        if !root.is_dir() {
            let mut unpack = tool("umoci");
            unpack
                .args(["raw", "unpack", "--image"])
                .arg(format!("{}:latest", self.layout.display()));
            unpack.args((!stepwell_test_support::is_root()).then_some("--rootless"));
            run(unpack.arg(&root))?;
            write(&root.join("cost/work.sh"), SCRIPT)?;
        }
        Ok(root)
    }
}

fn program_of(debug: bool) -> PathBuf {
    if debug {
        program::debug()
    } else {
        program::release()
    }
}

/// Writes a file.
pub fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("`{}`: {e}", path.display()))
}

/// Returns the image, made when missing.
pub fn layout(debug: bool) -> Result<PathBuf, String> {
    base::layout("cost", |dir| {
        let registry = Registry::start(&dir.join("registry"))?;
        let debian = base::push(&base::debian()?, &registry.host(), "debian:12")?;
        // Not below the cache directory, which an ordinary user may not be able to reach.
        let work =
            tempfile::tempdir_in("/var/tmp").map_err(|e| format!("a work directory: {e}"))?;
        let context = work.path().join("context");
        std::fs::create_dir(&context).map_err(|e| format!("`{}`: {e}", context.display()))?;
        write(
            &context.join("Dockerfile"),
            &DOCKERFILE.replace("@DEBIAN@", &debian),
        )?;
        write(&context.join("prog.c"), PROGRAM)?;
        write(&context.join("packages"), PACKAGES)?;
        user::give(work.path())?;
        let archive = work.path().join("rootfs.tar");
        let mut build = Command::new(program_of(debug));
        build
            .args(["build", "--progress=plain", "--root"])
            .arg(work.path().join("store"))
            .arg("-o")
            .arg(format!("type=tar,dest={}", archive.display()))
            .arg(&context);
        run(&mut user::ordinary(build))?;
        let kept = dir.join("rootfs.tar");
        std::fs::copy(&archive, &kept).map_err(|e| format!("`{}`: {e}", kept.display()))?;
        Ok(kept)
    })
}
