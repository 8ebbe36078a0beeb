//! The smallest root file system that the program runs in: busybox, and the libraries that a program is linked with.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use stepwell_test_support::cmd::{run, tool, which};

/// A root file system in the making.
pub struct Root {
    dir: PathBuf,
}

impl Root {
    /// Makes one with busybox in `dir`, which is made.
    pub fn new(dir: &Path) -> Self {
        let root = Self {
            dir: dir.to_owned(),
        };
        for sub in ["bin", "dev", "etc", "proc", "sys", "usr"] {
            std::fs::create_dir_all(dir.join(sub)).expect("a directory of the root");
        }
        root.world_writable("tmp");
        root.program("busybox");
        let list = run(tool(which("busybox").expect("busybox")).arg("--list")).expect("applets");
        for applet in list.lines().filter(|a| *a != "busybox") {
            symlink("busybox", dir.join("bin").join(applet)).expect("an applet");
        }
        root
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Writes a file, and the directories that it needs.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory of the root");
        std::fs::write(path, content).expect("a file of the root");
    }

    /// Makes a directory that everybody may write to.
    pub fn world_writable(&self, name: &str) {
        let path = self.dir.join(name);
        std::fs::create_dir_all(&path).expect("a directory of the root");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o1777)).expect("its mode");
    }

    /// Copies a program of the machine into `/bin`, and what it is linked with.
    pub fn program(&self, name: &str) {
        let program = which(name).unwrap_or_else(|| panic!("`{name}` is not installed"));
        self.program_from(&program);
    }

    /// The same for a program in some place.
    pub fn program_from(&self, program: &Path) {
        let to = self
            .dir
            .join("bin")
            .join(program.file_name().expect("a name"));
        // Busybox may have a lesser one of that name.
        if to.is_symlink() {
            std::fs::remove_file(&to).expect("the applet goes");
        }
        copy(program, &to);
        self.libraries_of(program);
    }

    /// Copies what a program is linked with to where its dynamic linker looks for it.
    pub fn libraries_of(&self, program: &Path) {
        // Of a static program, ldd says so, and fails.
        for line in run(tool("ldd").arg(program)).unwrap_or_default().lines() {
            let path = line.split("=>").last().unwrap_or_default();
            let path = path.split('(').next().unwrap_or_default().trim();
            if let Some(name) = path.strip_prefix('/') {
                copy(Path::new(path), &self.dir.join(name));
            }
        }
    }
}

/// Copies a file, if it is not there, and makes the directories that it needs.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
    if !to.exists() {
        std::fs::copy(from, to).unwrap_or_else(|e| panic!("`{}`: {e}", from.display()));
    }
}
