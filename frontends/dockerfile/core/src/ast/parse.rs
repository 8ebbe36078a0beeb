//! From logical lines to instructions.  A line that is wrong becomes messages, and the next line is read all
//! the same, so that one run shows everything.

use super::{
    Body, Command, Declaration, File, Instruction, Keyword, Node, Pair, TransferSource, duration,
    flags,
};
use crate::diagnostic::{Diagnostics, Rule, Severity, did_you_mean, rules};
use crate::lexer::split::{self, Word};
use crate::lexer::{At, Heredoc, Lexed, Line, json};
use crate::source::Source;

/// Something wrong within a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub rule: &'static Rule,
    /// Where.
    pub at: At,
    /// What is wrong.
    pub message: String,
    /// How to mend it, or empty.
    pub hint: String,
}

impl Fault {
    /// Makes a fault without a hint.
    pub fn new(rule: &'static Rule, at: At, message: String) -> Self {
        Self {
            rule,
            at,
            message,
            hint: String::new(),
        }
    }

    /// Adds a hint.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: hint.into(),
            ..self
        }
    }
}

/// Adds faults of a line to the messages.
pub fn report(faults: Vec<Fault>, line: &Line, source: &Source, diagnostics: &mut Diagnostics) {
    for fault in faults {
        let is_experimental = rules::EXPERIMENTAL.contains(&fault.rule);
        if fault.rule.severity != Severity::Error && !is_experimental && line.skips(fault.rule.code)
        {
            continue;
        }
        let span = line.span(source, fault.at);
        let (rule, message, hint) = (fault.rule, fault.message, fault.hint);
        if is_experimental && line.asks_for(rule.code) {
            diagnostics.add_admitted(rule, source, span, message, hint);
        } else {
            diagnostics.add(rule, source, span, message, hint);
        }
    }
}

/// Understands every line of a file.
pub fn parse(lexed: Lexed, source: &Source, diagnostics: &mut Diagnostics) -> File {
    let escape = lexed.directives.escape;
    let (mut instructions, mut broken_from) = (Vec::new(), None);
    for line in lexed.lines.into_iter().filter(|l| !l.broken) {
        if diagnostics.full() {
            break;
        }
        match parse_line(&line, escape) {
            Ok(node) => instructions.push(Instruction { node, line }),
            Err(mut faults) => {
                faults.iter_mut().for_each(goes_on);
                let is_from = line.text.trim_start().get(..4);
                if is_from.is_some_and(|k| k.eq_ignore_ascii_case("FROM")) {
                    broken_from.get_or_insert(line.first);
                }
                report(faults, &line, source, diagnostics);
            }
        }
    }
    File {
        directives: lexed.directives,
        instructions,
        broken_from,
    }
}

/// Understands one line.
pub fn parse_line(line: &Line, escape: char) -> Result<Node, Vec<Fault>> {
    let split = split::split(&line.text, escape);
    let written = Word {
        text: split.keyword_text(&line.text).to_owned(),
        at: split.keyword,
    };
    let keyword =
        Keyword::parse(&written.text).ok_or_else(|| vec![unknown_instruction(&written)])?;
    let mut faults = Vec::new();
    let flags = match keyword {
        Keyword::Onbuild => Vec::new(),
        _ if ignores_flags(line, keyword, &split) => Vec::new(),
        _ => flags::parse(keyword, &split.flags, &mut faults),
    };
    let rest = Rest {
        line,
        at: split.rest,
        keyword,
        escape,
    };
    let body = match keyword {
        Keyword::Onbuild => rest.onbuild(split.keyword.end),
        _ => rest.body(),
    };
    if keyword == Keyword::Healthcheck {
        faults.extend(flags.iter().filter_map(healthcheck_flag));
    }
    match body {
        Ok(body) if faults.is_empty() => Ok(Node {
            keyword,
            written,
            flags,
            body,
            heredocs: line.heredocs.clone(),
        }),
        Ok(_) => Err(faults),
        // What was taken for a flag may be the argument that is missing.
        Err(fault) if !faults.is_empty() && fault.rule == &rules::MISSING_ARGUMENT => Err(faults),
        Err(fault) => {
            faults.push(fault);
            Err(faults)
        }
    }
}

/// Says whether docker takes flags away from an instruction and then looks at none of them.
pub fn ignores_flags(line: &Line, keyword: Keyword, split: &split::Split) -> bool {
    let rest = &line.text[split.rest.start..split.rest.end];
    match keyword {
        Keyword::Arg | Keyword::Stopsignal => true,
        Keyword::Healthcheck => rest.eq_ignore_ascii_case("NONE"),
        _ => false,
    }
}

/// A first word that is near no instruction is likely the rest of the line above.
fn goes_on(fault: &mut Fault) {
    if fault.rule == &rules::UNKNOWN_INSTRUCTION && fault.hint.is_empty() {
        fault.hint =
            "a line begins with an instruction; to go on from the line above, end that with `\\`"
                .into();
    }
}

fn unknown_instruction(word: &Word) -> Fault {
    let shown: String = word.text.chars().take(40).collect();
    Fault::new(
        &rules::UNKNOWN_INSTRUCTION,
        word.at,
        format!("`{shown}` is not an instruction"),
    )
    .hint(did_you_mean(
        &word.text,
        Keyword::ALL.iter().map(|k| k.text()),
    ))
}

fn healthcheck_flag(flag: &flags::Flag) -> Option<Fault> {
    let value = &flag.value;
    let bad = |message: String| Some(Fault::new(&rules::INVALID_FLAG, value.at, message));
    if flag.row.name == "retries" {
        let fine = value.text.is_empty() || value.text.parse::<i32>().is_ok_and(|n| n >= 0);
        return if fine {
            None
        } else {
            bad(format!(
                "`--retries={}` is not a number of retries",
                value.text
            ))
            .map(|f| f.hint("write a whole number such as `3`"))
        };
    }
    match duration::parse(&value.text) {
        _ if value.text.is_empty() => None,
        Some(0) | Some(1_000_000..) => None,
        Some(_) => bad(format!(
            "`--{}={}` is shorter than `1ms`",
            flag.row.name, value.text
        )),
        None => bad(format!(
            "`--{}={}` is not a duration",
            flag.row.name, value.text
        ))
        .map(|f| f.hint("write for example `30s` or `1m30s`")),
    }
}

/// The arguments of an instruction, still as text.
struct Rest<'a> {
    line: &'a Line,
    at: At,
    keyword: Keyword,
    escape: char,
}

impl Rest<'_> {
    fn body(&self) -> Result<Body, Fault> {
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
    fn onbuild(&self, from: usize) -> Result<Body, Fault> {
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

/// Returns what is wrong with the instruction that an ONBUILD leaves: `from` is where the line goes on behind the keyword.
pub fn trigger_faults(line: &Line, from: usize, escape: char) -> Vec<Fault> {
    let whole = &line.text[from..];
    let offset = from + whole.len() - whole.trim_start().len();
    let mut inner = Line::alone(whole.trim());
    inner.heredocs.clone_from(&line.heredocs);
    // No recursion beyond this one level: a trigger is never ONBUILD itself.
    let faults = parse_line(&inner, escape).err().unwrap_or_default();
    let moved = |fault: Fault| Fault {
        at: shift(fault.at, offset),
        ..fault
    };
    faults.into_iter().map(moved).collect()
}

/// Moves a place; the one that stands for a whole instruction stays.
fn shift(at: At, offset: usize) -> At {
    if at.end == 0 {
        At::default()
    } else {
        At::new(at.start + offset, at.end + offset)
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
