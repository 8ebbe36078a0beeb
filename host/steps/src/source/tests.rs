//! Contexts on a real file system, friendly and hostile.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::context::ContextDir;
use super::error::{Hint, SourceError};
use super::node::Kind;
use super::root::Root;
use super::walk::Filter;

/// A directory with `outside/secret` beside the context `in`.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("outside")).unwrap();
        fs::create_dir_all(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("outside/secret"), "SECRET").unwrap();
        let fixture = Self { dir };
        for (path, content) in files {
            let path = fixture.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fixture
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("in").join(path)
    }

    fn link(&self, target: impl AsRef<Path>, path: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        symlink(target, self.path(path)).unwrap();
    }

    fn context(&self, exclude: &[&str]) -> ContextDir {
        let exclude: Vec<_> = exclude.iter().map(|p| (*p).to_owned()).collect();
        ContextDir::open(&self.path(""), &exclude).unwrap()
    }

    fn read(&self, path: &str) -> Result<String, SourceError> {
        self.context(&[])
            .read(path, 1000)
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    fn walk(&self, at: &str, exclude: &[&str]) -> Vec<String> {
        let walked = self
            .context(exclude)
            .tree()
            .walk(at.as_bytes(), &Filter::default())
            .unwrap();
        walked
            .into_iter()
            .map(|w| String::from_utf8(w.path).unwrap())
            .collect()
    }
}

#[test]
fn links_resolve_inside() {
    let f = Fixture::new(&[("a/b/file", "inside"), ("etc/passwd", "mine")]);
    f.link("b", "a/rel");
    f.link("/a/b/file", "abs");
    f.link("../../../../a/rel/file", "a/b/up");
    f.link("/etc/passwd", "passwd");
    f.link("..", "a/dotdot");
    for path in [
        "a/b/file",
        "/a/b/file",
        "a/rel/file",
        "abs",
        "a/b/up",
        "a//./b/../b/file",
        "a/dotdot/a/b/file",
    ] {
        assert_eq!(f.read(path).as_deref(), Ok("inside"), "{path}");
    }
    for path in ["passwd", "/etc/passwd"] {
        assert_eq!(f.read(path).as_deref(), Ok("mine"), "{path}");
    }
}

#[test]
fn nothing_outside_is_reached() {
    let f = Fixture::new(&[("a/file", "inside")]);
    let secret = f.dir.path().join("outside/secret");
    f.link(&secret, "absolute");
    f.link("../outside/secret", "relative");
    f.link("../outside", "dir");
    f.link("chain2", "chain1");
    f.link("a/chain3", "chain2");
    f.link("../../outside/secret", "a/chain3");
    f.link("/proc/self/root", "magic");
    f.link("/proc/self/cwd", "magic2");
    let all = [
        "absolute",
        "relative",
        "dir/secret",
        "chain1",
        "magic/etc/passwd",
        "magic2/Cargo.toml",
        "a/file/x",
    ];
    for path in all.into_iter().chain([
        secret.to_str().unwrap(),
        "/proc/self/environ",
        "/proc/self/fd/0",
    ]) {
        let error = f.read(path).unwrap_err();
        assert!(
            matches!(error, SourceError::NotFound { .. }),
            "{path}: {error}"
        );
    }
}

#[test]
fn loops_and_absurd_paths_end() {
    let f = Fixture::new(&[]);
    f.link("loop2", "loop1");
    f.link("loop1", "loop2");
    f.link("self/x", "self");
    for path in ["loop1", "self"] {
        assert!(
            matches!(
                f.read(path),
                Err(SourceError::Io {
                    error: Errno::LOOP,
                    ..
                })
            ),
            "{path}"
        );
    }
    assert!(matches!(
        f.read(&"a/".repeat(5000)),
        Err(SourceError::BadPath { .. })
    ));
    assert!(matches!(f.read("a\0b"), Err(SourceError::BadPath { .. })));
    let long = f.read(&"n".repeat(300)).unwrap_err();
    assert!(
        matches!(
            long,
            SourceError::Io {
                error: Errno::NAMETOOLONG,
                ..
            }
        ),
        "{long}"
    );
}

