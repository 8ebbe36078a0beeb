//! Cache directories of RUN steps (`RUN --mount=type=cache`): kept from step to step, never part of a layer.
//!
//! While a step uses a cache its directory is *lent*: renamed into the step's tree, and back afterwards, which costs the same
//! however large it is.  Before the first rename the loan is written down, so that whoever finds the tree of a
//! process that died (to throw it away) or the cache without its directory (to use it) brings the directory home first.
//!
//! # On disk
//! | path below `caches/HEX/` | what |
//! | --- | --- |
//! | `lock` | held exclusively (flock) by whoever uses the cache; its mtime is the last use |
//! | `about` | id, for people |
//! | `data/` | the directory; missing while it is lent, and before it is made |
//! | `lent` | JSON: which tree has it, where, and what inode it is |
//! | `hidden/N.hides`, `hidden/N` | path below `data/` at which something else stands meanwhile, and what belongs there |
//! | `hidden/N.stands` | path below `data/` at which something else stands, and nothing belongs |
//!
//! `trees/NAME/lends` is an empty file in a tree that something may have been lent to.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stepwell_model::{Digest, Hasher};
use stepwell_sys::meta::{self, InodeId, Meta};
use stepwell_sys::resolve::{self, Links};

use crate::error::{Context as _, Result, StoreError};
use crate::session::lock_exclusive;
use crate::store::{Ids, Store, touch};
use crate::tree::{Checkout, TreePaths, remove};

/// What tells one cache from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheKey<'a> {
    /// Keeps tenants apart.
    pub namespace: &'a str,
    /// What the build calls it.
    pub id: &'a str,
    /// Identifies what it begins with; none where it begins empty.
    pub base: Option<Digest>,
    /// Permission bits, owner and group of the directory.
    pub owner: (u32, u32, u32),
    /// Number of the cache among those of a step that shares with nobody; 0 for the first.
    pub instance: u32,
}

/// A cache that is this process's alone.
#[derive(Debug)]
pub struct CacheDir<'a> {
    store: &'a Store,
    dir: PathBuf,
    lock: File,
}

/// A loan, as it is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Loan {
    /// Name of the tree.
    tree: String,
    /// Path in the tree as the step was told; links may be on the way.
    target: String,
    /// The directory.
    inode: InodeId,
}

impl CacheKey<'_> {
    /// The name of its directory.
    fn name(&self, ids: Ids) -> Digest {
        let mut hasher = Hasher::new();
        let (mode, uid, gid) = self.owner;
        let base = self.base.map(|d| d.to_string()).unwrap_or_default();
        for field in [
            "stepwell.cache.v1",
            self.namespace,
            self.id,
            &base,
            &format!("{mode:o} {uid} {gid} {} {ids:?}", self.instance),
        ] {
            hasher.field(field.as_bytes());
        }
        hasher.finish()
    }
}

