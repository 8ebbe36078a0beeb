//! Other people's programs, from Debian's packages: installed where we may (root, or sudo without a password), else
//! unpacked below the cache directory, which needs no privilege at all, and changes nothing of the machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache_dir;
use crate::cmd::{run, show, which};

/// A package, and a file or program that shows that it is there.
pub struct Package {
    /// Name of the Debian package.
    pub name: &'static str,
    /// Program that it brings.
    pub program: &'static str,
    /// What it is for.
    pub why: &'static str,
}

/// What the tests and the demonstration use.
pub const PACKAGES: &[Package] = &[
    Package {
        name: "docker-registry",
        program: "docker-registry",
        why: "the registry that images are pushed to",
    },
    Package {
        name: "busybox-static",
        program: "busybox",
        why: "the smallest base image",
    },
    Package {
        name: "mmdebstrap",
        program: "mmdebstrap",
        why: "makes the Debian base image",
    },
    Package {
        name: "uidmap",
        program: "newuidmap",
        why: "subordinate ids, and mmdebstrap without root",
    },
    Package {
        name: "skopeo",
        program: "skopeo",
        why: "reads what Stepwell writes",
    },
    Package {
        name: "umoci",
        program: "umoci",
        why: "unpacks what Stepwell writes",
    },
    Package {
        name: "crun",
        program: "crun",
        why: "runs what Stepwell writes",
    },
    Package {
        name: "runc",
        program: "runc",
        why: "makes the containers that builds are tried in",
    },
    Package {
        name: "buildah",
        program: "buildah",
        why: "the peer that results and times are compared with",
    },
    Package {
        name: "proot",
        program: "proot",
        why: "the peer that steps without any privilege are compared with",
    },
    Package {
        name: "git",
        program: "git",
        why: "fetches repositories",
    },
    Package {
        name: "strace",
        program: "strace",
        why: "shows that a build makes no mount",
    },
    Package {
        name: "time",
        program: "time",
        why: "measures memory and processor time",
    },
    Package {
        name: "bzip2",
        program: "bzip2",
        why: "archives in every compression",
    },
    Package {
        name: "xz-utils",
        program: "xz",
        why: "archives in every compression",
    },
    Package {
        name: "zstd",
        program: "zstd",
        why: "reads layers that Stepwell compressed",
    },
    Package {
        name: "openssh-client",
        program: "ssh-agent",
        why: "the agent that RUN --mount=type=ssh is for",
    },
    Package {
        name: "openssh-server",
        program: "sshd",
        why: "serves repositories over ssh",
    },
    Package {
        name: "gcc",
        program: "gcc",
        why: "compiles C parts of dependencies (zstd, ring)",
    },
    #[cfg(target_arch = "x86_64")]
    Package {
        name: "gcc-multilib",
        program: NARROW_LIBRARY,
        why: "compiles programs of 32 bits, which steps may run",
    },
];

/// Packages that are unpacked and never installed: installed, they would serve whoever reaches this machine from then on.
const UNPACKED: &[&str] = &["openssh-server"];

/// The C library of 32 bits, as it lies beside the programs.
#[cfg(target_arch = "x86_64")]
const NARROW_LIBRARY: &str = "../lib32/libc.a";

/// Returns where things of the C library and the compiler for 32 bits are: installed, or unpacked.
pub fn narrow_root() -> PathBuf {
    let installed = PathBuf::from("/");
    if installed.join("usr/lib32/libc.a").is_file() {
        installed
    } else {
        unpacked()
    }
}

/// Finds a library of 32 bits; the packages do not know that `/lib32` is `/usr/lib32` on the machine.
pub fn narrow_library(name: &str) -> PathBuf {
    let found = ["usr/lib32", "lib32"].map(|dir| narrow_root().join(dir).join(name));
    let there = found.iter().find(|path| path.exists());
    there.unwrap_or(&found[0]).clone()
}

