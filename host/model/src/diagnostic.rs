//! Messages about what the user wrote: an error or a warning with its place, its source line and a hint.

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// The build goes on.
    Warning,
    /// The build cannot go on.
    Error,
}

/// A range of a text file; lines and columns count from 1, columns are Unicode scalar values, the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Span {
    /// First line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Last line.
    pub end_line: u32,
    /// Column after the last one.
    pub end_column: u32,
}

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the file as the user gave it.
    pub file: String,
    /// Place in the file.
    pub span: Span,
    /// The text, for people: usually the instruction as written, on one line.
    pub text: String,
    /// Name of the stage and position in it, for example `build 2/5`; may be empty.
    pub stage: String,
}

impl Origin {
    /// Name of the stage; none where it has none.
    pub fn stage_name(&self) -> Option<&str> {
        self.stage.split_once(' ').map(|(name, _)| name)
    }
}

/// A message about what the user wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Name of the rule, for example `UnknownInstruction`.
    pub code: String,
    /// What is wrong: lower case, no full stop, values in backticks.
    pub message: String,
    /// Name of the file, or empty.
    pub file: String,
    /// Place in the file; line 0 means none.
    pub span: Span,
    /// The source lines `span.line..=span.end_line`, or empty.
    pub source: String,
    /// How to mend it, or empty.
    pub hint: String,
}
