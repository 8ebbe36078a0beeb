//! ssh as the way to a repository: the program is told everything, so that no configuration and no key of a home directory
//! counts, which is another user's within the builder's user namespace.
//!
//! It authenticates with the user's agent and nothing else, and speaks only to hosts whose keys are known.  The keys are
//! a copy in a directory of its own: the program splits, expands and looks into the home directory for any path that it
//! is given as an option, but not for a name in its own working directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use stepwell_model::remote;

use crate::remote::{RemoteError, Remotes};

/// The agent that repositories are fetched with, as BuildKit has it.
const AGENT: &str = "default";
/// Name of the copy of the hosts' keys.
const KNOWN_HOSTS: &str = "known_hosts";
/// Variable with the directory that the copy is in.
const DIRECTORY: &str = "STEPWELL_SSH_DIRECTORY";

/// Options, each with the reason for it.  None of them names anything that a repository or an address says.
const OPTIONS: &[(&str, &str)] = &[
    // Nobody is there to be asked.
    ("BatchMode", "yes"),
    ("NumberOfPasswordPrompts", "0"),
    // Keys are the agent's, and of nobody's home directory.
    ("PreferredAuthentications", "publickey"),
    ("IdentityAgent", "SSH_AUTH_SOCK"),
    ("IdentityFile", "none"),
    ("AddKeysToAgent", "no"),
    // Only who is known is spoken to, and nobody becomes known by that.
    ("StrictHostKeyChecking", "yes"),
    ("UserKnownHostsFile", KNOWN_HOSTS),
    ("GlobalKnownHostsFile", "none"),
    ("UpdateHostKeys", "no"),
    ("VerifyHostKeyDNS", "no"),
    // Nothing is passed on, nothing is run here, nothing stays.
    ("ForwardAgent", "no"),
    ("ForwardX11", "no"),
    ("ClearAllForwardings", "yes"),
    ("PermitLocalCommand", "no"),
    ("ProxyCommand", "none"),
    ("ControlMaster", "no"),
    ("ControlPath", "none"),
    ("LogLevel", "ERROR"),
];

/// What a fetch over ssh needs; its directory goes with this value.
pub(super) struct Ssh {
    agent: PathBuf,
    directory: PathBuf,
}

impl Ssh {
    /// Prepares for a repository.  Nothing where there is no agent: only a repository that is itself behind ssh needs one, a
    /// submodule of another one may.
    pub(super) fn prepare(remotes: &Remotes<'_>, url: &str) -> Result<Option<Self>, RemoteError> {
        let mut agents = remotes.request.agents.iter().rev();
        let Some((_, agent)) = agents.find(|(id, _)| id == AGENT) else {
            return match remote::is_ssh(url) {
                true => Err(RemoteError::NoAgent {
                    address: remote::redact(url),
                }),
                false => Ok(None),
            };
        };
        let ssh = Self {
            agent: agent.clone(),
            directory: remotes.store.scratch()?,
        };
        ssh.copy(&remotes.request.known_hosts)?;
        Ok(Some(ssh))
    }

    /// Copies the keys of all known hosts into one file.
    fn copy(&self, files: &[PathBuf]) -> Result<(), RemoteError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| RemoteError::KnownHosts { path, source }
        };
        let mut all = Vec::new();
        for file in files {
            all.extend(std::fs::read(file).map_err(failed(file))?);
            all.push(b'\n');
        }
        let copy = self.directory.join(KNOWN_HOSTS);
        std::fs::write(&copy, all).map_err(failed(&copy))
    }

    /// Has git use it.
    pub(super) fn apply(&self, command: &mut Command) {
        // git runs this with a shell, and the host and what is to be done there as arguments of it.
        let mut line = format!("cd \"${DIRECTORY}\" && exec ssh -F none");
        for (name, value) in OPTIONS {
            line.push_str(&format!(" -o {name}={value}"));
        }
        command
            .env("GIT_SSH_COMMAND", line)
            .env("GIT_SSH_VARIANT", "ssh")
            .env("SSH_AUTH_SOCK", &self.agent)
            .env(DIRECTORY, &self.directory);
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // What stays is swept with the scratch directories of builds that are gone.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What the program has against a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostKey {
    /// The host, as known_hosts names it: `host`, or `[host]:port`.
    pub(super) host: String,
    /// Whether another key of it is known.
    pub(super) changed: bool,
}

/// Finds out whether the program refused a host's key.
pub(super) fn refused_host(said: &str) -> Option<HostKey> {
    const STRICT: &str = " and you have requested strict checking.";
    let host = |line: &str, before: &str, after: &str| {
        let rest = line.trim_end().strip_suffix(STRICT)?;
        let (_, rest) = rest.split_once(before)?;
        let host = rest.strip_suffix(after)?;
        Some(host.to_owned()).filter(|h| !h.is_empty())
    };
    said.lines().find_map(|line| {
        if let Some(host) = host(line, "host key is known for ", "") {
            let changed = false;
            return Some(HostKey { host, changed });
        }
        let host = host(line, "ost key for ", " has changed")?;
        let changed = true;
        Some(HostKey { host, changed })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_has_against_a_host_is_understood() {
        let found = |said: &str| refused_host(said).map(|h| (h.host, h.changed));
        // As OpenSSH 9.2 and 10 say it, the second one behind a banner.
        let unknown = "No ED25519 host key is known for [127.0.0.1]:34567 and you have requested strict checking.\nHost key verification failed.\n";
        assert_eq!(found(unknown), Some(("[127.0.0.1]:34567".into(), false)));
        let changed =
            "@@@\nHost key for h.org has changed and you have requested strict checking.\r\n";
        assert_eq!(found(changed), Some(("h.org".into(), true)));
        assert_eq!(found("Permission denied (publickey)."), None);
    }

    #[test]
    fn no_option_can_be_read_as_more_than_one() {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for (name, value) in OPTIONS {
            assert!(
                name.chars().all(plain) && value.chars().all(plain),
                "{name}"
            );
        }
    }
}
