//! What a step's changes look like as a layer.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use stepwell_image::{Entry, Kind, LayerOptions, Mtime};
use stepwell_store::{CaptureOptions, Ids};
use stepwell_sys::meta::{self, Meta};

use crate::support::{Fixture, dir, each_way, file, hardlink, names, options, snapshot};

/// The names in the layer of one step on a small base.
fn step_names(fixture: &Fixture, change: impl FnOnce(&Path)) -> Vec<String> {
    let base = fixture.layer(&[
        dir("a"),
        dir("a/b"),
        file("a/b/one", "1"),
        file("a/b/two", "2"),
        file("a/three", "3"),
        hardlink("a/three-too", "a/three"),
        file("top", "t"),
        dir("etc"),
        file("etc/hosts", "of the image"),
        dir("dev"),
        file("dev/kept", ""),
    ]);
    let captured = fixture.step(&[base], change);
    let names = names(&fixture.store, &captured.layer);
    assert_eq!(captured.entries, names.len());
    let read = fixture
        .store
        .checkout_read(&[base, captured.layer], &())
        .unwrap();
    let changed = snapshot(read.root_path(), fixture.store.ids(), &read.side_table());
    assert_eq!(
        fixture.fresh_snapshot(&[base, captured.layer]),
        changed,
        "{names:?}"
    );
    names
}

#[test]
fn layers_have_what_changed_and_the_directories_above() {
    type Change = fn(&Path);
    let cases: &[(&str, Change, &[&str])] = &[
        ("nothing", |_| {}, &[]),
        (
            "overwrite",
            |r| fs::write(r.join("a/b/one"), "x").unwrap(),
            &["a/", "a/b/", "a/b/one"],
        ),
        (
            "add",
            |r| fs::write(r.join("a/b/new"), "x").unwrap(),
            &["a/", "a/b/", "a/b/new"],
        ),
        (
            "remove",
            |r| fs::remove_file(r.join("a/b/one")).unwrap(),
            &["a/", "a/b/", "a/b/.wh.one"],
        ),
        (
            "remove at the top",
            |r| fs::remove_file(r.join("top")).unwrap(),
            &[".wh.top"],
        ),
        (
            "remove a directory",
            |r| fs::remove_dir_all(r.join("a/b")).unwrap(),
            &["a/", "a/.wh.b"],
        ),
        (
            "remove all in a directory",
            |r| {
                ["one", "two"]
                    .iter()
                    .for_each(|n| fs::remove_file(r.join("a/b").join(n)).unwrap())
            },
            &["a/", "a/b/", "a/b/.wh..wh..opq"],
        ),
        (
            "directory anew",
            |r| {
                fs::remove_dir_all(r.join("a/b")).unwrap();
                fs::create_dir(r.join("a/b")).unwrap();
                fs::write(r.join("a/b/two"), "other").unwrap();
            },
            &["a/", "a/b/", "a/b/.wh.one", "a/b/two"],
        ),
        (
            "directory becomes a link",
            |r| {
                fs::remove_dir_all(r.join("a/b")).unwrap();
                symlink("three", r.join("a/b")).unwrap();
            },
            &["a/", "a/b"],
        ),
        (
            "file becomes a directory",
            |r| {
                fs::remove_file(r.join("top")).unwrap();
                fs::create_dir(r.join("top")).unwrap();
                fs::write(r.join("top/x"), "").unwrap();
            },
            &["top/", "top/x"],
        ),
        (
            "mode",
            |r| fs::set_permissions(r.join("top"), fs::Permissions::from_mode(0o600)).unwrap(),
            &["top"],
        ),
        (
            "a link to a file of the base brings the file",
            |r| fs::hard_link(r.join("top"), r.join("a/link")).unwrap(),
            &["a/", "a/link", "top -> a/link"],
        ),
        (
            "through one name, all names change",
            |r| fs::write(r.join("a/three-too"), "x").unwrap(),
            &["a/", "a/three", "a/three-too -> a/three"],
        ),
        (
            "one of two names goes",
            |r| fs::remove_file(r.join("a/three")).unwrap(),
            &["a/", "a/.wh.three"],
        ),
    ];
    each_way(|fixture| {
        for (what, change, want) in cases {
            assert_eq!(step_names(fixture, change), *want, "{what}");
        }
    });
}

