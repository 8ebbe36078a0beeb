//! Grafts: the step's own `/proc`, `/dev`, `/sys`, `/etc/resolv.conf`, `/etc/hosts` and `/etc/hostname`.
//!
//! While a step runs, what the image has at those places is moved aside (renamed into the step's private
//! directory) and ordinary directories and files stand there; afterwards everything is moved back.  So whatever
//! a step does to them (write, rename over, remove) is gone with the step, and none of it needs a system call
//! to be intercepted.  The directories are skeletons: what is in `/proc` and the like is made by the
//! supervisor when somebody lists it ([`super::stubs`]), and what a name means is said by [`super::nodes`].
//!
//! Modification times of `/` and `/etc` are kept, because a diff must not see any of this.
//! It must not follow a link of the tree: every name is one component below a handle.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timestamps};
use rustix::io::Errno;
use stepwell_sys::error::{Context, SysError, SysResult};
use stepwell_sys::resolve::{self, Links};

use super::remove::remove_tree;

/// Directories that are the step's own.
const DIRECTORIES: [&CStr; 3] = [c"proc", c"dev", c"sys"];

/// Device nodes made where the kernel lets us: name, major, minor.
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];

/// What is grafted.
#[derive(Debug, Clone, Copy)]
pub struct GraftSpec<'a> {
    /// Handle on the tree's root directory.
    pub root: BorrowedFd<'a>,
    /// A private directory on the same file system, outside the tree.
    pub scratch: &'a Path,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: &'a [u8],
    /// Content of `/etc/hosts`.
    pub hosts: &'a [u8],
    /// Content of `/etc/hostname`, without the line feed.
    pub hostname: &'a str,
}

/// The grafts of a running step; [`Grafts::remove`] has to be called when nothing of the step is alive.
#[derive(Debug)]
pub struct Grafts {
    root: OwnedFd,
    /// Where the image's own files are meanwhile.
    own: OwnedFd,
    /// Whether `/etc` was not there.
    made_etc: bool,
    real_devices: bool,
}

impl Grafts {
    /// Puts the grafts in place.
    ///
    /// # Errors
    /// A system call that failed; `EXDEV` when the private directory is on another file system.  The tree has
    /// to be thrown away then.
    pub fn install(spec: &GraftSpec<'_>) -> SysResult<Self> {
        let scratch = open_dir(fs::CWD, spec.scratch)?;
        fs::mkdirat(&scratch, c"own", Mode::RWXU).context("mkdirat", "own")?;
        let own = open_dir(scratch.as_fd(), Path::new("own"))?;
        let root = fs::openat(
            spec.root,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .context("openat", "root of the tree")?;
        let (made_etc, real_devices) = keeping_times(root.as_fd(), || {
            for name in DIRECTORIES {
                move_aside(root.as_fd(), &own, name)?;
                make_dir(root.as_fd(), name, 0o755)?;
            }
            let made_etc = make_dir(root.as_fd(), c"etc", 0o755)?;
            Ok((made_etc, fill_dev(root.as_fd())?))
        })?;
        let grafts = Self {
            root,
            own,
            made_etc,
            real_devices,
        };
        grafts.install_etc(spec)?;
        Ok(grafts)
    }

    /// Says whether `/dev` holds real device nodes that can be opened, so that none has to be emulated.
    pub fn real_devices(&self) -> bool {
        self.real_devices
    }

    /// Takes the grafts away and puts the image's own files back.
    ///
    /// # Errors
    /// A system call that failed; the tree has to be thrown away then.
    pub fn remove(self) -> SysResult<()> {
        self.remove_etc()?;
        keeping_times(self.root.as_fd(), || {
            if self.made_etc {
                // What the step put there stays; an empty directory is ours.
                match fs::unlinkat(&self.root, c"etc", AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOTEMPTY | Errno::NOENT | Errno::NOTDIR) => {}
                    Err(errno) => return Err(SysError::new("unlinkat", "etc", errno)),
                }
            }
            for name in DIRECTORIES {
                remove_tree(self.root.as_fd(), name, &self.own)?;
                move_back(&self.own, self.root.as_fd(), name)?;
            }
            Ok(())
        })
    }

    fn install_etc(&self, spec: &GraftSpec<'_>) -> SysResult<()> {
        let Some(etc) = self.etc()? else {
            return Ok(());
        };
        let hostname = format!("{}\n", spec.hostname);
        keeping_times(etc.as_fd(), || {
            for (name, content) in [
                (c"resolv.conf", spec.resolv_conf),
                (c"hosts", spec.hosts),
                (c"hostname", hostname.as_bytes()),
            ] {
                move_aside(etc.as_fd(), &self.own, name)?;
                write_file(etc.as_fd(), name, content)?;
            }
            Ok(())
        })
    }

