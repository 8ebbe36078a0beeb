//! Many processes in one store, and processes that are killed.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use stepwell_image::{Entry, Kind};
use stepwell_store::{Ids, Layer, Store, StoreOptions};

use crate::support::{Fixture, capture, options, snapshot};

/// Set for the processes that tests start: the store's directory.
const STORE: &str = "STEPWELL_STORE_TEST_DIR";

fn base(store: &Store) -> Layer {
    let mut sink = store.layer_sink(options()).unwrap();
    for number in 0..200 {
        let entry = Entry::new(format!("file-{number}"), Kind::File { size: 1000 }, 0o644);
        sink.add(&entry, Some(&mut &[number as u8; 1000][..]))
            .unwrap();
    }
    sink.finish().unwrap()
}

/// A build in small: a base, a step that always does the same, a check.
fn build(store: &Store) -> Layer {
    let base = base(store);
    let mut checkout = store.checkout(&[base], &()).unwrap();
    checkout.begin().unwrap();
    let root = checkout.root_path().to_path_buf();
    for number in 0..50 {
        fs::remove_file(root.join(format!("file-{number}"))).unwrap();
        fs::write(root.join(format!("new-{number}")), vec![1; 50_000]).unwrap();
    }
    let layer = stepwell_store::LayerOptions {
        clamp_mtime: Some(1),
        ..options()
    };
    let options = stepwell_store::CaptureOptions {
        layer,
        ..Default::default()
    };
    checkout.capture(options).unwrap().layer
}

/// Not a test of its own: what [`killed_at_any_moment`] and [`ten_processes_at_once`] start.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(STORE) else {
        return;
    };
    let store = Store::open(dir.as_ref(), StoreOptions::new(Ids::Emulated)).unwrap();
    let layer = build(&store);
    fs::write(
        std::path::Path::new(&dir).join("result"),
        layer.digest.to_string(),
    )
    .unwrap();
}

fn start(dir: &std::path::Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "concurrent::child"])
        .env(STORE, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn killed_at_any_moment() {
    let fixture = Fixture::new(Ids::Emulated);
    let dir = fixture.dir.path().join("store");
    let want = build(&Fixture::new(Ids::Emulated).store);
    let want_tree = {
        let base = base(&fixture.store);
        let layer = build(&fixture.store);
        fixture.snapshot(&[base, layer])
    };
    for round in 0..40u64 {
        let mut child = start(&dir);
        std::thread::sleep(Duration::from_micros(2_000 + round * 1_300));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(build(&fixture.store), want, "round {round}");
    }
    let base = base(&fixture.store);
    assert_eq!(fixture.snapshot(&[base, want]), want_tree);
    let checkout = fixture.store.checkout(&[base, want], &()).unwrap();
    let found = snapshot(checkout.root_path(), Ids::Emulated, &checkout.side_table());
    assert_eq!(found, want_tree);
}

#[test]
fn ten_processes_at_once() {
    let fixture = Fixture::new(Ids::Emulated);
    let dir = fixture.dir.path().join("store");
    let children: Vec<_> = (0..10).map(|_| start(&dir)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let want = build(&Fixture::new(Ids::Emulated).store);
    assert_eq!(
        fs::read_to_string(dir.join("result")).unwrap(),
        want.digest.to_string()
    );
    let again = fixture.again();
    let mut checkout = again.checkout(&[base(&again), want], &()).unwrap();
    checkout.begin().unwrap();
    assert_eq!(capture(&mut checkout).entries, 0);
}

#[test]
fn threads_of_one_process_get_trees_of_their_own() {
    let fixture = Fixture::new(Ids::Emulated);
    let layers: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| build(&fixture.store)))
            .collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    assert!(layers.windows(2).all(|w| w[0] == w[1]));
}
