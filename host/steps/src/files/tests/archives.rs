//! ADD of archives.

use super::*;

use stepwell_image::LayerWriter;
use stepwell_model::request::Compression;

fn archive(entries: &[(&str, Kind, &str)], compression: Compression) -> Vec<u8> {
    let options = LayerOptions {
        compression,
        ..LayerOptions::default()
    };
    let mut writer = LayerWriter::new(Vec::new(), options).unwrap();
    for (path, kind, content) in entries {
        let mode = if *kind == Kind::Dir { 0o750 } else { 0o640 };
        let entry = Entry {
            uid: 11,
            gid: 12,
            mtime: Mtime::from_secs(77),
            ..Entry::new(*path, kind.clone(), mode)
        };
        writer
            .add(
                &entry,
                (!content.is_empty()).then_some(&mut content.as_bytes() as &mut dyn Read),
            )
            .unwrap();
    }
    writer.finish().unwrap().out
}

fn file(content: &str) -> Kind {
    Kind::File {
        size: content.len() as u64,
    }
}

fn link(target: &str) -> Kind {
    Kind::Symlink {
        target: target.into(),
    }
}

fn world(name: &str, bytes: &[u8]) -> World {
    let world =
        World::new(&["plain=text"]).with_base(&["etc/", "etc/d/", "etc/d/old=", "0700 8:8 opt/"]);
    fs::write(world.path(name), bytes).unwrap();
    world
}

fn simple() -> Vec<(&'static str, Kind, &'static str)> {
    vec![
        ("b", file("22"), "22"),
        ("a", Kind::Dir, ""),
        ("a/x", file("1"), "1"),
        ("l", link("/etc"), ""),
        (
            "hard",
            Kind::Hardlink {
                target: b"b".into(),
            },
            "",
        ),
    ]
}

const SIMPLE: [&str; 6] = [
    "d 0755 0:0 to",
    "d 0750 11:12 to/a",
    "l 11:12 to/l->/etc",
    "f 0640 11:12 to/b=22",
    "h to/hard=>to/b",
    "f 0640 11:12 to/a/x=1",
];

#[test]
fn archives_are_unpacked_whatever_their_name_and_compression() {
    for compression in [
        Compression::Gzip,
        Compression::Zstd,
        Compression::Uncompressed,
    ] {
        let world = world("x.dat", &archive(&simple(), compression));
        assert_eq!(
            world.copy("--extract x.dat /to").unwrap(),
            SIMPLE,
            "{compression:?}"
        );
        assert_eq!(
            world.copy("--extract x.dat /to/").unwrap(),
            SIMPLE,
            "{compression:?}"
        );
    }
}

#[test]
fn the_tars_of_other_tools_are_unpacked() {
    let world = World::new(&["src/a=1", "src/b/c=2"]);
    for (name, flag) in [
        ("x.tar", "-c"),
        ("x.tgz", "-cz"),
        ("x.tar.bz2", "-cj"),
        ("x.tar.xz", "-cJ"),
    ] {
        let status = std::process::Command::new("tar")
            .args([flag, "--owner=:5", "--group=:6", "--mode=u=rwX,go=rX", "-f"])
            .arg(world.path(name))
            .args(["--sort=name", "-C"])
            .arg(world.path("src"))
            .args(["a", "b"])
            .status()
            .unwrap();
        assert!(status.success());
        let lines = world.copy(&format!("--extract {name} /to")).unwrap();
        assert_eq!(
            lines,
            [
                "d 0755 0:0 to",
                "d 0755 5:6 to/b",
                "f 0644 5:6 to/a=1",
                "f 0644 5:6 to/b/c=2"
            ],
            "{name}"
        );
    }
}

#[test]
fn what_is_no_archive_is_copied() {
    let gzip = {
        let mut encoder = Vec::new();
        let status = std::process::Command::new("gzip")
            .arg("-c")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let mut child = status.unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"just text").unwrap();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut encoder)
            .unwrap();
        child.wait().unwrap();
        encoder
    };
    for content in [
        &b""[..],
        b"text",
        &[0; 1024],
        &[0; 10240],
        &gzip,
        b"\x1f\x8bbroken",
        b"BZh9broken",
        b"\xfd7zXZ\0broken",
    ] {
        let world = world("x.tar.gz", content);
        let lines = world.copy("--extract x.tar.gz /to/").unwrap();
        assert_eq!(lines.len(), 2, "{content:?}");
        assert!(lines[1].starts_with("f 0644 0:0 to/x.tar.gz="), "{lines:?}");
    }
}

