//! COPY with --chown, --chmod, --exclude and --parents; hard links and times.

use super::copying::check;
use super::*;

/// Reference, COPY --chown and --chmod; modes are kept, setuid too; made parents belong to the owner.
#[test]
fn owners_and_modes() {
    let world =
        World::new(&["4755 suid=", "700 d", "600 d/f=", "755 d/x=", "d/l->f"]).with_base(&[
            "etc/",
            "etc/passwd=root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n",
            "etc/group=staff:x:50:\n",
        ]);
    check(
        &world,
        &[
            ("suid /", Ok(&["f 4755 0:0 suid="])),
            ("--chown=web suid /", Ok(&["f 4755 33:34 suid="])),
            (
                "--chown=web:staff suid /a/",
                Ok(&["d 0755 33:50 a", "f 4755 33:50 a/suid="]),
            ),
            ("--chown=5 suid /", Ok(&["f 4755 5:5 suid="])),
            ("--chown=5:staff suid /", Ok(&["f 4755 5:50 suid="])),
            (
                "--chown=nobody suid /",
                Err("`nobody` is not in the image's `/etc/passwd`"),
            ),
            (
                "--chown=0:nogroup suid /",
                Err("`nogroup` is not in the image's `/etc/group`"),
            ),
            (
                "--chown=1:2 d /d",
                Ok(&[
                    "d 0755 1:2 d",
                    "f 0600 1:2 d/f=",
                    "l 1:2 d/l->f",
                    "f 0755 1:2 d/x=",
                ]),
            ),
            (
                "--chmod=640 d /d",
                Ok(&[
                    "d 0755 0:0 d",
                    "f 0640 0:0 d/f=",
                    "l 0:0 d/l->f",
                    "f 0640 0:0 d/x=",
                ]),
            ),
            (
                "--chmod=go+rX d /d",
                Ok(&[
                    "d 0755 0:0 d",
                    "f 0644 0:0 d/f=",
                    "l 0:0 d/l->f",
                    "f 0755 0:0 d/x=",
                ]),
            ),
            (
                "--chmod=750 . /w",
                Ok(&[
                    "d 0755 0:0 w",
                    "d 0750 0:0 w/d",
                    "f 0750 0:0 w/d/f=",
                    "l 0:0 w/d/l->f",
                    "f 0750 0:0 w/d/x=",
                    "f 0750 0:0 w/suid=",
                ]),
            ),
            (
                "--chmod=9 d /d",
                Err(
                    "`9` is not a mode: expected octal digits up to 7777, or changes such as `u=rwX,go=rX`",
                ),
            ),
        ],
    );
    let world = World::new(&["a="]);
    check(
        &world,
        &[(
            "--chown=web a /",
            Err("`web` cannot be looked up: the image has no `/etc/passwd`; use a number instead"),
        )],
    );
}

/// Reference, COPY --exclude: patterns relative to each source; files that a pattern found are left out by name.
#[test]
fn exclusions() {
    let world = World::new(&[
        "hom.txt=",
        "hom.md=",
        "hom.c=",
        "d/a.txt=",
        "d/b.md=",
        "d/s/c.txt=",
    ]);
    check(
        &world,
        &[
            (
                "--exclude=*.txt hom* /m/",
                Ok(&[
                    "d 0755 0:0 m",
                    "f 0644 0:0 m/hom.c=",
                    "f 0644 0:0 m/hom.md=",
                ]),
            ),
            (
                "--exclude=*.txt --exclude=*.md hom* /m/",
                Ok(&["d 0755 0:0 m", "f 0644 0:0 m/hom.c="]),
            ),
            (
                "--exclude=*.txt d /m",
                Ok(&[
                    "d 0755 0:0 m",
                    "f 0644 0:0 m/b.md=",
                    "d 0755 0:0 m/s",
                    "f 0644 0:0 m/s/c.txt=",
                ]),
            ),
            (
                "--exclude=**/*.txt d /m",
                Ok(&["d 0755 0:0 m", "f 0644 0:0 m/b.md=", "d 0755 0:0 m/s"]),
            ),
            (
                "--exclude=s d /m",
                Ok(&["d 0755 0:0 m", "f 0644 0:0 m/a.txt=", "f 0644 0:0 m/b.md="]),
            ),
        ],
    );
}

