//! What the tests share.

pub mod docker_registry;
pub mod server;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use stepwell_registry::{BlobSource, Digest, Reference, RegistryOptions, RetryPolicy, Timeouts};

pub use docker_registry::DockerRegistry;
pub use server::{Body, Reply, Seen, Server};

/// Options with pauses and limits that suit a test.
pub fn quick() -> RegistryOptions {
    RegistryOptions {
        retry: RetryPolicy {
            attempts: 4,
            base: Duration::from_millis(5),
            max: Duration::from_millis(20),
            max_retry_after: Duration::from_secs(5),
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(5),
            idle: Duration::from_millis(300),
            min_bytes: 1024,
        },
        ..RegistryOptions::default()
    }
}

/// `quick` with a credential file of the given contents.
pub fn quick_with_login(dir: &tempfile::TempDir, config: &str) -> RegistryOptions {
    let path = dir.path().join("config.json");
    std::fs::write(&path, config).unwrap();
    RegistryOptions {
        credential_files: vec![path],
        ..quick()
    }
}

pub fn reference(authority: &str, rest: &str) -> Reference {
    format!("{authority}/{rest}").parse().unwrap()
}

/// Bytes that do not repeat soon and are the same in every run.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&next());
    }
    out.truncate(len);
    out
}

pub fn source(bytes: &[u8]) -> BlobSource {
    let bytes = Arc::new(bytes.to_vec());
    Arc::new(move || Ok(Box::new(std::io::Cursor::new(Vec::clone(&bytes))) as Box<dyn Read + Send>))
}

pub fn image_manifest(config: &[u8], layer: &[u8]) -> Vec<u8> {
    let descriptor = |media_type: &str, bytes: &[u8]| serde_json::json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
    });
    serde_json::to_vec(&manifest).unwrap()
}
