//! Which image of an index is meant for a platform.

use stepwell_model::Platform;

use super::{Descriptor, DescriptorPlatform, ManifestError};

/// BuildKit puts provenance and bills of materials into the index as images of the platform `unknown/unknown`.
const ATTESTATION: &str = "vnd.docker.reference.type";

pub fn select<'a>(
    manifests: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor, ManifestError> {
    let images = manifests
        .iter()
        .filter(|m| !m.annotations.contains_key(ATTESTATION));
    let ranked = images
        .clone()
        .filter_map(|m| Some((rank(m.platform.as_ref(), wanted)?, m)));
    // `min_by_key` takes the first of equals.
    match ranked.min_by_key(|(rank, _)| *rank) {
        Some((_, chosen)) => Ok(chosen),
        None => Err(ManifestError::Platform {
            wanted: wanted.to_string(),
            available: images
                .filter_map(|m| m.platform.as_ref())
                .map(name)
                .collect(),
        }),
    }
}

fn plain(platform: &DescriptorPlatform) -> Platform {
    Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
    }
}

fn name(platform: &DescriptorPlatform) -> String {
    plain(platform).to_string()
}

/// The lower, the better; none where the image does not run there.
fn rank(platform: Option<&DescriptorPlatform>, wanted: &Platform) -> Option<u32> {
    // An image that does not say is taken where there is no other: the configuration will tell.
    let Some(platform) = platform.filter(|p| !p.os.is_empty() || !p.architecture.is_empty()) else {
        return Some(u32::MAX);
    };
    let have = plain(platform);
    if have == *wanted {
        return Some(0);
    }
    let arm = have.os == wanted.os && have.architecture == "arm" && wanted.architecture == "arm";
    match (have.satisfies(wanted), arm) {
        // Every arm runs what was built for an older one.
        (_, true) => (version(wanted, 7)).checked_sub(version(&have, 7)),
        // amd64 without a variant is v1, and what is built for it runs everywhere.
        (true, _) => Some(1 + version(&have, 0)),
        (false, _) => None,
    }
}

fn version(platform: &Platform, default: u32) -> u32 {
    let number = platform
        .variant
        .strip_prefix('v')
        .and_then(|v| v.parse().ok());
    number.unwrap_or(default).min(1000)
}
