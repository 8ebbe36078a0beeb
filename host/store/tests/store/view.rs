//! The file system of a chain, looked up in tables of contents.

use stepwell_image::{Entry, Kind};
use stepwell_store::{ChainView, Ids, StoreError};

use crate::support::{Fixture, dir, file, hardlink, symlink};

fn paths(view: &ChainView) -> Vec<String> {
    view.iter()
        .map(|(p, _)| String::from_utf8_lossy(p).into_owned())
        .collect()
}

fn marker(path: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, Kind::File { size: 0 }, 0), b"")
}

#[test]
fn layers_hide_replace_and_merge() {
    let fixture = Fixture::new(Ids::Emulated);
    let base = fixture.layer(&[
        dir("d"),
        file("d/gone", "1"),
        file("d/kept", "2"),
        dir("o"),
        file("o/old", "3"),
        dir("becomes-file"),
        file("becomes-file/x", "4"),
        file("becomes-dir", "5"),
    ]);
    let top = fixture.foreign(&[
        file("becomes-dir/new", "6"),
        file("becomes-file", "7"),
        // The marker hides what is below this layer only, wherever it stands.
        file("o/new", "8"),
        marker("o/.wh..wh..opq"),
        marker("d/.wh.gone"),
        marker(".wh..wh.plnk"),
    ]);
    let view = fixture.store.chain_view(&[base, top]).unwrap();
    let want = [
        "",
        "becomes-dir",
        "becomes-dir/new",
        "becomes-file",
        "d",
        "d/kept",
        "o",
        "o/new",
    ];
    assert_eq!(paths(&view), want);
    assert!(view.lookup(b"becomes-dir").unwrap().is_implied());
    assert_eq!(
        view.read_file(&fixture.store, b"/o/new", 10)
            .unwrap()
            .unwrap(),
        b"8"
    );
    assert_eq!(view.read_file(&fixture.store, b"o/old", 10).unwrap(), None);
}

#[test]
fn paths_are_followed_inside_the_image() {
    let fixture = Fixture::new(Ids::Emulated);
    let base = fixture.layer(&[
        dir("usr"),
        dir("usr/lib"),
        file("usr/lib/so", "x"),
        symlink("lib", "usr/lib"),
        symlink("abs", "/lib/../lib"),
        symlink("out", "../../../../usr"),
        symlink("loop", "loop"),
        symlink("dangling", "/no/where"),
        dir("etc"),
        file("etc/passwd", "root:x:0:0"),
    ]);
    let view = fixture.store.chain_view(&[base]).unwrap();
    for (path, want, exists) in [
        ("/", "", true),
        ("lib/so", "usr/lib/so", true),
        ("abs/so", "usr/lib/so", true),
        ("out/lib", "usr/lib", true),
        ("/../..//usr/./lib/", "usr/lib", true),
        ("dangling", "no/where", false),
        ("dangling/x", "no/where/x", false),
        ("usr/new/deep", "usr/new/deep", false),
    ] {
        let resolved = view.resolve(path.as_bytes()).unwrap();
        assert_eq!(
            (&resolved.path[..], resolved.exists),
            (want.as_bytes(), exists),
            "{path}"
        );
    }
    assert!(matches!(
        view.resolve(b"loop"),
        Err(StoreError::Loop { .. })
    ));
    assert_eq!(view.resolve_parent(b"lib").unwrap().path, b"lib");
    assert_eq!(
        view.read_file(&fixture.store, b"/etc/passwd", 99)
            .unwrap()
            .unwrap(),
        b"root:x:0:0"
    );
    assert!(view.read_file(&fixture.store, b"/etc/passwd", 9).is_err());
    assert!(view.read_file(&fixture.store, b"/usr", 9).is_err());
}

#[test]
fn a_directory_lists_its_own_names() {
    let fixture = Fixture::new(Ids::Emulated);
    let base = fixture.layer(&[
        dir("a"),
        dir("a/b"),
        file("a/b/x", "1"),
        file("a/b-c", "2"),
        dir("a/b.d"),
        file("a/b.d/y", "3"),
        file("ab", "4"),
    ]);
    let view = fixture.store.chain_view(&[base]).unwrap();
    let list = |d: &str| -> Vec<String> {
        view.list(d.as_bytes())
            .iter()
            .map(|(n, _)| String::from_utf8_lossy(n).into_owned())
            .collect()
    };
    assert_eq!(list(""), ["a", "ab"]);
    assert_eq!(list("/a/"), ["b", "b-c", "b.d"]);
    assert_eq!(list("a/b"), ["x"]);
    assert_eq!(list("nothing"), [""; 0]);
}

#[test]
fn entries_land_where_links_in_the_image_lead() {
    let fixture = Fixture::new(Ids::Emulated);
    let base = fixture.layer(&[dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib")]);
    let top = fixture.layer(&[file("lib/new", "x"), hardlink("other", "lib/new")]);
    let view = fixture.store.chain_view(&[base, top]).unwrap();
    assert_eq!(
        paths(&view),
        ["", "lib", "other", "usr", "usr/lib", "usr/lib/new"]
    );
    assert_eq!(
        view.lookup(b"other").unwrap().place(),
        view.lookup(b"usr/lib/new").unwrap().place()
    );
}
