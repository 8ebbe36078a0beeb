//! RUN: its command line, here-documents, environment and network.

use super::host::{Host, Network, Op, Run};
use super::state::State;
use super::text::joined;
use super::{Lowering, Step};
use crate::ast::{Body, Command, Fault};
use crate::diagnostic::{did_you_mean, rules};
use crate::lexer::{At, Heredoc};

/// Directory in which a step sees the script of a here-document that begins with `#!`.
const SCRIPTS: &str = "/dev/pipes";
/// Shell of the shell forms where nothing else is said.
const DEFAULT_SHELL: &[&str] = &["/bin/sh", "-c"];
/// Build argument that names the host that steps see.
const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
/// Arguments that may be given without being declared; they reach every step and do not count for reuse.
const PROXIES: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// Says whether an argument is one of the predefined proxy arguments, in either case.
pub(super) fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|p| p.eq_ignore_ascii_case(name))
}

/// Puts the stage's shell in front of a command.
pub(super) fn with_shell(state: &State, command: &str) -> Vec<String> {
    let shell = state.config().shell.clone().filter(|s| !s.is_empty());
    let mut args = shell.unwrap_or_else(|| DEFAULT_SHELL.iter().map(|s| s.to_string()).collect());
    args.push(command.to_owned());
    args
}

impl<H: Host> Lowering<'_, H> {
    /// Carries out RUN.
    pub(super) fn run(
        &mut self,
        state: &mut State,
        index: usize,
        step: Step<'_>,
        depth: usize,
    ) -> Result<(), Fault> {
        let Body::Command(command) = &step.node.body else {
            return Ok(());
        };
        self.runs_here(state, step)?;
        let mut files = Vec::new();
        let args = match command {
            Command::Exec(list) => list.clone(),
            Command::Shell(text) => {
                with_shell(state, &script(&text.text, &step.node.heredocs, &mut files))
            }
        };
        let network = self.network(step)?;
        confinement(step)?;
        let mounts = self.mounts(state, index, step, depth)?;
        let env: Vec<(String, String)> = state
            .scope
            .iter()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect();
        self.spend(
            env.iter().map(|(n, v)| n.len() + v.len()).sum(),
            At::default(),
        )?;
        let root = match state.root {
            Some(root) => root,
            None => self.add(
                Op::Files {
                    base: None,
                    actions: Vec::new(),
                },
                state,
                step,
                At::default(),
            )?,
        };
        let config = state.config();
        let run = Run {
            root,
            args: args.clone(),
            uncounted_env: self.proxies(state),
            env,
            cwd: joined("/", &config.working_dir),
            user: config.user.clone(),
            network,
            files,
            hosts: self.request.hosts.clone(),
            mounts,
            shm_size: self.request.shm_size,
            limits: self.request.limits.clone(),
            hostname: self.hostname(),
        };
        state.root = Some(self.add(Op::Run(Box::new(run)), state, step, At::default())?);
        let line = format!("RUN {}{} # buildkit", build_args(state), args.join(" "));
        self.note(state, line, true)
    }

    /// Refuses a step that this machine cannot run.
    fn runs_here(&mut self, state: &State, step: Step<'_>) -> Result<(), Fault> {
        let machine = &self.request.build_platform;
        if state.platform.runs_on(machine) {
            return Ok(());
        }
        let message = format!(
            "a RUN step of `{}` cannot run on this machine, which is `{machine}`",
            state.platform
        );
        let hint = format!(
            "build such a stage on a machine of that kind, or begin it with `FROM --platform={machine}` or `--platform=$BUILDPLATFORM`"
        );
        Err(Fault::new(&rules::FOREIGN_PLATFORM, step.node.written.at, message).hint(hint))
    }

    fn network(&mut self, step: Step<'_>) -> Result<Network, Fault> {
        let Some(word) = step.node.flag("network") else {
            return Ok(self.request.network);
        };
        match word.text.as_str() {
            "default" => Ok(self.request.network),
            "none" => Ok(Network::None),
            "host" => Ok(Network::Host),
            other => {
                let hint = match did_you_mean(other, ["default", "none", "host"]) {
                    near if near.is_empty() => {
                        "the networks are `default`, `none` and `host`".to_owned()
                    }
                    near => near,
                };
                Err(Fault::new(
                    &rules::INVALID_FLAG,
                    word.at,
                    format!("`{other}` is not a network"),
                )
                .hint(hint))
            }
        }
    }

    /// Host name of steps, as the build argument for it says; empty means the usual one.
    fn hostname(&self) -> String {
        let args = self.request.build_args.iter().rev();
        args.clone()
            .find(|(name, _)| name == HOSTNAME)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    }

    /// Returns the proxy variables for a step, in both cases, but for those that it sets itself.
    fn proxies(&self, state: &State) -> Vec<(String, String)> {
        let mut list = Vec::new();
        for proxy in PROXIES {
            let given = self
                .request
                .build_args
                .iter()
                .rev()
                .find(|(n, _)| n.eq_ignore_ascii_case(proxy));
            let Some((_, value)) = given.filter(|(_, v)| !v.is_empty()) else {
                continue;
            };
            for name in [proxy.to_string(), proxy.to_ascii_lowercase()] {
                if state.scope.get(&name).is_none() {
                    list.push((name, value.clone()));
                }
            }
        }
        list
    }
}

