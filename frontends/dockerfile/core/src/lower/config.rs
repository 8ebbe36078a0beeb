//! The instructions that change nothing but the image's configuration.

use super::host::{Healthcheck, Host};
use super::run::with_shell;
use super::state::State;
use super::text::quoted_list;
use super::{Lowering, Step, ports, signal};
use crate::ast::{Body, Command, Fault, Keyword, Pair, duration};
use crate::diagnostic::rules;
use crate::expand::Expander;
use crate::lexer::At;
use crate::lexer::split::Word;

/// Parts of names that suggest a secret.
const SECRET_PARTS: &[&str] = &[
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
/// Parts of names that say that the value is no secret itself.
const OPEN_PARTS: &[&str] = &["file", "public", "version"];

impl<H: Host> Lowering<'_, H> {
    /// Carries out an instruction that makes no layer.
    pub(super) fn metadata(&mut self, state: &mut State, step: Step<'_>) -> Result<(), Fault> {
        match (&step.node.body, step.node.keyword) {
            (Body::Pairs(pairs), Keyword::Env) => self.env(state, step, pairs),
            (Body::Pairs(pairs), _) => self.label(state, step, pairs),
            (Body::Arg(_), _) => self.arg(state, step),
            (Body::Command(command), keyword) => self.command(state, step, command, keyword),
            (Body::Shell(list), _) => {
                state.config_mut().shell = Some(list.clone());
                self.note(state, format!("SHELL [{}]", list.join(" ")), false)
            }
            (Body::Words(words), Keyword::Expose) => self.expose(state, step, words),
            (Body::Words(words), _) => self.volume(state, step, words),
            (Body::Healthcheck(command), _) => self.healthcheck(state, step, command.as_ref()),
            (Body::Onbuild(trigger), _) => {
                self.spend(trigger.len(), At::default())?;
                state.config_mut().on_build.push(trigger.clone());
                Ok(())
            }
            (Body::Text(word), keyword) => self.text(state, step, word, keyword),
            _ => Ok(()),
        }
    }

    fn env(&mut self, state: &mut State, step: Step<'_>, pairs: &[Pair]) -> Result<(), Fault> {
        let mut line = String::from("ENV");
        // All values see what was set before the instruction, not what it sets itself.
        for (name, value, at) in self.expanded(state, step, pairs)? {
            self.secret(step, "ENV", &name, at);
            line.push_str(&format!(" {name}={value}"));
            state.set_env(&name, &value);
        }
        self.note(state, line, false)
    }

    fn label(&mut self, state: &mut State, step: Step<'_>, pairs: &[Pair]) -> Result<(), Fault> {
        let mut line = String::from("LABEL");
        for (name, value, _) in self.expanded(state, step, pairs)? {
            line.push_str(&format!(" {name}={value}"));
            state.config_mut().labels.insert(name, value);
        }
        self.note(state, line, false)
    }

    fn expanded(
        &mut self,
        state: &State,
        step: Step<'_>,
        pairs: &[Pair],
    ) -> Result<Vec<(String, String, At)>, Fault> {
        let one = |pair: &Pair| {
            if pair.legacy {
                self.legacy(step, pair);
            }
            let name = self.word(state, step, &pair.key)?;
            if name.is_empty() {
                return Err(Fault::new(
                    &rules::INVALID_ARGUMENT,
                    pair.key.at,
                    format!(
                        "`{}` expands to nothing, which is not a name",
                        pair.key.text
                    ),
                ));
            }
            Ok((name, self.word(state, step, &pair.value)?, pair.key.at))
        };
        pairs.iter().map(one).collect()
    }

    fn legacy(&mut self, step: Step<'_>, pair: &Pair) {
        let (name, key) = (step.node.keyword.text(), &pair.key.text);
        let message = format!("`{name} {key} …` is the old form of `{name} {key}=…`");
        self.fault(
            step,
            Fault::new(&rules::LEGACY_KEY_VALUE, pair.key.at, message)
                .hint(format!("write `{name} {key}=…`")),
        );
    }

    /// Declares arguments: the user's value, else the default, else what was declared before the first FROM.
    fn arg(&mut self, state: &mut State, step: Step<'_>) -> Result<(), Fault> {
        let Body::Arg(list) = &step.node.body else {
            return Ok(());
        };
        let mut line = String::from("ARG");
        for declaration in list {
            let name = &declaration.name.text;
            self.secret(step, "ARG", name, declaration.name.at);
            let given = self
                .request
                .build_args
                .iter()
                .rev()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.clone());
            let is_epoch = name == super::SOURCE_DATE_EPOCH;
            let value = match (given, &declaration.value) {
                (Some(given), _) if is_epoch && !given.is_empty() => Some(self.epoch_text()),
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.word(state, step, default)?),
                (None, None) => {
                    let global = self.stages.globals.get(name).map(str::to_owned);
                    global.map(|value| match is_epoch {
                        true => self.epoch_text(),
                        false => value,
                    })
                }
            };
            line.push_str(&format!(" {name}"));
            if let Some(value) = &value {
                line.push_str(&format!("={value}"));
            }
            state.declare(name, value);
        }
        self.note(state, line, false)
    }

    fn secret(&mut self, step: Step<'_>, instruction: &str, name: &str, at: At) {
        let lower = name.to_ascii_lowercase();
        let parts = || lower.split('_');
        if parts().any(|p| SECRET_PARTS.contains(&p)) && !parts().any(|p| OPEN_PARTS.contains(&p)) {
            let message = format!(
                "`{instruction} {name}` looks like a secret, and its value ends up in the image"
            );
            self.fault(step, Fault::new(&rules::SECRETS, at, message));
        }
    }

    /// Carries out CMD and ENTRYPOINT.
    fn command(
        &mut self,
        state: &mut State,
        step: Step<'_>,
        command: &Command,
        keyword: Keyword,
    ) -> Result<(), Fault> {
        let args = match command {
            Command::Exec(list) => list.clone(),
            Command::Shell(text) => {
                if state.config().shell.as_ref().is_none_or(Vec::is_empty) {
                    self.json_advised(step, text, keyword);
                }
                with_shell(state, &text.text)
            }
        };
        let line = format!("{} {}", keyword.text(), quoted_list(&args));
        if keyword == Keyword::Cmd {
            state.cmd_set = true;
            state.config_mut().cmd = Some(args);
        } else {
            let keep = state.cmd_set;
            let config = state.config_mut();
            config.entrypoint = Some(args).filter(|a| !a.is_empty());
            // A command of the base was meant for the base's entry point.
            if !keep {
                config.cmd = None;
            }
        }
        self.note(state, line, false)
    }

    fn json_advised(&mut self, step: Step<'_>, text: &Word, keyword: Keyword) {
        let name = keyword.text();
        let message =
            format!("{name} in shell form runs under a shell, which does not pass signals on");
        let hint = if text.text.starts_with('[') {
            "this looks like a JSON array but is none: strings need double quotes".to_owned()
        } else {
            format!("write `{name} [\"program\", \"argument\"]`")
        };
        let at = match text.text.is_empty() {
            true => step.node.written.at,
            false => text.at,
        };
        self.fault(step, Fault::new(&rules::JSON_ARGS, at, message).hint(hint));
    }

    fn expose(&mut self, state: &mut State, step: Step<'_>, words: &[Word]) -> Result<(), Fault> {
        let mut all = Vec::new();
        // docker sorts the words as they are written.
        let mut words: Vec<&Word> = words.iter().collect();
        words.sort_by(|a, b| a.text.cmp(&b.text));
        for word in words {
            let done = Expander::new(self.escape_of(step)).expand(&word.text, &state.scope);
            let done =
                done.map_err(|e| Fault::new(&rules::INVALID_EXPANSION, word.at, e.to_string()))?;
            // An undefined variable is no finding here: docker's check does not look at EXPOSE.
            self.spend(done.text.len(), word.at)?;
            for spec in done.words {
                let exposed = ports::parse(&spec).map_err(|why| {
                    Fault::new(&rules::INVALID_ARGUMENT, word.at, why)
                        .hint("write `80`, `80/udp` or `8000-8010/tcp`")
                })?;
                if exposed.odd_case {
                    self.fault(
                        step,
                        Fault::new(
                            &rules::EXPOSE_PROTO_CASING,
                            word.at,
                            format!("the protocol of `{spec}` should be lower case"),
                        ),
                    );
                }
                if exposed.has_host {
                    let message = format!(
                        "`{spec}` names an address or port of the host, which EXPOSE drops"
                    );
                    self.fault(
                        step,
                        Fault::new(&rules::EXPOSE_FORMAT, word.at, message)
                            .hint("name the container's port alone"),
                    );
                }
                self.spend(usize::from(exposed.last - exposed.first) * 100, word.at)?;
                all.extend(exposed.list());
            }
        }
        let line = format!("EXPOSE [{}]", all.join(" "));
        state.config_mut().exposed_ports.extend(all);
        self.note(state, line, false)
    }

    fn volume(&mut self, state: &mut State, step: Step<'_>, words: &[Word]) -> Result<(), Fault> {
        let mut all = Vec::new();
        for word in words {
            let path = self.word(state, step, word)?;
            if path.is_empty() {
                return Err(Fault::new(
                    &rules::INVALID_ARGUMENT,
                    word.at,
                    format!(
                        "`{}` expands to nothing, which is not a mount point",
                        word.text
                    ),
                ));
            }
            all.push(path);
        }
        let line = format!("VOLUME [{}]", all.join(" "));
        state.config_mut().volumes.extend(all);
        self.note(state, line, false)
    }

    fn healthcheck(
        &mut self,
        state: &mut State,
        step: Step<'_>,
        command: Option<&Command>,
    ) -> Result<(), Fault> {
        let test = match command {
            None => vec!["NONE".to_owned()],
            Some(Command::Exec(list)) => std::iter::once("CMD".to_owned())
                .chain(list.iter().cloned())
                .collect(),
            Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.text.clone()],
        };
        // The parser has checked them.
        let flag = |name: &str| step.node.flag(name).filter(|_| command.is_some());
        let time = |name: &str| {
            flag(name)
                .and_then(|w| duration::parse(&w.text))
                .unwrap_or(0)
        };
        let check = Healthcheck {
            test,
            interval: time("interval"),
            timeout: time("timeout"),
            start_period: time("start-period"),
            start_interval: time("start-interval"),
            retries: flag("retries")
                .and_then(|w| w.text.parse().ok())
                .unwrap_or(0),
        };
        let line = format!(
            "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            check.test.join(" "),
            duration::format(check.interval),
            duration::format(check.timeout),
            duration::format(check.start_period),
            duration::format(check.start_interval),
            check.retries
        );
        state.config_mut().healthcheck = Some(check);
        self.note(state, line, false)
    }

    /// Carries out USER, STOPSIGNAL and MAINTAINER.
    fn text(
        &mut self,
        state: &mut State,
        step: Step<'_>,
        word: &Word,
        keyword: Keyword,
    ) -> Result<(), Fault> {
        let value = if keyword == Keyword::Maintainer {
            word.text.clone()
        } else {
            self.word(state, step, word)?
        };
        let line = format!("{} {value}", keyword.text());
        match keyword {
            Keyword::User => state.config_mut().user = value,
            Keyword::Stopsignal => {
                if !signal::is_signal(&value) {
                    let message = format!("`{value}` is not a signal");
                    return Err(Fault::new(&rules::INVALID_ARGUMENT, word.at, message)
                        .hint(signal::hint(&value)));
                }
                state.config_mut().stop_signal = value;
            }
            _ => state.config_mut().author = value,
        }
        self.note(state, line, false)
    }
}
