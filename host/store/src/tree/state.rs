//! `trees/NAME/state`: which layers a tree is made of.  Small, so that finding the nearest tree reads no index.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stepwell_model::Digest;

use crate::error::{Context as _, Result};
use crate::store::Ids;

use super::index::Ctime;

/// One layer of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TreeLayer {
    /// Which.
    pub(crate) diff_id: Digest,
    /// How many entries it has: what undoing it costs.
    pub(crate) entries: u64,
}

/// What is said of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Number that the index has too.
    pub(crate) generation: u64,
    /// Who holds the owners of its files.
    pub(crate) ids: Ids,
    /// The boot in which it was written: after another one, what is on disk is compared with the index first, because
    /// nothing is synced.
    pub(crate) boot: String,
    /// The layers, bottom first.
    pub(crate) layers: Vec<TreeLayer>,
    /// Bytes of content.
    pub(crate) bytes: u64,
    /// The newest ctime in the index.
    pub(crate) newest: Ctime,
    /// Whether the sandbox left something where it makes things up, which readers must not see.
    pub(crate) has_strays: bool,
}

/// The paths of one tree.
#[derive(Debug, Clone)]
pub(crate) struct TreePaths(pub(crate) PathBuf);

impl TreePaths {
    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.0.join("index")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub(crate) fn begun(&self) -> PathBuf {
        self.0.join("begun")
    }

    pub(crate) fn lends(&self) -> PathBuf {
        self.0.join("lends")
    }

    pub(crate) fn clock(&self) -> PathBuf {
        self.0.join("clock")
    }

    /// Reads the state; `None` means that the tree is not what any chain says.
    pub(crate) fn read_state(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.state()).ok()?).ok()
    }

    /// Reads what the tree is, or was when it was begun: what its index is about.
    pub(crate) fn read_indexed_state(&self) -> Option<State> {
        self.read_state()
            .or_else(|| serde_json::from_slice(&fs::read(self.begun()).ok()?).ok())
    }

    /// Writes the state.  One that is cut short does not parse, so it needs no rename.
    pub(crate) fn write_state(&self, state: &State) -> Result<()> {
        let path = self.state();
        let text = serde_json::to_vec(state)
            .map_err(std::io::Error::from)
            .context("write", &path)?;
        fs::write(&path, text).context("write", &path)
    }

    /// Says that from now on the tree is not what any chain says.
    pub(crate) fn forget_state(&self) -> Result<()> {
        remove(&self.state())
    }

    /// Says the same, and that the index says what the tree was: whatever changes from now on shows by its ctime.
    pub(crate) fn begin(&self) -> Result<()> {
        let path = self.state();
        match fs::rename(&path, self.begun()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context("rename", &path),
            _ => Ok(()),
        }
    }

    /// Says that the index is going to be another one.
    pub(crate) fn forget_begun(&self) -> Result<()> {
        remove(&self.begun())
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context("remove", path),
        _ => Ok(()),
    }
}

/// Identifies this boot; the same text where the kernel does not say.
pub(crate) fn boot() -> String {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    fs::read_to_string(path)
        .map(|t| t.trim().to_owned())
        .unwrap_or_default()
}