#[test]
fn grafts_are_in_no_layer_and_no_reader_sees_their_stubs() {
    each_way(|fixture| {
        let names = step_names(fixture, |root| {
            fs::create_dir_all(root.join("proc/1/fd")).unwrap();
            fs::write(root.join("proc/1/fd/0"), "").unwrap();
            fs::write(root.join("dev/null"), "").unwrap();
            fs::create_dir(root.join("sys")).unwrap();
        });
        assert_eq!(names, [""; 0]);
        let image = fixture.layer(&[
            dir("etc"),
            file("etc/hosts", "of the image"),
            dir("dev"),
            file("dev/kept", ""),
        ]);
        let captured = fixture.step(&[image], |root| {
            fs::write(root.join("etc/hosts"), "of the step").unwrap();
            fs::remove_file(root.join("dev/kept")).unwrap();
        });
        assert_eq!(captured.entries, 0);
        assert_eq!(fixture.snapshot(&[]), Default::default());
    });
}

#[test]
fn what_only_the_ctime_tells_is_no_change() {
    each_way(|fixture| {
        let names = step_names(fixture, |root| {
            let top = root.join("top");
            let mode = fs::metadata(&top).unwrap().permissions();
            fs::set_permissions(&top, fs::Permissions::from_mode(0o777)).unwrap();
            fs::set_permissions(&top, mode).unwrap();
            let one = root.join("a/b/one");
            let time = fs::metadata(&one).unwrap().modified().unwrap();
            fs::write(&one, "1").unwrap();
            fs::File::options()
                .write(true)
                .open(&one)
                .unwrap()
                .set_modified(time)
                .unwrap();
        });
        assert_eq!(names, [""; 0]);
    });
}

#[test]
fn the_same_size_and_time_with_other_content_is_a_change() {
    each_way(|fixture| {
        let names = step_names(fixture, |root| {
            let one = root.join("a/b/one");
            let time = fs::metadata(&one).unwrap().modified().unwrap();
            fs::write(&one, "9").unwrap();
            fs::File::options()
                .write(true)
                .open(&one)
                .unwrap()
                .set_modified(time)
                .unwrap();
        });
        assert_eq!(names, ["a/", "a/b/", "a/b/one"]);
    });
}

#[test]
fn a_step_directly_after_the_checkout_is_seen() {
    each_way(|fixture| {
        let base = fixture.layer(&[file("f", "0")]);
        // Without waiting for the clock, changes in the same tick would be missed on kernels that count in ticks.
        let mut layers = vec![base];
        for round in 1..20u8 {
            let step = fixture.step(&layers, |root| {
                fs::write(root.join("f"), [b'0' + round]).unwrap()
            });
            assert_eq!(step.entries, 1, "round {round}");
            layers.push(step.layer);
        }
    });
}

#[test]
fn sockets_and_reserved_names_are_left_out_and_told() {
    each_way(|fixture| {
        let base = fixture.layer(&[file("top", "t")]);
        let captured = fixture.step(&[base], |root| {
            drop(UnixListener::bind(root.join("socket")).unwrap());
            fs::create_dir(root.join(".wh.dir")).unwrap();
            fs::write(root.join(".wh.dir/x"), "").unwrap();
            fs::remove_file(root.join("top")).unwrap();
            drop(UnixListener::bind(root.join("top")).unwrap());
        });
        assert_eq!(names(&fixture.store, &captured.layer), [".wh.top"]);
        let paths: Vec<_> = captured.left_out.iter().map(|(p, _)| &p[..]).collect();
        assert_eq!(paths, ["/.wh.dir", "/.wh.dir/x", "/socket", "/top"]);
        // The tree is taken for what follows, and has nothing that is in no layer.
        let next = fixture
            .store
            .checkout(&[base, captured.layer], &())
            .unwrap();
        assert_eq!(fs::read_dir(next.root_path()).unwrap().count(), 0);
    });
}

