//! COPY from a context: the rules of the Dockerfile reference and of BuildKit, one table each.  Flags are in
//! `copy_flags`.

use super::*;

/// Carries out each COPY on the same context and base, and compares the layer or the message.
pub(super) fn check(world: &World, table: &[(&str, Result<&[&str], &str>)]) {
    for (arguments, want) in table {
        let got = world.copy(arguments);
        match (&got, want) {
            (Ok(lines), Ok(want)) => assert_eq!(lines, want, "COPY {arguments}"),
            (Err(message), Err(want)) => assert_eq!(message, want, "COPY {arguments}"),
            _ => panic!("COPY {arguments}: {got:?}"),
        }
    }
}

/// Reference, COPY, Destination: a slash makes a directory, its parents are made, a file else becomes the destination.
#[test]
fn files_and_destinations() {
    let world = World::new(&["a=1", "b=2", "755 run.sh=x", "sub/c=3"]).with_base(&[
        "etc/",
        "etc/file=old",
        "1777 0:0 tmp/",
        "0700 5:6 home/",
        "0750 5:6 home/u/",
        "var->home/u",
        "dangling->/made/by/copy",
        "filelink->etc/file",
    ]);
    check(
        &world,
        &[
            ("a /x", Ok(&["f 0644 0:0 x=1"])),
            ("a /x/", Ok(&["d 0755 0:0 x", "f 0644 0:0 x/a=1"])),
            (
                "a /x/y/z",
                Ok(&["d 0755 0:0 x", "d 0755 0:0 x/y", "f 0644 0:0 x/y/z=1"]),
            ),
            ("a /x/.", Ok(&["d 0755 0:0 x", "f 0644 0:0 x/a=1"])),
            ("run.sh /", Ok(&["f 0755 0:0 run.sh=x"])),
            ("a /etc", Ok(&["d 0755 0:0 etc", "f 0644 0:0 etc/a=1"])),
            (
                "a /etc/file",
                Ok(&["d 0755 0:0 etc", "f 0644 0:0 etc/file=1"]),
            ),
            ("a /tmp/", Ok(&["d 1777 0:0 tmp", "f 0644 0:0 tmp/a=1"])),
            (
                "a b /tmp/",
                Ok(&["d 1777 0:0 tmp", "f 0644 0:0 tmp/a=1", "f 0644 0:0 tmp/b=2"]),
            ),
            ("sub/c /", Ok(&["f 0644 0:0 c=3"])),
            ("/sub/../sub/c /", Ok(&["f 0644 0:0 c=3"])),
            ("../../sub/c /", Ok(&["f 0644 0:0 c=3"])),
            // Links of the image on the way, and at the end, are followed inside it.
            (
                "a /var/",
                Ok(&[
                    "d 0700 5:6 home",
                    "d 0750 5:6 home/u",
                    "f 0644 0:0 home/u/a=1",
                ]),
            ),
            (
                "a /var",
                Ok(&[
                    "d 0700 5:6 home",
                    "d 0750 5:6 home/u",
                    "f 0644 0:0 home/u/a=1",
                ]),
            ),
            (
                "a /var/x",
                Ok(&[
                    "d 0700 5:6 home",
                    "d 0750 5:6 home/u",
                    "f 0644 0:0 home/u/x=1",
                ]),
            ),
            ("a /var/../x", Ok(&["f 0644 0:0 x=1"])),
            (
                "a /filelink",
                Ok(&["d 0755 0:0 etc", "f 0644 0:0 etc/file=1"]),
            ),
            (
                "a /dangling",
                Ok(&[
                    "d 0755 0:0 made",
                    "d 0755 0:0 made/by",
                    "f 0644 0:0 made/by/copy=1",
                ]),
            ),
            // A file that is put into a directory replaces a link of its name.
            (
                "a /etc/file/x",
                Err("cannot make the directory `/etc/file`: `/etc/file` is not a directory"),
            ),
            (
                "a /etc/file/",
                Err("cannot make the directory `/etc/file`: `/etc/file` is not a directory"),
            ),
        ],
    );
}

