//! Runs the `git` program so that nothing but its arguments decides what it does: no configuration of the machine, of the user
//! or of the repository that runs a program, no hooks, no prompts, no credentials but those that were given, no
//! repositories of this machine, no way to other machines but http, https, git's own, and ssh where the user gave an agent.
//!
//! Credentials are handed over in the environment, which only its user can read, never as arguments.

use std::ffi::OsStr;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stepwell_model::remote;
use stepwell_registry::RegistryOptions;
use stepwell_sys::group;

use super::child::{self, Ended};
use super::ssh::{self, Ssh};
use crate::remote::{RemoteError, Remotes};

/// Where programs are looked for; the caller's own `PATH` is none of a build's business.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most that is shown of what the program says, from its end.
const SHOWN: usize = 600;
/// Largest answer that is read: lists of refs.
const LARGEST_ANSWER: u64 = 64 << 20;
/// User name that tokens go with, as hosts of repositories want it.
const TOKEN_USER: &str = "x-access-token";

/// Settings, each with the reason for it.
const SETTINGS: &[(&str, &str)] = &[
    // No way but these; `file` would let a repository read others of this machine.
    ("protocol.allow", "never"),
    ("protocol.http.allow", "always"),
    ("protocol.https.allow", "always"),
    ("protocol.git.allow", "always"),
    // Nothing of a repository is run.
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.sshCommand", "false"),
    ("credential.helper", ""),
    ("submodule.recurse", "false"),
    // Nothing goes on when the program has ended.
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    // Who is looked after by nobody any more gives a server up that says nothing; else that is done sooner from outside.
    ("http.lowSpeedLimit", "100"),
    ("http.lowSpeedTime", "90"),
    ("init.defaultBranch", "main"),
    ("advice.detachedHead", "false"),
    // The directory belongs to this process, whatever its user is called here.
    ("safe.directory", "*"),
];

/// The program, for one repository.
pub(super) struct Git<'r, 'a> {
    remotes: &'r Remotes<'a>,
    /// As it was written.
    written: String,
    settings: Vec<(String, String)>,
    ssh: Option<Ssh>,
}

/// What the program does, by its first argument, as errors say it.
const PHASES: &[(&str, &str)] = &[
    ("ls-remote", "asking for its refs"),
    ("fetch", "fetching its commit"),
    ("submodule", "fetching its submodules"),
    ("checkout", "checking its files out"),
];

impl<'r, 'a> Git<'r, 'a> {
    /// Prepares for the repository at `url`.
    pub(super) fn new(remotes: &'r Remotes<'a>, url: &str) -> Result<Self, RemoteError> {
        let ssh = Ssh::prepare(remotes, url)?;
        let mut settings: Vec<_> = SETTINGS
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let credentials = credentials(remotes, url);
        // A redirection could lead credentials away.
        let follow = if credentials.is_empty() {
            "initial"
        } else {
            "false"
        };
        settings.push(("http.followRedirects".to_owned(), follow.to_owned()));
        if ssh.is_some() {
            settings.push(("protocol.ssh.allow".to_owned(), "always".to_owned()));
        }
        settings.extend(credentials);
        Ok(Self {
            remotes,
            written: url.to_owned(),
            settings,
            ssh,
        })
    }

    /// The address as the program is given it: without user and password, but for ssh, whose user is part of the address.
    pub(super) fn url(&self) -> String {
        match remote::is_ssh(&self.written) {
            true => self.written.clone(),
            false => remote::without_user(&self.written),
        }
    }

    /// Runs the program, and returns what it wrote.
    pub(super) fn run(
        &self,
        directory: Option<&Path>,
        args: &[impl AsRef<OsStr>],
    ) -> Result<String, RemoteError> {
        let address = || remote::redact(&self.written);
        let failed = |source| RemoteError::Program {
            address: address(),
            source,
        };
        let mut out = self.remotes.store.nameless_file()?;
        let mut err = self.remotes.store.nameless_file()?;
        let mut command = self.command(directory);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(failed)?)
            .stderr(err.try_clone().map_err(failed)?);
        let mut child = group::start(&mut command).map_err(failed)?;
        let timeouts = &self.remotes.registry.options().timeouts;
        let is_cancelled = || self.remotes.cancel.is_cancelled();
        let status = match child::wait(&mut child, timeouts, &is_cancelled).map_err(failed)? {
            Ended::Exit(status) => status,
            Ended::Cancelled => return Err(RemoteError::Interrupted),
            Ended::Stalled => {
                let first = args.first().and_then(|a| a.as_ref().to_str());
                let phase = PHASES.iter().find(|(arg, _)| Some(*arg) == first);
                return Err(RemoteError::Stalled {
                    address: address(),
                    phase: phase.map_or("working on it", |(_, phase)| phase),
                    seconds: timeouts.idle.as_secs(),
                });
            }
        };
        let read = |file: &mut std::fs::File| {
            let mut bytes = Vec::new();
            file.rewind()
                .and_then(|()| file.take(LARGEST_ANSWER).read_to_end(&mut bytes))
                .map(|_| String::from_utf8_lossy(&bytes).into_owned())
        };
        if status.success() {
            return read(&mut out).map_err(failed);
        }
        let said = read(&mut err).map_err(failed)?;
        Err(match ssh::refused_host(&said) {
            Some(refused) => RemoteError::HostKey {
                address: address(),
                host: refused.host,
                changed: refused.changed,
            },
            None => RemoteError::Git {
                address: address(),
                why: shown(&said),
            },
        })
    }

    fn command(&self, directory: Option<&Path>) -> Command {
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "false")
            .env("GIT_CONFIG_COUNT", self.settings.len().to_string())
            // Without a directory it must not look for a repository around it.
            .env("GIT_CEILING_DIRECTORIES", "/")
            .current_dir(directory.unwrap_or(Path::new("/")));
        for (n, (key, value)) in self.settings.iter().enumerate() {
            command
                .env(format!("GIT_CONFIG_KEY_{n}"), key)
                .env(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        connections(&mut command, self.remotes.registry.options());
        if let Some(ssh) = &self.ssh {
            ssh.apply(&mut command);
        }
        command
    }
}