#[test]
fn owners_and_devices_that_are_kept_beside_are_in_the_layer() {
    let fixture = Fixture::new(Ids::Emulated);
    let base = fixture.layer(&[file("f", "x"), dir("d")]);
    let mut checkout = fixture.store.checkout(&[base], &()).unwrap();
    checkout.begin().unwrap();
    let root = checkout.root_dir().try_clone().unwrap();
    symlink("f", checkout.root_path().join("l")).unwrap();
    fs::write(checkout.root_path().join("null"), "").unwrap();
    let owner = Meta {
        uid: 5,
        gid: 6,
        ..Meta::default()
    };
    let capability = [(b"security.capability".to_vec(), b"cap".to_vec())].into();
    let device = meta::Device {
        kind: meta::DeviceKind::Char,
        major: 1,
        minor: 3,
    };
    let mut side = checkout.side_table();
    meta::save_at(
        &root,
        "f",
        &Meta {
            xattrs: capability,
            ..owner.clone()
        },
        &mut side,
    )
    .unwrap();
    meta::save_at(&root, "d", &owner, &mut side).unwrap();
    meta::save_at(&root, "l", &owner, &mut side).unwrap();
    let null = Meta {
        device: Some(device),
        ..Meta::default()
    };
    meta::save_at(&root, "null", &null, &mut side).unwrap();
    let options = CaptureOptions {
        layer: options(),
        side: Some(side),
        ..Default::default()
    };
    let captured = checkout.capture(options).unwrap();
    let before = snapshot(checkout.root_path(), Ids::Emulated, &checkout.side_table());
    drop(checkout);
    let toc = fixture.store.toc(&captured.layer).unwrap();
    let entry = |path: &str| -> Entry {
        toc.entries
            .iter()
            .find(|i| i.entry.path == path.as_bytes())
            .unwrap()
            .entry
            .clone()
    };
    assert_eq!((entry("f").uid, entry("f").gid), (5, 6));
    assert_eq!(
        entry("f").xattrs.get(&b"security.capability"[..]),
        Some(&b"cap".to_vec())
    );
    assert_eq!((entry("d").uid, entry("l").gid), (5, 6));
    assert_eq!(entry("null").kind, Kind::Char { major: 1, minor: 3 });
    assert_eq!(fixture.fresh_snapshot(&[base, captured.layer]), before);
    // The owner of a link changes without a trace on the inode.
    let mut checkout = fixture
        .store
        .checkout(&[base, captured.layer], &())
        .unwrap();
    checkout.begin().unwrap();
    let mut side = checkout.side_table();
    meta::save_at(&root, "l", &Meta::default(), &mut side).unwrap();
    let options = CaptureOptions {
        layer: crate::support::options(),
        side: Some(side),
        ..Default::default()
    };
    let captured = checkout.capture(options).unwrap();
    assert_eq!(names(&fixture.store, &captured.layer), ["l"]);
}

#[test]
fn clamped_times_are_in_the_layer_and_in_the_tree() {
    each_way(|fixture| {
        let mut checkout = fixture.store.checkout(&[], &()).unwrap();
        checkout.begin().unwrap();
        let root = checkout.root_path().to_path_buf();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "x").unwrap();
        fs::hard_link(root.join("d/f"), root.join("d/g")).unwrap();
        let options = || CaptureOptions {
            layer: LayerOptions {
                clamp_mtime: Some(1_000_000),
                ..options()
            },
            ..CaptureOptions::default()
        };
        let captured = checkout.capture(options()).unwrap();
        let toc = fixture.store.toc(&captured.layer).unwrap();
        assert!(
            toc.entries
                .iter()
                .all(|i| i.entry.mtime == Mtime::from_secs(1_000_000))
        );
        let time = fs::metadata(root.join("d/f")).unwrap().modified().unwrap();
        assert_eq!(
            time,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
        );
        checkout.begin().unwrap();
        assert_eq!(checkout.capture(options()).unwrap().entries, 0);
    });
}

#[test]
fn equal_changes_give_equal_layers_in_every_way() {
    let digests: std::cell::RefCell<Vec<_>> = Default::default();
    each_way(|fixture| {
        let base = fixture.layer(&[dir("a"), file("a/x", "1"), file("a/y", "2")]);
        let mut checkout = fixture.store.checkout(&[base], &()).unwrap();
        checkout.begin().unwrap();
        let root = checkout.root_path().to_path_buf();
        if fixture.store.ids() == Ids::Real {
            // Real chowns are seen by the kernel, emulated ones are not.
            std::os::unix::fs::chown(root.join("a/y"), Some(0), Some(0)).unwrap();
        }
        fs::write(root.join("a/x"), "changed").unwrap();
        fs::set_permissions(root.join("a/x"), fs::Permissions::from_mode(0o640)).unwrap();
        let layer = LayerOptions {
            clamp_mtime: Some(1),
            ..options()
        };
        let captured = checkout
            .capture(CaptureOptions {
                layer,
                ..Default::default()
            })
            .unwrap();
        digests.borrow_mut().push(captured.layer);
    });
    let digests = digests.into_inner();
    assert!(digests.windows(2).all(|w| w[0] == w[1]), "{digests:?}");
}
