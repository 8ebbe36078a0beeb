//! Archives for `docker load`, as `docker save` has written them since version 25: an OCI layout with docker's
//! `manifest.json` and `repositories` beside it.  podman and skopeo (`docker-archive:`, `oci-archive:`) read them too.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use crate::archive::{Archive, ImageBundle, blob_path, tag};
use crate::blob::BlobSource;
use crate::layer::WriteError;
use crate::layout;
use crate::manifest::encoded;

/// One image of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes the archive to `out` and returns it.
///
/// # Errors
/// The output cannot be written, or a blob cannot be read or is not what its descriptor says.
pub fn write<W: Write>(
    out: W,
    image: &ImageBundle<'_>,
    source: &dyn BlobSource,
) -> Result<W, WriteError> {
    let mut archive = Archive::new(out);
    archive.blobs(&image.blobs(), source)?;
    archive.json("index.json", &layout::index_of(image).encode())?;
    archive.json("manifest.json", &manifest_json(image))?;
    archive.json(layout::MARKER, layout::MARKER_TEXT)?;
    archive.json("repositories", &repositories(image))?;
    archive.finish()
}

fn manifest_json(image: &ImageBundle<'_>) -> Vec<u8> {
    let tags = image.names.iter().filter_map(|name| tag(name));
    encoded(&[Item {
        config: blob_path(&image.manifest.config.digest),
        repo_tags: tags
            .map(|(repository, tag)| format!("{}:{tag}", familiar(repository)))
            .collect(),
        layers: image
            .manifest
            .layers
            .iter()
            .map(|layer| blob_path(&layer.digest))
            .collect(),
    }])
}

/// Docker's oldest index of names: repository, tag, layer.  Only tools from before `manifest.json` look at it.
fn repositories(image: &ImageBundle<'_>) -> Vec<u8> {
    let mut repositories: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    if let Some(top) = image.manifest.layers.last() {
        for (repository, tag) in image.names.iter().filter_map(|name| tag(name)) {
            let tags = repositories.entry(familiar(repository)).or_default();
            tags.insert(tag, top.digest.hex());
        }
    }
    encoded(&repositories)
}

/// The name as docker shows it: without its own registry and namespace.
fn familiar(repository: &str) -> &str {
    match repository.strip_prefix("docker.io/") {
        Some(short) => short.strip_prefix("library/").unwrap_or(short),
        None => repository,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_and_shortened() {
        for (name, want) in [
            ("docker.io/library/app:1", Some(("app", "1"))),
            ("docker.io/me/app:1", Some(("me/app", "1"))),
            ("localhost:5000/app", Some(("localhost:5000/app", "latest"))),
            ("localhost:5000/app:2", Some(("localhost:5000/app", "2"))),
            ("app@sha256:00", None),
        ] {
            let split = tag(name).map(|(repository, tag)| (familiar(repository), tag));
            assert_eq!(split, want, "{name}");
        }
    }
}
