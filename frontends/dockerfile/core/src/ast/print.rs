//! Writes instructions back as text that means the same.

use std::fmt::{self, Write as _};

use super::{Body, Command, File, Keyword, Node, Pair, TransferSource};
use crate::ast::flags::{Flag, Takes};
use crate::lexer::Heredoc;
use crate::lexer::split::Word;

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((syntax, _)) = &self.directives.syntax {
            writeln!(f, "# syntax={syntax}")?;
        }
        if self.directives.escape != '\\' {
            writeln!(f, "# escape={}", self.directives.escape)?;
        }
        if let Some((check, _)) = &self.directives.check {
            writeln!(f, "# check={check}")?;
        }
        self.instructions
            .iter()
            .try_for_each(|i| i.node.print(self.directives.escape, f))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print('\\', f)
    }
}

impl Node {
    fn print(&self, escape: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.written.text.clone();
        self.flags
            .iter()
            .for_each(|flag| push_flag(flag, &mut line));
        let body = self.body(self.keyword, escape);
        if body.starts_with("--") && self.keyword != Keyword::Onbuild {
            // Else the body would be taken for a flag.
            line.push_str(" --");
        }
        if !body.is_empty() {
            line.push(' ');
            line.push_str(&body);
        }
        if line.ends_with(escape) && !line.ends_with(&format!("{escape}{escape}")) {
            // A space that is no part of the instruction keeps the escape character from joining lines.
            line.push('\u{b}');
        }
        writeln!(f, "{line}")?;
        if self.keyword == Keyword::Onbuild {
            Ok(())
        } else {
            self.heredocs.iter().try_for_each(|h| print_heredoc(h, f))
        }
    }

    fn body(&self, keyword: Keyword, escape: char) -> String {
        match &self.body {
            Body::From { image, name: None } => image.text.clone(),
            Body::From {
                image,
                name: Some((word, name)),
            } => format!("{} {} {}", image.text, word.text, name.text),
            Body::Arg(list) => join(list.iter().map(|d| {
                d.value.as_ref().map_or(d.name.text.clone(), |v| {
                    format!("{}={}", d.name.text, v.text)
                })
            })),
            Body::Command(command) => command_text(command),
            Body::Shell(list) => json(list),
            Body::Transfer { sources, dest } => transfer(sources, dest, !self.heredocs.is_empty()),
            Body::Pairs(pairs) => join(
                pairs
                    .iter()
                    .map(|p| format!("{}{}{}", p.key.text, separator(p, escape), p.value.text)),
            ),
            Body::Words(words) if keyword == Keyword::Expose => {
                join(words.iter().map(|w| w.text.clone()))
            }
            Body::Words(words) => words_or_json(&words.iter().collect::<Vec<_>>()),
            Body::Text(word) => word.text.clone(),
            Body::Healthcheck(None) => "NONE".to_owned(),
            Body::Healthcheck(Some(command)) => format!("CMD {}", command_text(command)),
            Body::Onbuild(trigger) => trigger.clone(),
        }
    }
}

/// Returns what stands between a name and its value; a name that ends in the escape character would take one
/// space with it.
fn separator(pair: &Pair, escape: char) -> &'static str {
    match pair.legacy {
        false => "=",
        true if pair.key.text.ends_with(escape) => "  ",
        true => " ",
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" ")
}

fn push_flag(flag: &Flag, line: &mut String) {
    line.push_str(" --");
    line.push_str(flag.row.name);
    if flag.row.takes == Takes::Bool && flag.value.text == "true" {
        return;
    }
    let value = &flag.value.text;
    line.push('=');
    if !value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\')) {
        return line.push_str(value);
    }
    line.push('"');
    for c in value.chars() {
        if c == '"' || c == '\\' {
            line.push('\\');
        }
        line.push(c);
    }
    line.push('"');
}

fn command_text(command: &Command) -> String {
    match command {
        Command::Shell(word) => word.text.clone(),
        Command::Exec(list) => json(list),
    }
}

/// Here-documents exclude the JSON form.
fn transfer(sources: &[TransferSource], dest: &Word, heredocs: bool) -> String {
    let word = |source: &TransferSource| match source {
        TransferSource::Path(word) => word.clone(),
        TransferSource::Heredoc(_, word) => word.clone(),
    };
    let mut words: Vec<Word> = sources.iter().map(word).collect();
    words.push(dest.clone());
    if heredocs {
        return join(words.into_iter().map(|w| w.text));
    }
    words_or_json(&words.iter().collect::<Vec<_>>())
}

/// Writes words with spaces between them where that can be read back, else a JSON array.
fn words_or_json(words: &[&Word]) -> String {
    let plain = |text: &str| {
        !text.is_empty() && !text.contains(char::is_whitespace) && Heredoc::parse(text).is_none()
    };
    if words.iter().all(|w| plain(&w.text))
        && !words[0].text.starts_with('[')
        && !words[0].text.starts_with("--")
    {
        return join(words.iter().map(|w| w.text.clone()));
    }
    json(&words.iter().map(|w| w.text.clone()).collect::<Vec<_>>())
}

fn json(list: &[String]) -> String {
    let mut out = String::from("[");
    for (i, text) in list.iter().enumerate() {
        out.push_str(if i == 0 { "\"" } else { ", \"" });
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                // A backtick may be the escape character, which would join lines at the end of one.
                c if c < ' ' || c == '`' => drop(write!(out, "\\u{:04x}", c as u32)),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out.push(']');
    out
}

fn print_heredoc(heredoc: &Heredoc, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{}{}", heredoc.content, heredoc.name)
}
