//! The contexts of a build, by name: directories that the user handed over, and what is fetched or unpacked to be one.
//!
//! A repository, an archive or a file from elsewhere becomes a layer in the store, and the context is a checkout of it: so an
//! archive that nobody trusts is unpacked by the code that unpacks layers, and what did not change is there already.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use stepwell_image::Kind;
use stepwell_model::op::{ContextOp, CopyAction, FileAction, FilesOp, GitOp, HttpOp};
use stepwell_model::remote::{self, GitSource, Remote};
use stepwell_model::request::{Compression, ContextSource, NamedContext, Request};
use stepwell_model::{Digest, Hasher, Op};
use stepwell_steps::files;
use stepwell_steps::source::{ContextDir, SourceError, SourceTree};
use stepwell_store::{Layer, LayerOptions, ReadCheckout, Record, Store};

use crate::definition::LARGEST_DEFINITION;
use crate::error::{BuildError, StepError};
use crate::remote::{Material, RemoteError, Remotes};
use crate::session::{lock, now};

/// What a file is called that is a context, as BuildKit has it.
const FILE: &str = "context";
/// Build argument that keeps `.git` of a repository that is a context.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// The contexts of a build; `""` is the main one.  Named ones that are elsewhere are fetched when something asks for them.
pub struct Contexts {
    opened: Mutex<Opened>,
    /// Name and content of the definition, where the main context is nothing else.
    lone: Option<(String, Vec<u8>)>,
    /// Trees by name and ignore patterns: a pattern set is compiled once.
    trees: Mutex<HashMap<ContextOp, SourceTree>>,
    /// What the main context is, where it is elsewhere.
    material: Option<Material>,
}

/// Contexts that were opened.
#[derive(Default)]
struct Opened {
    dirs: HashMap<String, ContextDir>,
    /// When they were last changed, where something says so.
    times: HashMap<String, i64>,
    /// What they are checkouts of; nobody changes them as long as they are held.
    held: Vec<ReadCheckout>,
}

impl Opened {
    fn add(&mut self, name: &str, dir: ContextDir, opener: &mut Opener<'_, '_>) {
        self.dirs.insert(name.to_owned(), dir);
        self.times
            .extend(opener.time.take().map(|time| (name.to_owned(), time)));
        self.held.append(&mut opener.held);
    }
}

/// Opens contexts.
struct Opener<'r, 'a> {
    store: &'a Store,
    remotes: &'r Remotes<'a>,
    request: &'a Request,
    held: Vec<ReadCheckout>,
    /// What was opened last from elsewhere.
    material: Option<Material>,
    /// When that was last changed.
    time: Option<i64>,
}

/// When what an operation takes from elsewhere was last changed, in seconds since 1970; it is fetched for that.
pub fn fetched_time(remotes: &Remotes<'_>, op: &Op) -> Result<Option<i64>, BuildError> {
    let mut opener = Opener::new(remotes);
    let (address, time) = match op {
        Op::Git(op) => (&op.url, remotes.commit_time(op).map_err(StepError::from)),
        Op::Http(op) => (&op.url, opener.file_time(op)),
        _ => return Ok(None),
    };
    time.map_err(|e| elsewhere(address, e))
}

impl Contexts {
    /// Opens the contexts of the request; what is elsewhere is fetched.
    pub fn open(request: &Request, remotes: &Remotes<'_>) -> Result<Self, BuildError> {
        let mut opener = Opener::new(remotes);
        let mut opened = Opened::default();
        let mut lone = None;
        let main = match &request.context {
            ContextSource::Directory(path) => directory(path)?,
            ContextSource::File(path) => opener
                .file(path, &mut lone)
                .map_err(|e| elsewhere("standard input", e))?,
            ContextSource::Remote(address) => {
                let opened = opener.remote(address);
                let (dir, is_lone) = opened.map_err(|e| elsewhere(address, e))?;
                if is_lone {
                    let content = read_lone(&dir, FILE).map_err(|e| elsewhere(address, e))?;
                    lone = Some((remote::redact(address), content));
                }
                dir
            }
        };
        opened.add("", main, &mut opener);
        for (name, context) in &request.named_contexts {
            if let NamedContext::Directory(path) = context {
                opened.add(name, directory(path)?, &mut opener);
            }
        }
        Ok(Self {
            opened: Mutex::new(opened),
            lone,
            trees: Mutex::default(),
            material: opener.material,
        })
    }

