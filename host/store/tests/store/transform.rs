//! Trees go forward, back and sideways, and always hold what a fresh one would.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use stepwell_image::{Entry, Kind};
use stepwell_store::{Ids, Layer};

use crate::support::{Fixture, Snapshot, dir, each_way, file, hardlink, symlink};

fn base(fixture: &Fixture) -> Layer {
    let mut setuid = file("bin/su", "#!");
    setuid.0.mode = 0o4755;
    (setuid.0.uid, setuid.0.gid) = (0, 42);
    let mut secret = file("etc/shadow", "x");
    secret.0.mode = 0;
    let mut locked = dir("locked");
    locked.0.mode = 0o444;
    locked.0.uid = 1000;
    let mut attributes = file("with-attributes", "y");
    attributes
        .0
        .xattrs
        .insert(b"user.note".to_vec(), b"v".to_vec());
    // VFS_CAP_REVISION_2, CAP_NET_RAW permitted.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    attributes
        .0
        .xattrs
        .insert(b"security.capability".to_vec(), capability.to_vec());
    let mut link = symlink("link", "/etc/shadow");
    (link.0.uid, link.0.gid) = (7, 8);
    let node = |path: &str, kind| (Entry::new(path, kind, 0o620), &b""[..]);
    let mut latin = file("name", "z");
    latin.0.path = b"caf\xe9".to_vec();
    fixture.layer(&[
        dir("bin"),
        setuid,
        dir("etc"),
        secret,
        locked,
        file("locked/inside", "deep"),
        attributes,
        link,
        node("tty", Kind::Char { major: 5, minor: 0 }),
        node(
            "disk",
            Kind::Block {
                major: 259,
                minor: 70000,
            },
        ),
        node("pipe", Kind::Fifo),
        hardlink("other-name", "bin/su"),
        latin,
        file("empty", ""),
    ])
}

fn get<'a>(snapshot: &'a Snapshot, path: &str) -> &'a str {
    &snapshot[std::path::Path::new(path)]
}

#[test]
fn everything_that_a_layer_says_is_on_disk() {
    each_way(|fixture| {
        let layer = base(fixture);
        let snapshot = fixture.snapshot(&[layer]);
        assert_eq!(snapshot.len(), 14);
        assert!(get(&snapshot, "bin/su").contains(" 4755 0:42 1600000000.123456789 "));
        assert!(get(&snapshot, "other-name").ends_with("= bin/su"));
        assert!(get(&snapshot, "locked").starts_with("directory 444 1000:0 1600000000."));
        assert!(get(&snapshot, "etc/shadow").contains(" 0 0:0 "));
        assert!(get(&snapshot, "link").starts_with("link to /etc/shadow 777 7:8 1600000000."));
        assert!(get(&snapshot, "with-attributes").contains("user.note=[118]"));
        assert!(get(&snapshot, "pipe").starts_with("fifo 620"));
        let (attributes, tty) = (get(&snapshot, "with-attributes"), get(&snapshot, "tty"));
        if fixture.store.ids() == Ids::Real {
            assert!(attributes.contains("security.capability=[1, 0, 0, 2"));
        }
        // No step gets a way to a disk with an image.
        assert!(
            tty.starts_with("file") && tty.contains("Char, major: 5, minor: 0"),
            "{tty}"
        );
    });
}

#[test]
fn unpacking_changes_nothing_that_a_capture_sees() {
    each_way(|fixture| {
        let layer = base(fixture);
        let captured = fixture.step(&[layer], |_| {});
        assert_eq!(captured.entries, 0);
        assert_eq!(captured.left_out, []);
    });
}

#[test]
fn back_and_forth() {
    each_way(|fixture| {
        let base = base(fixture);
        let before = fixture.snapshot(&[base]);
        let first = fixture.step(&[base], |root| {
            fs::remove_file(root.join("etc/shadow")).unwrap();
            fs::remove_dir_all(root.join("locked")).unwrap();
            fs::write(root.join("locked"), "now a file").unwrap();
            fs::create_dir_all(root.join("new/deep")).unwrap();
            fs::write(root.join("new/deep/file"), vec![7; 300_000]).unwrap();
            fs::set_permissions(root.join("bin"), fs::Permissions::from_mode(0o700)).unwrap();
        });
        let middle = fixture.snapshot(&[base, first.layer]);
        let second = fixture.step(&[base, first.layer], |root| {
            fs::write(root.join("bin/su"), "patched").unwrap();
            fs::rename(root.join("new"), root.join("moved")).unwrap();
        });
        let chains: [&[Layer]; 3] = [
            &[base],
            &[base, first.layer],
            &[base, first.layer, second.layer],
        ];
        let last = fixture.snapshot(chains[2]);
        for (chain, want) in
            [0, 2, 1, 0, 1, 2, 1, 0].map(|i| (chains[i], [&before, &middle, &last][i]))
        {
            assert_eq!(&fixture.snapshot(chain), want, "{} layers", chain.len());
        }
        assert_eq!(fixture.fresh_snapshot(chains[2]), last);
        let trees = fs::read_dir(fixture.store.directory().join("trees"))
            .unwrap()
            .count();
        assert!(
            trees <= 2,
            "{trees} trees where a new one is hardly ever nearer"
        );
    });
}