/// What `cargo xtask lockdown` uses besides.
pub const LOCKDOWN: &[Package] = &[
    Package {
        name: "qemu-system-x86",
        program: "qemu-system-x86_64",
        why: "runs Debian's kernels with AppArmor",
    },
    Package {
        name: "e2fsprogs",
        program: "debugfs",
        why: "makes and reads their disks",
    },
];

/// What the tests on other file systems use, of root.
pub const FILE_SYSTEMS: &[Package] = &[
    Package {
        name: "xfsprogs",
        program: "mkfs.xfs",
        why: "makes an xfs, whose files can share their contents",
    },
    Package {
        name: "btrfs-progs",
        program: "mkfs.btrfs",
        why: "makes a btrfs, whose files can share their contents",
    },
];

/// Directory into which packages are unpacked where they cannot be installed.
pub fn unpacked() -> PathBuf {
    cache_dir().join("tools")
}

/// Where the programs in unpacked packages are.
pub fn programs() -> impl Iterator<Item = PathBuf> {
    ["usr/sbin", "usr/bin", "sbin", "bin"]
        .into_iter()
        .map(|dir| unpacked().join(dir))
}

/// Directory of the unpacked programs as scripts, which find their libraries wherever they are called from.
pub fn wrappers() -> PathBuf {
    cache_dir().join("tools-bin")
}

/// `PATH` for tools: what the user has, then the system's directories, then what was unpacked.
pub fn path() -> OsString {
    let ours = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .map(PathBuf::from);
    let ours = ours.into_iter().chain([wrappers()]);
    let user = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::env::split_paths(&user).chain(ours)).unwrap_or(user)
}

/// `LD_LIBRARY_PATH` for unpacked programs.
pub fn library_path() -> OsString {
    let own = unpacked();
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    std::env::join_paths([
        own.join("usr/lib").join(&triplet),
        own.join("lib").join(&triplet),
        own.join("usr/lib"),
    ])
    .unwrap_or_default()
}

/// Makes sure that the programs of `packages` are there.
pub fn ensure(packages: &[&Package]) -> Result<(), String> {
    let missing: Vec<_> = packages
        .iter()
        .filter(|p| which(p.program).is_none())
        .collect();
    if unpacked().is_dir() && !wrappers().is_dir() {
        wrap()?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        println!("setup: needs {} ({})", package.name, package.why);
    }
    let (only_unpacked, others): (Vec<_>, Vec<_>) = missing
        .iter()
        .map(|p| p.name)
        .partition(|name| UNPACKED.contains(name));
    if !others.is_empty() {
        install(&others)?;
    }
    if !only_unpacked.is_empty() {
        unpack(&only_unpacked)?;
    }
    Ok(())
}

/// Returns a program that the ordinary user may run, and its `LD_LIBRARY_PATH` where it is only unpacked: below root's own directory then,
/// so that it is copied into `dir`.
pub fn reachable(program: &str, dir: &Path) -> Result<(PathBuf, Option<OsString>), String> {
    let found = which(program).ok_or_else(|| format!("`{program}` is not there"))?;
    if !found.starts_with(unpacked()) {
        return Ok((found, None));
    }
    if !crate::is_root() {
        return Ok((found, Some(library_path())));
    }
    let libraries = dir.join("lib");
    run(Command::new("mkdir").arg("-p").arg(&libraries))?;
    for from in std::env::split_paths(&library_path()).filter(|p| p.is_dir()) {
        run(Command::new("cp")
            .arg("-a")
            .arg(from.join("."))
            .arg(&libraries))?;
    }
    let copy = dir.join(program);
    run(Command::new("cp").arg(&found).arg(&copy))?;
    Ok((copy, Some(libraries.into())))
}