/// Refuses what a step never gets here.
fn confinement(step: Step<'_>) -> Result<(), Fault> {
    if let Some(device) = step.node.flag_list("device").next() {
        let message =
            "a step gets no devices of the machine: nothing is mounted, and no entitlement gives them"
                .to_owned();
        return Err(Fault::new(&rules::REFUSED, device.at, message)
            .hint("do what needs the device when the container runs"));
    }
    let Some(word) = step.node.flag("security") else {
        return Ok(());
    };
    match word.text.as_str() {
        "sandbox" => Ok(()),
        "insecure" => {
            let message =
                "a step is always confined: `--security=insecure` asks for privileges that this builder does not have itself"
                    .to_owned();
            Err(Fault::new(&rules::REFUSED, word.at, message)
                .hint("remove the flag; `stepwell doctor` says what steps may do here"))
        }
        other => {
            let hint = match did_you_mean(other, ["sandbox", "insecure"]) {
                near if near.is_empty() => {
                    "write `--security=sandbox`, which is the default".into()
                }
                near => near,
            };
            let message = format!("`{other}` is not a security mode");
            Err(Fault::new(&rules::INVALID_FLAG, word.at, message).hint(hint))
        }
    }
}

/// Returns the text for the shell: a here-document alone is the text itself, or a script of its own where it
/// begins with `#!`; anything else goes to the shell as written, here-documents and all.
fn script(text: &str, heredocs: &[Heredoc], files: &mut Vec<(String, Vec<u8>, u32)>) -> String {
    let Some(first) = heredocs.first() else {
        return text.to_owned();
    };
    if Heredoc::parse(text).is_none() {
        let bodies = heredocs
            .iter()
            .map(|h| format!("\n{}{}", h.content, h.name));
        return std::iter::once(text.to_owned()).chain(bodies).collect();
    }
    let content = first.text();
    if !content.starts_with("#!") {
        return content;
    }
    // The name may hold slashes; the file must not leave its directory.
    let path = format!("{SCRIPTS}/{}", first.name.replace('/', "_"));
    files.push((path.clone(), content.into_bytes(), 0o755));
    path
}

/// Returns the build arguments as docker's history shows them in front of a command: `|1 NAME=value `.
fn build_args(state: &State) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in state.args.iter() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = names
        .iter()
        .map(|n| format!("{n}={}", state.value_of(n)))
        .collect();
    format!("|{} {} ", pairs.len(), pairs.join(" "))
}
