//! Compiled code of components from files, kept between runs.
//!
//! A file is named after the digest of the component and what the engine's compatibility depends on, and holds the
//! SHA-256 of the code (32 bytes) followed by the code.  The digest finds damage, not malice: whoever can write the
//! directory can run code as the user.  So nothing is read or kept unless the directory and the file are the
//! user's own and nobody else may write them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use stepwell_model::Digest;
use wasmtime::Engine;

/// Length of the digest that precedes the code.
const HEADER: usize = 32;

/// Place of one component's code.
pub struct Entry {
    dir: PathBuf,
    file: PathBuf,
}

impl Entry {
    pub fn new(dir: &Path, engine: &Engine, component: Digest) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let name = format!("{}-{:016x}.cwasm", component.hex(), hasher.finish());
        Self {
            dir: dir.to_owned(),
            file: dir.join(name),
        }
    }

    /// Returns the code, if it is there and whole.
    pub fn read(&self) -> Option<Vec<u8>> {
        if !only_mine(&self.dir) || !only_mine(&self.file) {
            return None;
        }
        let mut bytes = std::fs::read(&self.file).ok()?;
        if bytes.len() < HEADER {
            return None;
        }
        let code = bytes.split_off(HEADER);
        (Digest::of(&code).as_bytes()[..] == bytes).then_some(code)
    }

    /// Keeps the code; whoever reads at the same time sees all of it or nothing.
    pub fn write(&self, code: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o700))?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(Digest::of(code).as_bytes())?;
        file.write_all(code)?;
        file.persist(&self.file)?;
        Ok(())
    }
}

/// Says whether `path` is the user's own and nobody else may write it.
fn only_mine(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| {
        !m.file_type().is_symlink()
            && m.mode() & 0o022 == 0
            && m.uid() == rustix::process::geteuid().as_raw()
    })
}