    fn remove_etc(&self) -> SysResult<()> {
        let Some(etc) = self.etc()? else {
            return Ok(());
        };
        keeping_times(etc.as_fd(), || {
            for name in [c"resolv.conf", c"hosts", c"hostname"] {
                remove_tree(etc.as_fd(), name, &self.own)?;
                move_back(&self.own, etc.as_fd(), name)?;
            }
            Ok(())
        })
    }

    /// Opens `/etc`; none where the image or the step made something else of it.
    fn etc(&self) -> SysResult<Option<OwnedFd>> {
        match resolve::open(
            &self.root,
            b"etc",
            OFlags::RDONLY | OFlags::DIRECTORY,
            Links::None,
        ) {
            Ok(etc) => Ok(Some(etc)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(SysError::new("openat2", "etc", errno)),
        }
    }
}

/// Fills the step's `/dev` with what has to be really there; says whether device nodes could be made.
fn fill_dev(root: BorrowedFd<'_>) -> SysResult<bool> {
    let dev = open_dir(root, Path::new("dev"))?;
    make_dir(dev.as_fd(), c"pts", 0o755)?;
    make_dir(dev.as_fd(), c"mqueue", 0o1777)?;
    make_dir(dev.as_fd(), c"shm", 0o1777)?;
    for (name, major, minor) in DEVICES {
        if !make_device(dev.as_fd(), name, fs::makedev(major, minor)) {
            for (made, ..) in DEVICES {
                let _ = fs::unlinkat(&dev, made, AtFlags::empty());
            }
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a character device and tries it: a file system without devices, or a device cgroup, refuses the open.
fn make_device(dev: BorrowedFd<'_>, name: &CStr, number: u64) -> bool {
    let mode = Mode::from_raw_mode(0o666);
    let flags =
        OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = fs::mknodat(dev, name, FileType::CharacterDevice, mode, number)
        .and_then(|()| fs::chmodat(dev, name, mode, AtFlags::empty()));
    let opens = || match fs::openat(dev, name, flags, Mode::empty()) {
        // There is no terminal to open, but the device was understood.
        Ok(_) | Err(Errno::NXIO) => true,
        Err(_) => false,
    };
    made.is_ok() && opens()
}

/// Runs `work` on what is in `dir` and sets the directory's times back to what they were before; a mode that keeps the
/// directory's owner from changing it is opened meanwhile.
pub(in crate::run) fn keeping_times<T>(
    dir: BorrowedFd<'_>,
    work: impl FnOnce() -> SysResult<T>,
) -> SysResult<T> {
    const OWNER: u32 = 0o700;
    let stat = fs::fstat(dir).context("fstat", "directory of the tree")?;
    let mode = stat.st_mode & 0o7777;
    let set = |mode| {
        fs::fchmod(dir, Mode::from_raw_mode(mode)).context("fchmod", "directory of the tree")
    };
    let closed = mode & OWNER != OWNER && !rustix::process::geteuid().is_root();
    if closed {
        set(mode | OWNER)?;
    }
    let result = work()?;
    if closed {
        set(mode)?;
    }
    let time = |sec, nsec| rustix::time::Timespec {
        tv_sec: sec,
        tv_nsec: nsec,
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    };
    fs::futimens(dir, &times).context("futimens", "directory of the tree")?;
    Ok(result)
}

fn move_aside(dir: BorrowedFd<'_>, own: &OwnedFd, name: &CStr) -> SysResult<()> {
    match fs::renameat(dir, name, own, name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(SysError::new("renameat", name.to_string_lossy(), errno)),
    }
}

fn move_back(own: &OwnedFd, dir: BorrowedFd<'_>, name: &CStr) -> SysResult<()> {
    match fs::renameat(own, name, dir, name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(SysError::new("renameat", name.to_string_lossy(), errno)),
    }
}

/// Makes a directory with exactly this mode; false when something of the name is there.
fn make_dir(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> SysResult<bool> {
    match fs::mkdirat(dir, name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(false),
        Err(errno) => return Err(SysError::new("mkdirat", name.to_string_lossy(), errno)),
    }
    fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())
        .context("fchmodat", name.to_string_lossy())?;
    Ok(true)
}

fn write_file(dir: BorrowedFd<'_>, name: &CStr, content: &[u8]) -> SysResult<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
        .context("openat", name.to_string_lossy())?;
    fs::fchmod(&file, Mode::from_raw_mode(0o644)).context("fchmod", name.to_string_lossy())?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).context("write", name.to_string_lossy())?;
        rest = &rest[written..];
    }
    Ok(())
}

fn open_dir(dir: BorrowedFd<'_>, name: &Path) -> SysResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty()).context("openat", name.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    struct Tree {
        _dir: tempfile::TempDir,
        root: std::path::PathBuf,
        scratch: std::path::PathBuf,
    }

    impl Tree {
        fn new() -> Self {
            let dir = tempfile::tempdir_in("/var/tmp").expect("directory");
            let (root, scratch) = (dir.path().join("root"), dir.path().join("scratch"));
            std::fs::create_dir(&root).expect("root");
            std::fs::create_dir(&scratch).expect("scratch");
            Self {
                _dir: dir,
                root,
                scratch,
            }
        }

        fn install(&self) -> Grafts {
            let root = std::fs::File::open(&self.root).expect("open");
            let spec = GraftSpec {
                root: root.as_fd(),
                scratch: &self.scratch,
                resolv_conf: b"nameserver 192.0.2.1\n",
                hosts: b"127.0.0.1 localhost\n",
                hostname: "builder",
            };
            Grafts::install(&spec).expect("install")
        }

        fn mtimes(&self) -> Vec<(i64, i64)> {
            let stat = |name: &str| std::fs::metadata(self.root.join(name)).expect("stat");
            [".", "etc"]
                .map(|name| (stat(name).mtime(), stat(name).mtime_nsec()))
                .to_vec()
        }
    }

    #[test]
    fn the_images_own_files_come_back() {
        let tree = Tree::new();
        std::fs::create_dir_all(tree.root.join("dev/keep")).expect("dev");
        std::fs::create_dir_all(tree.root.join("etc")).expect("etc");
        std::fs::write(tree.root.join("etc/hosts"), "image's own\n").expect("hosts");
        symlink("../run/resolv.conf", tree.root.join("etc/resolv.conf")).expect("link");
        let before = tree.mtimes();
        let grafts = tree.install();
        assert_eq!(
            tree.mtimes(),
            before,
            "nothing shows that files were replaced"
        );
        let read = |name: &str| std::fs::read_to_string(tree.root.join(name)).expect("read");
        assert_eq!(read("etc/resolv.conf"), "nameserver 192.0.2.1\n");
        assert_eq!(read("etc/hostname"), "builder\n");
        assert!(!tree.root.join("dev/keep").exists() && tree.root.join("dev/shm").is_dir());
        std::fs::remove_file(tree.root.join("etc/hosts")).expect("a step removes a graft");
        std::fs::create_dir_all(tree.root.join("etc/hosts/a/b"))
            .expect("and puts a directory there");
        std::fs::create_dir_all(tree.root.join("proc/1/fd")).expect("stub");
        std::fs::write(tree.root.join("dev/shm/x"), "x").expect("a step's file");
        let during = tree.mtimes();
        grafts.remove().expect("remove");
        assert_eq!(
            tree.mtimes(),
            during,
            "a step's own change of the directory stays visible"
        );
        assert_eq!(read("etc/hosts"), "image's own\n");
        assert_eq!(
            std::fs::read_link(tree.root.join("etc/resolv.conf"))
                .expect("link")
                .to_str(),
            Some("../run/resolv.conf")
        );
        assert!(!tree.root.join("etc/hostname").exists() && tree.root.join("dev/keep").is_dir());
        assert!(!tree.root.join("proc").exists() && !tree.root.join("sys").exists());
    }

    #[test]
    fn an_empty_tree_stays_empty() {
        let tree = Tree::new();
        let mtime = std::fs::metadata(&tree.root).expect("stat").mtime_nsec();
        tree.install().remove().expect("remove");
        assert_eq!(std::fs::read_dir(&tree.root).expect("list").count(), 0);
        assert_eq!(
            std::fs::metadata(&tree.root).expect("stat").mtime_nsec(),
            mtime
        );
    }

    #[test]
    fn a_step_may_remove_etc_or_turn_it_into_a_link() {
        let tree = Tree::new();
        std::fs::create_dir(tree.root.join("etc")).expect("etc");
        std::fs::write(tree.root.join("etc/hosts"), "own").expect("hosts");
        let grafts = tree.install();
        std::fs::remove_dir_all(tree.root.join("etc")).expect("remove");
        symlink("/", tree.root.join("etc")).expect("link");
        grafts.remove().expect("remove");
        assert!(tree.root.join("etc").is_symlink());
        assert!(!tree.root.join("hosts").exists());
    }
}
