//! The text of a Dockerfile and the places in it.
//!
//! Byte offsets inside, lines and columns outside: a column is counted only where a message or an origin needs
//! one, so that long lines cost no more than short ones.

use crate::diagnostic::Span;

/// Longest source line that a message shows.
const LONGEST_EXCERPT: usize = 1_000;

/// A named text, split into lines.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    text: String,
    starts: Vec<usize>,
}

/// Why bytes are not the text of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Not UTF-8.
    #[error("the file is not UTF-8: byte {byte:#04x} is not part of a character")]
    Encoding {
        /// The byte.
        byte: u8,
    },
    /// A NUL byte.
    #[error("the file holds a NUL byte")]
    Nul,
    /// Lines end in carriage returns alone.
    #[error("the lines of the file end in a lone carriage return")]
    LineEnds,
}

impl Source {
    /// Wraps the text of a file; refuses what is no text, with the place.
    pub fn new(name: &str, bytes: &[u8]) -> Result<Self, Box<(Self, usize, SourceError)>> {
        let fail = |at: usize, error| {
            let kept = String::from_utf8_lossy(bytes).into_owned();
            // The replacement characters move what follows, not the place itself: everything before was valid.
            Err(Box::new((Self::from_text(name, kept), at, error)))
        };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                return fail(
                    error.valid_up_to(),
                    SourceError::Encoding {
                        byte: bytes[error.valid_up_to()],
                    },
                );
            }
        };
        if let Some(at) = text.find('\0') {
            return fail(at, SourceError::Nul);
        }
        if let (Some(at), false) = (text.trim_end().find('\r'), text.contains('\n')) {
            return fail(at, SourceError::LineEnds);
        }
        Ok(Self::from_text(name, text.to_owned()))
    }

    fn from_text(name: &str, text: String) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(i, _)| i + 1))
            .collect();
        Self {
            name: name.to_owned(),
            text,
            starts,
        }
    }

    /// Returns the name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of lines; one that is empty after the last line end does not count.
    pub fn line_count(&self) -> usize {
        self.starts.len() - usize::from(self.starts.last() == Some(&self.text.len()))
    }

    /// Returns line `index` (from 0) with its line end.
    pub fn line(&self, index: usize) -> &str {
        let end = self
            .starts
            .get(index + 1)
            .copied()
            .unwrap_or(self.text.len());
        self.starts
            .get(index)
            .map_or("", |start| &self.text[*start..end])
    }

    /// Returns the byte offset at which line `index` (from 0) begins.
    pub fn line_start(&self, index: usize) -> usize {
        self.starts.get(index).copied().unwrap_or(self.text.len())
    }

    /// Returns the span of a range of bytes.
    pub fn span(&self, start: usize, end: usize) -> Span {
        let ((line, column), (end_line, end_column)) =
            (self.place(start), self.place(end.max(start)));
        Span {
            line,
            column,
            end_line,
            end_column,
        }
    }

    fn place(&self, offset: usize) -> (u32, u32) {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|s| *s <= offset) - 1;
        let before = self.text.get(self.starts[line]..offset).unwrap_or("");
        (
            line as u32 + 1,
            before.trim_start_matches('\u{feff}').chars().count() as u32 + 1,
        )
    }

    /// Returns the lines that a message about `span` shows; nothing where they are too long to help.
    pub fn excerpt(&self, span: Span) -> String {
        if span.line == 0 {
            return String::new();
        }
        let lines = (span.line..=span.end_line.max(span.line).min(span.line + 9))
            .map(|l| self.line(l as usize - 1).trim_end_matches(['\r', '\n']));
        let lines = lines.map(|l| l.trim_start_matches('\u{feff}')).map(|l| {
            if l.len() > LONGEST_EXCERPT {
                l.chars()
                    .take(LONGEST_EXCERPT / 4)
                    .chain("…".chars())
                    .collect()
            } else {
                l.to_owned()
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_skip_the_byte_order_mark() {
        let source = Source::new("f", "\u{feff}FROM ä\r\nRUN öü x\n".as_bytes()).unwrap();
        assert_eq!(source.line_count(), 2);
        let at = "\u{feff}FROM ä\r\nRUN öü ".len();
        assert_eq!(
            source.span(at, at + 1),
            Span {
                line: 2,
                column: 8,
                end_line: 2,
                end_column: 9
            }
        );
        assert_eq!(
            source.span(3, 7),
            Span {
                line: 1,
                column: 1,
                end_line: 1,
                end_column: 5
            }
        );
        assert_eq!(source.excerpt(source.span(at, at)), "RUN öü x");
        assert_eq!(source.excerpt(source.span(0, at)), "FROM ä\nRUN öü x");
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        let place = |bytes: &[u8]| {
            let (source, at, error) = *Source::new("f", bytes).unwrap_err();
            let span = source.span(at, at);
            (span.line, span.column, error)
        };
        assert_eq!(
            place(b"FROM a\nRUN \xff\n"),
            (2, 5, SourceError::Encoding { byte: 0xff })
        );
        assert_eq!(place(b"FROM a\0"), (1, 7, SourceError::Nul));
        assert_eq!(place(b"FROM a\rRUN b\r"), (1, 7, SourceError::LineEnds));
        assert!(Source::new("f", b"FROM a\r\nRUN a\rb\r\n").is_ok());
    }
}
