//! The files a step is given besides its tree: name resolution, and inline files (heredocs).

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use stepwell_model::op::{InlineFile, Network, RunOp};

use super::RunError;
use super::tree::Tree;

/// Name of a step's host, where the operation gives none: what buildkit calls it.
const HOST_NAME: &str = "buildkitsandbox";

/// The name of the step's host.
pub fn hostname(op: &RunOp) -> &str {
    if op.hostname.is_empty() {
        HOST_NAME
    } else {
        &op.hostname
    }
}

/// Makes the `/etc/hosts` of a step: loopback, the host itself, and the additional hosts.
pub fn hosts(op: &RunOp) -> Vec<u8> {
    let mut text = format!(
        "127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        hostname(op)
    );
    for entry in &op.extra_hosts {
        text.push_str(&format!("{}\t{}\n", entry.address, entry.host));
    }
    text.into_bytes()
}

/// Makes the `/etc/resolv.conf` of a step from the host's: the same, since it has the host's network; empty
/// where it has none.
pub fn resolv_conf(op: &RunOp) -> Vec<u8> {
    match op.network {
        Network::None => Vec::new(),
        Network::Default | Network::Host => fs::read("/etc/resolv.conf").unwrap_or_default(),
    }
}

/// Inline files in a tree, with the directories made for them; they are taken out again when this is dropped.
#[derive(Debug)]
pub(super) struct InlineFiles {
    /// In the order of making: directory handle, name in it, whether it is a directory.
    made: Vec<(OwnedFd, String, bool)>,
    /// Directories that were there before, with their times.
    touched: Vec<(OwnedFd, Stat)>,
}

impl InlineFiles {
    pub fn place(tree: &Tree, files: &[InlineFile]) -> Result<Self, RunError> {
        let mut placed = Self {
            made: Vec::new(),
            touched: Vec::new(),
        };
        for file in files {
            let failed = |errno: Errno| RunError::InlineFile {
                path: file.path.clone(),
                error: std::io::Error::from(errno).to_string(),
            };
            placed.place_one(tree, file).map_err(failed)?;
        }
        Ok(placed)
    }

    fn place_one(&mut self, tree: &Tree, file: &InlineFile) -> Result<(), Errno> {
        let (parent, name) = file.path.rsplit_once('/').ok_or(Errno::INVAL)?;
        let dir = self.directory(tree, parent)?;
        self.remember(&dir)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(file.mode & 0o7777);
        let made = rustix::fs::openat(&dir, name, flags, mode)?;
        self.made.push((dir, name.to_owned(), false));
        rustix::fs::fchmod(&made, mode)?;
        fs::File::from(made)
            .write_all(&file.content)
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
    }

    /// Opens a directory of the tree; makes it and its parents where they are missing.
    fn directory(&mut self, tree: &Tree, path: &str) -> Result<OwnedFd, Errno> {
        match tree.directory(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (parent, name) = path.rsplit_once('/').ok_or(Errno::NOENT)?;
        let dir = self.directory(tree, parent)?;
        self.remember(&dir)?;
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(&dir, name, mode)?;
        let made = rustix::fs::openat(
            &dir,
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        );
        self.made.push((dir, name.to_owned(), true));
        made
    }

    fn remember(&mut self, dir: &OwnedFd) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(dir)?;
        if !self
            .touched
            .iter()
            .any(|(_, known)| (known.st_dev, known.st_ino) == (stat.st_dev, stat.st_ino))
        {
            self.touched
                .push((rustix::io::fcntl_dupfd_cloexec(dir, 3)?, stat));
        }
        Ok(())
    }
}

impl Drop for InlineFiles {
    /// Removes what was made and gives the directories their times back, so that none of it is a change.  What
    /// the step removed or replaced itself is left as it is.
    fn drop(&mut self) {
        for (dir, name, is_dir) in self.made.drain(..).rev() {
            let flags = if is_dir {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            let _ = rustix::fs::unlinkat(&dir, name.as_str(), flags);
        }
        for (dir, stat) in self.touched.drain(..) {
            let _ = set_mtime(dir.as_fd(), &stat);
        }
    }
}

fn set_mtime(dir: std::os::fd::BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    let last_access = Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_OMIT,
    };
    let last_modification = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as _,
    };
    let times = Timestamps {
        last_access,
        last_modification,
    };
    // The handles are O_PATH, which futimens(2) does not take; an empty path does.
    rustix::fs::utimensat(dir, "", &times, AtFlags::EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_files_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("dev")).unwrap();
        let before = fs::metadata(dir.path().join("dev"))
            .unwrap()
            .modified()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let file = |path: &str| InlineFile {
            path: path.into(),
            content: b"text".to_vec(),
            mode: 0o755,
        };
        let placed =
            InlineFiles::place(&tree, &[file("/dev/pipes/EOF"), file("/dev/pipes/EOF2")]).unwrap();
        assert_eq!(
            fs::read(dir.path().join("dev/pipes/EOF2")).unwrap(),
            b"text"
        );
        assert!(
            InlineFiles::place(&tree, &[file("/dev/pipes/EOF")]).is_err(),
            "a file that is there is not overwritten"
        );
        drop(placed);
        assert!(!dir.path().join("dev/pipes").exists());
        assert_eq!(
            fs::metadata(dir.path().join("dev"))
                .unwrap()
                .modified()
                .unwrap(),
            before
        );
    }

    #[test]
    fn hosts_has_the_additional_ones() {
        let op = RunOp {
            network: Network::None,
            extra_hosts: vec![stepwell_model::op::HostEntry {
                host: "db".into(),
                address: "10.0.0.2".into(),
            }],
            hostname: "box".into(),
            ..RunOp::new(vec![])
        };
        let text = String::from_utf8(hosts(&op)).unwrap();
        assert!(text.contains("127.0.0.1\tlocalhost box\n") && text.ends_with("10.0.0.2\tdb\n"));
        assert!(resolv_conf(&op).is_empty());
    }
}