/// Proxies and authorities are those of all other connections.
fn connections(command: &mut Command, options: &RegistryOptions) {
    let proxy = &options.proxy;
    for (name, value) in [
        ("http_proxy", &proxy.http),
        ("https_proxy", &proxy.https),
        ("no_proxy", &proxy.no_proxy),
    ] {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    if proxy.http.is_some() || proxy.https.is_some() {
        let direct = proxy.no_proxy.as_deref().unwrap_or("");
        command.env("no_proxy", format!("localhost,127.0.0.1,::1,{direct}"));
    }
    for path in &options.system_ca {
        let name = if path.is_dir() {
            "GIT_SSL_CAPATH"
        } else {
            "GIT_SSL_CAINFO"
        };
        command.env(name, path);
    }
}

/// Credentials as settings of the program: those of the address, else secrets by BuildKit's names.  A secret that is not said
/// to be for a host is for that of the repository that was asked for.
fn credentials(remotes: &Remotes<'_>, url: &str) -> Vec<(String, String)> {
    let Some((scheme, _)) = url.split_once("://") else {
        return Vec::new();
    };
    let host = remote::host(url).unwrap_or("");
    let basic = |user: &str, password: &str| {
        let pair = STANDARD.encode(format!("{user}:{password}"));
        format!("Authorization: Basic {pair}")
    };
    let of_token = |token: &[u8]| basic(TOKEN_USER, &String::from_utf8_lossy(token));
    let of_header = |header: &[u8]| format!("Authorization: {}", String::from_utf8_lossy(header));
    let setting = |place: &str, header: String| (format!("http.{place}/.extraHeader"), header);
    let mut settings = Vec::new();
    // A more specific place comes last, and all that fit would be sent: one for each host.
    let mut add = |place: String, header: String| {
        let (key, value) = setting(&place, header);
        if !settings.iter().any(|(k, _)| *k == key) {
            settings.push((key, value));
        }
    };
    let main = format!("{scheme}://{host}");
    if let Some((user, password)) = remote::userinfo(url) {
        add(main.clone(), basic(&user, &password));
    }
    for (id, _) in &remotes.request.secrets {
        let value = || remotes.secret(id).unwrap_or_default();
        if let Some(host) = id.strip_prefix("GIT_AUTH_HEADER.") {
            add(format!("https://{host}"), of_header(value()));
            add(format!("http://{host}"), of_header(value()));
        }
    }
    for (id, _) in &remotes.request.secrets {
        let value = || remotes.secret(id).unwrap_or_default();
        if let Some(host) = id.strip_prefix("GIT_AUTH_TOKEN.") {
            add(format!("https://{host}"), of_token(value()));
            add(format!("http://{host}"), of_token(value()));
        }
    }
    if let Some(header) = remotes.secret("GIT_AUTH_HEADER") {
        add(main.clone(), of_header(header));
    }
    if let Some(token) = remotes.secret("GIT_AUTH_TOKEN") {
        add(main, of_token(token));
    }
    settings
}

/// Lines that say nothing.
const NOISE: &[&str] = &[
    "Could not read from remote repository.",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
];

/// The end of what the program said, on one line, without what a terminal would obey.
fn shown(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(|l| l.strip_prefix("fatal: ").unwrap_or(l).trim())
        .filter(|l| !l.is_empty() && !NOISE.contains(l))
        .collect();
    let line = lines.join("; ");
    let clean: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let skip = clean.chars().count().saturating_sub(SHOWN);
    clean.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_says_is_one_clean_line() {
        assert_eq!(
            shown("fatal: repository not found\n\n\u{1b}[31mx\n"),
            "repository not found;  [31mx"
        );
        assert_eq!(shown(&"x".repeat(2000)).len(), SHOWN);
    }
}
