//! Chooses the manifest of a platform out of an image index (OCI image-spec, image-index.md).

use oci_distribution::manifest::{ImageIndexEntry, OciImageIndex};
use stepwell_model::Platform;

/// The entry for `wanted`: the same platform before one that also runs there, the first of equals.
pub(crate) fn select<'a>(
    index: &'a OciImageIndex,
    wanted: &Platform,
) -> Option<&'a ImageIndexEntry> {
    let fitting = || {
        index
            .manifests
            .iter()
            .filter(|e| platform(e).is_some_and(|p| p.satisfies(wanted)))
    };
    let exact = fitting().find(|e| platform(e).as_ref() == Some(wanted));
    // A server of one's own may serve an index of a single manifest without a platform.
    let only = || match &index.manifests[..] {
        [single] if single.platform.is_none() => Some(single),
        _ => None,
    };
    exact.or_else(|| fitting().next()).or_else(only)
}

/// The platforms in an index, for messages; attestations have the platform `unknown`.
pub(crate) fn available(index: &OciImageIndex) -> Vec<Platform> {
    let mut found: Vec<Platform> = index
        .manifests
        .iter()
        .filter_map(platform)
        .filter(|p| p.os != "unknown")
        .collect();
    found.dedup();
    found
}

fn platform(entry: &ImageIndexEntry) -> Option<Platform> {
    let found = entry.platform.as_ref()?;
    let variant = found.variant.clone().unwrap_or_default();
    Some(Platform {
        os: found.os.to_string(),
        architecture: found.architecture.to_string(),
        variant,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> OciImageIndex {
        let manifests = platforms.iter().enumerate().map(|(n, text)| {
            let mut entry = serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{n:064}"), "size": 1});
            let parts: Vec<&str> = text.split('/').collect();
            if let [os, arch, variant @ ..] = &parts[..] {
                entry["platform"] = serde_json::json!({"os": os, "architecture": arch});
                if let [variant] = variant {
                    entry["platform"]["variant"] = (*variant).into();
                }
            }
            entry
        });
        let manifests: Vec<_> = manifests.collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": manifests}))
            .unwrap()
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<usize> {
        let index = index(platforms);
        let entry = select(&index, &wanted.parse().unwrap())?;
        index
            .manifests
            .iter()
            .position(|e| e.digest == entry.digest)
    }

    #[test]
    fn takes_the_same_before_the_compatible() {
        let debian = [
            "linux/amd64",
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/arm64/v8",
            "unknown/unknown",
        ];
        assert_eq!(chosen(&debian, "linux/amd64"), Some(0));
        assert_eq!(chosen(&debian, "linux/arm/v7"), Some(2));
        assert_eq!(chosen(&debian, "linux/arm64"), Some(3));
        assert_eq!(chosen(&debian, "linux/riscv64"), None);
        assert_eq!(available(&index(&debian)).len(), 4);
    }

    #[test]
    fn a_single_manifest_without_a_platform_is_for_all() {
        assert_eq!(chosen(&[""], "linux/amd64"), Some(0));
        assert_eq!(chosen(&["", ""], "linux/amd64"), None);
    }
}
