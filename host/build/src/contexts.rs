//! The directories that the user handed over, by name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use stepwell_model::op::ContextOp;
use stepwell_model::request::{NamedContext, Request};
use stepwell_steps::source::{ContextDir, SourceError, SourceTree};

use crate::error::BuildError;

/// The contexts of a build; `""` is the main one.
pub struct Contexts {
    dirs: HashMap<String, ContextDir>,
    /// Trees by name and ignore patterns: a pattern set is compiled once.
    trees: Mutex<HashMap<ContextOp, SourceTree>>,
}

impl Contexts {
    /// Opens the directories of the request.
    pub fn open(request: &Request) -> Result<Self, BuildError> {
        let named = request
            .named_contexts
            .iter()
            .filter_map(|(name, context)| match context {
                NamedContext::Directory(path) => Some((name.clone(), path)),
                NamedContext::Image(_) | NamedContext::OciLayout { .. } => None,
            });
        let mut dirs = HashMap::new();
        for (name, path) in std::iter::once((String::new(), &request.context)).chain(named) {
            let dir = ContextDir::open(path, &[]).map_err(|source| BuildError::Context {
                path: path.clone(),
                source,
            })?;
            dirs.insert(name, dir);
        }
        Ok(Self {
            dirs,
            trees: Mutex::default(),
        })
    }

    /// Returns the whole directory `name`, nothing ignored.
    pub fn dir(&self, name: &str) -> Option<&ContextDir> {
        self.dirs.get(name)
    }

    /// Returns what COPY sees of a context.
    pub fn tree(&self, op: &ContextOp) -> Result<SourceTree, SourceError> {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = trees.get(op) {
            return Ok(tree.clone());
        }
        let dir = self
            .dirs
            .get(&op.name)
            .ok_or_else(|| SourceError::UnknownContext(op.name.clone()))?;
        let tree = dir.excluding(&op.exclude)?.tree().clone();
        trees.insert(op.clone(), tree.clone());
        Ok(tree)
    }
}
