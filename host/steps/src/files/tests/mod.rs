//! File operations on a real store, with real contexts: what is in the layer.

mod archives;
mod copy_flags;
mod copying;
mod other_actions;
mod sources;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use stepwell_image::layer::{Entry, Kind, Mtime};
use stepwell_model::Digest;
use stepwell_model::op::{CopyAction, FileAction, FilesOp, Owner};
use stepwell_store::{ChainView, Ids, LayerOptions, Store, StoreOptions};

use super::emit::Part;
use super::{Base, FilesError, carry_out, select};
use crate::source::{ContextDir, SourceTree, StatCache};

/// Time of what is made.
const NOW: i64 = 2_000_000_000;

/// A store, a base, and a context.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    base: ChainView,
    exclude: Vec<String>,
}

/// What came of an operation: lines such as `f 0644 0:0 dir/file=content`.
#[derive(Debug)]
struct Outcome {
    lines: Vec<String>,
    notes: Vec<String>,
    entries: Vec<Entry>,
    digest: Digest,
}

impl World {
    /// Makes the context: `dir/`, `file=content`, `link->target`, each with an optional `MODE ` in front.
    fn new(context: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        let store = Store::open(&dir.path().join("store"), StoreOptions::new(Ids::Real)).unwrap();
        let world = Self {
            dir,
            store,
            base: ChainView::empty(),
            exclude: Vec::new(),
        };
        context.iter().for_each(|text| world.make(text));
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("context").join(path)
    }

    fn make(&self, text: &str) {
        let (mode, text) = match text.split_once(' ') {
            Some((mode, rest)) => (u32::from_str_radix(mode, 8).ok(), rest),
            None => (None, text),
        };
        let parent = |path: &str| fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        let path = if let Some((path, target)) = text.split_once("->") {
            parent(path);
            return symlink(target, self.path(path)).unwrap();
        } else if let Some((path, content)) = text.split_once('=') {
            parent(path);
            fs::write(self.path(path), content).unwrap();
            path
        } else {
            fs::create_dir_all(self.path(text)).unwrap();
            text
        };
        let default = if self.path(path).is_dir() {
            0o755
        } else {
            0o644
        };
        fs::set_permissions(
            self.path(path),
            fs::Permissions::from_mode(mode.unwrap_or(default)),
        )
        .unwrap();
    }

    /// Lays a layer of entries written in the same way below; `MODE UID:GID ` may be in front.
    fn with_base(mut self, entries: &[&str]) -> Self {
        let mut sink = self.store.layer_sink(LayerOptions::default()).unwrap();
        for text in entries {
            let (entry, content) = parse_entry(text);
            sink.add(
                &entry,
                Some(&mut &content[..])
                    .filter(|_| matches!(entry.kind, Kind::File { .. }))
                    .map(|c| c as &mut dyn Read),
            )
            .unwrap();
        }
        let layer = sink.finish().unwrap();
        let mut layers = self.base.layers().to_vec();
        layers.push(layer);
        self.base = self.store.chain_view(&layers).unwrap();
        self
    }

    fn excluding(mut self, patterns: &[&str]) -> Self {
        self.exclude = patterns.iter().map(|p| (*p).to_owned()).collect();
        self
    }

    fn context(&self) -> SourceTree {
        ContextDir::open(&self.path(""), &self.exclude)
            .unwrap()
            .tree()
            .clone()
    }

    fn run(&self, actions: Vec<FileAction>) -> Result<Outcome, FilesError> {
        self.run_with(actions, vec![Some(self.context())])
    }

    fn run_with(
        &self,
        actions: Vec<FileAction>,
        inputs: Vec<Option<SourceTree>>,
    ) -> Result<Outcome, FilesError> {
        let op = FilesOp {
            base: None,
            actions,
        };
        let selected = select(&op, &inputs)?;
        let digest = selected.digest(&StatCache::in_memory())?;
        let base = self.below();
        let (mut lines, mut entries) = (Vec::new(), Vec::new());
        let mut sink = self.store.layer_sink(LayerOptions::default()).unwrap();
        // What is emitted has to be what a layer takes.
        let notes = carry_out(
            &selected,
            base,
            Mtime::from_secs(NOW),
            &mut |part| match part {
                Part::Removed(path) => {
                    lines.push(format!("removed {}", String::from_utf8_lossy(path)));
                    sink.remove(path, Mtime::from_secs(NOW))
                }
                Part::Opaque(path) => {
                    lines.push(format!("opaque {}", String::from_utf8_lossy(path)));
                    sink.opaque(path, Mtime::from_secs(NOW))
                }
                Part::Entry(entry, content) => {
                    let mut bytes = Vec::new();
                    if let Some(content) = content {
                        content.read_to_end(&mut bytes).unwrap();
                    }
                    assert_eq!(bytes.len() as u64, entry.size(), "{entry:?}");
                    lines.push(show(entry, &bytes));
                    entries.push(entry.clone());
                    sink.add(
                        entry,
                        (entry.size() > 0).then_some(&mut &bytes[..] as &mut dyn Read),
                    )
                }
            },
        )?;
        let layer = sink.finish().unwrap();
        let mut layers = self.base.layers().to_vec();
        layers.push(layer);
        self.store
            .chain_view(&layers)
            .expect("the layer fits onto its base");
        let notes = notes.iter().map(ToString::to_string).collect();
        Ok(Outcome {
            lines,
            notes,
            entries,
            digest,
        })
    }

