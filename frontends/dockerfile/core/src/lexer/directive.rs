//! Parser directives: `# syntax=`, `# escape=` and `# check=` in the first lines of a file.

use crate::diagnostic::{Diagnostics, did_you_mean, rules};
use crate::source::Source;

/// What the directives say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# escape=`: `\` or a backtick.
    pub escape: char,
    /// `# syntax=`, and the line (from 0) that says it.
    pub syntax: Option<(String, usize)>,
    /// `# check=`.
    pub check: Option<String>,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            escape: '\\',
            syntax: None,
            check: None,
        }
    }
}

impl Directives {
    /// Says whether `# check=error=true` makes warnings stop the build.
    pub fn warnings_are_errors(&self) -> bool {
        let mut parts = self.check.iter().flat_map(|c| c.split(';'));
        parts.any(|p| p.trim().eq_ignore_ascii_case("error=true"))
    }

    /// Returns the rules that `# check=skip=A,B` leaves out.
    pub fn skipped(&self) -> Vec<String> {
        let parts = self
            .check
            .iter()
            .flat_map(|c| c.split(';'))
            .filter_map(|p| p.trim().strip_prefix("skip="));
        parts
            .flat_map(|list| list.split(','))
            .map(|rule| rule.trim().to_owned())
            .collect()
    }
}

/// Reads the directives of a file: they end with the first line that is none.
pub fn read(source: &Source, diagnostics: &mut Diagnostics) -> Directives {
    let mut found = Directives::default();
    let mut seen: Vec<String> = Vec::new();
    for index in 0..source.line_count() {
        let text = source.line(index).trim_start_matches('\u{feff}');
        if index == 0 && text.starts_with("#!") {
            continue;
        }
        let Some((key, value)) = parse(text) else {
            break;
        };
        let start = source.line_start(index);
        let span = source.span(start, start + source.line(index).trim_end().len());
        if seen.contains(&key) {
            diagnostics.add(
                &rules::DIRECTIVE,
                source,
                span,
                format!("the directive `{key}` is given twice"),
                "remove one of the two lines".into(),
            );
        }
        match key.as_str() {
            "syntax" => found.syntax = Some((value.to_owned(), index)),
            "check" => found.check = Some(value.to_owned()),
            "escape" => match value {
                "\\" => found.escape = '\\',
                "`" => found.escape = '`',
                other => {
                    let hint = "the escape character is `\\` or a backtick".into();
                    diagnostics.add(
                        &rules::DIRECTIVE,
                        source,
                        span,
                        format!("`{other}` cannot be the escape character"),
                        hint,
                    );
                }
            },
            other => {
                let hint = did_you_mean(other, ["syntax", "escape", "check"]);
                if !hint.is_empty() {
                    diagnostics.add(
                        &rules::DIRECTIVE_NAME,
                        source,
                        span,
                        format!("`{other}` is not a directive, so this line is a comment"),
                        hint,
                    );
                }
                break;
            }
        }
        seen.push(key);
    }
    found
}

/// Takes `# key = value` apart; the key comes back in lower case.
fn parse(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_name = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}
