//! Image archives are tars of blobs and a few JSON documents, without compression.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use stepwell_model::{Digest, Platform};

use crate::attestation::Attestation;
use crate::blob::BlobSource;
use crate::hash::Verifying;
use crate::layer::{Entry, Kind, WriteError, header};
use crate::manifest::{Descriptor, DescriptorPlatform, Manifest};

/// A finished image on its way out: what is written into a layout or an archive.
#[derive(Debug, Clone, Copy)]
pub struct ImageBundle<'a> {
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// The configuration that the manifest points at, as it was encoded.
    pub config: &'a [u8],
    /// What it runs on.
    pub platform: &'a Platform,
    /// Full names, for example `docker.io/library/app:1.0`; none is fine.
    pub names: &'a [String],
    /// What is said of it: then an index of both is what the names lead to.
    pub attestation: Option<&'a Attestation>,
}

/// Content of a small blob, or nothing where the source has it.
pub(crate) type Blobs<'a> = BTreeMap<Digest, (Descriptor, Option<Vec<u8>>)>;

impl ImageBundle<'_> {
    /// All blobs of the image, each once, by digest.
    pub(crate) fn blobs(&self) -> Blobs<'_> {
        let manifest = self.manifest.encode();
        let own = [
            (
                Descriptor::of(self.manifest.media_type(), &manifest),
                Some(manifest),
            ),
            (self.manifest.config.clone(), Some(self.config.to_vec())),
        ];
        let layers = self
            .manifest
            .layers
            .iter()
            .map(|layer| (layer.clone(), None));
        let attested = self.attestation.into_iter();
        let attested = attested
            .flat_map(|a| a.blobs().into_iter().chain(a.documents()))
            .map(|(descriptor, bytes)| (descriptor.clone(), Some(bytes.to_vec())));
        layers
            .chain(own)
            .chain(attested)
            .map(|blob| (blob.0.digest, blob))
            .collect()
    }

    /// Descriptor of what the names lead to: the manifest with its platform, or the index around it.
    pub fn descriptor(&self) -> Descriptor {
        match self.attestation {
            Some(attestation) => attestation.descriptor().clone(),
            None => self.image(),
        }
    }

    /// Descriptor of the manifest, with its platform.
    pub fn image(&self) -> Descriptor {
        Descriptor {
            platform: Some(DescriptorPlatform {
                architecture: self.platform.architecture.clone(),
                os: self.platform.os.clone(),
                os_version: String::new(),
                variant: self.platform.variant.clone(),
            }),
            ..Descriptor::of(self.manifest.media_type(), &self.manifest.encode())
        }
    }
}

/// Opens a blob so that reading it to its end fails where it is not what its descriptor says.
pub(crate) fn open<'a>(
    descriptor: &Descriptor,
    own: Option<&'a Vec<u8>>,
    source: &'a dyn BlobSource,
) -> io::Result<Verifying<Box<dyn Read + 'a>>> {
    let content: Box<dyn Read + 'a> = match own {
        Some(bytes) => Box::new(bytes.as_slice()),
        None => source.open(&descriptor.digest)?,
    };
    Ok(Verifying::new(content, descriptor.digest, descriptor.size))
}

/// Splits a full name into repository and tag; a name with a digest has no tag.
pub(crate) fn tag(name: &str) -> Option<(&str, &str)> {
    if name.contains('@') {
        return None;
    }
    match name.rsplit_once(':') {
        // The colon of a port is followed by a path.
        Some((repository, tag)) if !tag.contains('/') => Some((repository, tag)),
        _ => Some((name, "latest")),
    }
}

/// Writes a tar of plain files and directories with nothing of this machine in it.
pub(crate) struct Archive<W: Write> {
    out: W,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out }
    }

    pub fn dir(&mut self, path: &str) -> Result<(), WriteError> {
        let head = header::encode(&Entry::new(path, Kind::Dir, 0o755))?;
        self.out.write_all(&head).map_err(WriteError::Output)
    }

    pub fn file(
        &mut self,
        path: &str,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), WriteError> {
        let head = header::encode(&Entry::new(path, Kind::File { size }, 0o644))?;
        self.out.write_all(&head).map_err(WriteError::Output)?;
        self.copy(path, size, content)?;
        let padding = size.wrapping_neg() % header::BLOCK as u64;
        self.out
            .write_all(&[0; header::BLOCK][..padding as usize])
            .map_err(WriteError::Output)
    }

    fn copy(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<(), WriteError> {
        let (mut buffer, mut got) = (vec![0; 128 << 10], 0);
        loop {
            let read = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(WriteError::Content {
                        path: path.to_owned(),
                        source,
                    });
                }
            };
            got += read as u64;
            if got > size {
                return Err(WriteError::ContentLong {
                    path: path.to_owned(),
                    size,
                });
            }
            self.out
                .write_all(&buffer[..read])
                .map_err(WriteError::Output)?;
        }
        if got < size {
            return Err(WriteError::ContentShort {
                path: path.to_owned(),
                size,
                got,
            });
        }
        Ok(())
    }

    pub fn json(&mut self, path: &str, content: &[u8]) -> Result<(), WriteError> {
        self.file(path, content.len() as u64, &mut &content[..])
    }

    /// Adds `blobs/` and the blobs.
    pub fn blobs(&mut self, blobs: &Blobs<'_>, source: &dyn BlobSource) -> Result<(), WriteError> {
        self.dir("blobs")?;
        self.dir("blobs/sha256")?;
        for (descriptor, own) in blobs.values() {
            let path = blob_path(&descriptor.digest);
            let mut content =
                open(descriptor, own.as_ref(), source).map_err(|source| WriteError::Content {
                    path: path.clone(),
                    source,
                })?;
            self.file(&path, descriptor.size, &mut content)?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<W, WriteError> {
        self.out
            .write_all(&[0; 2 * header::BLOCK])
            .map_err(WriteError::Output)?;
        self.out.flush().map_err(WriteError::Output)?;
        Ok(self.out)
    }
}

/// Path of a blob in a layout.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
