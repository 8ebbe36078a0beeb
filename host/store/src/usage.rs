//! What is in a store, how large it is and when it was last used.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stepwell_model::Digest;

use crate::error::{Context as _, Result};
use crate::session::lock_exclusive;
use crate::store::Store;
use crate::tree::TreePaths;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsageKind {
    /// A compressed layer, with what is known of its contents.
    Layer,
    /// Another blob: a configuration, a manifest.
    Blob,
    /// What a step resulted in, by its key.
    Record,
    /// An unpacked root file system.
    Tree,
    /// A cache directory of RUN steps.
    Cache,
    /// What is being written or removed, or was left by a process that died.
    Temporary,
    /// Files of the program's other parts: compiled guests, digests of context files.
    Other,
}

impl std::fmt::Display for UsageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Layer => "layer",
            Self::Blob => "blob",
            Self::Record => "record",
            Self::Tree => "tree",
            Self::Cache => "cache",
            Self::Temporary => "temp",
            Self::Other => "other",
        })
    }
}

/// Everything in a store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// The items, by kind and then the longest unused first.
    pub items: Vec<UsageItem>,
}

/// One thing in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageItem {
    /// What it is.
    pub kind: UsageKind,
    /// Digest, or name of a tree or a file.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// When it was last used, in seconds since 1970.
    pub last_used: u64,
    /// Whether a process uses it now.
    pub in_use: bool,
    /// What it is for people: the operation of a record; else empty.
    pub summary: String,
    /// Other items that are worth nothing without it: records of a layer.
    #[serde(skip)]
    pub(crate) needed_by: Vec<Digest>,
    #[serde(skip)]
    pub(crate) path: PathBuf,
}

