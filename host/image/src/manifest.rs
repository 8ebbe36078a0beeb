//! Manifests and indexes, OCI's and docker's (OCI image-spec, manifest.md and image-index.md; docker's
//! "Image Manifest Version 2, Schema 2").  Text in, values out; fetching is the registry's.
//!
//! The types are our own and not oci-spec's: annotations there are hash maps, whose order changes from run to run and
//! with it the digest of everything that is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stepwell_model::{Digest, Platform};

mod descriptor;
mod oci;
mod select;

pub(crate) use descriptor::null;
pub use descriptor::{Descriptor, DescriptorPlatform, layer_compression, layer_type, media_type};

/// Largest manifest or index, as registries have it: they are held in memory.
pub const MANIFEST_LIMIT: u64 = 4 << 20;

/// How deep indexes may lie in indexes: stops one that contains itself under other names.
pub const INDEX_DEPTH: usize = 4;

/// Most layers of one image; docker unpacks 127.
const MAX_LAYERS: usize = 1000;

/// Why a manifest, an index or an image configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is larger than allowed.
    #[error("the {document} has {size} bytes, more than the {limit} that are allowed")]
    TooLarge {
        /// `manifest` or `configuration`.
        document: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: u64,
    },
    /// It is not the JSON that it should be.
    #[error("the {document} is not valid: {source}")]
    Json {
        /// `manifest` or `configuration`.
        document: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// Docker's first format, which no registry accepts any more.
    #[error(
        "the manifest is of docker's schema 1, which is not supported: push the image again with a current tool"
    )]
    Schema1,
    /// It is of a type that is no image.
    #[error("the manifest has the media type `{0}`, which is not that of an image")]
    MediaType(String),
    /// It says it is one thing and was delivered as another, or it is two things at once.
    #[error("the manifest is ambiguous: {0}")]
    Ambiguous(String),
    /// It has more layers than allowed.
    #[error("the image has {0} layers, more than the {MAX_LAYERS} that are allowed")]
    Layers(usize),
    /// A layer is packed with something that is not known.
    #[error("layer `{digest}` has the media type `{media_type}`, which is not supported")]
    LayerType {
        /// The layer.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// No image for the platform is in the index.
    #[error("the image is not there for `{wanted}`, only for {}", list(.available))]
    Platform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// Indexes lie in indexes deeper than allowed.
    #[error("the index contains indexes more than {INDEX_DEPTH} deep")]
    Depth,
    /// A time is not as RFC 3339 writes it.
    #[error("the configuration has the time `{0}`, which is not one of RFC 3339")]
    Time(String),
}

