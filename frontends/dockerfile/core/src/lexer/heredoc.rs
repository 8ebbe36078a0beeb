//! Here-documents: `<<NAME`, `<<-NAME`, `<<"NAME"` behind RUN, COPY and ADD, also within ONBUILD.

use super::{json, split};
use crate::expand::{Env, Expander};

/// A here-document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, quotes removed.
    pub name: String,
    /// Whether variables are expanded in it: not when the word is quoted.
    pub expand: bool,
    /// Whether tabs at the beginning of lines go (`<<-`).
    pub strip_tabs: bool,
    /// The lines, with their line ends, as written.
    pub content: String,
}

impl Heredoc {
    /// Returns the content, with the leading tabs of each line removed where `<<-` asks for it.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content
            .split_inclusive('\n')
            .map(|l| l.trim_start_matches('\t'))
            .collect()
    }

    /// Understands a word such as `<<EOF` or `3<<-"EOF"`; blanks may stand before the name.
    pub fn parse(word: &str) -> Option<Self> {
        let rest = word
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .strip_prefix("<<")?;
        let (strip_tabs, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_start_matches([' ', '\t', '\r', '\u{c}']);
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        let plain = Expander {
            keep_unset: true,
            ..Expander::new('\\')
        };
        let quoted = Expander {
            raw_quotes: true,
            ..plain
        };
        let mut words = plain.expand(rest, &Env::default()).ok()?.words;
        let raw = quoted.expand(rest, &Env::default()).ok()?.words;
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        match (words.as_mut_slice(), raw.as_slice()) {
            ([name], [raw]) => Some(Self {
                expand: quotes(name) == quotes(raw),
                name: std::mem::take(name),
                strip_tabs,
                content: String::new(),
            }),
            _ => None,
        }
    }
}

/// A here-document that a line seems to begin.
#[derive(Debug)]
pub struct Opened {
    /// The document, still without content.
    pub heredoc: Heredoc,
    /// Whether it surely is one.  `<< name` with a blank may be a shift in arithmetic too, unless it begins the command: then it
    /// is a document where a line ends it.
    pub sure: bool,
}

/// Returns the here-documents that an instruction begins, still without content.
pub fn opened_by(line: &str, escape: char) -> Vec<Opened> {
    let mut split = split::split(line, escape);
    if split.keyword_text(line).eq_ignore_ascii_case("ONBUILD") {
        let rest = split.rest;
        split = split::split(&line[rest.start..rest.end], escape).moved(rest.start);
    }
    let may = ["RUN", "COPY", "ADD"]
        .iter()
        .any(|k| split.keyword_text(line).eq_ignore_ascii_case(k));
    // The cheap test first: most instructions have no here-document.
    if !may
        || !line.contains("<<")
        || json::strings(&line[split.rest.start..split.rest.end]) != json::Outcome::NotJson
    {
        return Vec::new();
    }
    let words = Expander {
        raw_quotes: true,
        raw_escapes: true,
        keep_unset: true,
        ..Expander::new('\\')
    };
    let words = words
        .expand(line, &Env::default())
        .map(|e| e.words)
        .unwrap_or_default();
    let command = &line[split.rest.start..split.rest.end];
    let (mut opened, mut words) = (Vec::new(), words.iter().peekable());
    while let Some(word) = words.next() {
        if !is_bare(word) {
            opened.extend(Heredoc::parse(word).map(|heredoc| Opened {
                heredoc,
                sure: true,
            }));
            continue;
        }
        let Some(name) = words.peek() else { break };
        if let Some(heredoc) = Heredoc::parse(&format!("<<{name}")) {
            words.next();
            let sure = command.starts_with("<<");
            opened.push(Opened { heredoc, sure });
        }
    }
    opened
}

/// Says whether a word is `<<` alone, so that the name of the document comes behind a blank.
fn is_bare(word: &str) -> bool {
    word.trim_start_matches(|c: char| c.is_ascii_digit()) == "<<"
}
