//! What follows an instruction's keyword and flags: names, pairs, commands, files.

use super::parse::{Fault, shift, trigger_faults};
use super::{Body, Command, Declaration, Keyword, Pair, TransferSource};
use crate::diagnostic::{did_you_mean, rules};
use crate::lexer::split::{self, Word};
use crate::lexer::{At, Heredoc, Line, json};

/// The arguments of an instruction, still as text.
pub(super) struct Rest<'a> {
    pub line: &'a Line,
    /// Where in the line.
    pub at: At,
    pub keyword: Keyword,
    pub escape: char,
}

impl Rest<'_> {
    /// Understands them.
    pub fn body(&self) -> Result<Body, Fault> {
        match self.keyword {
            Keyword::From => self.from(),
            Keyword::Arg => self.arg(),
            Keyword::Env | Keyword::Label => self.pairs(),
            Keyword::Run | Keyword::Cmd | Keyword::Entrypoint => self
                .command(self.at)
                .and_then(|c| self.check_command(c))
                .map(Body::Command),
            Keyword::Shell => self.shell(),
            Keyword::Copy | Keyword::Add => self.transfer(),
            Keyword::Expose | Keyword::Volume => self.words(),
            Keyword::Healthcheck => self.healthcheck(),
            Keyword::User | Keyword::Workdir | Keyword::Stopsignal | Keyword::Maintainer => {
                self.one_text()
            }
            Keyword::Onbuild => self.onbuild(self.at.start),
        }
    }

    fn text(&self) -> &str {
        &self.line.text[self.at.start..self.at.end]
    }

    fn missing(&self, what: &str) -> Fault {
        let name = self.keyword.text();
        Fault::new(
            &rules::MISSING_ARGUMENT,
            At::default(),
            format!("{name} needs {what}"),
        )
    }

    fn from(&self) -> Result<Body, Fault> {
        let words = split::blank_separated(&self.line.text, self.at);
        match words.as_slice() {
            [] => Err(self.missing("an image, a stage, or `scratch`")),
            [image] => Ok(Body::From {
                image: image.clone(),
                name: None,
            }),
            [image, word, name] if word.text.eq_ignore_ascii_case("as") => {
                stage_name(name)?;
                Ok(Body::From {
                    image: image.clone(),
                    name: Some((word.clone(), name.clone())),
                })
            }
            [_, word, ..] => {
                let message = "FROM takes an image, or an image, `AS` and a name".to_owned();
                let last = words.last().map_or(word.at.end, |w| w.at.end);
                let hint = if word.text.eq_ignore_ascii_case("as") {
                    "one word has to follow `AS`"
                } else {
                    "write `FROM image AS name`"
                };
                Err(Fault::new(
                    &rules::TOO_MANY_ARGUMENTS,
                    At::new(word.at.start, last),
                    message,
                )
                .hint(hint))
            }
        }
    }

    fn arg(&self) -> Result<Body, Fault> {
        let words = split::quoted_words(&self.line.text, self.at, self.escape);
        if words.is_empty() {
            return Err(self.missing("the name of an argument"));
        }
        let declaration = |word: Word| {
            let (name, value) = cut(&word, "=").map_or((word, None), |(n, v)| (n, Some(v)));
            match name.text.is_empty() {
                true => Err(Fault::new(
                    &rules::INVALID_ARGUMENT,
                    name.at,
                    "the name of an argument is empty".into(),
                )),
                false => Ok(Declaration { name, value }),
            }
        };
        words
            .into_iter()
            .map(declaration)
            .collect::<Result<_, _>>()
            .map(Body::Arg)
    }

    fn pairs(&self) -> Result<Body, Fault> {
        let words = split::quoted_words(&self.line.text, self.at, self.escape);
        let name = self.keyword.text();
        let Some(first) = words.first() else {
            return Err(self
                .missing("a name and a value")
                .hint(format!("write `{name} name=value`")));
        };
        if !first.text.contains('=') {
            return self.legacy_pair(name).map(|p| Body::Pairs(vec![p]));
        }
        let pair = |word: &Word| match cut(word, "=") {
            Some((key, _)) if key.text.is_empty() => Err(Fault::new(
                &rules::INVALID_ARGUMENT,
                word.at,
                format!("a name has to stand before `=` in {name}"),
            )),
            Some((key, value)) => Ok(Pair {
                key,
                value,
                legacy: false,
            }),
            None => Err(Fault::new(
                &rules::INVALID_ARGUMENT,
                word.at,
                format!("`{}` has no `=`", word.text),
            )
            .hint("write `name=value`; put a value with spaces into quotes")),
        };
        words
            .iter()
            .map(pair)
            .collect::<Result<_, _>>()
            .map(Body::Pairs)
    }

    /// Reads `ENV name value with spaces`.
    fn legacy_pair(&self, name: &str) -> Result<Pair, Fault> {
        let text = self.text();
        let Some(key_len) = text.find(split::is_blank) else {
            return Err(Fault::new(
                &rules::MISSING_ARGUMENT,
                self.at,
                format!("{name} needs a value for `{text}`"),
            )
            .hint(format!("write `{name} {text}=value`")));
        };
        let value = text[key_len..].trim_start_matches(split::is_blank);
        let start = self.at.end - value.len();
        let key = Word {
            text: text[..key_len].to_owned(),
            at: At::new(self.at.start, self.at.start + key_len),
        };
        Ok(Pair {
            key,
            value: Word {
                text: value.to_owned(),
                at: At::new(start, self.at.end),
            },
            legacy: true,
        })
    }

    fn command(&self, at: At) -> Result<Command, Fault> {
        let text = &self.line.text[at.start..at.end];
        match json::strings(text) {
            json::Outcome::Strings(list) => Ok(Command::Exec(list)),
            json::Outcome::OtherArray => Err(self.not_strings(at)),
            json::Outcome::NotJson => Ok(Command::Shell(Word {
                text: text.to_owned(),
                at,
            })),
        }
    }

    fn not_strings(&self, at: At) -> Fault {
        let message = format!(
            "the JSON array of {} holds something other than strings",
            self.keyword.text()
        );
        Fault::new(&rules::INVALID_JSON, at, message).hint("put every element into double quotes")
    }

    /// RUN needs something to run.  An empty text is run by the shell, which does nothing; an empty array of CMD or ENTRYPOINT
    /// takes back what the base says.
    fn check_command(&self, command: Command) -> Result<Command, Fault> {
        match &command {
            Command::Exec(list) if list.is_empty() && self.keyword == Keyword::Run => {
                Err(self.missing("a command"))
            }
            _ => Ok(command),
        }
    }

    fn shell(&self) -> Result<Body, Fault> {
        match json::strings(self.text()) {
            json::Outcome::Strings(list) if !list.is_empty() => Ok(Body::Shell(list)),
            json::Outcome::Strings(_) => Err(self.missing("a program")),
            _ if self.text().is_empty() => Err(self
                .missing("a JSON array of strings")
                .hint("write `SHELL [\"/bin/bash\", \"-c\"]`")),
            json::Outcome::OtherArray => Err(self.not_strings(self.at)),
            json::Outcome::NotJson => {
                let message = "SHELL takes a JSON array of strings only".to_owned();
                Err(Fault::new(&rules::INVALID_ARGUMENT, self.at, message)
                    .hint("write `SHELL [\"/bin/bash\", \"-c\"]`"))
            }
        }
    }

    /// Reads words, or a JSON array of them; the second says which.
    fn list(&self) -> Result<(Vec<Word>, bool), Fault> {
        match json::strings(self.text()) {
            json::Outcome::Strings(list) => Ok((
                list.into_iter()
                    .map(|text| Word { text, at: self.at })
                    .collect(),
                true,
            )),
            json::Outcome::OtherArray => Err(self.not_strings(self.at)),
            json::Outcome::NotJson => Ok((split::blank_separated(&self.line.text, self.at), false)),
        }
    }

    fn words(&self) -> Result<Body, Fault> {
        let mut words = match self.keyword {
            Keyword::Expose => split::blank_separated(&self.line.text, self.at),
            _ => self.list()?.0,
        };
        if self.keyword == Keyword::Volume {
            words
                .iter_mut()
                .for_each(|w| w.text = w.text.trim().to_owned());
        }
        if words.is_empty() {
            return Err(self.missing(match self.keyword {
                Keyword::Expose => "a port, for example `80` or `53/udp`",
                _ => "a mount point",
            }));
        }
        match words.iter().find(|w| w.text.trim().is_empty()) {
            Some(empty) => Err(Fault::new(
                &rules::INVALID_ARGUMENT,
                empty.at,
                format!("an argument of {} is empty", self.keyword.text()),
            )),
            None => Ok(Body::Words(words)),
        }
    }

    fn transfer(&self) -> Result<Body, Fault> {
        let (mut words, is_json) = self.list()?;
        let name = self.keyword.text();
        let dest = match words.pop() {
            Some(dest) if !words.is_empty() => dest,
            Some(_) => {
                return Err(self
                    .missing("a source and a destination")
                    .hint(format!("write `{name} source destination`")));
            }
            None => {
                return Err(self
                    .missing("a source and a destination")
                    .hint(format!("write `{name} source destination`")));
            }
        };
        if !is_json && Heredoc::parse(&dest.text).is_some() {
            let message = format!("a here-document cannot be the destination of {name}");
            return Err(Fault::new(&rules::INVALID_ARGUMENT, dest.at, message)
                .hint("the destination comes last"));
        }
        let named = |word: &Word| {
            if is_json {
                None
            } else {
                Heredoc::parse(&word.text)
            }
        };
        let index = |doc: &Heredoc| self.line.heredocs.iter().position(|h| h.name == doc.name);
        let source = |word: Word| match named(&word).as_ref().and_then(index) {
            Some(i) => TransferSource::Heredoc(i, word),
            None => TransferSource::Path(word),
        };
        Ok(Body::Transfer {
            sources: words.into_iter().map(source).collect(),
            dest,
        })
    }

    fn one_text(&self) -> Result<Body, Fault> {
        match self.text() {
            "" => Err(self.missing(match self.keyword {
                Keyword::User => "a user, for example `USER app` or `USER 1000:1000`",
                Keyword::Workdir => "a directory",
                Keyword::Stopsignal => "a signal, for example `SIGTERM`",
                _ => "a name",
            })),
            text => Ok(Body::Text(Word {
                text: text.to_owned(),
                at: self.at,
            })),
        }
    }

    fn healthcheck(&self) -> Result<Body, Fault> {
        let text = self.text();
        let kind_len = text.find(char::is_whitespace).unwrap_or(text.len());
        let (kind, rest) = (&text[..kind_len], text[kind_len..].trim_start());
        let kind_at = At::new(self.at.start, self.at.start + kind_len);
        let rest_at = At::new(self.at.end - rest.len(), self.at.end);
        match kind.to_ascii_uppercase().as_str() {
            "" => Err(self.missing("`NONE`, or `CMD` and a command")),
            "NONE" if rest.is_empty() => Ok(Body::Healthcheck(None)),
            "NONE" => Err(Fault::new(
                &rules::TOO_MANY_ARGUMENTS,
                rest_at,
                "HEALTHCHECK NONE takes no arguments".into(),
            )),
            "CMD" => match self.command(rest_at)? {
                Command::Exec(list) if list.is_empty() => {
                    Err(self.missing("a command behind `CMD`"))
                }
                Command::Shell(text) if text.text.is_empty() => {
                    Err(self.missing("a command behind `CMD`"))
                }
                command => Ok(Body::Healthcheck(Some(command))),
            },
            _ => {
                let hint = match did_you_mean(kind, ["CMD", "NONE"]) {
                    near if near.is_empty() => {
                        let shown: String = text.chars().take(60).collect();
                        format!("write `HEALTHCHECK CMD {shown}`")
                    }
                    near => near,
                };
                Err(Fault::new(
                    &rules::INVALID_ARGUMENT,
                    kind_at,
                    format!("HEALTHCHECK takes `CMD` or `NONE`, not `{kind}`"),
                )
                .hint(hint))
            }
        }
    }

    /// Keeps the trigger as text, and checks that it is an instruction that may be one.
    pub fn onbuild(&self, from: usize) -> Result<Body, Fault> {
        let whole = &self.line.text[from..];
        let trigger = whole.trim();
        if trigger.is_empty() {
            return Err(self.missing("an instruction"));
        }
        let offset = from + whole.len() - whole.trim_start().len();
        let split = split::split(trigger, self.escape);
        let word = Word {
            text: split.keyword_text(trigger).to_owned(),
            at: shift(split.keyword, offset),
        };
        let refuse = |message: &str| {
            Err(Fault::new(
                &rules::INVALID_ARGUMENT,
                word.at,
                message.to_owned(),
            ))
        };
        match Keyword::parse(&word.text) {
            Some(Keyword::Onbuild) => return refuse("ONBUILD cannot be a trigger of ONBUILD"),
            Some(Keyword::From) => return refuse("FROM cannot be a trigger of ONBUILD"),
            Some(Keyword::Maintainer) => {
                return refuse("MAINTAINER cannot be a trigger of ONBUILD");
            }
            // docker reads the names and values of these when it reads the file, all else when the trigger is carried out.
            Some(Keyword::Env | Keyword::Label) => {
                let faults = trigger_faults(self.line, from, self.escape);
                if let Some(fault) = faults.into_iter().next() {
                    return Err(fault);
                }
            }
            _ => {}
        }
        let bodies = self
            .line
            .heredocs
            .iter()
            .map(|h| format!("\n{}{}", h.content, h.name));
        Ok(Body::Onbuild(
            std::iter::once(trigger.to_owned()).chain(bodies).collect(),
        ))
    }
}

/// Cuts a word at the first `separator`.
fn cut(word: &Word, separator: &str) -> Option<(Word, Word)> {
    let (before, after) = word.text.split_once(separator)?;
    let middle = word.at.start + before.len();
    let first = Word {
        text: before.to_owned(),
        at: At::new(word.at.start, middle),
    };
    Some((
        first,
        Word {
            text: after.to_owned(),
            at: At::new(middle + separator.len(), word.at.end),
        },
    ))
}

/// Checks a stage's name: a letter, then letters, digits, `-`, `_` and `.`.
fn stage_name(name: &Word) -> Result<(), Fault> {
    let lower = name.text.to_ascii_lowercase();
    let rest_ok = lower
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
    if rest_ok && lower.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(());
    }
    let message = format!("`{}` cannot be the name of a stage", name.text);
    Err(Fault::new(&rules::INVALID_STAGE_NAME, name.at, message)
        .hint("a name begins with a letter and goes on with letters, digits, `-`, `_` and `.`"))
}
