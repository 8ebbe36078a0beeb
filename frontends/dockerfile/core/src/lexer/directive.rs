//! Parser directives: `# syntax=`, `# escape=` and `# check=` in the first lines of a file.

use crate::diagnostic::{Diagnostics, Severity, did_you_mean, rules};
use crate::source::Source;

/// What the directives say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# escape=`: `\` or a backtick.
    pub escape: char,
    /// `# syntax=`, and the line (from 0) that says it.
    pub syntax: Option<(String, usize)>,
    /// `# check=`, and the line (from 0) that says it.
    pub check: Option<(String, usize)>,
    /// How many lines they take.
    pub lines: usize,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            escape: '\\',
            syntax: None,
            check: None,
            lines: 0,
        }
    }
}

/// What `# check=…`, or a build argument in its place, says about checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// Rules that are left out; `all` means every one.
    pub skip: Vec<String>,
    /// Experimental rules that are let in; `all` means every one.
    pub experimental: Vec<String>,
    /// Whether warnings stop the build.
    pub error: bool,
}

impl Checks {
    /// Reads `skip=A,B;error=true;experimental=C`; the error is for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut checks = Self::default();
        let list = |value: &str| value.split(',').map(|r| r.trim().to_owned()).collect();
        for part in text.split(';').filter(|_| !text.trim().is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key.trim() {
                "skip" if part.contains('=') => checks.skip = list(value),
                "experimental" if part.contains('=') => checks.experimental = list(value),
                "error" => checks.error = truth(value.trim())?,
                other => {
                    let near = did_you_mean(other, ["skip", "error", "experimental"]);
                    let near = if near.is_empty() {
                        "there are `skip=`, `error=` and `experimental=`"
                    } else {
                        &near
                    };
                    return Err(format!("`{other}` is not an option of checks: {near}"));
                }
            }
        }
        Ok(checks)
    }

    /// Names what is listed and is no rule, with the nearest one that is.
    pub fn unknown(&self) -> Vec<(String, String)> {
        let warnings = || {
            rules::ALL
                .iter()
                .filter(|r| r.severity == Severity::Warning)
        };
        let named = self.skip.iter().chain(&self.experimental);
        named
            .filter(|name| {
                !name.is_empty() && *name != "all" && !warnings().any(|r| r.code == *name)
            })
            .map(|name| (name.clone(), did_you_mean(name, warnings().map(|r| r.code))))
            .collect()
    }
}

/// Reads what Go takes for true and false.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("`error={other}`: there are `true` and `false`")),
    }
}

/// Reads the directives of a file: they end with the first line that is none.
pub fn read(source: &Source, diagnostics: &mut Diagnostics) -> Directives {
    let mut found = Directives::default();
    let mut seen: Vec<(String, usize)> = Vec::new();
    let mut shebang = false;
    for index in 0..source.line_count() {
        let text = source.line(index).trim_start_matches('\u{feff}');
        if index == 0 && text.starts_with("#!") {
            shebang = true;
            continue;
        }
        let Some((key, value)) = parse(text) else {
            break;
        };
        let start = source.line_start(index);
        let span = source.span(start, start + source.line(index).trim_end().len());
        if let Some((_, earlier)) = seen.iter().find(|(k, _)| *k == key) {
            diagnostics.add(
                &rules::DIRECTIVE,
                source,
                span,
                format!("the directive `{key}` is given twice"),
                format!(
                    "line {} gives it already: remove one of the two",
                    earlier + 1
                ),
            );
        }
        match key.as_str() {
            "syntax" => found.syntax = Some((value.to_owned(), index)),
            "check" => found.check = Some((value.to_owned(), index)),
            // docker finds `syntax` and `check` below such a line, and reads the rest of the file as if the line were a comment.
            "escape" if shebang => diagnostics.add(
                &rules::DIRECTIVE_NAME,
                source,
                span,
                "below a line that begins with `#!`, the directive `escape` is a comment".into(),
                "take the first line away".into(),
            ),
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
        seen.push((key, index));
        found.lines = index + 1;
    }
    found
}

/// Takes `# key = value` apart; the key comes back in lower case.
fn parse(line: &str) -> Option<(String, &str)> {
    key_and_value(line.trim_start().strip_prefix('#')?)
}

/// Takes `key = value` apart; the key comes back in lower case.
pub(crate) fn key_and_value(text: &str) -> Option<(String, &str)> {
    let (key, value) = text.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_name = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}
