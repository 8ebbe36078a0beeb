//! What the tests of this crate share: guests, a context in a real directory, and images that are made up.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use stepwell_guest_build::{Guest, Toolchain};
use stepwell_model::request::GuestLimits;
use stepwell_model::{Digest, ImageConfig, Platform};
use stepwell_wasm::GuestEngine;
use stepwell_wasm::frontend::{
    AccessError, Definition, DirectoryEntry, EntryKind, EntryStat, FrontendHost, FrontendInput,
    ResolveError, ResolvedImage,
};

/// Builds a guest of this workspace and returns the file of its component.
pub fn component(package: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // Next to the other build results: cargo gives tests a directory there.
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = tmp.parent().expect("below the target directory");
    let toolchain = Toolchain::find().expect("`cargo xtask setup` was run");
    let bytes = Guest::of_workspace(&root, package)
        .component(&toolchain, &target.join("guests"))
        .unwrap_or_else(|e| panic!("{e}"));
    // Tests run at the same time as processes of their own.
    let mut file = tempfile::NamedTempFile::new_in(tmp).expect("a temporary file");
    std::io::Write::write_all(&mut file, &bytes).expect("the component is written");
    let path = tmp.join(format!("{package}.wasm"));
    file.persist(&path).expect("the component is kept");
    path
}

pub fn engine() -> GuestEngine {
    GuestEngine::new(None).expect("the engine starts")
}

pub fn limits() -> GuestLimits {
    GuestLimits::default()
}

pub fn input(name: &str, definition: &str) -> FrontendInput {
    FrontendInput {
        definition: Definition {
            name: name.into(),
            content: definition.into(),
        },
        target_platform: platform(),
        build_platform: platform(),
        ..FrontendInput::default()
    }
}

pub fn platform() -> Platform {
    "linux/amd64".parse().expect("a platform")
}

/// A context in a directory, and images by name.
pub struct TestHost {
    dir: Dir,
    pub images: BTreeMap<String, ImageConfig>,
}

impl TestHost {
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: Dir::open_ambient_dir(dir, ambient_authority()).expect("the context opens"),
            images: BTreeMap::new(),
        }
    }

    pub fn with_image(mut self, name: &str, config: ImageConfig) -> Self {
        self.images.insert(name.into(), config);
        self
    }
}

/// The digest that [`TestHost`] gives an image.
pub fn digest_of_image(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn access(error: std::io::Error) -> AccessError {
    match error.kind() {
        ErrorKind::NotFound => AccessError::NotFound,
        // cap-std's answer to a path that leads out.
        ErrorKind::PermissionDenied => AccessError::Outside,
        ErrorKind::NotADirectory => AccessError::NotADirectory,
        ErrorKind::IsADirectory => AccessError::NotAFile,
        _ => AccessError::Io(error.to_string()),
    }
}

fn kind(t: cap_std::fs::FileType) -> EntryKind {
    if t.is_file() {
        EntryKind::File
    } else if t.is_dir() {
        EntryKind::Directory
    } else if t.is_symlink() {
        EntryKind::Symlink
    } else {
        EntryKind::Other
    }
}

fn root_or(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

impl FrontendHost for TestHost {
    fn read(&mut self, _: &str, path: &str, max: u64) -> Result<Vec<u8>, AccessError> {
        let content = self.dir.read(path).map_err(access)?;
        if content.len() as u64 > max {
            return Err(AccessError::TooLarge(max));
        }
        Ok(content)
    }

    fn stat(&mut self, _: &str, path: &str) -> Result<EntryStat, AccessError> {
        let meta = self.dir.symlink_metadata(root_or(path)).map_err(access)?;
        Ok(EntryStat {
            kind: kind(meta.file_type()),
            size: meta.len(),
            mode: 0o644,
        })
    }

    fn list(&mut self, _: &str, path: &str) -> Result<Vec<DirectoryEntry>, AccessError> {
        let entries = self.dir.read_dir(root_or(path)).map_err(access)?;
        let mut list = Vec::new();
        for entry in entries {
            let entry = entry.map_err(access)?;
            list.push(DirectoryEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                kind: kind(entry.file_type().map_err(access)?),
            });
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    fn resolve_image(&mut self, name: &str, p: &Platform) -> Result<ResolvedImage, ResolveError> {
        let config = self.images.get(name).cloned();
        let config = config.ok_or_else(|| ResolveError::NotFound(format!("no `{name}` here")))?;
        Ok(ResolvedImage {
            reference: format!("docker.io/library/{name}"),
            digest: digest_of_image(name),
            platform: p.clone(),
            config,
        })
    }
}
