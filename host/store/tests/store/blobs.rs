//! Blobs and cache records.

use std::fs;
use std::io::Write as _;

use stepwell_model::Digest;
use stepwell_store::{Compression, Ids, LayerOptions, Record, StoreError};

use crate::support::{Fixture, file};

fn tmp_files(fixture: &Fixture) -> usize {
    let tmp = fixture.store.directory().join("tmp");
    let corners = fs::read_dir(tmp)
        .unwrap()
        .flatten()
        .filter(|e| e.path().is_dir());
    corners
        .map(|corner| fs::read_dir(corner.path()).unwrap().count())
        .sum()
}

#[test]
fn a_blob_is_what_was_expected_or_is_not_there() {
    let fixture = Fixture::new(Ids::Emulated);
    let blobs = fixture.store.blobs();
    let digest = Digest::of(b"hello");
    let write = |expected| {
        let mut writer = blobs.writer().unwrap();
        writer.write_all(b"hello").unwrap();
        writer.commit(expected)
    };
    assert!(matches!(
        write(Some((Digest::of(b"x"), 5))),
        Err(StoreError::Digest { .. })
    ));
    assert!(matches!(
        write(Some((digest, 6))),
        Err(StoreError::Size { .. })
    ));
    drop(blobs.writer().unwrap());
    assert!(!blobs.has(&digest, None));
    assert_eq!(tmp_files(&fixture), 0, "nothing half-written stays");
    assert_eq!(write(Some((digest, 5))).unwrap(), (digest, 5));
    assert_eq!(write(None).unwrap(), (digest, 5));
    assert_eq!(tmp_files(&fixture), 0);
    assert_eq!(blobs.read(&digest, 5).unwrap(), b"hello");
    assert!(blobs.read(&digest, 4).is_err());
    let missing = blobs.open(&Digest::of(b"no"), None).unwrap_err();
    assert!(missing.is_missing(), "{missing}");
}

#[test]
fn a_blob_that_lost_bytes_is_not_taken() {
    let fixture = Fixture::new(Ids::Emulated);
    let digest = fixture.store.blobs().put(b"hello").unwrap();
    fs::write(fixture.store.blobs().path(&digest), b"hel").unwrap();
    assert!(!fixture.store.blobs().has(&digest, Some(5)));
    assert!(matches!(
        fixture.store.blobs().open(&digest, Some(5)),
        Err(StoreError::Size { .. })
    ));
    assert!(matches!(
        fixture.store.blobs().read(&digest, 9),
        Err(StoreError::Digest { .. })
    ));
    fixture.store.blobs().put(b"hello").unwrap();
    assert_eq!(fixture.store.blobs().read(&digest, 9).unwrap(), b"hello");
}

#[test]
fn records_come_back_and_slots_know_the_latest() {
    let fixture = Fixture::new(Ids::Emulated);
    let records = fixture.store.records();
    let (first, second) = (Digest::of(b"1"), Digest::of(b"2"));
    assert_eq!(records.get(&first), None);
    let record = Record {
        layers: vec![fixture.layer(&[file("a", "x")])],
        created: 7,
        summary: "RUN make".into(),
        slot: Some("Dockerfile/build/2".into()),
        preimage: vec![("operation".into(), "make".into())],
        millis: 12,
        extra: [("a".to_owned(), "b".to_owned())].into(),
    };
    records.put(&first, &record).unwrap();
    let changed = Record {
        summary: "RUN make all".into(),
        ..record.clone()
    };
    records.put(&second, &changed).unwrap();
    let store = fixture.again();
    assert_eq!(store.records().get(&first), Some(record.clone()));
    assert_eq!(
        store.records().latest("Dockerfile/build/2"),
        Some((second, changed))
    );
    assert_eq!(store.records().latest("elsewhere"), None);
    let path = store.directory().join("records").join(first.hex());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert_eq!(
        store.records().get(&first),
        None,
        "a damaged record is as good as none"
    );
}

#[test]
fn a_layer_in_another_compression_is_the_same_tar() {
    let fixture = Fixture::new(Ids::Emulated);
    let layer = fixture.layer(&[file("a", "some text"), file("b", "more")]);
    for compression in [
        Compression::Zstd,
        Compression::Uncompressed,
        Compression::Gzip,
    ] {
        let options = LayerOptions {
            compression,
            threads: 1,
            ..LayerOptions::default()
        };
        let other = fixture.store.layer_in(&layer, &options).unwrap();
        assert_eq!(
            (other.diff_id, other.compression),
            (layer.diff_id, compression)
        );
        assert_eq!(fixture.store.layer_in(&layer, &options).unwrap(), other);
        assert!(fixture.store.has_layers(&[other]));
    }
    let stronger = LayerOptions {
        level: Some(9),
        threads: 1,
        ..LayerOptions::default()
    };
    fixture
        .store
        .layer_in(
            &fixture.store.find_layer(&layer.diff_id).unwrap(),
            &stronger,
        )
        .unwrap();
}