impl Store {
    /// Lists everything in the store, by kind and then the longest unused first.
    ///
    /// # Errors
    /// A directory of the store cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        let mut items = self.record_items()?;
        let needed = self.references()?;
        self.blob_items(&needed, &mut items)?;
        self.tree_items(&mut items);
        self.cache_items(&mut items);
        for (name, kind) in list(&self.paths().tmp())?
            .into_iter()
            .map(|p| (p, UsageKind::Temporary))
        {
            if name.is_dir() {
                items.push(self.plain(kind, &name));
            }
        }
        const OWN: [&str; 8] = [
            "lock", "blobs", "layers", "records", "slots", "trees", "caches", "tmp",
        ];
        for path in list(self.directory())? {
            if !OWN.iter().any(|own| path.ends_with(own)) {
                items.push(self.plain(UsageKind::Other, &path));
            }
        }
        items.sort_by(|a, b| (a.kind, a.last_used, &a.id).cmp(&(b.kind, b.last_used, &b.id)));
        Ok(Usage { items })
    }

    fn record_items(&self) -> Result<Vec<UsageItem>> {
        let mut items = Vec::new();
        for path in list(&self.paths().records())? {
            let mut item = self.plain(UsageKind::Record, &path);
            if let Some(record) = fs::File::open(&path)
                .ok()
                .and_then(|f| crate::records::parse(&f))
            {
                item.summary = record.summary;
            }
            item.id = format!("sha256:{}", item.id);
            items.push(item);
        }
        Ok(items)
    }

    /// Which records name a blob, anywhere in their text.
    fn references(&self) -> Result<HashMap<Digest, Vec<Digest>>> {
        let mut needed: HashMap<Digest, Vec<Digest>> = HashMap::new();
        for path in list(&self.paths().records())? {
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let Ok(key) = format!("sha256:{}", file_name(&path)).parse::<Digest>() else {
                continue;
            };
            for (at, _) in text.match_indices("sha256:") {
                if let Some(digest) = text.get(at..at + 71).and_then(|t| t.parse::<Digest>().ok()) {
                    needed.entry(digest).or_default().push(key);
                }
            }
        }
        Ok(needed)
    }

    fn blob_items(
        &self,
        needed: &HashMap<Digest, Vec<Digest>>,
        items: &mut Vec<UsageItem>,
    ) -> Result<()> {
        let layers: HashSet<Digest> = self
            .known_layers()?
            .into_iter()
            .map(|(_, digest)| digest)
            .collect();
        let used: HashMap<String, u64> = items
            .iter()
            .map(|record| (record.id.clone(), record.last_used))
            .collect();
        for path in list(&self.paths().blobs())? {
            let Ok(digest) = format!("sha256:{}", file_name(&path)).parse::<Digest>() else {
                continue;
            };
            let kind = if layers.contains(&digest) {
                UsageKind::Layer
            } else {
                UsageKind::Blob
            };
            let mut item = self.plain(kind, &path);
            item.id = digest.to_string();
            item.needed_by = needed.get(&digest).cloned().unwrap_or_default();
            let records = item
                .needed_by
                .iter()
                .filter_map(|key| used.get(&key.to_string()));
            item.last_used = records
                .copied()
                .chain([item.last_used])
                .max()
                .unwrap_or_default();
            items.push(item);
        }
        Ok(())
    }

    /// Files in `layers/` that name a blob, with the blob.
    pub(crate) fn known_layers(&self) -> Result<Vec<(PathBuf, Digest)>> {
        let files = list(&self.paths().layers())?.into_iter();
        let files = files.filter(|path| path.extension().is_some_and(|e| e != "toc"));
        Ok(files
            .filter_map(|path| {
                let text = fs::read_to_string(&path).ok()?;
                Some((path, text.split(' ').next()?.parse().ok()?))
            })
            .collect())
    }

    fn tree_items(&self, items: &mut Vec<UsageItem>) {
        for TreePaths(path) in self.trees() {
            let paths = TreePaths(path.clone());
            let mut item = self.plain(UsageKind::Tree, &paths.lock());
            item.id = file_name(&path);
            item.size = paths.read_state().map_or(0, |state| state.bytes);
            item.in_use = fs::File::open(paths.lock())
                .is_ok_and(|lock| !lock_exclusive(&lock, &paths.lock()).unwrap_or(false));
            item.path = path;
            items.push(item);
        }
    }

    fn cache_items(&self, items: &mut Vec<UsageItem>) {
        for dir in self.cache_dirs() {
            let lock = dir.join("lock");
            let mut item = self.plain(UsageKind::Cache, &lock);
            item.id = file_name(&dir);
            item.size = deep_size(&dir.join("data"));
            // The id is whatever a definition says.
            let about = fs::read_to_string(dir.join("about")).unwrap_or_default();
            item.summary = about.chars().filter(|c| !c.is_control()).collect();
            item.in_use = fs::File::open(&lock)
                .is_ok_and(|file| !lock_exclusive(&file, &lock).unwrap_or(false));
            item.path = dir;
            items.push(item);
        }
    }

    fn plain(&self, kind: UsageKind, path: &Path) -> UsageItem {
        UsageItem {
            kind,
            id: file_name(path),
            size: size(path),
            last_used: fs::metadata(path).map_or(0, |m| m.mtime().max(0) as u64),
            in_use: false,
            summary: String::new(),
            needed_by: Vec::new(),
            path: path.to_path_buf(),
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// What is directly in a directory of the store.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).context("list", dir)?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Bytes of all files below a directory, as large as the disk has them.
fn deep_size(top: &Path) -> u64 {
    let mut todo = vec![top.to_owned()];
    let mut bytes = 0;
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            } else {
                bytes += meta.blocks() * 512;
            }
        }
    }
    bytes
}

/// Bytes of a file, or of the files in a directory of the program's own (a few levels, never a tree).
fn size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let names = fs::read_dir(path).into_iter().flatten().flatten();
            names
                .filter_map(|e| e.metadata().ok())
                .filter(|m| m.is_file())
                .map(|m| m.len())
                .sum()
        }
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}
