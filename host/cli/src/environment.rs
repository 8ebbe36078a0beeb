//! What the environment and the home directory say: where the store is, credentials, certificates, proxies.

use std::path::PathBuf;

use stepwell_build::{Proxy, RegistryOptions};

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

fn home() -> PathBuf {
    var("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

/// Directory of the store: what was asked for, else the user's data directory, else the system's for root.
pub fn store_root(asked: Option<&PathBuf>, root: bool) -> PathBuf {
    if let Some(root) = asked
        .cloned()
        .or_else(|| var("STEPWELL_ROOT").map(PathBuf::from))
    {
        return root;
    }
    match var("XDG_DATA_HOME") {
        Some(data) => PathBuf::from(data).join("stepwell"),
        None if root => PathBuf::from("/var/lib/stepwell"),
        None => home().join(".local/share/stepwell"),
    }
}

/// How registries are spoken to.
pub fn registry(insecure: &[String]) -> RegistryOptions {
    let docker = var("DOCKER_CONFIG")
        .map_or_else(|| home().join(".docker"), PathBuf::from)
        .join("config.json");
    let containers = var("REGISTRY_AUTH_FILE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(var("XDG_RUNTIME_DIR")?).join("containers/auth.json")));
    let either = |lower: &str, upper: &str| var(lower).or_else(|| var(upper));
    RegistryOptions {
        plain_http: insecure.to_vec(),
        system_ca: ["SSL_CERT_FILE", "SSL_CERT_DIR"]
            .iter()
            .filter_map(|n| var(n).map(PathBuf::from))
            .collect(),
        credential_files: std::iter::once(docker).chain(containers).collect(),
        proxy: Proxy {
            http: var("http_proxy"),
            https: either("https_proxy", "HTTPS_PROXY"),
            no_proxy: either("no_proxy", "NO_PROXY"),
        },
        ..RegistryOptions::default()
    }
}
