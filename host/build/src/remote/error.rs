//! Why something elsewhere cannot be had.  Addresses are shown without what may be confidential.

use stepwell_model::Digest;
use stepwell_registry::{ErrorKind, RegistryError};
use stepwell_steps::files::FilesError;
use stepwell_steps::source::SourceError;
use stepwell_store::StoreError;

/// Why something elsewhere cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// A file cannot be fetched.
    #[error("cannot fetch `{address}`: {}{}{}", elsewhere(address, source), source.kind(), tried(source))]
    Fetch {
        /// Where it is.
        address: String,
        /// Why not.
        source: RegistryError,
    },
    /// A file is not what it has to be.
    #[error("`{address}` has the digest `{found}` instead of `{expected}`")]
    Checksum {
        /// Where it is.
        address: String,
        /// `--checksum`.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The `git` program cannot be run.
    #[error("cannot fetch `{address}`: cannot run the program `git`: {source}")]
    Program {
        /// The repository.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The `git` program failed.
    #[error("cannot fetch `{address}`: {why}")]
    Git {
        /// The repository.
        address: String,
        /// What it said.
        why: String,
    },
    /// Nothing came any more.
    #[error(
        "cannot fetch `{address}`: nothing came from there for {seconds} seconds while {phase}"
    )]
    Stalled {
        /// The repository.
        address: String,
        /// What was being done.
        phase: &'static str,
        /// For how long nothing came.
        seconds: u64,
    },
    /// It takes an agent to get there.
    #[error("`{address}` is fetched over ssh, and no SSH agent was given")]
    NoAgent {
        /// The repository.
        address: String,
    },
    /// The keys of known hosts cannot be read.
    #[error("cannot read the keys of known hosts from `{}`: {source}", path.display())]
    KnownHosts {
        /// Which file.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Nobody said that a host is the one that it says it is.
    #[error("cannot fetch `{address}`: {}", host_key(host, *changed))]
    HostKey {
        /// The repository.
        address: String,
        /// The host, as known_hosts names it.
        host: String,
        /// Whether it is known with another key.
        changed: bool,
    },
    /// The repository has no such ref.
    #[error("`{address}` has no {}", wanted(reference))]
    NoSuchRef {
        /// The repository.
        address: String,
        /// What was asked for.
        reference: String,
    },
    /// The commit has no such directory.
    #[error("`{path}` is no directory of `{address}`")]
    NoDirectory {
        /// The repository.
        address: String,
        /// What was asked for.
        path: String,
    },
    /// What was checked out cannot be copied.
    #[error(transparent)]
    Files(Box<FilesError>),
    /// What was checked out cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A ref is not the commit that it has to be.
    #[error(
        "{} of `{address}` is the commit `{found}` and not `{expected}`",
        named(reference)
    )]
    Commit {
        /// The repository.
        address: String,
        /// Its ref.
        reference: String,
        /// `--checksum`.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A secret with credentials cannot be used.
    #[error("the secret `{id}` cannot be used for `{address}`: {why}")]
    Credentials {
        /// Which.
        id: String,
        /// For what.
        address: String,
        /// Why not; says nothing of what is in it.
        why: &'static str,
    },
    /// A file of the builder's own cannot be written.
    #[error("cannot keep `{address}`: {source}")]
    Keep {
        /// Where it came from.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address is none.
    #[error("{why}")]
    Address {
        /// What is wrong with it.
        why: String,
    },
    /// The build was given up meanwhile.
    #[error("the build was interrupted")]
    Interrupted,
}

fn host_key(host: &str, changed: bool) -> String {
    match changed {
        true => format!("the key of the host `{host}` is not the one that is known"),
        false => format!("the key of the host `{host}` is not known"),
    }
}

fn wanted(reference: &str) -> String {
    match reference {
        "" => "default branch".to_owned(),
        reference => format!("branch, tag or commit `{reference}`"),
    }
}

fn named(reference: &str) -> String {
    match reference {
        "" => "the default branch".to_owned(),
        reference => format!("`{reference}`"),
    }
}

/// Names the place that answered, where it is another one.
fn elsewhere(address: &str, source: &RegistryError) -> String {
    match source.url() {
        // The address may have a query, which the other one shows less of.
        Some(url) if place(url) != place(address) => format!("`{url}`: "),
        _ => String::new(),
    }
}

fn tried(source: &RegistryError) -> String {
    match source.attempts() {
        0 | 1 => String::new(),
        n => format!(" (tried {n} times)"),
    }
}

fn place(url: &str) -> &str {
    url.split(['?', '#'])
        .next()
        .unwrap_or("")
        .trim_end_matches('/')
}

impl From<FilesError> for RemoteError {
    fn from(error: FilesError) -> Self {
        Self::Files(Box::new(error))
    }
}

impl RemoteError {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch { address, source } => fetch_hint(address, source),
            Self::Git { address, why } => git_hint(address, why),
            Self::Program { .. } => {
                Some("repositories are fetched by `git`: install it".to_owned())
            }
            Self::Stalled { .. } => Some(
                "the server, or a proxy or firewall in front of it, takes the connection and does not answer".to_owned(),
            ),
            Self::NoAgent { .. } => Some(
                "add `--ssh default` for the agent of SSH_AUTH_SOCK, or `--ssh default=SOCKET|KEYFILE`; or write its `https://` address, with a token as `--secret id=GIT_AUTH_TOKEN,…` where it is private"
                    .to_owned(),
            ),
            Self::KnownHosts { .. } => {
                Some("SSH_KNOWN_HOSTS lists the files, separated by `:`".to_owned())
            }
            Self::HostKey { host, changed, .. } => Some(host_key_hint(host, *changed)),
            Self::Commit { .. } => Some(
                "the ref was moved; look at what it is before you take over its commit".to_owned(),
            ),
            Self::Checksum { .. } => Some(
                "the file was changed, or the address answers with something else; look at what it is before you take over its digest"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Says whether what the user wrote is at fault, and not the tool, the machine or the network.
    pub fn is_users(&self) -> bool {
        match self {
            Self::Fetch { source, .. } => {
                matches!(source.status(), Some(401 | 403 | 404 | 410))
                    || matches!(source.kind(), ErrorKind::Redirect { .. })
            }
            Self::Git { why, .. } => is_refusal(why),
            Self::Checksum { .. }
            | Self::Commit { .. }
            | Self::NoAgent { .. }
            | Self::KnownHosts { .. }
            | Self::HostKey { .. }
            | Self::NoSuchRef { .. }
            | Self::NoDirectory { .. }
            | Self::Files(_)
            | Self::Source(_)
            | Self::Address { .. }
            | Self::Credentials { .. } => true,
            Self::Program { .. }
            | Self::Stalled { .. }
            | Self::Keep { .. }
            | Self::Store(_)
            | Self::Interrupted => false,
        }
    }
}

fn fetch_hint(address: &str, source: &RegistryError) -> Option<String> {
    let host = stepwell_model::remote::host(address).unwrap_or("");
    let name = host.split(':').next().unwrap_or("");
    let text = match source.kind() {
        ErrorKind::Status {
            status: 401 | 403, ..
        } => format!(
            "credentials are given as `--secret id=HTTP_AUTH_TOKEN_{name},…` (a token) or `--secret id=HTTP_AUTH_HEADER_{name},…` (all of the header)"
        ),
        ErrorKind::Status {
            status: 404 | 410, ..
        } => "check the address".to_owned(),
        ErrorKind::Connect { .. } => {
            "check the host and the port, and whether the network lets you there".to_owned()
        }
        ErrorKind::Redirect { .. } => "write the address that it leads to".to_owned(),
        ErrorKind::Cut { .. } | ErrorKind::Stalled { .. } => {
            "the server, or a proxy in front of it, ended the transfer".to_owned()
        }
        ErrorKind::Tls { .. } => {
            "if the server has a certificate authority of its own, name its certificates in SSL_CERT_FILE".to_owned()
        }
        _ => return None,
    };
    Some(text)
}

/// How to have a host known: `host`, or `[host]:port`.
fn host_key_hint(host: &str, changed: bool) -> String {
    let (name, port) = match host.strip_prefix('[').and_then(|h| h.rsplit_once("]:")) {
        Some((name, port)) => (name, format!("-p {port} ")),
        None => (host, String::new()),
    };
    if changed {
        return format!(
            "somebody may be listening; if its owner says that the key was changed, take the old one out with `ssh-keygen -R '{host}'` and the new one in with `ssh-keyscan {port}{name} >> ~/.ssh/known_hosts`"
        );
    }
    format!(
        "`ssh-keyscan {port}{name} >> ~/.ssh/known_hosts` takes it in: compare it with what the host's owner says; or name a file with it in SSH_KNOWN_HOSTS"
    )
}

/// What the program says where a repository is not there, or not for everybody.
const REFUSALS: &[&str] = &[
    "not found",
    "could not read Username",
    "Authentication failed",
    "returned error: 403",
    "returned error: 401",
    "not our ref",
    "Permission denied (",
    "does not appear to be a git repository",
];

fn is_refusal(why: &str) -> bool {
    REFUSALS.iter().any(|text| why.contains(text))
}

/// What the ssh program and git say of it, and what helps.
const SSH_HINTS: &[(&str, &str)] = &[
    (
        "Permission denied (",
        "the agent has no key that the host takes for this user: `ssh-add -l` lists its keys",
    ),
    (
        "transport 'ssh' not allowed",
        "a submodule is fetched over ssh: add `--ssh default`, or leave them out with `?submodules=0`",
    ),
    (
        "ssh: not found",
        "repositories behind ssh are fetched with the program `ssh`: install it (openssh-client)",
    ),
    (
        "No user exists for uid",
        "ssh wants a line for this user in /etc/passwd",
    ),
];

fn git_hint(address: &str, why: &str) -> Option<String> {
    let known = SSH_HINTS.iter().find(|(text, _)| why.contains(text));
    if let Some((_, hint)) = known {
        return Some((*hint).to_owned());
    }
    is_refusal(why).then(|| match stepwell_model::remote::is_ssh(address) {
        true => "check the address, and what the keys of the agent may see".to_owned(),
        false => "check the address; for a private repository give `--secret id=GIT_AUTH_TOKEN,…`"
            .to_owned(),
    })
}