#[test]
fn going_back_costs_what_changed() {
    each_way(|fixture| {
        let base = base(fixture);
        let inode = |layers: &[Layer]| {
            let checkout = fixture.store.checkout(layers, &()).unwrap();
            fs::metadata(checkout.root_path().join("with-attributes"))
                .unwrap()
                .ino()
        };
        let before = inode(&[base]);
        let step = fixture.step(&[base], |root| {
            fs::write(root.join("empty"), "no more").unwrap()
        });
        assert_eq!(inode(&[base, step.layer]), before);
        assert_eq!(
            inode(&[base]),
            before,
            "what did not change was not made again"
        );
    });
}

#[test]
fn names_of_one_file_are_told_apart_and_brought_together() {
    each_way(|fixture| {
        let linked = fixture.layer(&[file("a", "same"), hardlink("b", "a")]);
        let apart = fixture.layer(&[file("a", "same"), file("b", "same")]);
        let want_linked = fixture.fresh_snapshot(&[linked]);
        let want_apart = fixture.fresh_snapshot(&[apart]);
        assert_ne!(want_linked, want_apart);
        for _ in 0..2 {
            assert_eq!(fixture.snapshot(&[linked]), want_linked);
            assert_eq!(fixture.snapshot(&[linked, apart]), want_apart);
            assert_eq!(fixture.snapshot(&[linked, apart, linked]), want_linked);
        }
    });
}

#[test]
fn a_tree_whose_step_did_not_end_is_thrown_away() {
    each_way(|fixture| {
        let base = base(fixture);
        let want = fixture.snapshot(&[base]);
        let mut checkout = fixture.store.checkout(&[base], &()).unwrap();
        let first = checkout.root_path().to_path_buf();
        checkout.begin().unwrap();
        fs::write(first.join("empty"), "half of a step").unwrap();
        drop(checkout);
        assert!(!first.exists());
        assert_eq!(fixture.snapshot(&[base]), want);
        // And the way a killed process leaves it: no state, nobody has the lock.
        let checkout = fixture.store.checkout(&[base], &()).unwrap();
        let second = checkout.root_path().to_path_buf();
        fs::remove_file(second.parent().unwrap().join("state")).unwrap();
        drop(checkout);
        let again = fixture.again();
        let third = again.checkout(&[base], &()).unwrap();
        assert_ne!(third.root_path(), second);
    });
}

#[test]
fn after_a_crash_of_the_machine_a_tree_is_compared_first() {
    each_way(|fixture| {
        let base = base(fixture);
        let tamper = |change: &dyn Fn(&std::path::Path)| {
            let checkout = fixture.store.checkout(&[base], &()).unwrap();
            let root = checkout.root_path().to_path_buf();
            drop(checkout);
            let state = root.parent().unwrap().join("state");
            let text = fs::read_to_string(&state).unwrap();
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
            assert!(text.contains(boot.trim()));
            fs::write(&state, text.replace(boot.trim(), "another boot")).unwrap();
            change(&root);
            fixture.store.checkout(&[base], &()).unwrap().root_path() == root
        };
        assert!(tamper(&|_| {}), "what is as the index says is taken");
        assert!(!tamper(
            &|root| fs::write(root.join("empty"), "lost").unwrap()
        ));
    });
}

#[test]
fn readers_share_a_tree_and_writers_do_not() {
    each_way(|fixture| {
        let base = base(fixture);
        let one = fixture.store.checkout_read(&[base], &()).unwrap();
        let two = fixture.store.checkout_read(&[base], &()).unwrap();
        assert_eq!(one.root_path(), two.root_path());
        let alone = fixture.store.checkout(&[base], &()).unwrap();
        assert_ne!(alone.root_path(), one.root_path());
        let three = fixture.store.checkout_read(&[base], &()).unwrap();
        assert_eq!(three.root_path(), one.root_path());
    });
}

/// Holes are made of aligned pieces of 64 KiB, and nothing follows the last one of a file that ends with it.
#[test]
fn a_file_that_ends_in_zeros_is_as_long_as_it_says() {
    each_way(|fixture| {
        let piece = 64 << 10;
        for (data, zeros, more) in [(0, 3, 0), (1, 2, 0), (2, 1, 0), (0, 3, 1), (1, 2, 1)] {
            let mut content = vec![7; data * piece];
            content.resize((data + zeros) * piece, 0);
            content.resize(content.len() + more, 7);
            let size = content.len() as u64;
            let entry = Entry::new("file", Kind::File { size }, 0o644);
            let layer = fixture.layer(&[(entry, &content)]);
            let checkout = fixture.store.checkout(&[layer], &()).unwrap();
            let found = fs::read(checkout.root_path().join("file")).unwrap();
            assert!(found == content, "{data} {zeros} {more}: {}", found.len());
        }
    });
}

#[test]
fn long_zeros_become_holes() {
    each_way(|fixture| {
        let step = fixture.step(&[], |root| {
            let file = fs::File::create(root.join("sparse")).unwrap();
            std::os::unix::fs::FileExt::write_at(&file, b"end", 64 << 20).unwrap();
        });
        assert!(step.layer.size < 1 << 20);
        let other = Fixture::new(fixture.store.ids());
        let blob = fixture.store.blobs().path(&step.layer.digest);
        other.store.blobs().import(&blob, None).unwrap();
        let checkout = other.store.checkout(&[step.layer], &()).unwrap();
        let stat = fs::metadata(checkout.root_path().join("sparse")).unwrap();
        assert_eq!(stat.len(), (64 << 20) + 3);
        assert!(stat.blocks() * 512 < 1 << 20, "{} blocks", stat.blocks());
    });
}
