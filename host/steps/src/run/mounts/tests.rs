//! Putting mounts in and taking them out, without a step between: what changed in between is done by hand.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("directory");
        for name in ["root", "scratch"] {
            std::fs::create_dir(dir.path().join(name)).expect("directory");
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("directories");
        std::fs::write(path, content).expect("file");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| e.to_string())
    }

    fn install(&self, mounts: Vec<StepMount>) -> Result<Mounts, MountError> {
        let root = std::fs::File::open(self.path("root")).expect("root");
        // Each installation has a private directory of its own.
        let scratch = self.path("scratch");
        let _ = std::fs::remove_dir_all(scratch.join("mounts"));
        Mounts::install(&root, &scratch, Ids::Emulated, mounts)
    }

    fn lent(&self, target: &str, root: &str, source: &str) -> StepMount {
        StepMount {
            target: target.into(),
            read_only: false,
            what: What::Lent {
                root: self.path(root),
                source: source.into(),
                keep: None,
            },
        }
    }

    fn mtime(&self, name: &str) -> (i64, i64) {
        let stat = std::fs::metadata(self.path(name)).expect("stat");
        (stat.mtime(), stat.mtime_nsec())
    }
}

fn empty(target: &str) -> StepMount {
    StepMount {
        target: target.into(),
        read_only: false,
        what: What::Empty {
            mode: 0o1777,
            size: None,
        },
    }
}

#[test]
fn what_a_mount_hides_comes_back_untouched() {
    let f = Fixture::new();
    f.write("root/data/own", "image's");
    f.write("lent/new", "lent");
    let before = (f.mtime("root"), f.mtime("root/data"), f.mtime("lent"));
    let mounts = f
        .install(vec![f.lent("/data", "lent", "/")])
        .expect("install");
    assert_eq!(f.read("root/data/new"), "lent");
    assert!(!f.path("root/data/own").exists() && !f.path("lent").exists());
    assert_eq!(f.mtime("root"), before.0);
    f.write("root/data/written", "by the step");
    mounts.remove().expect("remove");
    assert_eq!(f.read("root/data/own"), "image's");
    assert_eq!(f.read("lent/written"), "by the step");
    assert_eq!(
        (f.mtime("root"), f.mtime("root/data")),
        (before.0, before.1)
    );
}

#[test]
fn places_that_were_missing_are_missing_again() {
    let f = Fixture::new();
    f.write("lent/deep/file", "content");
    let before = f.mtime("root");
    f.write("lent/other", "other");
    let mounts = f
        .install(vec![
            f.lent("/a/b/c", "lent", "/deep"),
            f.lent("/one/file", "lent", "/other"),
            empty("/tmp/x"),
            StepMount {
                target: "/run/secrets/token".into(),
                read_only: true,
                what: What::Secret {
                    content: SecretValue::new(b"hush".to_vec()),
                    owner: Owner {
                        mode: 0o440,
                        uid: 0,
                        gid: 0,
                    },
                },
            },
        ])
        .expect("install");
    assert_eq!(f.read("root/a/b/c/file"), "content");
    assert_eq!(f.read("root/one/file"), "other");
    assert_eq!(f.read("root/run/secrets/token"), "", "nothing on the disk");
    let mode = std::fs::metadata(f.path("root/tmp/x"))
        .expect("stat")
        .mode();
    assert_eq!(mode & 0o7777, 0o1777);
    f.write("root/tmp/x/big", "gone with the step");
    f.write("root/one/kept", "the step's own");
    mounts.remove().expect("remove");
    let left: Vec<_> = std::fs::read_dir(f.path("root"))
        .expect("list")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["one"]);
    assert!(!f.path("root/one/file").exists() && f.path("root/one/kept").exists());
    assert_eq!(f.read("lent/deep/file"), "content");
    assert_eq!(f.read("lent/other"), "other");
    assert_eq!(before, f.mtime("root"));
}

#[test]
fn mounts_in_mounts_and_behind_links() {
    let f = Fixture::new();
    f.write("source/src/main", "source");
    f.write("cache/hit", "cached");
    std::fs::create_dir_all(f.path("root/run")).expect("directory");
    symlink("/run", f.path("root/var")).expect("link");
    // Given in the wrong order: the deeper one last is not what the user has to know.
    let mounts = f
        .install(vec![
            f.lent("/var/src/.cache", "cache", "/"),
            f.lent("/var/src", "source", "/src"),
        ])
        .expect("install");
    assert_eq!(f.read("root/run/src/main"), "source");
    assert_eq!(f.read("root/run/src/.cache/hit"), "cached");
    let points: Vec<_> = mounts.points().into_iter().map(|p| p.path).collect();
    assert_eq!(points, [&b"/run/src"[..], b"/run/src/.cache"]);
    mounts.remove().expect("remove");
    assert_eq!(f.read("cache/hit"), "cached");
    assert!(!f.path("source/src/.cache").exists());
    assert_eq!(
        std::fs::read_dir(f.path("root/run")).expect("list").count(),
        0
    );
}

#[test]
fn what_the_step_moved_or_removed_is_found_or_gone() {
    let f = Fixture::new();
    f.write("cache/hit", "cached");
    f.write("root/c/own", "image's");
    let mounts = f
        .install(vec![f.lent("/c", "cache", "/")])
        .expect("install");
    std::fs::create_dir(f.path("root/else")).expect("directory");
    std::fs::rename(f.path("root/c"), f.path("root/else/moved")).expect("moved");
    f.write("root/c/fake", "not a cache");
    mounts.remove().expect("remove");
    assert_eq!(f.read("cache/hit"), "cached");
    assert_eq!(f.read("root/c/own"), "image's");
    assert!(!f.path("root/c/fake").exists() && !f.path("root/else/moved").exists());
    let mounts = f
        .install(vec![f.lent("/c", "cache", "/")])
        .expect("install");
    std::fs::remove_dir_all(f.path("root/c")).expect("removed");
    mounts.remove().expect("remove");
    assert!(!f.path("cache").exists());
    assert_eq!(f.read("root/c/own"), "image's");
}

#[test]
fn what_cannot_be_mounted_is_said_and_leaves_no_trace() {
    let f = Fixture::new();
    f.write("lent/file", "file");
    f.write("root/data/own", "image's");
    f.write("root/etc/conf", "image's");
    let told = |mount: StepMount| {
        let error = f
            .install(vec![empty("/fine/x"), mount])
            .expect_err("a mistake");
        assert!(!f.path("root/fine").exists());
        error.to_string()
    };
    assert_eq!(
        told(f.lent("/data", "lent", "/file")),
        "cannot mount `/data`: a file cannot be mounted on a directory"
    );
    assert_eq!(
        told(empty("/etc/conf")),
        "cannot mount `/etc/conf`: a directory cannot be mounted on a file"
    );
    assert_eq!(
        told(f.lent("/x", "lent", "/nothing")),
        "cannot mount `/x`: there is no `/nothing` in what is mounted"
    );
    assert!(told(empty("/proc/x")).contains("`/proc` and `/sys` of a step are made up"));
    assert!(told(empty("/etc/conf/x")).contains("not a directory"));
    assert_eq!(f.read("root/etc/conf"), "image's");
    // Rights are no obstacle to whoever owns it.
    std::fs::set_permissions(f.path("lent"), std::fs::Permissions::from_mode(0o755)).expect("mode");
}
