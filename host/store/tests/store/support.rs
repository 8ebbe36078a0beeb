//! Stores in temporary directories, layers from lists of entries, and what a tree holds as comparable text.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use stepwell_image::{Entry, Kind, LayerOptions, Mtime};
use stepwell_model::Digest;
use stepwell_store::{
    CaptureOptions, Captured, Checkout, Compression, Ids, Layer, Store, StoreOptions,
};
use stepwell_sys::meta::{self, InodeId, SideTable};

/// A store that is removed with the value.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

/// Says whether this process is root of the machine, not of a namespace of its own.
pub fn is_real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && map.split_whitespace().nth(2) == Some("4294967295")
}

/// Runs a test in every way that owners can be held here.
///
/// An ordinary user may not look into what a layer locks: for one, `fake_root` runs all tests in a user namespace, as the
/// program does.
pub fn each_way(test: impl Fn(&Fixture)) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if is_real_root() {
        test(&Fixture::new(Ids::Real));
    }
    test(&Fixture::new(Ids::Emulated));
}

impl Fixture {
    pub fn new(ids: Ids) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("stepwell-store-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let store = Store::open(&dir.path().join("store"), StoreOptions::new(ids)).unwrap();
        Self { dir, store }
    }

    /// Opens the same store once more, as another process would.
    pub fn again(&self) -> Store {
        Store::open(
            &self.dir.path().join("store"),
            StoreOptions::new(self.store.ids()),
        )
        .unwrap()
    }

    pub fn layer(&self, entries: &[(Entry, &[u8])]) -> Layer {
        let mut sink = self.store.layer_sink(options()).unwrap();
        for (entry, content) in entries {
            match entry.kind {
                Kind::File { size } if size > 0 => sink.add(entry, Some(&mut &content[..])),
                _ => sink.add(entry, None),
            }
            .unwrap();
        }
        sink.finish().unwrap()
    }

    /// A layer with whatever entries, as a registry may send it: without our own sink's and store's knowledge.
    pub fn foreign(&self, entries: &[(Entry, &[u8])]) -> Layer {
        let mut writer = stepwell_image::LayerWriter::new(Vec::new(), options()).unwrap();
        for (entry, content) in entries {
            let mut content = &content[..];
            let content: Option<&mut dyn std::io::Read> =
                (!content.is_empty()).then_some(&mut content as _);
            writer.add_raw(entry, content).unwrap();
        }
        let written = writer.finish().unwrap();
        self.adopt(written.diff_id, &written.out)
    }

    pub fn adopt(&self, diff_id: Digest, blob: &[u8]) -> Layer {
        let digest = self.store.blobs().put(blob).unwrap();
        let size = blob.len() as u64;
        self.store
            .adopt_layer(diff_id, digest, size, Compression::Gzip)
            .unwrap()
    }

    /// Checks out, changes, captures.
    pub fn step(&self, layers: &[Layer], change: impl FnOnce(&Path)) -> Captured {
        let mut checkout = self.store.checkout(layers, &()).unwrap();
        checkout.begin().unwrap();
        change(checkout.root_path());
        capture(&mut checkout)
    }

    /// What a tree of these layers holds.
    pub fn snapshot(&self, layers: &[Layer]) -> Snapshot {
        let checkout = self.store.checkout(layers, &()).unwrap();
        snapshot(
            checkout.root_path(),
            self.store.ids(),
            &checkout.side_table(),
        )
    }

    /// What a tree of these layers holds that is unpacked from nothing.
    pub fn fresh_snapshot(&self, layers: &[Layer]) -> Snapshot {
        let other = Fixture::new(self.store.ids());
        for layer in layers {
            let blob = self.store.blobs().path(&layer.digest);
            other
                .store
                .blobs()
                .import(&blob, Some((layer.digest, layer.size)))
                .unwrap();
        }
        other.snapshot(layers)
    }
}

pub fn options() -> LayerOptions {
    LayerOptions {
        threads: 1,
        ..LayerOptions::default()
    }
}

pub fn capture(checkout: &mut Checkout<'_>) -> Captured {
    checkout
        .capture(CaptureOptions {
            layer: options(),
            ..CaptureOptions::default()
        })
        .unwrap()
}

pub fn file(path: &str, content: &'static str) -> (Entry, &'static [u8]) {
    let kind = Kind::File {
        size: content.len() as u64,
    };
    (with_time(Entry::new(path, kind, 0o644)), content.as_bytes())
}

