//! Base images made from Debian's packages: a Debian `minbase` and a busybox, as OCI layouts below the cache directory.
//! They use the package sources that this machine uses.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cmd::{run, tool, which};
use crate::{cache_dir, debian};

/// Says whether the Debian base image is still to be made, and needs `stepwell` for it.
pub fn debian_needs_stepwell() -> bool {
    !directory("debian").join("index.json").is_file() && !debian::mmdebstrap_works()
}

/// Returns the OCI layout of the Debian base image (the machine's own release), made when missing.
pub fn debian() -> Result<PathBuf, String> {
    layout("debian", |dir| {
        let archive = dir.join("rootfs.tar");
        debian::bootstrap(dir, &archive)?;
        Ok(archive)
    })
}

/// Returns the OCI layout of the busybox base image, made when missing.
pub fn busybox() -> Result<PathBuf, String> {
    layout("busybox", |dir| {
        let binary = which("busybox").ok_or("`busybox` is not installed")?;
        let root = dir.join("root");
        let io = |e: std::io::Error| format!("the busybox root file system: {e}");
        for sub in ["bin", "etc", "root", "dev", "proc", "sys"] {
            std::fs::create_dir_all(root.join(sub)).map_err(io)?;
        }
        std::fs::create_dir_all(root.join("tmp")).map_err(io)?;
        std::fs::copy(binary, root.join("bin/busybox")).map_err(io)?;
        for applet in run(Command::new(root.join("bin/busybox")).arg("--list"))?
            .lines()
            .filter(|a| *a != "busybox")
        {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).map_err(io)?;
        }
        std::fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )
        .map_err(io)?;
        std::fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").map_err(io)?;
        let archive = dir.join("rootfs.tar");
        run(Command::new("chmod").arg("1777").arg(root.join("tmp")))?;
        run(Command::new("tar")
            .args([
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "--mtime=@0",
                "-C",
            ])
            .arg(&root)
            .arg("-cf")
            .arg(&archive)
            .arg("."))?;
        Ok(archive)
    })
}

/// Copies an OCI layout into a registry, and returns the reference.
pub fn push(layout: &Path, registry: &str, name: &str) -> Result<String, String> {
    let reference = format!("{registry}/{name}");
    run(tool("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
        ])
        .arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker://{reference}")))?;
    Ok(reference)
}

fn directory(name: &str) -> PathBuf {
    cache_dir().join("base").join(name)
}

/// Returns the OCI layout `name` of the cache directory, made when missing: `make` returns the archive of a root file system.
pub fn layout(
    name: &str,
    make: impl FnOnce(&Path) -> Result<PathBuf, String>,
) -> Result<PathBuf, String> {
    let done = directory(name);
    if done.join("index.json").is_file() {
        return Ok(done);
    }
    let work = cache_dir()
        .join("base")
        .join(format!(".{name}.{}", std::process::id()));
    let io = |e: std::io::Error| format!("`{}`: {e}", work.display());
    std::fs::create_dir_all(&work).map_err(io)?;
    let result = make(&work)
        .and_then(|archive| package(&work, &archive))
        .and_then(|layout| {
            std::fs::rename(&layout, &done)
                .map_err(io)
                .or_else(|e| if done.is_dir() { Ok(()) } else { Err(e) })
        });
    let _ = std::fs::remove_dir_all(&work);
    result.map(|()| done)
}

/// Packs the archive of a root file system as an image of one layer.
fn package(work: &Path, archive: &Path) -> Result<PathBuf, String> {
    let layout = work.join("layout");
    let image = format!("{}:latest", layout.display());
    run(tool("umoci").args(["init", "--layout"]).arg(&layout))?;
    run(tool("umoci").args(["new", "--image", &image]))?;
    run(tool("umoci")
        .args(["raw", "add-layer", "--image", &image])
        .arg(archive))?;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    run(tool("umoci").args([
        "config",
        "--image",
        &image,
        "--config.env",
        path,
        "--config.cmd",
        "/bin/sh",
        "--os",
        "linux",
        "--architecture",
        &architecture(),
    ]))?;
    run(tool("umoci").args(["gc", "--layout"]).arg(&layout))?;
    Ok(layout)
}

fn architecture() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    }
}
