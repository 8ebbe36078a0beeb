//! What was used from elsewhere, as provenance names it.  Addresses are told without what may be confidential.

use stepwell_model::op::GitOp;
use stepwell_model::{Digest, remote};

use super::git::Resolved;

/// Something from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    /// Where it is.
    pub uri: String,
    /// Algorithm of the digest, as in-toto names it.
    pub algorithm: &'static str,
    /// What it is, in hexadecimal digits.
    pub digest: String,
}

impl Material {
    /// A file behind an address.
    pub(super) fn file(url: &str, digest: &Digest) -> Self {
        Self {
            uri: remote::redact(url),
            algorithm: "sha256",
            digest: digest.hex(),
        }
    }

    /// Files of a repository.
    pub(super) fn commit(op: &GitOp, resolved: &Resolved) -> Self {
        let mut uri = remote::redact(&as_uri(&op.url));
        uri.push('#');
        uri.push_str(resolved.name.as_deref().unwrap_or(&resolved.commit));
        if !op.subdir.is_empty() {
            uri.push(':');
            uri.push_str(&op.subdir);
        }
        let algorithm = match resolved.commit.len() {
            40 => "sha1",
            _ => "sha256",
        };
        Self {
            uri,
            algorithm,
            digest: resolved.commit.clone(),
        }
    }
}

/// `user@host:path` as an address with a scheme.
fn as_uri(url: &str) -> String {
    match url.split_once(':') {
        Some((host, path)) if !url.contains("://") => {
            format!("ssh://{host}/{}", path.trim_start_matches('/'))
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_named_by_ref_and_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let of = |url: &str, subdir: &str, name: Option<&str>| {
            let op = GitOp {
                url: url.into(),
                reference: String::new(),
                subdir: subdir.into(),
                checksum: String::new(),
                keep_git_dir: false,
                submodules: true,
                commit_times: false,
            };
            let resolved = Resolved {
                commit: commit.into(),
                name: name.map(str::to_owned),
            };
            let found = Material::commit(&op, &resolved);
            assert_eq!((found.algorithm, &found.digest[..]), ("sha1", commit));
            found.uri
        };
        assert_eq!(
            of("https://u:hush@h/x.git", "", Some("refs/tags/v1")),
            "https://h/x.git#refs/tags/v1"
        );
        assert_eq!(
            of("git@h:o/x.git", "d", None),
            format!("ssh://h/o/x.git#{commit}:d")
        );
    }
}
