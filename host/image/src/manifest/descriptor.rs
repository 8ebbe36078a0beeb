//! Descriptors and media types (OCI image-spec, descriptor.md and media-types.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stepwell_model::Digest;
use stepwell_model::request::Compression;

use super::ManifestError;

/// Media types.
pub mod media_type {
    /// OCI's manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI's index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI's configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI's layer, not compressed; `+gzip` or `+zstd` may follow.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI's gzip layer.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI's zstd layer.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, not compressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker's gzip layer.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker's zstd layer, as containerd names it.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
}

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Digest of its content.
    pub digest: Digest,
    /// Number of its bytes.
    pub size: u64,
    /// Where else it can be had.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// What it runs on, for the images of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
}

/// The platform of an index's image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// GOARCH.
    #[serde(default)]
    pub architecture: String,
    /// GOOS.
    #[serde(default)]
    pub os: String,
    /// For example a version of Windows; or empty.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// For example `v8`; or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Go writes `null` for empty lists and maps.
pub(crate) fn null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Descriptor {
    /// A descriptor with nothing but the necessary.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
        }
    }

    /// The descriptor of `content`.
    pub fn of(media_type: impl Into<String>, content: &[u8]) -> Self {
        Self::new(media_type, Digest::of(content), content.len() as u64)
    }

    /// Whether it points at an index.
    pub fn is_index(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            media_type::OCI_INDEX | media_type::DOCKER_INDEX
        )
    }

    /// How the layer it points at is compressed.
    ///
    /// # Errors
    /// [`ManifestError::LayerType`] where the type is not that of a layer, or of an encrypted one.
    pub fn compression(&self) -> Result<Compression, ManifestError> {
        layer_compression(&self.media_type).ok_or_else(|| ManifestError::LayerType {
            digest: self.digest,
            media_type: self.media_type.clone(),
        })
    }
}

/// The media type of a layer.
pub fn layer_type(compression: Compression, docker: bool) -> &'static str {
    match (compression, docker) {
        (Compression::Uncompressed, false) => media_type::OCI_LAYER,
        (Compression::Gzip, false) => media_type::OCI_LAYER_GZIP,
        (Compression::Zstd, false) => media_type::OCI_LAYER_ZSTD,
        (Compression::Uncompressed, true) => media_type::DOCKER_LAYER,
        (Compression::Gzip, true) => media_type::DOCKER_LAYER_GZIP,
        (Compression::Zstd, true) => media_type::DOCKER_LAYER_ZSTD,
    }
}

/// How a layer of this media type is compressed; none where it is not a layer.  Layers that must not be distributed
/// (`nondistributable`, `foreign`) are layers as well.
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    let oci = ["layer", "layer.nondistributable"].iter().find_map(|kind| {
        media_type.strip_prefix(&format!("application/vnd.oci.image.{kind}.v1.tar"))
    });
    let docker = ["diff", "foreign.diff"].iter().find_map(|kind| {
        media_type.strip_prefix(&format!("application/vnd.docker.image.rootfs.{kind}.tar"))
    });
    match oci.or(docker)? {
        "" => Some(Compression::Uncompressed),
        "+gzip" | ".gzip" => Some(Compression::Gzip),
        "+zstd" | ".zstd" => Some(Compression::Zstd),
        _ => None,
    }
}
