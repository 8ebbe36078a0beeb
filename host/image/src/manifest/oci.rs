//! To and from oci-spec's descriptors, which the registry client speaks.  Both have the same JSON form.

use oci_spec::image as oci;

use super::{Descriptor, ManifestError};

impl TryFrom<&oci::Descriptor> for Descriptor {
    type Error = ManifestError;

    /// Fails where the digest is not a SHA-256.
    fn try_from(descriptor: &oci::Descriptor) -> Result<Self, ManifestError> {
        convert(descriptor)
    }
}

impl TryFrom<&Descriptor> for oci::Descriptor {
    type Error = ManifestError;

    /// Fails where a text is not one that oci-spec takes.
    fn try_from(descriptor: &Descriptor) -> Result<Self, ManifestError> {
        convert(descriptor)
    }
}

fn convert<A: serde::Serialize, B: serde::de::DeserializeOwned>(
    value: &A,
) -> Result<B, ManifestError> {
    serde_json::to_value(value)
        .and_then(serde_json::from_value)
        .map_err(|source| ManifestError::Json {
            document: "descriptor",
            source,
        })
}

#[cfg(test)]
mod tests {
    use stepwell_model::Digest;

    use super::*;
    use crate::manifest::{DescriptorPlatform, media_type};

    #[test]
    fn nothing_is_lost_on_the_way() {
        let mut descriptor = Descriptor::of(media_type::DOCKER_LAYER_ZSTD, b"x");
        descriptor.annotations.insert("a".into(), "b".into());
        descriptor.platform = Some(DescriptorPlatform {
            os: "linux".into(),
            architecture: "arm".into(),
            variant: "v7".into(),
            ..DescriptorPlatform::default()
        });
        let oci = oci::Descriptor::try_from(&descriptor).unwrap();
        assert_eq!(oci.digest().to_string(), Digest::of(b"x").to_string());
        assert_eq!(Descriptor::try_from(&oci).unwrap(), descriptor);
    }
}
