//! Layers that want out: nothing is ever written outside a tree.

use std::fs;
use std::io::Write as _;

use stepwell_image::{Entry, Kind};
use stepwell_model::Digest;
use stepwell_store::{Compression, Ids, StoreError};

use crate::support::{Fixture, dir, each_way, file, hardlink, symlink};

#[test]
fn links_do_not_lead_out_of_the_tree() {
    each_way(|fixture| {
        let outside = fixture.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("victim"), "safe").unwrap();
        let target = outside.to_str().unwrap();
        let inner = target.trim_start_matches('/');
        let escape = fixture.foreign(&[
            symlink("abs", target),
            file("abs/victim", "overwritten"),
            symlink("up", "../../../../../../../../../../.."),
            (
                Entry::new(format!("up/{inner}/created"), Kind::File { size: 3 }, 0o644),
                b"bad",
            ),
        ]);
        let second = fixture.foreign(&[
            file("abs/second", "x"),
            (Entry::new("abs/.wh.victim", Kind::File { size: 0 }, 0), b""),
        ]);
        let checkout = fixture.store.checkout(&[escape, second], &()).unwrap();
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "safe");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        let inside = checkout.root_path().join(inner);
        assert!(!inside.join("victim").exists());
        assert_eq!(fs::read_to_string(inside.join("second")).unwrap(), "x");
        assert_eq!(fs::read_to_string(inside.join("created")).unwrap(), "bad");
        drop(checkout);
        // And back: nothing outside is removed either.
        drop(fixture.store.checkout(&[], &()).unwrap());
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "safe");
    });
}

#[test]
fn a_directory_is_not_followed_when_it_became_a_link() {
    each_way(|fixture| {
        let outside = fixture.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("x"), "safe").unwrap();
        let base = fixture.layer(&[dir("d"), file("d/x", "in the image")]);
        let step = fixture.step(&[base], |root| {
            fs::remove_dir_all(root.join("d")).unwrap();
            std::os::unix::fs::symlink(&outside, root.join("d")).unwrap();
        });
        drop(fixture.store.checkout(&[base], &()).unwrap());
        drop(fixture.store.checkout(&[base, step.layer], &()).unwrap());
        drop(fixture.store.checkout(&[], &()).unwrap());
        assert_eq!(fs::read_to_string(outside.join("x")).unwrap(), "safe");
    });
}

#[test]
fn what_cannot_be_is_refused() {
    each_way(|fixture| {
        let loops = fixture.foreign(&[symlink("a", "b"), symlink("b", "a"), file("a/x", "y")]);
        let nowhere = fixture.foreign(&[hardlink("x", "etc/shadow")]);
        let to_dir = fixture.foreign(&[dir("d"), hardlink("x", "d")]);
        let mut root = file("x", "");
        root.0.path = Vec::new();
        for (layer, want) in [
            (loops, "too many symbolic links"),
            (nowhere, "not there"),
            (to_dir, "directory"),
        ] {
            let error = fixture.store.checkout(&[layer], &()).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
        }
        let trees = fs::read_dir(fixture.store.directory().join("trees"))
            .unwrap()
            .count();
        assert_eq!(trees, 0, "no half tree stays");
    });
}

#[test]
fn a_wrong_diff_id_is_found_before_anything_is_unpacked() {
    let fixture = Fixture::new(Ids::Emulated);
    let honest = fixture.layer(&[file("a", "x")]);
    let blob = fs::read(fixture.store.blobs().path(&honest.digest)).unwrap();
    let liar = fixture.adopt(Digest::of(b"something else"), &blob);
    let error = fixture.store.checkout(&[liar], &()).unwrap_err();
    assert!(matches!(error, StoreError::NotTheLayer { .. }), "{error}");
}

#[test]
fn a_blob_that_claims_another_layers_diff_id_does_not_stand_in_for_it() {
    let other = Fixture::new(Ids::Emulated);
    let evil = other.layer(&[file("a", "evil")]);
    let evil = fs::read(other.store.blobs().path(&evil.digest)).unwrap();
    let fixture = Fixture::new(Ids::Emulated);
    let honest = fixture.layer(&[file("a", "good")]);
    // Same names, same sizes: the honest layer's table of contents fits.
    let liar = fixture.adopt(honest.diff_id, &evil);
    let is_refused = |result: Result<(), StoreError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::NotTheLayer { .. }), "{error}");
    };
    is_refused(fixture.store.checkout(&[liar], &()).map(drop));
    is_refused(fixture.store.toc(&liar).map(drop));
    is_refused(fixture.store.chain_view(&[liar]).map(drop));
    // Nor is it found when any blob of the layer will do.
    fs::remove_file(fixture.store.blobs().path(&honest.digest)).unwrap();
    assert!(fixture.store.find_layer(&honest.diff_id).is_err());
    let again = Fixture::new(Ids::Emulated);
    let liar = again.adopt(honest.diff_id, &evil);
    assert!(again.store.find_layer(&liar.diff_id).is_err());
    // Another blob of the same tar is as good.
    let twin = other.foreign(&[file("a", "evil")]);
    assert_eq!(other.snapshot(&[twin]), other.snapshot(&[twin]));
    assert!(other.store.find_layer(&twin.diff_id).is_ok());
}

#[test]
fn damaged_archives_are_errors() {
    let fixture = Fixture::new(Ids::Emulated);
    let honest = fixture.layer(&[file("a", "some content"), file("b", "more content")]);
    let blob = fs::read(fixture.store.blobs().path(&honest.digest)).unwrap();
    for cut in [0, 1, 10, blob.len() / 2, blob.len() - 1] {
        let other = Fixture::new(Ids::Emulated);
        let layer = other.adopt(honest.diff_id, &blob[..cut]);
        assert!(other.store.checkout(&[layer], &()).is_err(), "cut at {cut}");
    }
    let mut writer = fixture.store.blobs().writer().unwrap();
    writer.write_all(&[0x42; 5000]).unwrap();
    let (digest, size) = writer.commit(None).unwrap();
    let junk = fixture
        .store
        .adopt_layer(Digest::of(b"junk"), digest, size, Compression::Gzip)
        .unwrap();
    assert!(fixture.store.toc(&junk).is_err());
}

#[test]
fn deep_directories_are_refused_and_can_be_removed() {
    each_way(|fixture| {
        let mut checkout = fixture.store.checkout(&[], &()).unwrap();
        checkout.begin().unwrap();
        let root = checkout.root_path().to_path_buf();
        // Deeper than any path can say, made as a step can make it: one level at a time.
        let mut at = checkout.root_dir().try_clone().unwrap();
        let name = "d".repeat(100);
        for _ in 0..200 {
            at.create_dir(&name).unwrap();
            at = at.open_dir(&name).unwrap();
        }
        drop(at);
        let options = stepwell_store::CaptureOptions::default();
        let error = checkout.capture(options).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        drop(checkout);
        assert!(!root.exists());
        let tmp = fixture.store.directory().join("tmp");
        for _ in 0..200 {
            let left = fs::read_dir(&tmp)
                .unwrap()
                .flatten()
                .filter(|e| e.path().is_dir());
            if left
                .map(|c| fs::read_dir(c.path()).unwrap().count())
                .sum::<usize>()
                == 0
            {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("the discarded tree is still there");
    });
}