#[test]
fn special_files_are_refused_without_waiting() {
    let f = Fixture::new(&[("dir/x", "")]);
    rustix::fs::mknodat(CWD, f.path("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(f.path("socket")).unwrap();
    assert!(fs::metadata(f.path("pipe")).unwrap().file_type().is_fifo());
    for (path, found) in [
        ("pipe", "a named pipe"),
        ("socket", "a socket"),
        ("dir", "a directory"),
    ] {
        assert_eq!(
            f.read(path),
            Err(SourceError::NotAFile {
                path: path.into(),
                found
            })
        );
    }
    let root = Root::open_ambient(&f.path("")).unwrap();
    let error = root.open_file(b"pipe").unwrap_err();
    assert_eq!(
        error,
        SourceError::NotAFile {
            path: "pipe".into(),
            found: "a named pipe"
        }
    );
    assert!(matches!(
        f.context(&[]).list("pipe"),
        Err(SourceError::NotADirectory { .. })
    ));
}

#[test]
fn sizes_are_limited() {
    let f = Fixture::new(&[("file", "12345")]);
    let context = f.context(&[]);
    assert_eq!(context.read("file", 5).unwrap(), b"12345");
    assert_eq!(
        context.read("file", 4),
        Err(SourceError::TooLarge {
            path: "file".into(),
            limit: 4
        })
    );
    // A file of /proc says that it is empty and is not.
    let proc = ContextDir::open(Path::new("/proc/self"), &[]).unwrap();
    assert!(matches!(
        proc.read("status", 10),
        Err(SourceError::TooLarge { .. })
    ));
}

#[test]
fn a_link_that_is_swapped_during_the_look_up_never_leads_out() {
    let f = Fixture::new(&[("dir/secret", "inside")]);
    f.link("../outside", "swap");
    let stop = AtomicBool::new(false);
    let (mut inside, mut missing) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (f.path("dir"), f.path("swap"));
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let context = f.context(&[]);
        let root = Root::open_ambient(&f.path("")).unwrap();
        for _ in 0..20_000 {
            match context.read("dir/secret", 100) {
                Ok(content) => {
                    assert_eq!(content, b"inside");
                    inside += 1;
                }
                Err(_) => missing += 1,
            }
            if let Ok((file, _)) = root.open_file(b"dir/secret") {
                assert_eq!(
                    std::io::read_to_string(fs::File::from(file)).unwrap(),
                    "inside"
                );
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(
        inside > 0 && missing > 0,
        "the race was not met: {inside} inside, {missing} missing"
    );
}

#[test]
fn ignored_files_are_not_there_and_the_hint_says_why() {
    let f = Fixture::new(&[
        ("a.log", ""),
        ("keep.log", ""),
        ("out/x/y", ""),
        ("out/x/keep", "kept"),
    ]);
    f.link("a.log", "link");
    let context = f.context(&["*.log", "!keep.log", "out", "!out/x/keep"]);
    let hint = |path: &str| match context.read(path, 10).unwrap_err() {
        SourceError::NotFound {
            hint: Some(Hint::Ignored { pattern }),
            ..
        } => pattern,
        other => panic!("{path}: {other}"),
    };
    assert_eq!(hint("a.log"), "*.log");
    assert_eq!(hint("link"), "*.log");
    assert_eq!(hint("out/x/y"), "out");
    assert_eq!(context.read("keep.log", 10).unwrap(), b"");
    assert_eq!(context.read("out/x/keep", 10).unwrap(), b"kept");
    let names: Vec<_> = context
        .list("/")
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names, [b"keep.log".as_slice(), b"link", b"out"]);
}

#[test]
fn who_does_not_mind_is_told_that_nothing_is_there() {
    let f = Fixture::new(&[("a.log", ""), ("kept", "content"), ("dir/f", "")]);
    f.link("a.log", "link");
    f.link("nowhere", "dangling");
    let context = f.context(&["*.log"]);
    for path in ["none", "none/at/all", "kept/f", "a.log", "link", "dangling"] {
        assert_eq!(context.read_if_there(path, 10).unwrap(), None, "{path}");
        assert!(context.stat(path).unwrap().is_none(), "{path}");
    }
    let read = context.read_if_there("kept", 10).unwrap();
    assert_eq!(read.as_deref(), Some(b"content".as_slice()));
    for (path, max) in [("../x", 10), ("dir", 10), ("kept", 6)] {
        let refused = context.read_if_there(path, max).unwrap_err();
        assert_eq!(
            refused.to_string(),
            context.read(path, max).unwrap_err().to_string()
        );
    }
}

#[test]
fn a_mistyped_name_gets_a_hint() {
    let f = Fixture::new(&[("src/package.json", ""), ("src/main.rs", "")]);
    let error = f.read("src/pakage.json").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`src/pakage.json` does not exist in the build context: there is `src/package.json`"
    );
}

#[test]
fn walks_are_ordered_and_ignore_what_is_ignored() {
    let f = Fixture::new(&[
        ("a/b/c", ""),
        ("a-b", ""),
        ("a/x", ""),
        ("B", ""),
        ("d/e/f", ""),
        ("d/e/keep", ""),
        ("d/g/h", ""),
    ]);
    fs::create_dir(f.path("empty")).unwrap();
    assert_eq!(
        f.walk("", &[]),
        [
            "B", "a", "a/b", "a/b/c", "a/x", "a-b", "d", "d/e", "d/e/f", "d/e/keep", "d/g",
            "d/g/h", "empty"
        ]
    );
    assert_eq!(
        f.walk("", &["d", "!d/e/keep", "a/b", "empty"]),
        ["B", "a", "a/x", "a-b", "d", "d/e", "d/e/keep"]
    );
    assert_eq!(f.walk("d", &["**/keep", "d/g"]), ["e", "e/f"]);
    assert_eq!(f.walk("a", &["*"]), [""; 0]);
}

#[test]
fn patterns_find_by_element_and_do_not_follow_links_midway() {
    let f = Fixture::new(&[
        ("a/x.txt", ""),
        ("b/x.txt", ""),
        ("b/y.md", ""),
        ("c[1]/z", ""),
        ("q\\r", ""),
        (".hid", ""),
    ]);
    f.link("a", "link");
    f.link("b/y.md", "l.md");
    let context = f.context(&["b/x.*"]);
    let find = |pattern: &str| -> Vec<String> {
        let found = context.tree().matches(pattern).unwrap();
        found
            .into_iter()
            .map(|m| {
                format!(
                    "{}={}",
                    String::from_utf8_lossy(&m.name),
                    String::from_utf8_lossy(&m.found.path)
                )
            })
            .collect()
    };
    assert_eq!(find("*/x.txt"), ["x.txt=a/x.txt"]);
    assert_eq!(find("link/*"), ["x.txt=a/x.txt"]);
    assert_eq!(find("*.md"), ["l.md=b/y.md"]);
    assert_eq!(find("c[[]1]/z"), ["z=c[1]/z"]);
    assert_eq!(find("c\\[1\\]/z"), ["z=c[1]/z"]);
    assert_eq!(find("q\\r"), ["q\\r=q\\r"]);
    assert_eq!(find("."), ["="]);
    assert_eq!(find("../link/"), ["link=a"]);
    assert_eq!(find("no*"), [""; 0]);
    assert_eq!(find("*h*"), [".hid=.hid"]);
    assert!(matches!(
        context.tree().matches("a["),
        Err(SourceError::BadPattern { .. })
    ));
    assert!(matches!(
        context.tree().matches("nope/*"),
        Err(SourceError::NotFound { .. })
    ));
}

#[test]
fn stat_follows_and_tells_no_size_of_directories() {
    let f = Fixture::new(&[("file", "abc")]);
    fs::set_permissions(f.path("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    f.link("file", "link");
    let stat = f.context(&[]).stat("link").unwrap().unwrap();
    assert_eq!((stat.kind, stat.size, stat.mode), (Kind::File, 3, 0o4751));
    let root = f.context(&[]).stat("/").unwrap().unwrap();
    assert_eq!((root.kind, root.size), (Kind::Directory, 0));
}
