//! Manifests and indexes: resolve, fetch, push, list.  They are small and held in memory; the bytes are what
//! counts, and are never written anew.

use bytes::Bytes;
use oci_distribution::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciImageIndex,
};
use oci_spec::image::{Descriptor, MediaType};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use stepwell_model::{Digest, Platform, Reference};

use crate::auth::Scopes;
use crate::endpoint::{manifest_path, pinned, refused, repository};
use crate::error::{ErrorKind, RegistryError, Result};
use crate::registry::{Call, Registry, Target};
use crate::transport::{Answer, Payload};
use crate::{hint, select};

/// The longest manifest that is read: what the distribution-spec asks of registries to accept.
pub const MANIFEST_LIMIT: u64 = 4 << 20;

/// The manifests' media types.
pub mod media_type {
    pub use oci_distribution::manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE as DOCKER_LIST,
        IMAGE_MANIFEST_MEDIA_TYPE as DOCKER_MANIFEST, OCI_IMAGE_INDEX_MEDIA_TYPE as OCI_INDEX,
        OCI_IMAGE_MEDIA_TYPE as OCI_MANIFEST,
    };
}

const ACCEPTED: &[&str] = &[
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

const DIGEST_HEADER: &str = "docker-content-digest";

/// A manifest or an index as the registry sent it, its digest verified.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Media type, digest and size of [`Manifest::bytes`].
    pub descriptor: Descriptor,
    /// [`Manifest::descriptor`]'s digest.
    pub digest: Digest,
    /// The JSON text.
    pub bytes: Bytes,
}

impl Manifest {
    /// Says whether this is an index (docker: a manifest list) rather than one image's manifest.
    pub fn is_index(&self) -> bool {
        is_index(self.descriptor.media_type().as_ref())
    }
}

/// What a reference leads to.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The index, where the reference names one and a manifest was chosen from it.
    pub index: Option<Manifest>,
    /// One image's manifest; an index only where no platform was asked for.
    pub manifest: Manifest,
}