pub fn dir(path: &str) -> (Entry, &'static [u8]) {
    (with_time(Entry::new(path, Kind::Dir, 0o755)), b"")
}

pub fn symlink(path: &str, target: &str) -> (Entry, &'static [u8]) {
    let kind = Kind::Symlink {
        target: target.into(),
    };
    (with_time(Entry::new(path, kind, 0o777)), b"")
}

pub fn hardlink(path: &str, target: &str) -> (Entry, &'static [u8]) {
    let kind = Kind::Hardlink {
        target: target.into(),
    };
    (with_time(Entry::new(path, kind, 0o644)), b"")
}

fn with_time(entry: Entry) -> Entry {
    Entry {
        mtime: Mtime {
            secs: 1_600_000_000,
            nanos: 123_456_789,
        },
        ..entry
    }
}

/// Names of the entries of a layer, whiteouts included, in order.
pub fn names(store: &Store, layer: &Layer) -> Vec<String> {
    let toc = store.toc(layer).unwrap();
    let name = |e: &Entry| {
        let path = String::from_utf8_lossy(&e.path).into_owned();
        match &e.kind {
            Kind::Dir => format!("{path}/"),
            Kind::Hardlink { target } => format!("{path} -> {}", String::from_utf8_lossy(target)),
            _ => path,
        }
    };
    toc.entries.iter().map(|item| name(&item.entry)).collect()
}

/// Everything about a tree that a layer can say, by path.
pub type Snapshot = BTreeMap<PathBuf, String>;

pub fn snapshot(root: &Path, ids: Ids, side: &SideTable) -> Snapshot {
    let mut found = Snapshot::new();
    let mut first_names = BTreeMap::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let mut names: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        names.sort();
        for path in names {
            let relative = path.strip_prefix(root).unwrap().to_path_buf();
            if path.symlink_metadata().unwrap().is_dir() {
                dirs.push(path.clone());
            }
            found.insert(relative, describe(&path, ids, side));
        }
    }
    let paths: Vec<_> = found.keys().cloned().collect();
    for path in paths {
        let stat = root.join(&path).symlink_metadata().unwrap();
        if !stat.is_dir() && stat.nlink() > 1 {
            let first = first_names
                .entry(stat.ino())
                .or_insert_with(|| path.clone())
                .clone();
            found
                .get_mut(&path)
                .unwrap()
                .push_str(&format!(" = {}", first.display()));
        }
    }
    found
}

fn describe(path: &Path, ids: Ids, side: &SideTable) -> String {
    let stat = path.symlink_metadata().unwrap();
    let load = || {
        let fd =
            rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
        let statx = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, InodeId::STATX).unwrap();
        meta::load(fd.as_fd(), &statx, side)
            .unwrap()
            .unwrap_or_default()
    };
    // Where owners are real, numbers of devices alone are kept.
    let kept = Some(load()).filter(|meta| ids == Ids::Emulated || meta.device.is_some());
    let (uid, gid) = kept
        .as_ref()
        .filter(|_| ids == Ids::Emulated)
        .map_or((stat.uid(), stat.gid()), |m| (m.uid, m.gid));
    let what = if stat.is_symlink() {
        format!("link to {}", fs::read_link(path).unwrap().display())
    } else if stat.is_dir() {
        "directory".to_owned()
    } else if stat.file_type().is_fifo() {
        "fifo".to_owned()
    } else if stat.file_type().is_char_device() || stat.file_type().is_block_device() {
        format!("device {:x}", stat.rdev())
    } else {
        let mut content = Vec::new();
        File::open(path).unwrap().read_to_end(&mut content).unwrap();
        format!("file {} {}", content.len(), Digest::of(&content).short())
    };
    let mut attributes = Vec::new();
    if stat.is_file() || stat.is_dir() {
        let mut names = vec![0; 4096];
        let length = rustix::fs::listxattr(path, &mut names[..]).unwrap();
        for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
            if name != meta::XATTR.as_bytes() {
                let mut value = vec![0; 4096];
                let length = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
                let name = std::ffi::OsStr::from_bytes(name).display().to_string();
                attributes.push(format!("{name}={:?}", &value[..length]));
            }
        }
    }
    let more = kept
        .map(|m| format!(" {:?} {:?}", m.device, m.xattrs))
        .unwrap_or_default();
    let (mode, secs, nanos) = (stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec());
    format!("{what} {mode:o} {uid}:{gid} {secs}.{nanos} {attributes:?}{more}")
}
