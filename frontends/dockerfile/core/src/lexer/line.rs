//! One instruction as text on one line, and where each part of it stands in the file.

use super::directive::{self, Checks};
use super::heredoc::Heredoc;
use crate::diagnostic::{Span, named};
use crate::source::Source;

/// A range of bytes of a logical line.  All are equal: where something stands does not change what it says.
#[derive(Debug, Clone, Copy, Default)]
pub struct At {
    /// First byte.
    pub start: usize,
    /// Byte after the last one.
    pub end: usize,
}

impl At {
    /// Makes a range.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

impl PartialEq for At {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for At {}

/// A logical line.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// The instruction, continuation lines joined, comments between them left out.
    pub text: String,
    /// First line of the file, from 0.
    pub first: usize,
    /// Last line of the file, here-documents included, from 0.
    pub last: usize,
    /// Comment lines directly above.
    pub comments: Vec<String>,
    /// Codes of the rules that those comments leave out.
    skipped: Vec<&'static str>,
    /// Codes of the experimental rules that those comments ask for.
    asked: Vec<&'static str>,
    /// Here-documents, in the order in which the line names them.
    pub heredocs: Vec<Heredoc>,
    /// Whether a here-document lacks its end, so that nothing more can be said about the line.
    pub broken: bool,
    /// Where each joined part begins: in `text`, and in the file.
    parts: Vec<(usize, usize)>,
}

impl Line {
    /// Starts an empty line at line `first` of the file.
    pub(super) fn new(first: usize) -> Self {
        Self {
            first,
            last: first,
            ..Self::default()
        }
    }

    /// Makes a line of a text that stands alone (a trigger of a base image).
    pub fn alone(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            parts: vec![(0, 0)],
            ..Self::default()
        }
    }

    /// Appends a physical line that begins at byte `start` of the file; says whether the instruction goes on.
    pub(super) fn push(&mut self, physical: &str, start: usize, escape: char) -> bool {
        let (kept, goes_on) = match physical.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            // Two escape characters are one that is escaped: the line ends there.
            Some(before) if !before.ends_with(escape) => (before, true),
            _ => (physical, false),
        };
        self.parts.push((self.text.len(), start));
        self.text.push_str(kept);
        goes_on
    }

    /// Returns what a comment directly above says of `name`: `# name what it is`.
    pub fn description(&self, name: &str) -> Option<&str> {
        let of = |c: &'_ String| {
            c.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        };
        let comment = self.comments.iter().find(|c| of(c))?;
        Some(comment[name.len()..].trim())
    }

    /// Says whether a comment directly above leaves a rule out: `# check=skip=RuleName`.
    pub fn skips(&self, rule: &str) -> bool {
        self.skipped.contains(&rule)
    }

    /// Says whether a comment directly above asks for an experimental rule: `# check=experimental=RuleName`.
    pub fn asks_for(&self, rule: &str) -> bool {
        self.asked.contains(&rule)
    }

    /// Takes the comment lines directly above.  The first of them that is about checks counts, where it can be understood.
    pub(super) fn take_comments(&mut self, comments: Vec<String>) {
        let check = comments.iter().find_map(|c| check_of(c));
        if let Some(Ok(checks)) = check.map(Checks::parse) {
            self.skipped = named(checks.skip.iter().map(String::as_str));
            self.asked = named(checks.experimental.iter().map(String::as_str));
        }
        self.comments = comments;
    }

    /// Returns the place of a range of `text`; the whole instruction's for the empty range at 0.
    pub fn span(&self, source: &Source, at: At) -> Span {
        let at = if at.end == 0 {
            At::new(0, self.text.trim_end().len())
        } else {
            at
        };
        source.span(self.offset(at.start, false), self.offset(at.end, true))
    }

    /// Translates an offset of `text` into one of the file; an end belongs to the part before it.
    fn offset(&self, at: usize, is_end: bool) -> usize {
        let index = self
            .parts
            .partition_point(|(begin, _)| if is_end { *begin < at } else { *begin <= at });
        let (begin, start) = self
            .parts
            .get(index.saturating_sub(1))
            .copied()
            .unwrap_or_default();
        start + at.saturating_sub(begin)
    }
}

/// Returns what a comment (without its `#`) says about the checks of the instruction below it.
pub(crate) fn check_of(comment: &str) -> Option<&str> {
    let (name, value) = directive::key_and_value(comment)?;
    // docker reads as far as the first space.
    (name == "check").then(|| value.split(' ').next().unwrap_or_default())
}
