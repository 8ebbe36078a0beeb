//! What the caller decides about the client.  The environment and the home directory are read by the caller,
//! never here.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of a [`crate::Registry`]; the default speaks anonymously to public registries.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Registries (`host` or `host:port`) to be spoken to without TLS.  Loopback needs no entry.
    pub plain_http: Vec<String>,
    /// Certificate authorities in PEM files, trusted besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// Where the system's certificate authorities are (what `SSL_CERT_FILE` and `SSL_CERT_DIR` name); the
    /// well-known places of Linux distributions where empty.
    pub system_ca: Vec<PathBuf>,
    /// Credential files in docker's `config.json` format, the first that knows a registry wins.  Missing
    /// files are skipped.
    pub credential_files: Vec<PathBuf>,
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// When and how often a failed request is repeated.
    pub retry: RetryPolicy,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// Proxies; none are used unless given.
    pub proxy: Proxy,
    /// Most requests in flight at a time, all registries together.
    pub max_connections: usize,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            plain_http: Vec::new(),
            ca_files: Vec::new(),
            system_ca: Vec::new(),
            credential_files: Vec::new(),
            user_agent: concat!("stepwell/", env!("CARGO_PKG_VERSION")).to_owned(),
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            proxy: Proxy::default(),
            max_connections: 8,
        }
    }
}

/// Repetition with exponential backoff and jitter.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Tries in all; 1 means no repetition.
    pub attempts: u32,
    /// The first pause, doubled each time; the real pause is a random part of it between a half and the whole.
    pub base: Duration,
    /// The longest pause of ours.
    pub max: Duration,
    /// The longest `Retry-After` that is waited for; a server that asks for more is reported instead.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            base: Duration::from_millis(250),
            max: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(90),
        }
    }
}

/// Time limits of one request.  None of them bounds a transfer as a whole, only its standing still.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the connection, TLS included.
    pub connect: Duration,
    /// From the end of the request to the head of the answer (a registry may copy a whole blob in this time).
    pub response: Duration,
    /// Within this window a transfer has to move [`Timeouts::min_bytes`], or end.
    pub idle: Duration,
    /// See [`Timeouts::idle`]: keeps a server that sends a byte now and then from holding a build for ever.
    pub min_bytes: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            response: Duration::from_secs(180),
            idle: Duration::from_secs(45),
            min_bytes: 4096,
        }
    }
}

/// Proxies, as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name them.  Loopback is never proxied.
#[derive(Debug, Clone, Default)]
pub struct Proxy {
    /// For `http` URLs.
    pub http: Option<String>,
    /// For `https` URLs.
    pub https: Option<String>,
    /// Hosts, domains and networks that are reached directly, comma separated.
    pub no_proxy: Option<String>,
}
