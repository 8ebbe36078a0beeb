//! Work that is given up ends soon, as any failure does: nothing of it stays, and the store goes on.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stepwell_image::{Entry, Kind};
use stepwell_store::{Layer, Store, StoreError};

use crate::support::{Fixture, each_way, file, options};

/// How many files a layer has of which only some may be made once the work was given up.
const MANY: usize = 400;

/// A layer of many files of `content` each.
fn many(fixture: &Fixture, content: &'static str) -> Layer {
    let entries: Vec<_> = (0..MANY)
        .map(|n| {
            let (mut entry, bytes) = file("f", content);
            entry.path = format!("f{n:04}").into_bytes();
            (entry, bytes)
        })
        .collect();
    fixture.layer(&entries)
}

fn flag(store: &Store) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    store.heed(flag.clone());
    flag
}

fn is_given_up<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Interrupted))
}

#[test]
fn unpacking_ends_in_the_middle() {
    each_way(|fixture| {
        let (store, layer) = (&fixture.store, many(fixture, "content"));
        let given_up = flag(store);
        // As soon as something is in the tree.
        let give_up = |done: u64, _| {
            if done > 0 {
                given_up.store(true, Ordering::SeqCst);
            }
        };
        assert!(is_given_up(store.checkout(&[layer], &give_up)));
        flag(store);
        let tree = store.checkout(&[layer], &()).expect("the next one");
        assert_eq!(
            std::fs::read_dir(tree.root_path()).expect("list").count(),
            MANY
        );
    });
}

#[test]
fn empty_files_and_deletion_are_given_up_too() {
    each_way(|fixture| {
        let (store, layer) = (&fixture.store, many(fixture, ""));
        let given_up = flag(store);
        given_up.store(true, Ordering::SeqCst);
        assert!(is_given_up(store.checkout(&[layer], &())));
        flag(store);
        // Nothing is read or made when a layer is taken back.
        let more = fixture.layer(&[file("more", "")]);
        drop(store.checkout(&[layer, more], &()).expect("the tree"));
        flag(store).store(true, Ordering::SeqCst);
        assert!(is_given_up(store.checkout(&[layer], &())));
    });
}

/// Sets the flag after its first bytes, and never ends.
struct Endless(Arc<AtomicBool>);

impl Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.store(true, Ordering::SeqCst);
        // Not so even that a whole tebibyte would compress to one buffer.
        for (n, byte) in buf.iter_mut().enumerate() {
            *byte = (n * n / 7) as u8;
        }
        Ok(buf.len())
    }
}

#[test]
fn a_layer_that_is_written_and_one_that_is_compressed_anew_end() {
    let fixture = Fixture::new(stepwell_store::Ids::Emulated);
    let store = &fixture.store;
    let layer = many(&fixture, "content");
    let mut endless = Endless(flag(store));
    let mut sink = store.layer_sink(options()).expect("a sink");
    let entry = Entry::new("endless", Kind::File { size: 60 << 30 }, 0o644);
    assert!(is_given_up(sink.add(&entry, Some(&mut endless))));
    drop(sink);
    let mut other = options();
    other.compression = stepwell_store::Compression::Uncompressed;
    assert!(is_given_up(store.layer_in(&layer, &other)));
    flag(store);
    store.layer_in(&layer, &other).expect("the next one");
}
