//! Package URLs of images (package-url/purl-spec, types `docker` and `oci`), as BuildKit writes them.

use stepwell_model::{Digest, Platform, parse_reference};

/// An image of a registry.
pub fn of(reference: &str, platform: &Platform) -> String {
    let Ok(parsed) = parse_reference(reference) else {
        return url("docker", reference, None, None, platform);
    };
    let repository = parsed.repository();
    let name = match parsed.registry() {
        "docker.io" => repository.strip_prefix("library/").unwrap_or(repository),
        registry => &format!("{registry}/{repository}"),
    };
    // One that has both is meant by its digest, and told with its tag.
    url("docker", name, parsed.tag(), parsed.digest(), platform)
}

/// An image of an OCI layout.
pub fn of_layout(name: &str, digest: &Digest, platform: &Platform) -> String {
    url("oci", name, None, Some(&digest.to_string()), platform)
}

fn url(
    kind: &str,
    name: &str,
    tag: Option<&str>,
    digest: Option<&str>,
    platform: &Platform,
) -> String {
    let name: Vec<String> = name.split('/').map(|part| encoded(part, ":")).collect();
    let mut url = format!("pkg:{kind}/{}", name.join("/"));
    if let Some(tag) = tag {
        url.push_str(&format!("@{}", encoded(tag, "")));
    }
    url.push('?');
    if let Some(digest) = digest {
        url.push_str(&format!("digest={}&", encoded(digest, ":")));
    }
    url.push_str(&format!("platform={}", encoded(&platform.to_string(), "")));
    url
}

/// Percent-encodes what is no letter, no digit and none of what the specification leaves as it is.
fn encoded(text: &str, more: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || more.contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_buildkit_names_them() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (reference, want) in [
            (
                "alpine:3.17",
                "pkg:docker/alpine@3.17?platform=linux%2Famd64".to_owned(),
            ),
            (
                "me/app",
                "pkg:docker/me/app@latest?platform=linux%2Famd64".to_owned(),
            ),
            (
                "localhost:5000/a/b:1",
                "pkg:docker/localhost:5000/a/b@1?platform=linux%2Famd64".to_owned(),
            ),
            (
                &format!("alpine@{digest}")[..],
                format!("pkg:docker/alpine?digest={digest}&platform=linux%2Famd64"),
            ),
        ] {
            assert_eq!(of(reference, &platform), want);
        }
    }
}
