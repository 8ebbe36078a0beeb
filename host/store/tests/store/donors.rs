//! Trees whose files share their content with those of another tree, where the file system has that (xfs, btrfs): `cargo xtask
//! file-systems` runs these tests there.  A layer whose blob is gone shows that nothing was read from it.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use stepwell_image::{Entry, Kind};
use stepwell_store::{Layer, Result};

use crate::support::{
    Fixture, Snapshot, capture, dir, each_way, file, hardlink, snapshot, symlink,
};

/// Says whether files can share extents where the store is; tells it where not.
fn shares(fixture: &Fixture) -> bool {
    let magic = rustix::fs::statfs(fixture.dir.path()).unwrap().f_type;
    let shares = [0x5846_5342, 0x9123_683e].contains(&magic);
    if !shares {
        println!("NOT RUN: sharing of contents, which this file system does not have");
    }
    shares
}

/// A layer with all kinds of entries, and files of many lengths.
fn base(fixture: &Fixture) -> Layer {
    let large: Vec<Vec<u8>> = (0..40usize)
        .map(|n| (0..1 + n * n * 250).map(|i| (i / 7 + n) as u8).collect())
        .collect();
    let zeroes = vec![0; 300_000];
    let regular = |path: String, content: &[u8], mode| {
        let size = content.len() as u64;
        Entry::new(path, Kind::File { size }, mode)
    };
    let mut entries = vec![dir("d"), file("d/small", "small"), file("d/empty", "")];
    entries.extend([hardlink("d/other", "d/small"), symlink("d/link", "small")]);
    for (number, content) in large.iter().enumerate() {
        let mut entry = regular(
            format!("d/{number}"),
            content,
            [0o644, 0o4755, 0][number % 3],
        );
        (entry.uid, entry.gid) = (number as u32 % 4, 7);
        if number % 5 == 0 {
            entry.xattrs.insert(b"user.of".to_vec(), vec![number as u8]);
        }
        entries.push((entry, content));
    }
    entries.push((regular("zeroes".to_owned(), &zeroes, 0o600), &zeroes));
    fixture.layer(&entries)
}

/// What a tree of these layers holds, if one can be made.
fn made(fixture: &Fixture, layers: &[Layer]) -> Result<Snapshot> {
    let checkout = fixture.store.checkout(layers, &())?;
    let side = checkout.side_table();
    Ok(snapshot(checkout.root_path(), fixture.store.ids(), &side))
}

fn forget_blob(fixture: &Fixture, layer: &Layer) {
    fs::remove_file(fixture.store.blobs().path(&layer.digest)).unwrap();
}

