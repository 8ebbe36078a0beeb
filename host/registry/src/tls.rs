//! TLS: rustls on ring, with the system's certificate authorities and those of the user.
//!
//! Read here and not by reqwest's verifier, because that one reads the environment, which is the caller's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::{ErrorKind, RegistryError, Result};
use crate::options::RegistryOptions;

/// Where Linux distributions keep the bundle of all authorities; the first that exists is taken.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A configuration that trusts the system's authorities and those in `options`.
pub(crate) fn trusting(options: &RegistryOptions) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for path in system_files(options) {
        // A system's store often has a certificate or two that nobody can parse; the rest still counts.
        if let Ok(found) = CertificateDer::pem_file_iter(&path) {
            roots.add_parsable_certificates(found.flatten());
        }
    }
    for path in &options.ca_files {
        add_given(&mut roots, path)?;
    }
    config(roots)
}

/// A configuration that trusts nobody, for connections that do not use TLS.
pub(crate) fn trusting_nobody() -> Result<ClientConfig> {
    config(RootCertStore::empty())
}

fn config(roots: RootCertStore) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| RegistryError::new(ErrorKind::Setup { why: e.to_string() }))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A file that the user named has to be usable as a whole.
fn add_given(roots: &mut RootCertStore, path: &Path) -> Result<()> {
    let bad = |why: String| {
        RegistryError::new(ErrorKind::CaFile {
            path: path.display().to_string(),
            why,
        })
    };
    let found = CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))?;
    let certificates: Vec<_> = found
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| bad(e.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("there is no certificate in it".to_owned()));
    }
    certificates
        .into_iter()
        .try_for_each(|c| roots.add(c))
        .map_err(|e| bad(e.to_string()))
}

fn system_files(options: &RegistryOptions) -> Vec<PathBuf> {
    if options.system_ca.is_empty() {
        return BUNDLES
            .iter()
            .map(PathBuf::from)
            .find(|p| p.is_file())
            .into_iter()
            .collect();
    }
    options
        .system_ca
        .iter()
        .flat_map(|path| files_of(path))
        .collect()
}

/// A file itself, or the files of a directory (what `SSL_CERT_DIR` names).
fn files_of(path: &Path) -> Vec<PathBuf> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.is_file())
            .collect(),
        Err(_) => vec![path.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_file_without_certificates_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = RegistryOptions {
            ca_files: vec![file.path().to_owned()],
            ..RegistryOptions::default()
        };
        let error = trusting(&options).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::CaFile { .. }), "{error}");
    }
}