impl Store {
    /// Returns a cache for the caller alone; none where somebody else has it.
    ///
    /// # Errors
    /// Its directory cannot be made, or what a dead process left of it cannot be brought home.
    pub fn cache(&self, key: &CacheKey<'_>) -> Result<Option<CacheDir<'_>>> {
        let dir = self.paths().cache(&key.name(self.ids()));
        let path = dir.join("lock");
        let lock = match open_lock(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&dir)
                    .context("create", &dir)?;
                open_lock(&path)
            }
            other => other,
        }
        .context("open", &path)?;
        if !lock_exclusive(&lock, &path)? {
            return Ok(None);
        }
        self.session()
            .publish(&dir.join("about"), key.id.as_bytes())?;
        let cache = CacheDir {
            store: self,
            dir,
            lock,
        };
        if let Some(loan) = read_loan(&cache.dir)
            && !self.bring_home(&loan.tree, Some(&cache))?
        {
            return Ok(None);
        }
        touch(&cache.lock);
        Ok(Some(cache))
    }

    /// Brings home all that was lent to a tree whose process is dead, what lies deepest first: one cache may lie in another.
    /// Says whether it is all; `mine` is locked already.
    fn bring_home(&self, tree: &str, mine: Option<&CacheDir<'_>>) -> Result<bool> {
        let loans = self.cache_dirs().into_iter();
        let mut lent: Vec<_> = loans
            .filter_map(|dir| Some((read_loan(&dir).filter(|l| l.tree == tree)?, dir)))
            .collect();
        lent.sort_by_key(|(loan, _)| std::cmp::Reverse(loan.target.matches('/').count()));
        for (_, dir) in lent {
            if let Some(mine) = mine.filter(|mine| mine.dir == dir) {
                mine.bring_home()?;
                continue;
            }
            let path = dir.join("lock");
            let lock = open_lock(&path).context("open", &path)?;
            if !lock_exclusive(&lock, &path)? {
                // Whoever has it brings it home.
                return Ok(false);
            }
            let store = self;
            CacheDir { store, dir, lock }.bring_home()?;
        }
        Ok(true)
    }

    /// Brings home what was lent to a tree that is about to be thrown away; says whether nothing of others is in it any more.
    pub(crate) fn empty_of_loans(&self, tree: &TreePaths) -> Result<bool> {
        if !tree.lends().exists() {
            return Ok(true);
        }
        self.bring_home(&name_of(tree), None)
    }

    /// The directories of all caches.
    pub(crate) fn cache_dirs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.paths().caches());
        let entries = entries.into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect()
    }

    /// Throws a cache away, where nobody uses it.
    pub(crate) fn remove_cache(&self, dir: &Path) -> Result<bool> {
        let path = dir.join("lock");
        let Ok(lock) = open_lock(&path) else {
            return Ok(false);
        };
        if !lock_exclusive(&lock, &path)? {
            return Ok(false);
        }
        // What is lent to the tree of a dead process goes with that tree.
        self.session().discard(dir).map(|()| true)
    }
}

impl CacheDir<'_> {
    /// Returns the path of the directory, which may not be there yet.
    pub fn path(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Returns the directory for what other mounts hide in the cache.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn hidden(&self) -> Result<PathBuf> {
        let path = self.dir.join("hidden");
        match fs::create_dir(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(path),
            other => other.context("create", &path).map(|()| path),
        }
    }

    /// Makes the directory, where it is not there: empty, or `from`, which is moved.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(&self, from: Option<&Path>, (mode, uid, gid): (u32, u32, u32)) -> Result<()> {
        let path = self.path();
        let made = match from {
            Some(from) => from.to_owned(),
            None => {
                let made = self.store.session().path()?;
                fs::create_dir(&made).context("create", &made)?;
                own(&made, self.store.ids(), (mode, uid, gid))?;
                made
            }
        };
        fs::rename(&made, &path).context("rename", &path)
    }

    /// Writes down that the directory is about to be moved to `target` in a tree.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn lend(&self, tree: &Checkout<'_>, target: &str) -> Result<()> {
        let paths = tree.paths();
        File::create(paths.lends()).context("create", &paths.lends())?;
        let loan = Loan {
            tree: name_of(paths),
            target: target.to_owned(),
            inode: inode(&self.path()).context("stat", &self.path())?,
        };
        let path = self.dir.join("lent");
        let text = serde_json::to_vec(&loan)
            .map_err(std::io::Error::from)
            .context("write", &path)?;
        self.store.session().publish(&path, &text)
    }

    /// Ends a loan: the directory is at home again, or the step removed it.
    fn bring_home(&self) -> Result<()> {
        let Some(loan) = read_loan(&self.dir) else {
            return Ok(());
        };
        let path = self.path();
        if !path.exists() {
            let root = self.store.paths().trees().join(&loan.tree).join("root");
            if let Some(found) = find(&root, &loan).context("look for", &root)? {
                fs::rename(&found, &path).context("rename", &found)?;
            }
        }
        self.uncover()?;
        let lent = self.dir.join("lent");
        fs::remove_file(&lent).context("remove", &lent)
    }

    /// Puts back what other mounts hid, and removes what stands there of them.
    fn uncover(&self) -> Result<()> {
        let hidden = self.dir.join("hidden");
        let mut notes: Vec<_> = fs::read_dir(&hidden)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|note| {
                let (path, hides) = (note.path(), note.path().with_extension(""));
                let ending = path.extension()?.to_str()?.to_owned();
                let below = PathBuf::from(std::ffi::OsString::from_vec(fs::read(&path).ok()?));
                let is_note = ["hides", "stands"].contains(&&*ending);
                is_note.then_some((below, path, (ending == "hides").then_some(hides)))
            })
            .collect();
        notes.sort_by_key(|(below, ..)| std::cmp::Reverse(below.components().count()));
        for (below, note, hides) in notes {
            let place = self.path().join(below);
            // What was to be hidden may not have been moved yet, or be back already.
            if hides.as_ref().is_none_or(|h| h.symlink_metadata().is_ok()) {
                remove::remove_all(&place)?;
            }
            if let Some(hides) = hides.filter(|h| h.symlink_metadata().is_ok()) {
                fs::rename(&hides, &place).context("rename", &hides)?;
            }
            fs::remove_file(&note).context("remove", &note)?;
        }
        Ok(())
    }
}