/// Asserts that a tree is made without the blobs that are gone, where contents can be shared, and is not made where not.
fn is_made_without(fixture: &Fixture, layers: &[Layer], want: &Snapshot) {
    match made(fixture, layers) {
        Ok(found) if shares(fixture) => assert_eq!(&found, want),
        Err(error) if !shares(fixture) => assert!(error.is_missing(), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tree_in_use_gives_its_contents_to_another() {
    each_way(|fixture| {
        let base = base(fixture);
        let want = fixture.fresh_snapshot(&[base]);
        let first = fixture.store.checkout(&[base], &()).unwrap();
        forget_blob(fixture, &base);
        is_made_without(fixture, &[base], &want);
        // The second one may be idle now; it is no more.
        let second = fixture.store.checkout(&[base], &());
        assert_eq!(second.is_ok(), shares(fixture));
        drop(first);
    });
}

#[test]
fn a_tree_that_is_read_gives_its_contents() {
    each_way(|fixture| {
        let base = base(fixture);
        let want = fixture.fresh_snapshot(&[base]);
        let _first = fixture.store.checkout_read(&[base], &()).unwrap();
        forget_blob(fixture, &base);
        is_made_without(fixture, &[base], &want);
    });
}

#[test]
fn a_tree_that_a_step_changes_gives_what_it_was() {
    each_way(|fixture| {
        let base = base(fixture);
        let want = fixture.fresh_snapshot(&[base]);
        let mut first = fixture.store.checkout(&[base], &()).unwrap();
        first.begin().unwrap();
        fs::write(first.root_path().join("new"), "new").unwrap();
        forget_blob(fixture, &base);
        is_made_without(fixture, &[base], &want);
        // The first one has lost nothing by that.
        assert_eq!(capture(&mut first).entries, 1);
    });
}

#[test]
fn what_no_tree_has_comes_from_its_layer() {
    each_way(|fixture| {
        let base = base(fixture);
        let top = fixture.layer(&[file("d/small", "other"), file("top", "top")]);
        let want = fixture.fresh_snapshot(&[base, top]);
        let mut first = fixture.store.checkout(&[base], &()).unwrap();
        first.begin().unwrap();
        forget_blob(fixture, &base);
        is_made_without(fixture, &[base, top], &want);
    });
}

/// Changes of a file with length and times kept, each by its name: what a step could do so that it is not seen.
type Change = fn(&Path);

const CHANGES: &[(&str, Change)] = &[
    ("a write", |path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(b"x", 0).unwrap();
    }),
    ("another file in its place", |path| {
        let content = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        fs::write(path, vec![b'x'; content.len()]).unwrap();
    }),
    ("another file renamed over it", |path| {
        let content = fs::read(path).unwrap();
        let other = path.with_extension("other");
        fs::write(&other, vec![b'x'; content.len()]).unwrap();
        fs::rename(other, path).unwrap();
    }),
    ("its neighbour under its name", |path| {
        fs::rename(path.with_file_name("29"), path).unwrap();
    }),
    ("a link to its neighbour", |path| {
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink("29", path).unwrap();
    }),
    ("a pipe", |path| {
        fs::remove_file(path).unwrap();
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    }),
    ("another directory above it", |path| {
        let parent = path.parent().unwrap();
        fs::rename(parent, parent.with_extension("away")).unwrap();
        fs::create_dir(parent).unwrap();
        fs::write(path, "x").unwrap();
    }),
];

#[test]
fn no_change_of_a_running_step_is_in_another_tree() {
    for (what, change) in CHANGES {
        each_way(|fixture| {
            let base = base(fixture);
            let want = fixture.fresh_snapshot(&[base]);
            let mut first = fixture.store.checkout(&[base], &()).unwrap();
            first.begin().unwrap();
            let path = first.root_path().join("d/30");
            let before = path.metadata().unwrap();
            change(&path);
            if path.symlink_metadata().unwrap().is_file() {
                set_mtime(&path, &before);
            }
            // Nobody has it: then there is no tree, and not a wrong one.
            let blob = fixture.store.blobs().path(&base.digest);
            let away = blob.with_extension("away");
            fs::rename(&blob, &away).unwrap();
            let missing = made(fixture, &[base]).unwrap_err();
            assert!(missing.is_missing(), "{what}: {missing}");
            fs::rename(&away, &blob).unwrap();
            assert_eq!(made(fixture, &[base]).unwrap(), want, "{what}");
        });
    }
}

fn set_mtime(path: &Path, to: &fs::Metadata) {
    let time = Timespec {
        tv_sec: to.mtime(),
        tv_nsec: to.mtime_nsec(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

/// Which files are cloned before they are written is the machine's business; what is cloned is not.
#[test]
fn a_step_may_write_while_another_tree_is_made() {
    each_way(|fixture| {
        let base = base(fixture);
        let want = fixture.fresh_snapshot(&[base]);
        for _ in 0..4 {
            let mut first = fixture.store.checkout(&[base], &()).unwrap();
            first.begin().unwrap();
            let (root, done) = (first.root_path().to_path_buf(), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in (0..40).rev().cycle() {
                        let file = fs::File::options()
                            .write(true)
                            .open(root.join(format!("d/{number}")))
                            .unwrap();
                        file.write_all_at(b"changed", 0).unwrap();
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
                let found = made(fixture, &[base]);
                done.store(true, Ordering::Relaxed);
                assert_eq!(found.unwrap(), want);
            });
        }
    });
}
