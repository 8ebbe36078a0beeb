//! What a store says it holds, and how room is made.

use std::fs;
use std::time::{Duration, SystemTime};

use stepwell_model::Digest;
use stepwell_store::{Ids, PruneOptions, Record, StoreError, UsageKind};

use crate::support::{Fixture, file};

fn count(fixture: &Fixture, kind: UsageKind) -> usize {
    fixture
        .store
        .usage()
        .unwrap()
        .items
        .iter()
        .filter(|item| item.kind == kind)
        .count()
}

/// A store with a layer that a record holds, one that none does, a tree of both, and a configuration.
fn filled() -> (Fixture, Digest) {
    let fixture = Fixture::new(Ids::Emulated);
    let held = fixture.layer(&[file("a", "held")]);
    let loose = fixture.layer(&[file("b", "loose")]);
    let key = Digest::of(b"key");
    let record = Record {
        layers: vec![held],
        summary: "RUN make".into(),
        slot: Some("slot".into()),
        ..Record::default()
    };
    fixture.store.records().put(&key, &record).unwrap();
    fixture.store.blobs().put(b"{}").unwrap();
    drop(fixture.store.checkout(&[held, loose], &()).unwrap());
    (fixture, key)
}

#[test]
fn everything_is_listed() {
    let (fixture, key) = filled();
    let items = fixture.store.usage().unwrap().items;
    let record = items.iter().find(|i| i.kind == UsageKind::Record).unwrap();
    assert_eq!(
        (record.id.clone(), &record.summary[..]),
        (key.to_string(), "RUN make")
    );
    let tree = items.iter().find(|i| i.kind == UsageKind::Tree).unwrap();
    assert_eq!((tree.size, tree.in_use), (9, false));
    assert_eq!(count(&fixture, UsageKind::Layer), 2);
    assert_eq!(count(&fixture, UsageKind::Blob), 1);
}

#[test]
fn what_can_be_made_again_goes_first_and_all_with_all() {
    let (fixture, key) = filled();
    let pruned = fixture.store.prune(&PruneOptions::default()).unwrap();
    assert!(!pruned.others_at_work);
    let kinds: Vec<_> = pruned.removed.iter().map(|i| i.kind).collect();
    assert!(
        kinds.len() == 2 && kinds.contains(&UsageKind::Tree) && kinds.contains(&UsageKind::Layer)
    );
    let record = fixture.store.records().get(&key).unwrap();
    assert!(fixture.store.has_layers(&record.layers));
    drop(fixture.store.checkout(&record.layers, &()).unwrap());
    fixture
        .store
        .prune(&PruneOptions {
            all: true,
            ..Default::default()
        })
        .unwrap();
    let rest = fixture.store.usage().unwrap().items;
    assert!(
        rest.iter().all(|i| i.kind == UsageKind::Temporary),
        "{rest:?}"
    );
    assert_eq!(fixture.store.records().latest("slot"), None);
    let error = fixture.store.checkout(&record.layers, &()).unwrap_err();
    assert!(matches!(error, StoreError::MissingBlob { .. }), "{error}");
}

#[test]
fn what_is_used_or_new_stays() {
    let (fixture, key) = filled();
    let everything = PruneOptions {
        all: true,
        ..PruneOptions::default()
    };
    let young = PruneOptions {
        older_than: Some(Duration::from_secs(3600)),
        ..everything
    };
    assert_eq!(fixture.store.prune(&young).unwrap().items, 0);
    let other = fixture.again();
    let layers = other.records().get(&key).unwrap().layers;
    let checkout = other.checkout(&layers, &()).unwrap();
    let pruned = fixture.store.prune(&everything).unwrap();
    assert!(pruned.others_at_work);
    assert!(
        checkout.root_path().join("a").exists(),
        "a tree in use stays"
    );
    assert!(other.has_layers(&layers), "what others may rely on stays");
    // Used longer ago than any build takes.
    let blob = other.blobs().path(&layers[0].digest);
    let old = SystemTime::now() - 2 * stepwell_store::prune::LEASE;
    for path in [
        blob,
        fixture.store.directory().join("records").join(key.hex()),
    ] {
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    fixture.store.prune(&everything).unwrap();
    assert!(!other.has_layers(&layers));
    assert_eq!(
        other.records().get(&key),
        None,
        "no record without its layers"
    );
}

#[test]
fn the_longest_unused_goes_until_enough_is_free() {
    let fixture = Fixture::new(Ids::Emulated);
    let blobs: Vec<_> = (0..4u8)
        .map(|n| fixture.store.blobs().put(&[n; 1000]).unwrap())
        .collect();
    for (age, digest) in blobs.iter().enumerate() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + age as u64);
        let path = fixture.store.blobs().path(digest);
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    let options = PruneOptions {
        keep_bytes: Some(2_500),
        ..PruneOptions::default()
    };
    assert_eq!(fixture.store.prune(&options).unwrap().bytes, 2000);
    let left: Vec<_> = blobs
        .iter()
        .map(|d| fixture.store.blobs().has(d, None))
        .collect();
    assert_eq!(left, [false, false, true, true]);
}