    fn below(&self) -> Base<'_> {
        Base {
            store: &self.store,
            view: &self.base,
        }
    }

    /// Carries out one COPY and returns the lines of the layer, or the message.
    fn copy(&self, arguments: &str) -> Result<Vec<String>, String> {
        self.run(vec![FileAction::Copy(parse_copy(arguments))])
            .map(|o| o.lines)
            .map_err(|e| e.to_string())
    }
}

/// Parses what stands behind COPY: `--chown=`, `--chmod=`, `--exclude=`, `--parents`, `--extract`, sources, destination.
fn parse_copy(arguments: &str) -> CopyAction {
    let mut copy = CopyAction {
        from: 0,
        sources: Vec::new(),
        dest: String::new(),
        owner: None,
        mode: String::new(),
        extract: false,
        exclude: Vec::new(),
        parents: false,
    };
    for word in arguments.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("--chown", owner) => {
                let (user, group) = owner
                    .split_once(':')
                    .map_or((owner, None), |(u, g)| (u, Some(g.to_owned())));
                copy.owner = Some(Owner {
                    user: user.to_owned(),
                    group,
                });
            }
            ("--chmod", mode) => copy.mode = mode.to_owned(),
            ("--exclude", pattern) => copy.exclude.push(pattern.to_owned()),
            ("--parents", _) => copy.parents = true,
            ("--extract", _) => copy.extract = true,
            _ => copy.sources.push(word.to_owned()),
        }
    }
    copy.dest = copy.sources.pop().unwrap();
    copy
}

/// Parses `[MODE UID:GID ]path/`, `path=content` or `path->target`.
fn parse_entry(text: &str) -> (Entry, Vec<u8>) {
    let mut words = text.splitn(3, ' ');
    let (mode, owner, rest) = match (words.next(), words.next(), words.next()) {
        (Some(mode), Some(owner), Some(rest)) => (u32::from_str_radix(mode, 8).ok(), owner, rest),
        _ => (None, "0:0", text),
    };
    let (path, kind, content) = if let Some((path, target)) = rest.split_once("->") {
        (
            path,
            Kind::Symlink {
                target: target.into(),
            },
            Vec::new(),
        )
    } else if let Some((path, content)) = rest.split_once('=') {
        (
            path,
            Kind::File {
                size: content.len() as u64,
            },
            content.into(),
        )
    } else {
        (rest.trim_end_matches('/'), Kind::Dir, Vec::new())
    };
    let (uid, gid) = owner.split_once(':').unwrap();
    let mode = mode.unwrap_or(if kind == Kind::Dir { 0o755 } else { 0o644 });
    let (uid, gid) = (uid.parse().unwrap(), gid.parse().unwrap());
    (
        Entry {
            uid,
            gid,
            mtime: Mtime::from_secs(1),
            ..Entry::new(path, kind, mode)
        },
        content,
    )
}

fn show(entry: &Entry, content: &[u8]) -> String {
    let Entry { mode, uid, gid, .. } = entry;
    let path = String::from_utf8_lossy(&entry.path);
    let head = |letter: char| format!("{letter} {mode:04o} {uid}:{gid} {path}");
    match &entry.kind {
        Kind::File { .. } => format!("{}={}", head('f'), String::from_utf8_lossy(content)),
        Kind::Dir => head('d'),
        Kind::Symlink { target } => {
            format!("l {uid}:{gid} {path}->{}", String::from_utf8_lossy(target))
        }
        Kind::Hardlink { target } => format!("h {path}=>{}", String::from_utf8_lossy(target)),
        Kind::Fifo => head('p'),
        Kind::Char { major, minor } => format!("{} {major},{minor}", head('c')),
        Kind::Block { major, minor } => format!("{} {major},{minor}", head('b')),
    }
}
