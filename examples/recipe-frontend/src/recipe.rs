//! The recipe: what it may say, and where in the file something was said.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use stepwell_guest::frontend::{Definition, Diagnostic, Origin, Severity, Span};
use toml::Spanned;

/// A whole recipe.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The image to start from, or `scratch`.
    pub base: Spanned<String>,
    /// Debian packages to install.
    pub packages: Option<Spanned<Vec<String>>>,
    /// Environment of the steps and of the image.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What is done, in order.
    #[serde(default)]
    pub step: Vec<Spanned<Step>>,
    /// What a container of the image runs with.
    #[serde(default)]
    pub image: ImageSettings,
}

/// One step: exactly one of `run`, `copy`, `write`.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Step {
    /// Runs a command line with `/bin/sh -c`.
    Run {
        run: String,
        #[serde(default)]
        user: String,
        #[serde(default)]
        offline: bool,
    },
    /// Copies files of the context.
    Copy {
        copy: Vec<String>,
        to: String,
        #[serde(default)]
        owner: Option<String>,
        #[serde(default)]
        mode: String,
    },
    /// Writes a file.
    Write {
        write: String,
        content: String,
        #[serde(default)]
        executable: bool,
    },
}

/// What a container of the image runs with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSettings {
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    #[serde(default)]
    pub workdir: String,
    #[serde(default)]
    pub user: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub ports: Vec<String>,
}

/// The text of a recipe, for messages.
pub struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Source<'a> {
    /// Takes a definition, which has to be UTF-8.
    pub fn new(definition: &'a Definition) -> Result<Self, Box<Diagnostic>> {
        let name = &definition.name;
        match std::str::from_utf8(&definition.content) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => {
                let good = &definition.content[..error.valid_up_to()];
                let text = std::str::from_utf8(good).unwrap_or_default();
                let end = text.len()..text.len();
                Err(Self { name, text }.error(end, "NotUtf8", "this is not UTF-8", ""))
            }
        }
    }

    /// Reads the recipe.
    pub fn parse(&self) -> Result<Recipe, Box<Diagnostic>> {
        toml::from_str(self.text).map_err(|error| {
            let at = error.span().unwrap_or(0..0);
            // An untagged enum cannot say more than that nothing fits.
            let hint = if error.message().contains("untagged") {
                "a step has `run`, or `copy` and `to`, or `write` and `content`"
            } else {
                ""
            };
            self.error(at, "BadRecipe", error.message(), hint)
        })
    }

    /// Makes a message about a place.
    pub fn error(
        &self,
        at: Range<usize>,
        code: &str,
        message: &str,
        hint: &str,
    ) -> Box<Diagnostic> {
        let span = self.span(&at);
        let lines = self.text.lines().skip(span.line as usize - 1);
        let count = (span.end_line - span.line) as usize + 1;
        Box::new(Diagnostic {
            severity: Severity::Error,
            code: code.into(),
            message: message.trim().into(),
            file: self.name.into(),
            span,
            source: lines.take(count).collect::<Vec<_>>().join("\n"),
            hint: hint.into(),
        })
    }

    /// Says where a vertex was written.
    pub fn origin(&self, at: Range<usize>, text: &str) -> Origin {
        Origin {
            file: self.name.into(),
            span: self.span(&at),
            text: text.into(),
            stage: String::new(),
        }
    }

    fn span(&self, at: &Range<usize>) -> Span {
        let (line, column) = self.place(at.start);
        let (end_line, end_column) = self.place(at.end.max(at.start));
        Span {
            line,
            column,
            end_line,
            end_column,
        }
    }

    /// Line and column of a byte, from 1.
    fn place(&self, byte: usize) -> (u32, u32) {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |n| n + 1);
        let line = before.matches('\n').count() + 1;
        (line as u32, before[start..].chars().count() as u32 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recipe, Box<Diagnostic>> {
        Source {
            name: "recipe.toml",
            text,
        }
        .parse()
    }

    #[test]
    fn the_example_parses() {
        let recipe = parse(include_str!("../example/recipe.toml")).unwrap();
        assert_eq!(recipe.base.as_ref(), "debian:bookworm-slim");
        assert_eq!(recipe.step.len(), 3);
    }

    #[test]
    fn messages_have_their_place() {
        let error = parse("base = \"x\"\nstepp = 1\n").unwrap_err();
        assert_eq!((error.span.line, error.span.column), (2, 1));
        assert_eq!(error.source, "stepp = 1");
        assert!(error.message.contains("stepp"), "{}", error.message);
    }

    #[test]
    fn a_step_that_does_nothing_known_gets_a_hint() {
        let error = parse("base = \"x\"\n[[step]]\nrum = \"ls\"\n").unwrap_err();
        assert!(error.hint.contains("`run`"), "{error:?}");
    }
}