impl Registry {
    /// Fetches what `reference` names; where that is an index and a `platform` is given, the image for it.
    ///
    /// # Errors
    /// [`ErrorKind::NoPlatform`] where the index has nothing for the platform, [`ErrorKind::DigestMismatch`]
    /// where the bytes are not those of a pinned digest, and what the network brings.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<Resolved> {
        let found = self.manifest(reference).await?;
        let Some(platform) = platform.filter(|_| found.is_index()) else {
            return Ok(Resolved {
                index: None,
                manifest: found,
            });
        };
        let index: OciImageIndex = serde_json::from_slice(&found.bytes)
            .map_err(|e| bad_manifest(reference, &e.to_string()))?;
        let Some(entry) = select::select(&index, platform) else {
            let (reference, wanted, available) = (
                reference.to_string(),
                platform.clone(),
                select::available(&index),
            );
            return Err(RegistryError::new(ErrorKind::NoPlatform {
                reference,
                wanted,
                available,
            }));
        };
        let manifest = self
            .manifest(&reference.clone_with_digest(entry.digest.clone()))
            .await?;
        if manifest.is_index() {
            return Err(bad_manifest(reference, "an index within an index"));
        }
        let (expected, actual) = (entry.size, manifest.bytes.len() as u64);
        if u64::try_from(expected) != Ok(actual) {
            let kind = ErrorKind::SizeMismatch {
                expected: u64::try_from(expected).unwrap_or(0),
                actual,
            };
            return Err(RegistryError::new(kind));
        }
        Ok(Resolved {
            index: Some(found),
            manifest,
        })
    }

    /// Fetches the manifest or index that `reference` names, by its digest where it has one.
    pub async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        let host = self.host(reference)?;
        let expected = pinned(reference)?;
        let call = read(Method::GET, reference)?;
        let mut backoff = self.backoff();
        loop {
            let answer = match self.call_once(&host, &call, &[200]).await {
                Ok(answer) => receive(answer, expected).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(manifest) => return Ok(manifest),
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    /// Asks which digest `reference` has now, without fetching it: on Docker Hub this does not count against
    /// the limit of pulls.  The answer is the registry's word; only fetching verifies it.
    pub async fn head(&self, reference: &Reference) -> Result<Descriptor> {
        let host = self.host(reference)?;
        let answer = self
            .call(&host, &read(Method::HEAD, reference)?, &[200])
            .await?;
        let digest = answer
            .header(DIGEST_HEADER)
            .and_then(|d| d.parse::<Digest>().ok());
        let size = answer.header(CONTENT_LENGTH).and_then(|s| s.parse().ok());
        let (Some(digest), Some(size)) = (digest, size) else {
            return Ok(self.manifest(reference).await?.descriptor);
        };
        let expected = pinned(reference)?.unwrap_or(digest);
        if expected != digest {
            return Err(answer.error(ErrorKind::DigestMismatch {
                expected,
                actual: digest,
            }));
        }
        let media_type = content_type(&answer).unwrap_or_else(|| OCI_IMAGE_MEDIA_TYPE.to_owned());
        Ok(descriptor(&media_type, digest, size))
    }

    /// Says whether the tag of `reference` names the manifest `digest` already; then its blobs are there too, as
    /// registries take no manifest without them.  Asked with the rights of a push, so that one token serves all of it.
    pub async fn has_manifest(&self, reference: &Reference, digest: &Digest) -> Result<bool> {
        let host = self.host(reference)?;
        let mut call = read(Method::HEAD, reference)?;
        call.target = Target::Path(manifest_path(reference, true)?);
        call.scopes = Scopes::push(repository(reference)?);
        match self.call(&host, &call, &[200]).await {
            Ok(answer) => Ok(announced(&answer) == Some(*digest)),
            // Whatever is wrong, the push itself meets it, and says it better.
            Err(error) if matches!(error.status(), Some(400..=499)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pushes a manifest or an index under the tag of `reference`, or under its digest where it has no tag.
    /// What it names has to be there already.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest> {
        let host = self.host(reference)?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = pinned(reference)?.filter(|d| *d != digest) {
            return Err(refused(
                reference,
                format!("the manifest to push has the digest `{digest}`, not `{expected}`"),
            ));
        }
        let repository = repository(reference)?;
        let mut call = Call::new(
            Method::PUT,
            manifest_path(reference, true)?,
            repository,
            Scopes::push(repository),
        );
        let media_type = HeaderValue::from_str(media_type);
        let media_type = media_type
            .map_err(|_| refused(reference, "its media type is no header value".to_owned()))?;
        call.headers.insert(CONTENT_TYPE, media_type);
        call.payload = Payload::Bytes(bytes);
        let answer = self.call(&host, &call, &[200, 201, 202]).await?;
        match announced(&answer) {
            Some(actual) if actual != digest => Err(answer.error(ErrorKind::DigestMismatch {
                expected: digest,
                actual,
            })),
            _ => Ok(digest),
        }
    }
}

fn read(method: Method, reference: &Reference) -> Result<Call> {
    let repository = repository(reference)?;
    let mut call = Call::new(
        method,
        manifest_path(reference, false)?,
        repository,
        Scopes::pull(repository),
    );
    for accepted in ACCEPTED {
        call.headers
            .append(ACCEPT, HeaderValue::from_static(accepted));
    }
    Ok(call)
}

/// Reads a manifest out of an answer and verifies it against the pinned digest, or else the announced one.
async fn receive(answer: Answer, pinned: Option<Digest>) -> Result<Manifest> {
    let expected = pinned.or_else(|| announced(&answer));
    let (header, method, url) = (
        content_type(&answer),
        answer.method.clone(),
        answer.url.clone(),
    );
    let length = answer
        .header(CONTENT_LENGTH)
        .and_then(|l| l.parse::<u64>().ok());
    if length.is_some_and(|l| l > MANIFEST_LIMIT) {
        return Err(answer.error(ErrorKind::TooLarge {
            limit: MANIFEST_LIMIT,
        }));
    }
    let bytes = answer.bytes(MANIFEST_LIMIT).await?;
    let page = hint::of_page(header.as_deref().unwrap_or(""));
    let error = |kind| RegistryError::of(&method, &url, kind).with_hint(page.clone());
    let actual = Digest::of(&bytes);
    if let Some(expected) = expected.filter(|e| *e != actual) {
        return Err(error(ErrorKind::DigestMismatch { expected, actual }));
    }
    let media_type =
        kind_of(header.as_deref(), &bytes).map_err(|what| error(ErrorKind::BadAnswer { what }))?;
    let descriptor = descriptor(&media_type, actual, bytes.len() as u64);
    Ok(Manifest {
        descriptor,
        digest: actual,
        bytes,
    })
}

/// The digest a registry gives with an answer; only SHA-256 can be compared.
fn announced(answer: &Answer) -> Option<Digest> {
    answer.header(DIGEST_HEADER)?.trim().parse().ok()
}

fn content_type(answer: &Answer) -> Option<String> {
    let value = answer.header(CONTENT_TYPE)?;
    Some(value.split(';').next().unwrap_or("").trim().to_owned())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

/// Determines what a document is.  One that could be taken for two things is refused: two programs that read
/// it differently would be made to disagree about what an image is (CVE-2021-41190).
fn kind_of(header: Option<&str>, bytes: &[u8]) -> std::result::Result<String, String> {
    let shape: Shape =
        serde_json::from_slice(bytes).map_err(|e| format!("the manifest is not json: {e}"))?;
    if shape.schema_version == Some(1) {
        return Err("the manifest has docker's schema 1, which is not supported".to_owned());
    }
    let has_index = shape.manifests.is_some();
    let has_image = shape.layers.is_some() || shape.config.is_some();
    let known = |t: &&str| ACCEPTED.contains(t);
    let named = shape.media_type.as_deref();
    let stated = match (named.filter(known), header.filter(known)) {
        (Some(a), Some(b)) if a != b => {
            return Err(format!(
                "the manifest says it is `{a}`, the server says `{b}`"
            ));
        }
        (Some(stated), _) => stated,
        // Only an unknown type in the document itself is its own word.
        (None, _) if named.is_some() => {
            return Err(format!(
                "the manifest's media type `{}` is not supported",
                crate::text::clean(named.unwrap_or(""))
            ));
        }
        (None, Some(stated)) => stated,
        (None, None) if has_index => OCI_IMAGE_INDEX_MEDIA_TYPE,
        (None, None) => OCI_IMAGE_MEDIA_TYPE,
    };
    if has_index == has_image || has_index != is_index(stated) {
        return Err(format!("the manifest does not have the form of `{stated}`"));
    }
    Ok(stated.to_owned())
}

fn is_index(media_type: &str) -> bool {
    matches!(
        media_type,
        OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE
    )
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    let sha256 = digest.hex().parse::<oci_spec::image::Sha256Digest>();
    // The hexadecimal digits come from a digest, so they are one.
    let sha256 = sha256.expect("64 hexadecimal digits");
    Descriptor::new(MediaType::from(media_type), size, sha256)
}

fn bad_manifest(reference: &Reference, what: &str) -> RegistryError {
    RegistryError::new(ErrorKind::BadAnswer {
        what: format!("the index of `{reference}`: {what}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_an_index_from_an_image() {
        let image = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(kind_of(None, image).unwrap(), OCI_IMAGE_MEDIA_TYPE);
        assert_eq!(
            kind_of(Some("application/json"), index).unwrap(),
            OCI_IMAGE_INDEX_MEDIA_TYPE
        );
        assert_eq!(
            kind_of(Some(IMAGE_MANIFEST_LIST_MEDIA_TYPE), index).unwrap(),
            IMAGE_MANIFEST_LIST_MEDIA_TYPE
        );
    }

    #[test]
    fn refuses_what_could_be_two_things() {
        let both = br#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#;
        let neither = br#"{"schemaVersion":2}"#;
        let image = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
        let artifact = br#"{"schemaVersion":2,"mediaType":"text/plain","config":{},"layers":[]}"#;
        for (header, body) in [
            (None, &both[..]),
            (None, neither),
            (Some(OCI_IMAGE_INDEX_MEDIA_TYPE), image),
            (None, artifact),
            (None, br#"{"schemaVersion":1,"fsLayers":[]}"#),
            (None, b"<html>"),
        ] {
            assert!(
                kind_of(header, body).is_err(),
                "{}",
                String::from_utf8_lossy(body)
            );
        }
    }
}