fn list(platforms: &[String]) -> String {
    match platforms {
        [] => "none".to_owned(),
        some => some
            .iter()
            .map(|p| format!("`{p}`"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// A manifest: one image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Whether the media types are docker's and not OCI's.
    pub docker: bool,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// An index: images for several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Whether the media types are docker's and not OCI's.
    pub docker: bool,
    /// The images.
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What a reference can lead to.
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, and taken apart at once"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An image.
    Manifest(Manifest),
    /// Images.
    Index(Index),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u64,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "null")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EncodedManifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EncodedIndex<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Document {
    /// Reads a manifest or an index.  `delivered` is the media type that it came with, where there was one.
    ///
    /// # Errors
    /// It is too large, no JSON, of another kind than delivered, of docker's schema 1, or not that of an image.
    pub fn parse(bytes: &[u8], delivered: Option<&str>) -> Result<Self, ManifestError> {
        let document = "manifest";
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(ManifestError::TooLarge {
                document,
                size: bytes.len(),
                limit: MANIFEST_LIMIT,
            });
        }
        let delivered = delivered.map(|t| t.split(';').next().unwrap_or(t).trim());
        if delivered.is_some_and(|t| t.contains("distribution.manifest.v1")) {
            return Err(ManifestError::Schema1);
        }
        let probe: Probe = json(document, bytes)?;
        if probe.schema_version == 1 {
            return Err(ManifestError::Schema1);
        }
        let raw: RawDocument = json(document, bytes)?;
        let kind = kind(&raw, delivered)?;
        Self::make(raw, kind)
    }

    fn make(raw: RawDocument, media_type: String) -> Result<Self, ManifestError> {
        let docker = media_type.contains(".docker.");
        let annotations = raw.annotations;
        match (media_type.as_str(), raw.config, raw.layers, raw.manifests) {
            (
                media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST,
                Some(config),
                Some(layers),
                None,
            ) => {
                if layers.len() > MAX_LAYERS {
                    return Err(ManifestError::Layers(layers.len()));
                }
                Ok(Self::Manifest(Manifest {
                    docker,
                    config,
                    layers,
                    annotations,
                }))
            }
            (media_type::OCI_INDEX | media_type::DOCKER_INDEX, None, None, Some(manifests)) => {
                Ok(Self::Index(Index {
                    docker,
                    manifests,
                    annotations,
                }))
            }
            (
                media_type::OCI_MANIFEST
                | media_type::DOCKER_MANIFEST
                | media_type::OCI_INDEX
                | media_type::DOCKER_INDEX,
                ..,
            ) => Err(ManifestError::Ambiguous(format!(
                "its fields are not those of `{media_type}`"
            ))),
            _ => Err(ManifestError::MediaType(media_type)),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: u64,
}

/// What kind of document it is: said by itself, by what it was delivered as, or by its fields.
fn kind(raw: &RawDocument, delivered: Option<&str>) -> Result<String, ManifestError> {
    if raw.schema_version != 2 || raw.fs_layers.is_some() {
        return Err(ManifestError::Ambiguous(
            "its schema version is not 2".into(),
        ));
    }
    // Registries that know no better deliver everything as JSON or bytes.
    let delivered = delivered.filter(|t| t.starts_with("application/vnd."));
    match (
        raw.media_type.as_deref().filter(|t| !t.is_empty()),
        delivered,
    ) {
        (Some(own), Some(delivered)) if own != delivered => Err(ManifestError::Ambiguous(format!(
            "it was delivered as `{delivered}` and says it is `{own}`"
        ))),
        (Some(own), _) => Ok(own.to_owned()),
        (None, Some(delivered)) => Ok(delivered.to_owned()),
        (None, None) if raw.manifests.is_some() => Ok(media_type::OCI_INDEX.into()),
        (None, None) => Ok(media_type::OCI_MANIFEST.into()),
    }
}

pub(crate) fn json<'a, T: Deserialize<'a>>(
    document: &'static str,
    bytes: &'a [u8],
) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|source| ManifestError::Json { document, source })
}

impl Manifest {
    /// A manifest of `layers` with their media types made to fit.
    pub fn new(
        docker: bool,
        config: &[u8],
        layers: Vec<Descriptor>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        let config_type = if docker {
            media_type::DOCKER_CONFIG
        } else {
            media_type::OCI_CONFIG
        };
        let mut layers = layers;
        for layer in &mut layers {
            // Layers of a base keep their bytes, but one manifest does not mix the two families.
            let distributable = !layer.media_type.contains("foreign")
                && !layer.media_type.contains("nondistributable");
            if let (Some(compression), true) = (layer_compression(&layer.media_type), distributable)
            {
                layer.media_type = layer_type(compression, docker).to_owned();
            }
        }
        Self {
            docker,
            config: Descriptor::of(config_type, config),
            layers,
            annotations,
        }
    }

    /// Its media type.
    pub fn media_type(&self) -> &'static str {
        if self.docker {
            media_type::DOCKER_MANIFEST
        } else {
            media_type::OCI_MANIFEST
        }
    }

    /// Writes it: compact JSON, the same bytes for the same manifest.
    pub fn encode(&self) -> Vec<u8> {
        encoded(&EncodedManifest {
            schema_version: 2,
            media_type: self.media_type(),
            config: &self.config,
            layers: &self.layers,
            annotations: &self.annotations,
        })
    }
}

impl Index {
    /// Its media type.
    pub fn media_type(&self) -> &'static str {
        if self.docker {
            media_type::DOCKER_INDEX
        } else {
            media_type::OCI_INDEX
        }
    }

    /// Writes it: compact JSON, the same bytes for the same index.
    pub fn encode(&self) -> Vec<u8> {
        encoded(&EncodedIndex {
            schema_version: 2,
            media_type: self.media_type(),
            manifests: &self.manifests,
            annotations: &self.annotations,
        })
    }

    /// Chooses the image for `wanted`.  Attestations are no images.  Among several that run there, the one with exactly
    /// that variant goes first, then the best that is not better; the order of the index decides the rest.
    ///
    /// # Errors
    /// [`ManifestError::Platform`] where there is none.
    pub fn select(&self, wanted: &Platform) -> Result<&Descriptor, ManifestError> {
        select::select(&self.manifests, wanted)
    }
}

pub(crate) fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    // Strings, numbers and maps with text keys only: nothing in it can fail.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