/// Installs Debian packages, or unpacks them and what they need below [`unpacked`].
pub fn install(names: &[&str]) -> Result<(), String> {
    match privilege() {
        Some(prefix) => {
            println!("setup: apt-get install {}", names.join(" "));
            let apt = |args: &[&str]| {
                let mut command = Command::new(prefix.first().map_or("apt-get", |p| p));
                command
                    .args(prefix.iter().skip(1))
                    .args((!prefix.is_empty()).then_some("apt-get"));
                command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
                run(&mut command)
            };
            apt(&["update", "-qq"])?;
            let mut args = vec!["install", "-qq", "-y", "--no-install-recommends"];
            args.extend(names);
            apt(&args).map(drop)
        }
        None => {
            println!("setup: no root and no sudo");
            unpack(names)
        }
    }
}

/// How to become root: no prefix needed, `sudo -n`, or not at all.
fn privilege() -> Option<Vec<&'static str>> {
    if crate::is_root() {
        return Some(vec![]);
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).output();
    sudo.is_ok_and(|o| o.status.success())
        .then(|| vec!["sudo", "-n"])
}

/// Downloads packages with their missing dependencies and unpacks them.
fn unpack(names: &[&str]) -> Result<(), String> {
    println!(
        "setup: unpacking {} below {}",
        names.join(" "),
        unpacked().display()
    );
    let archives = download(&cache_dir().join("apt"), &[], names)?;
    for deb in &archives {
        show(Command::new("dpkg-deb").arg("-x").arg(deb).arg(unpacked()))?;
        std::fs::remove_file(deb)
            .map_err(|e| format!("`{}` cannot be removed: {e}", deb.display()))?;
    }
    wrap()
}

/// Makes the script of each unpacked program.
fn wrap() -> Result<(), String> {
    let wrappers = wrappers();
    let failed = |e: std::io::Error| format!("`{}` cannot be filled: {e}", wrappers.display());
    std::fs::create_dir_all(&wrappers).map_err(failed)?;
    for program in programs()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
    {
        let program = program.map_err(failed)?;
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
            library_path().display(),
            program.path().display()
        );
        let path = wrappers.join(program.file_name());
        let _ = std::fs::remove_file(&path);
        if is_static(&program.path()) {
            // What goes into a base image has to be the program itself.
            std::os::unix::fs::symlink(program.path(), &path).map_err(failed)?;
            continue;
        }
        std::fs::write(&path, script).map_err(failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).map_err(failed)?;
    }
    Ok(())
}

/// Says whether a file is an ELF program that names no interpreter, which would stand in its first page.
fn is_static(program: &Path) -> bool {
    use std::io::Read as _;
    let mut begin = Vec::new();
    let read = std::fs::File::open(program).and_then(|f| f.take(4096).read_to_end(&mut begin));
    read.is_ok() && begin.starts_with(b"\x7fELF") && !begin.windows(3).any(|w| w == b"/ld")
}

/// Downloads packages with their missing dependencies, and returns the archives; apt keeps its lists in `dir`.
pub fn download(dir: &Path, options: &[String], names: &[&str]) -> Result<Vec<PathBuf>, String> {
    for sub in ["lists/partial", "archives/partial"] {
        std::fs::create_dir_all(dir.join(sub))
            .map_err(|e| format!("`{}` cannot be made: {e}", dir.join(sub).display()))?;
    }
    let ours = [
        format!("Dir::State::lists={}", dir.join("lists").display()),
        format!("Dir::Cache={}", dir.display()),
        "Debug::NoLocking=1".into(),
        "APT::Sandbox::User=".into(),
    ];
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        for option in ours.iter().chain(options) {
            command.args(["-o", option]);
        }
        run(command.args(args))
    };
    apt(&["update", "-qq"])?;
    let mut args = vec![
        "install",
        "-qq",
        "-y",
        "--no-install-recommends",
        "--download-only",
    ];
    args.extend(names);
    apt(&args)?;
    let archives = dir.join("archives");
    let mut debs: Vec<_> = std::fs::read_dir(&archives)
        .map_err(|e| format!("`{}` cannot be read: {e}", archives.display()))?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "deb"))
        .collect();
    debs.sort();
    Ok(debs)
}
