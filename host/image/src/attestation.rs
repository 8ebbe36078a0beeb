//! Attestations beside an image, as BuildKit stores them (moby/buildkit, docs/attestations/attestation-storage.md): an index with the
//! image and a manifest of its own for what is said of it, whose layers are in-toto statements.
//!
//! The image's own manifest stays as it is: who asks for a platform gets that and nothing else.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::manifest::{Descriptor, DescriptorPlatform, Index, Manifest, encoded, media_type};

/// Media type of a statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Annotation of a layer with what kind of statement it is.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Annotation with what a manifest of an index is there for.
pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Annotation with the manifest that another one is about.
pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// The kind of manifest that holds attestations.
pub const ATTESTATION_MANIFEST: &str = "attestation-manifest";

/// What neither runs anywhere nor is mistaken for what does.
const UNKNOWN: &str = "unknown";

/// A statement about an image, and the documents that bind the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// The statement.
    pub statement: Vec<u8>,
    /// The configuration that a manifest has to have.
    pub config: Vec<u8>,
    /// The manifest with the statement as its layer.
    pub manifest: Vec<u8>,
    /// The index with the image and that manifest.
    pub index: Vec<u8>,
    descriptors: [Descriptor; 4],
}

#[derive(Serialize)]
struct Config {
    architecture: &'static str,
    os: &'static str,
    config: BTreeMap<String, String>,
    rootfs: RootFs,
}

#[derive(Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: [stepwell_model::Digest; 1],
}

impl Attestation {
    /// Binds a statement of the given kind to the image that `image` points at, with its platform.
    pub fn new(image: Descriptor, predicate_type: &str, statement: Vec<u8>) -> Self {
        let mut layer = Descriptor::of(IN_TOTO, &statement);
        layer
            .annotations
            .insert(PREDICATE_TYPE.into(), predicate_type.to_owned());
        let config = encoded(&Config {
            architecture: UNKNOWN,
            os: UNKNOWN,
            config: BTreeMap::new(),
            rootfs: RootFs {
                r#type: "layers",
                diff_ids: [layer.digest],
            },
        });
        let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
        let manifest = Manifest {
            docker: false,
            config: config_descriptor.clone(),
            layers: vec![layer.clone()],
            annotations: BTreeMap::new(),
        };
        let manifest = manifest.encode();
        let mut about = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
        about.annotations = BTreeMap::from([
            (REFERENCE_DIGEST.into(), image.digest.to_string()),
            (REFERENCE_TYPE.into(), ATTESTATION_MANIFEST.into()),
        ]);
        about.platform = Some(DescriptorPlatform {
            architecture: UNKNOWN.into(),
            os: UNKNOWN.into(),
            ..DescriptorPlatform::default()
        });
        let index = Index {
            docker: false,
            manifests: vec![image, about.clone()],
            annotations: BTreeMap::new(),
        };
        let index = index.encode();
        let descriptors = [
            layer,
            config_descriptor,
            about,
            Descriptor::of(media_type::OCI_INDEX, &index),
        ];
        Self {
            statement,
            config,
            manifest,
            index,
            descriptors,
        }
    }

    /// The index with the image.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptors[3]
    }

    /// The blobs that its manifest points at: the statement and the configuration.
    pub fn blobs(&self) -> [(&Descriptor, &[u8]); 2] {
        let [statement, config, ..] = &self.descriptors;
        [(statement, &self.statement), (config, &self.config)]
    }

    /// The documents that point at others, in the order in which a registry takes them: the manifest, then the index.
    pub fn documents(&self) -> [(&Descriptor, &[u8]); 2] {
        let [_, _, manifest, index] = &self.descriptors;
        [(manifest, &self.manifest), (index, &self.index)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;

    #[test]
    fn the_image_is_found_and_the_attestation_is_none() {
        let mut image = Descriptor::of(media_type::OCI_MANIFEST, b"the image");
        image.platform = Some(DescriptorPlatform {
            architecture: "amd64".into(),
            os: "linux".into(),
            ..DescriptorPlatform::default()
        });
        let bound = Attestation::new(image.clone(), "https://example.org/x", b"{}".to_vec());
        let Ok(Document::Index(index)) = Document::parse(&bound.index, None) else {
            panic!("an index");
        };
        assert_eq!(
            index.select(&"linux/amd64".parse().unwrap()).unwrap(),
            &image
        );
        assert!(index.select(&"linux/arm64".parse().unwrap()).is_err());
        // The bytes are part of what others hold digests of.
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let statement = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(
            text(&bound.config),
            format!(
                r#"{{"architecture":"unknown","os":"unknown","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{statement}"]}}}}"#
            )
        );
        let Ok(Document::Manifest(manifest)) = Document::parse(&bound.manifest, None) else {
            panic!("a manifest");
        };
        let layer = &manifest.layers[0];
        assert_eq!(layer.media_type, IN_TOTO);
        assert_eq!(layer.annotations[PREDICATE_TYPE], "https://example.org/x");
        let about = &index.manifests[1];
        assert_eq!(
            about.annotations[REFERENCE_DIGEST],
            image.digest.to_string()
        );
        assert_eq!(about.annotations[REFERENCE_TYPE], ATTESTATION_MANIFEST);
        assert_eq!(about.platform.as_ref().unwrap().os, "unknown");
    }
}
