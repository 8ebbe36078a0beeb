//! Reads an OCI archive: its configuration, and the files that its layers make together.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path};

use serde_json::Value;

/// An image as it came out.
#[derive(Debug, Default)]
pub struct Image {
    /// Its configuration.
    pub config: Value,
    /// Path and description of each file: `type mode owner`, and content or target.
    pub files: BTreeMap<String, String>,
}

impl Image {
    /// Reads an archive.
    pub fn read(archive: &Path) -> Result<Self, String> {
        let mut blobs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let file =
            std::fs::File::open(archive).map_err(|e| format!("{}: {e}", archive.display()))?;
        let mut tar = tar::Archive::new(file);
        for entry in tar.entries().map_err(text)? {
            let mut entry = entry.map_err(text)?;
            let name = name(&entry.path().map_err(text)?);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(text)?;
            blobs.insert(name, content);
        }
        let index = json(blobs.get("index.json"))?;
        let manifest = json(blob(&blobs, &index["manifests"][0]["digest"]))?;
        let config = json(blob(&blobs, &manifest["config"]["digest"]))?;
        let mut image = Self {
            config,
            ..Self::default()
        };
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            let bytes = blob(&blobs, &layer["digest"]).ok_or("a layer is missing")?;
            image.apply(bytes)?;
        }
        Ok(image)
    }

    /// Puts a layer on top.
    fn apply(&mut self, bytes: &[u8]) -> Result<(), String> {
        let plain: Box<dyn Read + '_> = match bytes.starts_with(&[0x1f, 0x8b]) {
            true => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
            false => Box::new(bytes),
        };
        let mut tar = tar::Archive::new(plain);
        for entry in tar.entries().map_err(text)? {
            let mut entry = entry.map_err(text)?;
            let path = name(&entry.path().map_err(text)?);
            let (dir, last) = path.rsplit_once('/').unwrap_or(("", &path));
            if last == ".wh..wh..opq" {
                self.remove_below(dir);
            } else if let Some(gone) = last.strip_prefix(".wh.") {
                let gone = format!("{dir}/{gone}");
                self.files.remove(gone.trim_start_matches('/'));
                self.remove_below(gone.trim_start_matches('/'));
            } else if !path.is_empty() {
                let line = self.describe(&mut entry)?;
                if !line.starts_with('d') {
                    self.remove_below(&path);
                }
                self.files.insert(path, line);
            }
        }
        Ok(())
    }

    fn remove_below(&mut self, dir: &str) {
        let prefix = format!("{dir}/");
        self.files.retain(|path, _| !path.starts_with(&prefix));
    }

    fn describe(&self, entry: &mut tar::Entry<'_, impl Read>) -> Result<String, String> {
        let header = entry.header();
        let kind = header.entry_type();
        let meta = format!(
            "{:o} {}:{}",
            header.mode().map_err(text)? & 0o7777,
            header.uid().map_err(text)?,
            header.gid().map_err(text)?
        );
        let target = entry
            .link_name()
            .map_err(text)?
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default();
        if kind.is_hard_link() {
            let first = name(Path::new(&target));
            return self
                .files
                .get(&first)
                .cloned()
                .ok_or_else(|| format!("a link to `{first}`, which is not there"));
        }
        if kind.is_symlink() {
            return Ok(format!(
                "l {} -> {target}",
                meta.split_once(' ').map_or("", |(_, owner)| owner)
            ));
        }
        if kind.is_dir() {
            return Ok(format!("d {meta}"));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(text)?;
        Ok(match std::str::from_utf8(&content) {
            Ok(text) if text.len() <= 200 => format!("f {meta} = {text:?}"),
            _ => format!("f {meta} = {} bytes", content.len()),
        })
    }

    /// Lists the files below a path, one a line.
    pub fn tree(&self, below: &str) -> Vec<String> {
        let prefix = below.trim_matches('/');
        let is_below = |path: &&String| {
            prefix.is_empty()
                || path
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let line = |path: &String| {
            let described = &self.files[path];
            // The path stands behind type, permissions and owner.
            match described.find(" = ").or(described.find(" -> ")) {
                Some(at) => format!("{} /{path}{}", &described[..at], &described[at..]),
                None => format!("{described} /{path}"),
            }
        };
        self.files.keys().filter(is_below).map(line).collect()
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn json(bytes: Option<&Vec<u8>>) -> Result<Value, String> {
    serde_json::from_slice(bytes.ok_or("a blob is missing")?).map_err(text)
}

fn blob<'a>(blobs: &'a BTreeMap<String, Vec<u8>>, digest: &Value) -> Option<&'a Vec<u8>> {
    blobs.get(&format!("blobs/{}", digest.as_str()?.replace(':', "/")))
}

/// A path without a leading slash and dots.
fn name(path: &Path) -> String {
    let parts = path.components().filter_map(|c| match c {
        Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}