/// Reference, COPY --parents.
#[test]
fn parents() {
    let world = World::new(&[
        "711 x",
        "x/a.txt=1",
        "y/a.txt=2",
        "x/y/b.txt=3",
        "x/y/c.md=4",
        "src/a.txt=5",
        "src/p/q/d.txt=6",
        "src/p/e.md=7",
    ]);
    check(
        &world,
        &[
            (
                "--parents ./x/a.txt ./y/a.txt /p/",
                Ok(&[
                    "d 0755 0:0 p",
                    "d 0711 0:0 p/x",
                    "f 0644 0:0 p/x/a.txt=1",
                    "d 0755 0:0 p/y",
                    "f 0644 0:0 p/y/a.txt=2",
                ]),
            ),
            (
                "./x/a.txt ./y/a.txt /n/",
                Ok(&["d 0755 0:0 n", "f 0644 0:0 n/a.txt=2"]),
            ),
            (
                "--parents ./x/./y/*.txt /p/",
                Ok(&["d 0755 0:0 p", "d 0755 0:0 p/y", "f 0644 0:0 p/y/b.txt=3"]),
            ),
            (
                "--parents ./src/**/*.txt /p/",
                Ok(&[
                    "d 0755 0:0 p",
                    "d 0755 0:0 p/src",
                    "f 0644 0:0 p/src/a.txt=5",
                    "d 0755 0:0 p/src/p",
                    "d 0755 0:0 p/src/p/q",
                    "f 0644 0:0 p/src/p/q/d.txt=6",
                ]),
            ),
            (
                "--parents x/y /p/",
                Ok(&[
                    "d 0755 0:0 p",
                    "d 0711 0:0 p/x",
                    "d 0755 0:0 p/x/y",
                    "f 0644 0:0 p/x/y/b.txt=3",
                    "f 0644 0:0 p/x/y/c.md=4",
                ]),
            ),
            (
                "--parents x/none /p/",
                Err("`x/none` does not exist in the build context"),
            ),
            ("--parents none*/x /p/", Ok(&[])),
            (
                "--parents --exclude=**/y x /p/",
                Ok(&["d 0755 0:0 p", "d 0711 0:0 p/x", "f 0644 0:0 p/x/a.txt=1"]),
            ),
        ],
    );
}

#[test]
fn hard_links_stay_hard_links_within_a_source() {
    let world = World::new(&["d/b=1", "z=2"]);
    fs::hard_link(world.path("d/b"), world.path("d/c")).unwrap();
    fs::hard_link(world.path("d/b"), world.path("d/a")).unwrap();
    fs::hard_link(world.path("z"), world.path("y")).unwrap();
    check(
        &world,
        &[
            (
                "d /m",
                Ok(&[
                    "d 0755 0:0 m",
                    "f 0644 0:0 m/a=1",
                    "h m/b=>m/a",
                    "h m/c=>m/a",
                ]),
            ),
            (
                "y z /m/",
                Ok(&["d 0755 0:0 m", "f 0644 0:0 m/y=2", "f 0644 0:0 m/z=2"]),
            ),
        ],
    );
    // The name that held the content is overwritten by a later source: the others still have it.
    let world = World::new(&["d/b=1", "e/a=2"]);
    fs::hard_link(world.path("d/b"), world.path("d/a")).unwrap();
    fs::hard_link(world.path("d/b"), world.path("d/c")).unwrap();
    check(
        &world,
        &[(
            "d e /m",
            Ok(&[
                "d 0755 0:0 m",
                "f 0644 0:0 m/a=2",
                "f 0644 0:0 m/b=1",
                "h m/c=>m/b",
            ]),
        )],
    );
}

#[test]
fn times_of_sources_are_kept_and_made_directories_are_new() {
    let world = World::new(&["d/s/f=1"]).with_base(&["b/"]);
    let file = fs::File::options()
        .write(true)
        .open(world.path("d/s/f"))
        .unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
    file.set_modified(time).unwrap();
    let outcome = world
        .run(vec![FileAction::Copy(parse_copy("d /b/n/"))])
        .unwrap();
    let times: Vec<_> = outcome
        .entries
        .iter()
        .map(|e| (String::from_utf8_lossy(&e.path).into_owned(), e.mtime))
        .collect();
    let directory = fs::metadata(world.path("d/s"))
        .unwrap()
        .modified()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let directory = Mtime {
        secs: directory.as_secs() as i64,
        nanos: directory.subsec_nanos(),
    };
    let want = [
        ("b", Mtime::from_secs(1)),
        ("b/n", Mtime::from_secs(NOW)),
        ("b/n/s", directory),
        (
            "b/n/s/f",
            Mtime {
                secs: 1_234_567_890,
                nanos: 123_456_789,
            },
        ),
    ];
    assert_eq!(times, want.map(|(path, time)| (path.to_owned(), time)));
}