    /// The address of a named context that is elsewhere.
    fn address<'r>(name: &str, request: &'r Request) -> Option<&'r str> {
        let mut named = request.named_contexts.iter().rev();
        named.find_map(|(n, context)| match context {
            NamedContext::Remote(address) if n == name => Some(address.as_str()),
            _ => None,
        })
    }

    /// Works with an opened context; nothing where there is none of this name.
    fn with<T>(
        &self,
        name: &str,
        remotes: &Remotes<'_>,
        work: impl FnOnce(&Opened, &ContextDir) -> T,
    ) -> Result<Option<T>, StepError> {
        let mut opened = lock(&self.opened);
        if !opened.dirs.contains_key(name)
            && let Some(address) = Self::address(name, remotes.request())
        {
            let mut opener = Opener::new(remotes);
            let (dir, _) = opener.remote(address)?;
            opened.add(name, dir, &mut opener);
        }
        let dir = opened.dirs.get(name);
        Ok(dir.map(|dir| work(&opened, dir)))
    }

    /// Name and content of the definition, where the main context is nothing else.
    pub fn lone_definition(&self) -> Option<&(String, Vec<u8>)> {
        self.lone.as_ref()
    }

    /// What the main context is, where it is elsewhere.
    pub fn main_material(&self) -> Option<&Material> {
        self.material.as_ref()
    }

    /// Returns the whole directory `name`, nothing ignored, and says when what it is made of was last changed, in seconds since 1970.
    pub fn dir(
        &self,
        name: &str,
        remotes: &Remotes<'_>,
    ) -> Result<Option<(ContextDir, Option<i64>)>, BuildError> {
        let found = self.with(name, remotes, |opened, dir| {
            (dir.clone(), opened.times.get(name).copied())
        });
        let address = Self::address(name, remotes.request()).unwrap_or(name);
        found.map_err(|e| elsewhere(address, e))
    }

    /// Returns what COPY sees of a context.
    pub fn tree(&self, op: &ContextOp, remotes: &Remotes<'_>) -> Result<SourceTree, StepError> {
        if let Some(tree) = lock(&self.trees).get(op) {
            return Ok(tree.clone());
        }
        let dir = self.with(&op.name, remotes, |_, dir| dir.clone())?;
        let dir = dir.ok_or_else(|| SourceError::UnknownContext(op.name.clone()))?;
        let tree = dir.excluding(&op.exclude)?.tree().clone();
        lock(&self.trees).insert(op.clone(), tree.clone());
        Ok(tree)
    }
}

fn directory(path: &Path) -> Result<ContextDir, BuildError> {
    ContextDir::open(path, &[]).map_err(|source| BuildError::Context {
        path: path.to_owned(),
        source,
    })
}

fn read_lone(dir: &ContextDir, name: &str) -> Result<Vec<u8>, StepError> {
    Ok(dir.read(name, LARGEST_DEFINITION)?)
}

fn elsewhere(address: &str, source: StepError) -> BuildError {
    match source {
        StepError::Remote(RemoteError::Interrupted) => BuildError::Interrupted,
        source => BuildError::RemoteContext {
            address: remote::redact(address),
            source: Box::new(source),
        },
    }
}

impl<'r, 'a> Opener<'r, 'a> {
    fn new(remotes: &'r Remotes<'a>) -> Self {
        Self {
            store: remotes.store(),
            remotes,
            request: remotes.request(),
            held: Vec::new(),
            material: None,
            time: None,
        }
    }

    /// Opens what is behind an address; says whether it is a file that is no archive.
    fn remote(&mut self, address: &str) -> Result<(ContextDir, bool), StepError> {
        match remote::parse(address) {
            Some(Ok(Remote::Git(source))) => {
                let op = self.repository(source);
                let layer = self.remotes.repository(&op)?.layer;
                self.material = self.remotes.material(&op);
                self.time = self.remotes.commit_time(&op)?;
                Ok((self.checkout(layer)?, false))
            }
            Some(Ok(Remote::File(url))) => {
                let op = HttpOp {
                    url,
                    name: FILE.to_owned(),
                    checksum: None,
                };
                let (dir, archive) = self.fetched(&op)?;
                self.material = self.remotes.material(&op);
                self.time = self.time_of(&op, archive)?;
                match archive {
                    Some(layer) => Ok((self.checkout(layer)?, false)),
                    None => Ok((dir, true)),
                }
            }
            Some(Err(why)) => Err(RemoteError::Address { why }.into()),
            None => Err(RemoteError::Address {
                why: format!("`{address}` is not an address"),
            }
            .into()),
        }
    }

    /// Fetches a file; returns the directory that it is alone in, and what it holds where it is an archive.
    fn fetched(&mut self, op: &HttpOp) -> Result<(ContextDir, Option<Layer>), StepError> {
        let fetched = self.remotes.file(op, &|_, _| ())?.layer;
        let dir = self.checkout(fetched)?;
        let archive = self.unpacked(dir.tree(), &op.name, Some(fetched.diff_id))?;
        Ok((dir, archive))
    }