/// Reference, COPY, Source: a directory is copied by its content, merged, and conflicts of kind are errors.
#[test]
fn directories_are_copied_by_content() {
    let world = World::new(&[
        "700 d",
        "d/x=1",
        "711 d/s",
        "d/s/y=2",
        "empty",
        "f/etc=file",
        "g/app/x=dir",
    ])
    .with_base(&[
        "0700 7:7 app/",
        "0711 7:7 app/s/",
        "app/s/old=",
        "app/keep=",
        "etc/",
        "app2->app",
        "0755 0:0 l/",
        "l/s->../etc",
        "l/x->../etc/passwd",
        "plain=",
    ]);
    check(
        &world,
        &[
            // The destination is made 0755, whatever the source is; what is below it is as in the source.
            (
                "d /new",
                Ok(&[
                    "d 0755 0:0 new",
                    "d 0711 0:0 new/s",
                    "f 0644 0:0 new/s/y=2",
                    "f 0644 0:0 new/x=1",
                ]),
            ),
            (
                "d /new/",
                Ok(&[
                    "d 0755 0:0 new",
                    "d 0711 0:0 new/s",
                    "f 0644 0:0 new/s/y=2",
                    "f 0644 0:0 new/x=1",
                ]),
            ),
            (
                "d/ /n",
                Ok(&[
                    "d 0755 0:0 n",
                    "d 0711 0:0 n/s",
                    "f 0644 0:0 n/s/y=2",
                    "f 0644 0:0 n/x=1",
                ]),
            ),
            (
                "d /",
                Ok(&["d 0711 0:0 s", "f 0644 0:0 s/y=2", "f 0644 0:0 x=1"]),
            ),
            // A destination that is there keeps its metadata; directories below get the source's.
            (
                "d /app",
                Ok(&[
                    "d 0700 7:7 app",
                    "d 0711 0:0 app/s",
                    "f 0644 0:0 app/s/y=2",
                    "f 0644 0:0 app/x=1",
                ]),
            ),
            (
                "d /app2",
                Ok(&[
                    "d 0700 7:7 app",
                    "d 0711 0:0 app/s",
                    "f 0644 0:0 app/s/y=2",
                    "f 0644 0:0 app/x=1",
                ]),
            ),
            ("empty /app", Ok(&[])),
            ("empty /e", Ok(&["d 0755 0:0 e"])),
            ("d/s empty /e/", Ok(&["d 0755 0:0 e", "f 0644 0:0 e/y=2"])),
            (
                "d /plain",
                Err(
                    "cannot copy the directory `d` to `/plain`: that is not a directory in the image",
                ),
            ),
            (
                "d /l",
                Err(
                    "cannot copy the directory `d/s` to `/l/s`: that is not a directory in the image",
                ),
            ),
            (
                "f /",
                Err("cannot copy `f/etc` to `/etc`: that is a directory in the image"),
            ),
            (
                "d/x /l/x",
                Ok(&["d 0755 0:0 etc", "f 0644 0:0 etc/passwd=1"]),
            ),
            ("d/x /l/", Ok(&["d 0755 0:0 l", "f 0644 0:0 l/x=1"])),
            ("g /", Ok(&["d 0755 0:0 app", "f 0644 0:0 app/x=dir"])),
            (
                ". /w",
                Ok(&[
                    "d 0755 0:0 w",
                    "d 0700 0:0 w/d",
                    "d 0711 0:0 w/d/s",
                    "f 0644 0:0 w/d/s/y=2",
                    "f 0644 0:0 w/d/x=1",
                    "d 0755 0:0 w/empty",
                    "d 0755 0:0 w/f",
                    "f 0644 0:0 w/f/etc=file",
                    "d 0755 0:0 w/g",
                    "d 0755 0:0 w/g/app",
                    "f 0644 0:0 w/g/app/x=dir",
                ]),
            ),
        ],
    );
}

