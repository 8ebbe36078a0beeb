//! The root file system of a Debian `minbase`, with the machine's own package sources and download settings: made by
//! mmdebstrap where it can become root or has subordinate ids, and by Stepwell itself where it has neither.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cmd::{run, tool, which};
use crate::{is_root, program, tools};

/// Says whether mmdebstrap can work: as root, or with a `newuidmap` that may do what it is for.
pub fn mmdebstrap_works() -> bool {
    is_root() || which("newuidmap").is_some_and(|p| !p.starts_with(tools::unpacked()))
}

/// Makes the archive of the root file system; `work` is an empty directory.
pub fn bootstrap(work: &Path, archive: &Path) -> Result<(), String> {
    if mmdebstrap_works() {
        println!("setup: makes the Debian base image with mmdebstrap");
        mmdebstrap(archive)
    } else {
        println!("setup: makes the Debian base image with stepwell (no subordinate ids here)");
        stepwell(work, archive)
    }
}

fn mmdebstrap(archive: &Path) -> Result<(), String> {
    let mut command = tool("mmdebstrap");
    command.args([
        "--quiet",
        "--variant=minbase",
        "--aptopt=Acquire::Languages \"none\"",
    ]);
    for setting in download_settings() {
        command.arg(format!("--aptopt={setting}"));
    }
    command.arg("--customize-hook=rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/*.bin");
    command.arg(suite()).arg(archive).args(sources());
    run(&mut command).map(drop)
}

/// What `dpkg` does to packages that were only unpacked, as debootstrap's second stage does it.
const DOCKERFILE: &str = "\
FROM scratch
ADD unpacked.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
RUN cp /usr/share/base-passwd/passwd.master /etc/passwd && cp /usr/share/base-passwd/group.master /etc/group
RUN dpkg --force-depends --install /bootstrap/*.deb && rm -rf /bootstrap
";

/// The directories that are links into `/usr` since Debian 12.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

fn stepwell(work: &Path, archive: &Path) -> Result<(), String> {
    let io = |e: std::io::Error| format!("`{}`: {e}", work.display());
    let (root, context) = (work.join("unpacked"), work.join("context"));
    std::fs::create_dir_all(&context).map_err(io)?;
    for dir in MERGED {
        std::fs::create_dir_all(root.join("usr").join(dir)).map_err(io)?;
        std::os::unix::fs::symlink(Path::new("usr").join(dir), root.join(dir)).map_err(io)?;
    }
    unpack(work, &root)?;
    let tar = ["--owner=0", "--group=0", "--numeric-owner", "-C"];
    run(Command::new("tar")
        .args(tar)
        .arg(&root)
        .arg("-cf")
        .arg(context.join("unpacked.tar"))
        .arg("."))?;
    std::fs::write(context.join("Dockerfile"), DOCKERFILE).map_err(io)?;
    run(Command::new(program::any()?)
        .args(["build", "--progress=plain", "--root"])
        .arg(work.join("store"))
        .arg("--output")
        .arg(format!("type=tar,dest={}", archive.display()))
        .arg(&context))
    .map(drop)
}

/// Unpacks what is essential, and apt, into `root`, and leaves the packages themselves and the settings there.
fn unpack(work: &Path, root: &Path) -> Result<(), String> {
    let io = |e: std::io::Error| format!("`{}`: {e}", root.display());
    let status = work.join("status");
    std::fs::write(&status, "").map_err(io)?;
    let nothing_installed = format!("Dir::State::status={}", status.display());
    let packages = ["?essential", "apt", "usr-is-merged"];
    let debs = tools::download(&work.join("apt"), &[nothing_installed], &packages)?;
    let (kept, settings) = (root.join("bootstrap"), root.join("etc/apt"));
    std::fs::create_dir_all(&kept).map_err(io)?;
    for deb in debs {
        // dpkg-deb's own unpacking would put directories where the links are.
        let script = r#"dpkg-deb --fsys-tarfile "$1" | tar --keep-directory-symlink -C "$2" -xf -"#;
        run(Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&deb)
            .arg(root))?;
        let name = deb.file_name().unwrap_or_default();
        std::fs::rename(&deb, kept.join(name)).map_err(io)?;
    }
    std::fs::create_dir_all(settings.join("sources.list.d")).map_err(io)?;
    std::fs::create_dir_all(settings.join("apt.conf.d")).map_err(io)?;
    for source in sources() {
        let name = source.file_name().unwrap_or_default();
        let dir = match name.to_str() {
            Some("sources.list") => settings.clone(),
            _ => settings.join("sources.list.d"),
        };
        std::fs::copy(&source, dir.join(name)).map_err(io)?;
    }
    let lines: String = download_settings()
        .iter()
        .chain(&["Acquire::Languages \"none\"".to_owned()])
        .map(|setting| format!("{setting};\n"))
        .collect();
    std::fs::write(settings.join("apt.conf.d/99machine"), lines).map_err(io)
}

/// Code name of the machine's own release.
fn suite() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|l| l.strip_prefix("VERSION_CODENAME="))
        .unwrap_or("bookworm")
        .to_owned()
}

/// The machine's package sources that are in use.
fn sources() -> Vec<PathBuf> {
    let list = PathBuf::from("/etc/apt/sources.list");
    let parts = std::fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path());
    let mut sources: Vec<_> = std::iter::once(list)
        .chain(parts.filter(|p| p.extension().is_some_and(|e| e == "sources" || e == "list")))
        .filter(|p| p.is_file())
        .collect();
    sources.sort();
    sources.retain(|p| std::fs::read_to_string(p).is_ok_and(|t| t.contains("debian")));
    sources
}

/// The machine's `Acquire` settings (proxies, checks), so that they hold in the base image too.
fn download_settings() -> Vec<String> {
    let dump = run(Command::new("apt-config").arg("dump")).unwrap_or_default();
    let wanted = [
        "Acquire::http",
        "Acquire::https",
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
        "Acquire::Retries",
    ];
    dump.lines()
        .filter(|l| wanted.iter().any(|w| l.starts_with(w)))
        .map(|l| l.trim_end_matches(';').to_owned())
        .filter(|l| !l.ends_with("\"\""))
        .collect()
}