impl Drop for CacheDir<'_> {
    fn drop(&mut self) {
        // One that is not back is looked for by the next one who wants it, with all that may lie in it.
        if self.path().exists()
            && let Err(error) = self.bring_home()
        {
            tracing::debug!(%error, "a cache is not at home yet");
        }
        touch(&self.lock);
    }
}

/// Finds a directory that was lent, wherever the step moved it.
fn find(root: &Path, loan: &Loan) -> std::io::Result<Option<PathBuf>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = match rustix::fs::openat(CWD, root, flags, Mode::empty()) {
        Ok(handle) => handle,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if let Ok(place) = resolve::handle(&handle, loan.target.as_bytes(), Links::Follow)
        && let Some(path) = resolve::path_of(&place)
    {
        let path = PathBuf::from(std::ffi::OsString::from_vec(path));
        if inode(&path).is_ok_and(|found| found == loan.inode) {
            return Ok(Some(path));
        }
    }
    let mut todo = VecDeque::from([root.to_owned()]);
    while let Some(dir) = todo.pop_front() {
        // One that a step made unreadable is passed over: what was lent has the rights that it had.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if inode(&entry.path()).is_ok_and(|found| found == loan.inode) {
                return Ok(Some(entry.path()));
            }
            todo.push_back(entry.path());
        }
    }
    Ok(None)
}

fn inode(path: &Path) -> std::io::Result<InodeId> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let stat = rustix::fs::statx(CWD, path, flags, InodeId::STATX)?;
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::Directory => Ok(InodeId::of(&stat)),
        _ => Err(Errno::NOTDIR.into()),
    }
}

fn read_loan(dir: &Path) -> Option<Loan> {
    serde_json::from_slice(&fs::read(dir.join("lent")).ok()?).ok()
}

fn name_of(tree: &TreePaths) -> String {
    let name = tree.0.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Sets mode and owner of a new directory, wherever owners are kept.
fn own(path: &Path, ids: Ids, (mode, uid, gid): (u32, u32, u32)) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty()).context("open", path)?;
    match ids {
        Ids::Real => rustix::fs::fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .context("change the owner of", path)?,
        Ids::Emulated => {
            let kept = Meta {
                uid,
                gid,
                ..Meta::default()
            };
            if !kept.is_default() && !meta::write(dir.as_fd(), &kept).map_err(|e| keep(path, e))? {
                return Err(keep(path, "the file system takes no attributes"));
            }
        }
    }
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode)).context("change the mode of", path)
}

fn keep(path: &Path, why: impl ToString) -> StoreError {
    StoreError::Io {
        operation: "keep the owner of",
        subject: path.display().to_string(),
        source: std::io::Error::other(why.to_string()),
    }
}
