//! Reads an OCI layout directory: a base image that is on disk already.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use stepwell_model::{Digest, Platform};

use super::{IMAGE_NAME, LayoutError, MARKER, REF_NAME, failed};
use crate::archive::blob_path;
use crate::blob::BlobSource;
use crate::config::{CONFIG_LIMIT, ImageDocument};
use crate::hash::Verifying;
use crate::manifest::{
    Descriptor, Document, INDEX_DEPTH, Index, MANIFEST_LIMIT, Manifest, ManifestError,
};

/// A layout directory to read from.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    pub(super) index: Index,
}

/// An image of a layout.
#[derive(Debug, Clone)]
pub struct LayoutImage {
    /// Where its manifest is.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The manifest as it is in its blob.
    pub manifest_bytes: Vec<u8>,
    /// The configuration.
    pub document: ImageDocument,
    /// The configuration as it is in its blob.
    pub config_bytes: Vec<u8>,
}

impl Layout {
    /// Opens a layout.
    ///
    /// # Errors
    /// It is not there, or no layout.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        let not_layout = || LayoutError::NotLayout {
            path: path.to_owned(),
        };
        let marker = path.join(MARKER);
        let text = match read(&marker, 4096) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_dir() => {
                return Err(not_layout());
            }
            other => other.map_err(failed("read", &marker))?,
        };
        let marker: serde_json::Value = serde_json::from_slice(&text).map_err(|_| not_layout())?;
        if !marker["imageLayoutVersion"]
            .as_str()
            .is_some_and(|v| v.starts_with("1."))
        {
            return Err(not_layout());
        }
        let index = path.join("index.json");
        let text = read(&index, MANIFEST_LIMIT).map_err(failed("read", &index))?;
        match Document::parse(&text, None).map_err(LayoutError::Index)? {
            Document::Index(index) => Ok(Self {
                path: path.to_owned(),
                index,
            }),
            Document::Manifest(_) => Err(not_layout()),
        }
    }

    /// Finds an image by its tag, its full name or the digest of its manifest or index; with an empty `reference`, the only
    /// one.
    ///
    /// # Errors
    /// There is none or no single one of that name, none for the platform, or a blob is damaged.
    pub fn resolve(
        &self,
        reference: &str,
        platform: &Platform,
    ) -> Result<LayoutImage, LayoutError> {
        let mut descriptor = self.find(reference, platform)?;
        for _ in 0..INDEX_DEPTH {
            let bytes = self.small(&descriptor, MANIFEST_LIMIT)?;
            let digest = descriptor.digest;
            let wrong = |source| LayoutError::Manifest { digest, source };
            let delivered = Some(descriptor.media_type.as_str()).filter(|t| !t.is_empty());
            match Document::parse(&bytes, delivered).map_err(wrong)? {
                Document::Manifest(manifest) => return self.image(descriptor, manifest, bytes),
                Document::Index(index) => {
                    descriptor = index.select(platform).map_err(wrong)?.clone()
                }
            }
        }
        Err(LayoutError::Manifest {
            digest: descriptor.digest,
            source: ManifestError::Depth,
        })
    }

    fn image(
        &self,
        descriptor: Descriptor,
        manifest: Manifest,
        manifest_bytes: Vec<u8>,
    ) -> Result<LayoutImage, LayoutError> {
        let config_bytes = self.small(&manifest.config, CONFIG_LIMIT)?;
        let digest = manifest.config.digest;
        let document = ImageDocument::parse(&config_bytes);
        let document = document.map_err(|source| LayoutError::Manifest { digest, source })?;
        Ok(LayoutImage {
            descriptor,
            manifest,
            manifest_bytes,
            document,
            config_bytes,
        })
    }

    fn find(&self, reference: &str, platform: &Platform) -> Result<Descriptor, LayoutError> {
        let matching = |d: &&Descriptor| {
            reference.is_empty()
                || d.digest.to_string() == reference
                || [REF_NAME, IMAGE_NAME]
                    .iter()
                    .any(|key| d.annotations.get(*key).is_some_and(|n| n == reference))
        };
        let mut found: Vec<&Descriptor> = self.index.manifests.iter().filter(matching).collect();
        found.sort_by_key(|d| d.digest);
        found.dedup_by_key(|d| d.digest);
        match found[..] {
            [one] => Ok(one.clone()),
            [] => self
                .by_digest(reference)
                .ok_or_else(|| LayoutError::Reference {
                    reference: reference.to_owned(),
                    available: self.available(),
                }),
            // Tools differ in whether the platforms of one image are in an index of their own.
            _ if found.iter().all(|d| d.platform.is_some()) && !same_platform(&found) => {
                let manifests = found.into_iter().cloned().collect();
                let index = Index {
                    manifests,
                    ..self.index.clone()
                };
                index.select(platform).cloned().map_err(LayoutError::Index)
            }
            _ => Err(LayoutError::Ambiguous {
                available: self.available(),
            }),
        }
    }

    /// A manifest that the index does not name, for example one of an index in a blob.
    fn by_digest(&self, reference: &str) -> Option<Descriptor> {
        let digest: Digest = reference.parse().ok()?;
        let size = fs::metadata(self.path.join(blob_path(&digest))).ok()?.len();
        Some(Descriptor::new("", digest, size))
    }

    fn available(&self) -> String {
        let names = self.index.manifests.iter().map(|d| {
            let name = d
                .annotations
                .get(REF_NAME)
                .or(d.annotations.get(IMAGE_NAME));
            format!(
                "`{}`",
                name.cloned().unwrap_or_else(|| d.digest.to_string())
            )
        });
        let names: Vec<_> = names.collect();
        if names.is_empty() {
            "no images".into()
        } else {
            names.join(", ")
        }
    }

    /// Reads a blob into memory.
    fn small(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, LayoutError> {
        let digest = descriptor.digest;
        if descriptor.size > limit {
            let size = usize::try_from(descriptor.size).unwrap_or(usize::MAX);
            let source = ManifestError::TooLarge {
                document: "blob",
                size,
                limit,
            };
            return Err(LayoutError::Manifest { digest, source });
        }
        let mut bytes = Vec::new();
        let blob = BlobSource::open(self, &digest);
        blob.and_then(|blob| Verifying::new(blob, digest, descriptor.size).read_to_end(&mut bytes))
            .map_err(|source| LayoutError::Blob { digest, source })?;
        Ok(bytes)
    }
}

/// Whether two of them are for the same platform, so that the platform does not decide.
fn same_platform(found: &[&Descriptor]) -> bool {
    let twice = |(at, d): (usize, &&Descriptor)| {
        found[..at].iter().any(|other| other.platform == d.platform)
    };
    found.iter().enumerate().any(twice)
}

/// Reads a whole file of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

impl BlobSource for Layout {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(File::open(self.path.join(blob_path(digest)))?))
    }
}