    /// When a file was last changed: as its server says, else its youngest file where it is an archive.
    fn file_time(&mut self, op: &HttpOp) -> Result<Option<i64>, StepError> {
        match self.remotes.file_time(op)? {
            Some(time) => Ok(Some(time)),
            None => {
                let (_, archive) = self.fetched(op)?;
                self.time_of(op, archive)
            }
        }
    }

    fn time_of(&self, op: &HttpOp, archive: Option<Layer>) -> Result<Option<i64>, StepError> {
        match (self.remotes.file_time(op)?, archive) {
            (None, Some(layer)) => self.youngest(layer),
            (time, _) => Ok(time),
        }
    }

    /// The time of the youngest file of an archive.
    fn youngest(&self, layer: Layer) -> Result<Option<i64>, StepError> {
        let view = self.store.chain_view(&[layer])?;
        let files = view.iter().map(|(_, node)| node.entry());
        let files = files.filter(|entry| matches!(entry.kind, Kind::File { .. }));
        Ok(files.map(|entry| entry.mtime.secs).max())
    }

    fn repository(&self, source: GitSource) -> GitOp {
        let args = self.request.build_args.iter().rev();
        let kept = args
            .clone()
            .find(|(name, _)| name == KEEP_GIT_DIR)
            .is_some_and(|(_, value)| matches!(value.as_str(), "1" | "true" | "t" | "T" | "TRUE"));
        GitOp {
            url: source.url,
            reference: source.reference,
            subdir: source.subdir,
            checksum: source.checksum,
            keep_git_dir: source.keep_git_dir.unwrap_or(kept),
            submodules: source.submodules.unwrap_or(true),
            commit_times: source.commit_times,
        }
    }

    /// Opens a file of the caller's, alone in its directory: an archive, or a definition, which has no context then.
    fn file(
        &mut self,
        path: &Path,
        lone: &mut Option<(String, Vec<u8>)>,
    ) -> Result<ContextDir, StepError> {
        let (parent, name) = (
            path.parent().unwrap_or(Path::new("/")),
            path.file_name().unwrap_or_default().to_string_lossy(),
        );
        let dir = ContextDir::open(parent, &[])?;
        if let Some(layer) = self.unpacked(dir.tree(), &name, None)? {
            self.time = self.youngest(layer)?;
            return self.checkout(layer);
        }
        *lone = Some(("Dockerfile".to_owned(), read_lone(&dir, &name)?));
        Ok(ContextDir::open(&self.store.scratch()?, &[])?)
    }

    /// Makes a layer of what an archive holds, unless there is one; nothing where the file is none.  `content` identifies
    /// the file, where something does.
    fn unpacked(
        &self,
        tree: &SourceTree,
        name: &str,
        content: Option<Digest>,
    ) -> Result<Option<Layer>, StepError> {
        if !files::is_archive(tree, name.as_bytes())? {
            return Ok(None);
        }
        let key = content.map(|content| {
            let mut hasher = Hasher::new();
            hasher.field(b"stepwell.unpacked-context.v1");
            hasher.field(content.as_bytes());
            hasher.finish()
        });
        let known = key.and_then(|key| self.store.records().get(&key));
        if let Some(record) = known.filter(|r| self.store.has_layers(&r.layers)) {
            return Ok(record.layers.first().copied());
        }
        let layer = self.unpack(tree, name)?;
        if let Some(key) = key {
            let record = Record {
                layers: vec![layer],
                created: now(),
                summary: "unpacked context".to_owned(),
                ..Record::default()
            };
            self.store.records().put(&key, &record)?;
        }
        Ok(Some(layer))
    }

    fn unpack(&self, tree: &SourceTree, name: &str) -> Result<Layer, StepError> {
        let copy = CopyAction {
            from: 0,
            sources: vec![name.to_owned()],
            dest: "/".to_owned(),
            owner: None,
            mode: String::new(),
            extract: true,
            exclude: Vec::new(),
            parents: false,
        };
        let op = FilesOp {
            base: None,
            actions: vec![FileAction::Copy(copy)],
        };
        let mut sink = self.store.layer_sink(LayerOptions {
            compression: Compression::Uncompressed,
            threads: self.request.jobs,
            ..LayerOptions::default()
        })?;
        let base = self.store.chain_view(&[])?;
        let trees = [Some(tree.clone())];
        let options = files::Options::default();
        files::apply(&op, &base, &trees, self.store, &mut sink, &options)?;
        Ok(sink.finish()?)
    }

    fn checkout(&mut self, layer: Layer) -> Result<ContextDir, StepError> {
        let checkout = self.store.checkout_read(&[layer], &|_, _| ())?;
        let view = Arc::new(self.store.chain_view(&[layer])?);
        let dir = ContextDir::of_checkout(checkout.root_fd()?, view)?;
        self.held.push(checkout);
        Ok(dir)
    }
}
