//! Debian's packages, fetched and unpacked once below the cache directory.

use std::path::{Path, PathBuf};

use stepwell_test_support::cache_dir;
use stepwell_test_support::cmd::{run, tool};

/// Packages that stand for the newest kernel of a series: that of the release, and the one that it can be had with beside.
pub const KERNELS: &[&str] = &["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];

/// A kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// Its image.
    pub image: PathBuf,
    /// Directory of its modules.
    pub modules: PathBuf,
}

/// Returns the newest kernel that `series` stands for, or why there is none.
pub fn kernel(series: &str) -> Result<Kernel, String> {
    let text = run(tool("apt-cache").args(["depends", "--important", series]))?;
    let package = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| format!("`{series}` depends on no kernel"))?;
    let root = unpacked(package)?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    Ok(Kernel {
        image: root.join(format!("boot/vmlinuz-{release}")),
        modules: root.join(format!("lib/modules/{release}/kernel")),
        release,
    })
}

/// Fetches a package, if it was not, and returns the directory of its files.
pub fn unpacked(package: &str) -> Result<PathBuf, String> {
    let dir = cache_dir().join("lockdown/packages");
    let done = dir.join(package);
    if done.is_dir() {
        return Ok(done);
    }
    println!("lockdown: fetches {package}");
    let io = |e: std::io::Error| format!("`{}`: {e}", dir.display());
    std::fs::create_dir_all(&dir).map_err(io)?;
    let work = tempfile::tempdir_in(&dir).map_err(io)?;
    run(tool("apt-get")
        .args(["-o", "APT::Sandbox::User=root", "download", "-qq", package])
        .current_dir(work.path()))?;
    let archive = only_file(work.path()).ok_or_else(|| format!("no archive of `{package}`"))?;
    let files = work.path().join("files");
    run(tool("dpkg-deb").arg("-x").arg(archive).arg(&files))?;
    match std::fs::rename(&files, &done) {
        // Somebody else was quicker.
        Err(_) if done.is_dir() => Ok(done),
        result => result.map(|()| done).map_err(io),
    }
}

fn only_file(dir: &Path) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(dir).ok()?.flatten();
    entries.next().map(|e| e.path())
}
