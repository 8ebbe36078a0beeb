//! From the text of a file to logical lines: directives, comments, continuation lines and here-documents.
//!
//! Knows instructions only as far as it must to see a here-document begin.  The next step is [`crate::ast`].

pub mod directive;
pub mod heredoc;
pub mod json;
pub mod line;
pub mod split;

pub use directive::{Checks, Directives};
pub use heredoc::Heredoc;
pub(crate) use line::check_of;
pub use line::{At, Line};

use crate::diagnostic::{Diagnostics, rules};
use crate::source::Source;

/// A file as logical lines.
#[derive(Debug, Clone, Default)]
pub struct Lexed {
    /// What the first comment lines say about the file.
    pub directives: Directives,
    /// One entry for each instruction.
    pub lines: Vec<Line>,
}

/// Splits a file into logical lines; what is wrong goes to `diagnostics`, and the rest is still read.
pub fn lex(source: &Source, diagnostics: &mut Diagnostics) -> Lexed {
    let directives = directive::read(source, diagnostics);
    let mut lexer = Lexer {
        source,
        escape: directives.escape,
        next: directives.lines,
        comments: Vec::new(),
    };
    let mut lines = Vec::new();
    while lexer.next < source.line_count() {
        lines.extend(lexer.logical_line(diagnostics));
    }
    Lexed { directives, lines }
}

struct Lexer<'a> {
    source: &'a Source,
    escape: char,
    next: usize,
    comments: Vec<String>,
}

impl<'a> Lexer<'a> {
    /// Reads one instruction with its continuation lines and here-documents; nothing for comments and blanks.
    fn logical_line(&mut self, diagnostics: &mut Diagnostics) -> Option<Line> {
        let first = self.next;
        self.next += 1;
        let (start, text) = self.physical(first);
        let trimmed = text.trim_start();
        if let Some(comment) = trimmed.strip_prefix('#') {
            match comment.trim() {
                // Such a comment parts those above it from what follows.
                "" => self.comments.clear(),
                text => self.comments.push(text.to_owned()),
            }
            return None;
        }
        let mut line = Line::new(first);
        let mut goes_on = line.push(trimmed, start + text.len() - trimmed.len(), self.escape);
        if !goes_on && trimmed.is_empty() {
            // A blank line parts a comment from what follows, but for what it says about checks.
            self.comments.retain(|c| line::check_of(c).is_some());
            return None;
        }
        let mut blank = None;
        while goes_on && self.next < self.source.line_count() {
            let (start, text) = self.physical(self.next);
            self.next += 1;
            match text.trim_start() {
                "" => blank = blank.or(Some(start)),
                comment if comment.starts_with('#') => {}
                _ => {
                    goes_on = line.push(text, start, self.escape);
                    line.last = self.next - 1;
                }
            }
        }
        if line.text.trim().is_empty() {
            return None;
        }
        line.take_comments(std::mem::take(&mut self.comments));
        if let Some(start) = blank {
            // Where the instruction ends, as docker's check has it.
            let end = self.source.line_start(self.next - 1);
            let empty = self.source.span(start, start).line;
            diagnostics.add(
                &rules::NO_EMPTY_CONTINUATION,
                self.source,
                self.source
                    .span(end, end + self.source.line(self.next - 1).trim_end().len()),
                format!("line {empty}, within this instruction, is empty"),
                "remove the empty line, or end the instruction before it".into(),
            );
        }
        self.heredocs(&mut line, diagnostics);
        Some(line)
    }

    /// Returns a line without its line end, and where it begins.
    fn physical(&self, index: usize) -> (usize, &'a str) {
        let source: &'a Source = self.source;
        let start = source.line_start(index);
        let text = source.line(index).trim_end_matches(['\r', '\n']);
        match text.strip_prefix('\u{feff}') {
            Some(rest) if index == 0 => (start + 3, rest),
            _ => (start, text),
        }
    }

    /// Says how to end a here-document; a line that nearly does it is named.
    fn nearly_ends(&self, heredoc: &Heredoc, body: usize) -> String {
        let name = &heredoc.name;
        let near = (body..self.source.line_count()).find(|i| self.source.line(*i).trim() == name);
        let Some(index) = near else {
            return format!("end it with a line that holds `{name}` and nothing else");
        };
        let (number, text) = (
            index + 1,
            self.source.line(index).trim_end_matches(['\r', '\n']),
        );
        match text.trim_start_matches('\t') == name {
            true => format!(
                "line {number} has `{name}` behind tabs: take them away, or begin the document with `<<-`"
            ),
            false => format!("line {number} has `{name}` with spaces around it: take them away"),
        }
    }

    /// Reads the here-documents that `line` begins.
    fn heredocs(&mut self, line: &mut Line, diagnostics: &mut Diagnostics) {
        for heredoc::Opened { mut heredoc, sure } in heredoc::opened_by(&line.text, self.escape) {
            let body = self.next;
            let is_end = |text: &str| {
                let text = text.trim_end_matches(['\r', '\n']);
                heredoc.name
                    == if heredoc.strip_tabs {
                        text.trim_start_matches('\t')
                    } else {
                        text
                    }
            };
            let Some(end) = (body..self.source.line_count()).find(|i| is_end(self.source.line(*i)))
            else {
                if !sure {
                    continue;
                }
                let span = line.span(self.source, opening(&line.text, &heredoc));
                let message = format!("the here-document `{}` does not end", heredoc.name);
                let hint = self.nearly_ends(&heredoc, body);
                diagnostics.add(
                    &rules::UNTERMINATED_HEREDOC,
                    self.source,
                    span,
                    message,
                    hint,
                );
                self.next = self.source.line_count();
                line.broken = true;
                return;
            };
            heredoc.content = (body..end).map(|i| self.source.line(i)).collect();
            self.next = end + 1;
            line.last = end;
            line.heredocs.push(heredoc);
        }
    }
}

/// Returns where a line begins a here-document: its first word that does so with this name.
fn opening(line: &str, heredoc: &Heredoc) -> At {
    let words = split::blank_separated(line, At::new(0, line.len()));
    let is_it = |w: &split::Word| {
        let from = w.text.find("<<").map(|at| &w.text[at..]);
        from.and_then(Heredoc::parse)
            .is_some_and(|h| h.name == heredoc.name)
    };
    words
        .iter()
        .find(|w| is_it(w))
        .map(|w| w.at)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