/// Reference, COPY, Pattern matching.
#[test]
fn patterns() {
    let world = World::new(&[
        "hom1=1",
        "hom2.txt=2",
        "arr[0].txt=3",
        "d1/x=4",
        "d2/y=5",
        ".hid=6",
        "s/deep/z=7",
    ]);
    check(
        &world,
        &[
            (
                "hom* /m/",
                Ok(&[
                    "d 0755 0:0 m",
                    "f 0644 0:0 m/hom1=1",
                    "f 0644 0:0 m/hom2.txt=2",
                ]),
            ),
            ("hom? /m/", Ok(&["d 0755 0:0 m", "f 0644 0:0 m/hom1=1"])),
            ("hom? /m", Ok(&["f 0644 0:0 m=1"])),
            (
                "hom* /m",
                Err("cannot copy several files to `/m`: it is not a directory; end it with a `/`"),
            ),
            (
                "arr[[]0].txt /m/",
                Ok(&["d 0755 0:0 m", "f 0644 0:0 m/arr[0].txt=3"]),
            ),
            (
                "d* /m",
                Ok(&["d 0755 0:0 m", "f 0644 0:0 m/x=4", "f 0644 0:0 m/y=5"]),
            ),
            ("*/x /", Ok(&["f 0644 0:0 x=4"])),
            ("*/*/z /", Ok(&["f 0644 0:0 z=7"])),
            (".h* /", Ok(&["f 0644 0:0 .hid=6"])),
            (
                "hom1 none* /m/",
                Ok(&["d 0755 0:0 m", "f 0644 0:0 m/hom1=1"]),
            ),
            ("none* /m/", Ok(&[])),
            (
                "none /m/",
                Err("`none` does not exist in the build context"),
            ),
            (
                "hom3 /m/",
                Err("`hom3` does not exist in the build context: there is `hom1`"),
            ),
            (
                "none/* /m/",
                Err("`none` does not exist in the build context"),
            ),
            (
                "hom[ /m/",
                Err(
                    "pattern `hom[` is malformed: the `[` is not closed; to mean the character itself, write `[[]`",
                ),
            ),
        ],
    );
    let outcome = world
        .run(vec![FileAction::Copy(parse_copy("none* /m/"))])
        .unwrap();
    assert_eq!(outcome.notes, ["`none*` matches nothing"]);
}

#[test]
fn ignored_files_are_not_copied_and_the_message_says_why() {
    let world = World::new(&[
        "a.log=",
        "b.txt=",
        "out/keep=k",
        "out/other=o",
        "sub/c.log=",
    ])
    .excluding(&["**/*.log", "out", "!out/keep"]);
    check(
        &world,
        &[
            (
                ". /w",
                Ok(&[
                    "d 0755 0:0 w",
                    "f 0644 0:0 w/b.txt=",
                    "d 0755 0:0 w/out",
                    "f 0644 0:0 w/out/keep=k",
                    "d 0755 0:0 w/sub",
                ]),
            ),
            (
                "a.log /",
                Err(
                    "`a.log` does not exist in the build context: the ignore pattern `**/*.log` leaves it out",
                ),
            ),
            ("out /o", Ok(&["d 0755 0:0 o", "f 0644 0:0 o/keep=k"])),
            ("sub /o", Ok(&["d 0755 0:0 o"])),
            ("out/* /o/", Ok(&["d 0755 0:0 o", "f 0644 0:0 o/keep=k"])),
        ],
    );
    let outcome = world
        .run(vec![FileAction::Copy(parse_copy("*.log /m/"))])
        .unwrap();
    assert_eq!(
        outcome.notes,
        ["`*.log` matches nothing: the ignore pattern `**/*.log` leaves it out"]
    );
}

/// BuildKit: a link that is named is followed, inside the context; one on the way is copied as a link.
#[test]
fn links() {
    let world = World::new(&[
        "real=1",
        "link->real",
        "dir/x=2",
        "dir/up->../../../real",
        "dlink->dir",
        "abs->/etc/passwd",
        "nowhere->x",
    ]);
    check(
        &world,
        &[
            ("link /", Ok(&["f 0644 0:0 link=1"])),
            ("link /name", Ok(&["f 0644 0:0 name=1"])),
            ("li* /m/", Ok(&["d 0755 0:0 m", "f 0644 0:0 m/link=1"])),
            (
                "dir /m",
                Ok(&[
                    "d 0755 0:0 m",
                    "l 0:0 m/up->../../../real",
                    "f 0644 0:0 m/x=2",
                ]),
            ),
            (
                "dlink /m",
                Ok(&[
                    "d 0755 0:0 m",
                    "l 0:0 m/up->../../../real",
                    "f 0644 0:0 m/x=2",
                ]),
            ),
            ("dlink/x /m", Ok(&["f 0644 0:0 m=2"])),
            ("dir/up /m", Ok(&["f 0644 0:0 m=1"])),
            (
                "abs /m",
                Err(
                    "`abs` does not exist in the build context: it is a symbolic link to `/etc/passwd`, which leads nowhere in there",
                ),
            ),
            (
                "nowhere /m",
                Err(
                    "`nowhere` does not exist in the build context: it is a symbolic link to `x`, which leads nowhere in there",
                ),
            ),
        ],
    );
}
