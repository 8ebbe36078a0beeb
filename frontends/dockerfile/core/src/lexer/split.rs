//! Takes an instruction apart: keyword, flags, the rest; and the rest into words.

use super::line::At;

/// A piece of an instruction and where it stands.  Equal to another that says the same elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// What it says.
    pub text: String,
    /// Where it stands.
    pub at: At,
}

/// An instruction in its three parts.
#[derive(Debug, Clone, Default)]
pub struct Split {
    /// The first word.
    pub keyword: At,
    /// Words that begin with `--`, quotes and escapes removed.
    pub flags: Vec<Word>,
    /// Everything else, without spaces around it.
    pub rest: At,
}

impl Split {
    /// Returns the keyword as written.
    pub fn keyword_text<'a>(&self, line: &'a str) -> &'a str {
        &line[self.keyword.start..self.keyword.end]
    }

    /// Returns the same parts for a text that begins `by` bytes later.
    pub(super) fn moved(mut self, by: usize) -> Self {
        let shift = |at: At| At::new(at.start + by, at.end + by);
        self.keyword = shift(self.keyword);
        self.rest = shift(self.rest);
        self.flags.iter_mut().for_each(|f| f.at = shift(f.at));
        self
    }
}

/// Says whether a character parts words (not the wider notion of Unicode).
pub fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits an instruction; `escape` is the file's escape character, which counts within flags.
pub fn split(line: &str, escape: char) -> Split {
    let start = line.len() - line.trim_start().len();
    let end = start + line.trim().len();
    let keyword_end = line[start..end].find(is_blank).map_or(end, |i| start + i);
    let (flags, rest) = flags(line, keyword_end, end, escape);
    Split {
        keyword: At::new(start, keyword_end),
        flags,
        rest: trimmed(line, rest, end),
    }
}

fn trimmed(line: &str, start: usize, end: usize) -> At {
    let text = &line[start..end];
    let begin = start + text.len() - text.trim_start().len();
    At::new(begin, begin + text.trim().len())
}

/// Reads the words that begin with `--`; returns them and where the rest begins.
fn flags(line: &str, from: usize, end: usize, escape: char) -> (Vec<Word>, usize) {
    let mut flags = Vec::new();
    let mut at = from;
    loop {
        let blanks = &line[at..end];
        at += blanks.len() - blanks.trim_start().len();
        if !line[at..end].starts_with("--") {
            return (flags, at);
        }
        let (word, next) = flag(line, at, end, escape);
        if word == "--" {
            return (flags, next);
        }
        if !word.is_empty() {
            flags.push(Word {
                text: word,
                at: At::new(at, next),
            });
        }
        at = next;
    }
}

/// Reads one flag up to an unquoted space.
fn flag(line: &str, start: usize, end: usize, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = line[start..end].char_indices();
    while let Some((i, c)) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => return (word, start + i),
            (c, _) if c == escape => word.extend(chars.next().map(|(_, c)| c)),
            (c, Some(q)) if c == q => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            (c, _) => word.push(c),
        }
    }
    (word, end)
}

/// Splits at blanks; quotes mean nothing.
pub fn blank_separated(line: &str, at: At) -> Vec<Word> {
    let text = &line[at.start..at.end];
    let parts = text.split(is_blank).filter(|p| !p.is_empty());
    parts
        .map(|part| {
            let start = at.start + (part.as_ptr() as usize - text.as_ptr() as usize);
            Word {
                text: part.to_owned(),
                at: At::new(start, start + part.len()),
            }
        })
        .collect()
}

/// Splits at spaces outside quotes; quotes and escapes stay, for the expansion to interpret.
pub fn quoted_words(line: &str, at: At, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote = None;
    let mut chars = line[at.start..at.end].char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        let here = at.start + i;
        if quote.is_none() && c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let current = word.get_or_insert_with(|| Word {
            text: String::new(),
            at: At::new(here, here),
        });
        current.at.end = here + c.len_utf8();
        if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '\'' || c == '"') {
            quote = Some(c);
        }
        if c == escape && quote != Some('\'') {
            // An escape character at the very end is dropped.
            if let Some((_, escaped)) = chars.next() {
                current.text.extend([c, escaped]);
                current.at.end += escaped.len_utf8();
            }
            continue;
        }
        current.text.push(c);
    }
    words.extend(word);
    words.retain(|w| !w.text.is_empty());
    words
}