#[test]
fn owners_and_existing_directories() {
    let world = world(
        "x.tar",
        &archive(
            &[
                ("d", Kind::Dir, ""),
                ("d/new", file("n"), "n"),
                ("e/f", file("m"), "m"),
            ],
            Compression::Uncompressed,
        ),
    );
    assert_eq!(
        world.copy("--extract x.tar /etc").unwrap(),
        [
            "d 0755 0:0 etc",
            "d 0750 11:12 etc/d",
            "d 0755 0:0 etc/e",
            "f 0640 11:12 etc/d/new=n",
            "f 0640 11:12 etc/e/f=m"
        ]
    );
    assert_eq!(
        world.copy("--extract --chown=4:5 x.tar /opt/n").unwrap(),
        [
            "d 0700 8:8 opt",
            "d 0755 4:5 opt/n",
            "d 0750 4:5 opt/n/d",
            "d 0755 0:0 opt/n/e",
            "f 0640 4:5 opt/n/d/new=n",
            "f 0640 4:5 opt/n/e/f=m"
        ]
    );
}

/// Entries replace what is there, directories and files each other too, and the last of a name counts.
#[test]
fn entries_replace_each_other() {
    let entries = [
        ("d", file("file"), "file"),
        ("x", file("first"), "first"),
        ("x", file("2"), "2"),
        ("f", file("f"), "f"),
        ("f", Kind::Dir, ""),
        ("f/g", file("g"), "g"),
        ("s", link("f"), ""),
        ("s", file("s"), "s"),
    ];
    let world = world("x.tar", &archive(&entries, Compression::Uncompressed));
    assert_eq!(
        world.copy("--extract x.tar /etc").unwrap(),
        [
            "d 0755 0:0 etc",
            "d 0750 11:12 etc/f",
            "f 0640 11:12 etc/d=file",
            "f 0640 11:12 etc/x=2",
            "f 0640 11:12 etc/f/g=g",
            "f 0640 11:12 etc/s=s"
        ]
    );
}

#[test]
fn hostile_archives_stay_below_the_destination() {
    let entries = [
        ("abs", link("/etc"), ""),
        ("abs/x", file("1"), "1"),
        ("up", link("../../.."), ""),
        ("up/etc/y", file("2"), "2"),
        ("c1", link("c2"), ""),
        ("c2", link("abs"), ""),
        ("c1/z", file("3"), "3"),
    ];
    let world = world("x.tar", &archive(&entries, Compression::Gzip));
    assert_eq!(
        world.copy("--extract x.tar /opt/to").unwrap(),
        [
            "d 0700 8:8 opt",
            "d 0755 0:0 opt/to",
            "l 11:12 opt/to/abs->/etc",
            "l 11:12 opt/to/c1->c2",
            "l 11:12 opt/to/c2->abs",
            "d 0755 0:0 opt/to/etc",
            "l 11:12 opt/to/up->../../..",
            "f 0640 11:12 opt/to/etc/x=1",
            "f 0640 11:12 opt/to/etc/y=2",
            "f 0640 11:12 opt/to/etc/z=3",
        ]
    );
    let refused = [
        (
            vec![
                ("l1", link("l2"), ""),
                ("l2", link("l1"), ""),
                ("l1/x", file("1"), "1"),
            ],
            "too many symbolic links on the way to `l1/x` in the image",
        ),
        (
            vec![(
                "h",
                Kind::Hardlink {
                    target: b"etc/passwd".into(),
                },
                "",
            )],
            "cannot unpack `x.tar`: `h` is a hard link to `etc/passwd`, which is not before it",
        ),
        (
            vec![("f", file("1"), "1"), ("f/x", file("1"), "1")],
            "cannot make the directory `/to/f`: `/to/f` is not a directory",
        ),
    ];
    for (entries, want) in refused {
        let world = self::world("x.tar", &archive(&entries, Compression::Uncompressed));
        assert_eq!(world.copy("--extract x.tar /to").unwrap_err(), want);
    }
}

#[test]
fn devices_and_pipes_are_left_out_with_a_note() {
    let entries = [
        ("null", Kind::Char { major: 1, minor: 3 }, ""),
        ("pipe", Kind::Fifo, ""),
        ("f", file("1"), "1"),
    ];
    let world = world("x.tar", &archive(&entries, Compression::Uncompressed));
    let outcome = world
        .run(vec![FileAction::Copy(parse_copy("--extract x.tar /to"))])
        .unwrap();
    assert_eq!(outcome.lines, ["d 0755 0:0 to", "f 0640 11:12 to/f=1"]);
    assert_eq!(
        outcome.notes[0],
        "`null` of `x.tar` is left out: ADD makes no device nodes and named pipes"
    );
    assert_eq!(outcome.notes.len(), 2);
}

#[test]
fn a_damaged_archive_is_refused_before_anything_is_written() {
    let mut bytes = archive(&simple(), Compression::Uncompressed);
    bytes.truncate(1600);
    let error = world("x.tar", &bytes)
        .copy("--extract x.tar /to")
        .unwrap_err();
    assert!(error.starts_with("cannot unpack `x.tar`: "), "{error}");
}
