//! What COPY and ADD take from: a build context with its ignore file, a stage, a named context, an image.

use std::rc::Rc;

use stepwell_patterns::IgnoreSet;

use super::host::{Host, Op, ReadError, VertexId};
use super::state::State;
use super::{Lowering, Step};
use crate::ast::Fault;
use crate::diagnostic::rules;
use crate::lexer::At;
use crate::lexer::split::Word;
use crate::stages::Base;

/// Largest ignore file that is read.
const LARGEST_IGNORE: u64 = 1 << 20;

impl<H: Host> Lowering<'_, H> {
    /// Returns what is copied from: the context, a stage, a named context, or an image.
    pub(super) fn source(
        &mut self,
        state: &State,
        index: usize,
        step: Step<'_>,
        depth: usize,
    ) -> Result<VertexId, Fault> {
        let Some(word) = step.node.given_flag("from") else {
            return self.context("", state, step);
        };
        self.source_named(word, state, index, step, depth)
    }

    /// Returns what a name behind `from=` means: a stage, a named context, or an image.
    pub(super) fn source_named(
        &mut self,
        word: &Word,
        state: &State,
        index: usize,
        step: Step<'_>,
        depth: usize,
    ) -> Result<VertexId, Fault> {
        if word.text.contains('$') {
            let hint = "give the stage of a FROM line a name: `FROM $VARIABLE AS name`, and take from that";
            return Err(Fault::new(
                &rules::INVALID_FLAG,
                word.at,
                "`--from` does not take variables".into(),
            )
            .hint(hint));
        }
        if let Ok(number) = word.text.parse::<i64>() {
            let index_of = usize::try_from(number).ok();
            let Some(number) = index_of.filter(|n| *n < self.stages.list.len()) else {
                let message = format!("there is no stage number {number}");
                return Err(Fault::new(&rules::UNKNOWN_STAGE, word.at, message)
                    .hint(format!("stages of the file: {}", self.stage_list())));
            };
            return self.stage_files(number, index, word, state, step, depth);
        }
        match self
            .stages
            .find(&word.text, &self.request.contexts, &state.platform)
        {
            Base::Stage(from) => self.stage_files(from, index, word, state, step, depth),
            Base::Scratch => Err(Fault::new(
                &rules::INVALID_FLAG,
                word.at,
                "`scratch` is empty: there is nothing to copy".into(),
            )),
            Base::Context(i) => match self.request.contexts[i].image.clone() {
                Some(reference) => self.image_files(&reference, state, step, word.at),
                None => self.context(&self.request.contexts[i].name.clone(), state, step),
            },
            Base::Image(reference) => self.image_files(&reference, state, step, word.at),
        }
    }

    fn stage_files(
        &mut self,
        from: usize,
        index: usize,
        word: &Word,
        state: &State,
        step: Step<'_>,
        depth: usize,
    ) -> Result<VertexId, Fault> {
        if from >= index {
            let (message, hint) = if from == index {
                (
                    "a stage cannot copy from itself".to_owned(),
                    "take from the stage it builds on, or split it in two".to_owned(),
                )
            } else {
                (
                    format!(
                        "the stage `{}` comes after the one that copies from it",
                        word.text
                    ),
                    format!(
                        "it begins on line {}: move it in front of this one; stages may not use each other in a circle",
                        self.stages.list[from].from.line.first + 1
                    ),
                )
            };
            return Err(Fault::new(&rules::STAGE_ORDER, word.at, message).hint(hint));
        }
        if self.done[from].is_none() && !self.broken.contains(&from) {
            // A trigger asks for a stage that nothing else needs.
            if depth >= super::DEEPEST {
                return Err(Fault::new(
                    &rules::TOO_LARGE,
                    word.at,
                    "triggers of base images are nested too deeply".into(),
                ));
            }
            self.lower_all(from, depth + 1);
        }
        match self.done[from].as_ref().map(|s| s.root) {
            Some(Some(root)) => Ok(root),
            Some(None) => self.add(
                Op::Files {
                    base: None,
                    actions: Vec::new(),
                },
                state,
                step,
                word.at,
            ),
            None => Err(Fault::new(
                &rules::REFUSED,
                word.at,
                format!("the stage `{}` has errors", word.text),
            )),
        }
    }

    fn image_files(
        &mut self,
        reference: &str,
        state: &State,
        step: Step<'_>,
        at: At,
    ) -> Result<VertexId, Fault> {
        let image = self.resolved(reference, &state.platform.clone(), step, at)?;
        self.add(
            Op::Image {
                reference: image.reference,
                digest: image.digest,
            },
            state,
            step,
            at,
        )
    }

    /// Returns a context's vertex, with the patterns of its ignore file.
    pub(super) fn context(
        &mut self,
        name: &str,
        state: &State,
        step: Step<'_>,
    ) -> Result<VertexId, Fault> {
        if let Some(known) = self.contexts.get(name) {
            return Ok(*known);
        }
        let exclude = self.ignored(name)?.patterns.clone();
        let text = if name.is_empty() {
            "load build context".to_owned()
        } else {
            format!("load build context {name}")
        };
        let op = Op::Context {
            name: name.to_owned(),
            exclude,
        };
        let id = self.add_as(
            op,
            &state.platform,
            step,
            At::default(),
            (text, "internal".to_owned()),
        )?;
        self.contexts.insert(name.to_owned(), id);
        Ok(id)
    }

    /// Returns what the ignore file of a context says.  It is read once.
    pub(super) fn ignored(&mut self, name: &str) -> Result<Rc<Ignored>, Fault> {
        if let Some(known) = self.ignored.get(name) {
            return Ok(Rc::clone(known));
        }
        let read = Rc::new(self.ignore_file(name)?);
        self.ignored.insert(name.to_owned(), Rc::clone(&read));
        Ok(read)
    }

    /// Reads the ignore file of a context: the one beside the Dockerfile and named like it wins.
    fn ignore_file(&mut self, name: &str) -> Result<Ignored, Fault> {
        let mut files = vec![".dockerignore".to_owned()];
        if name.is_empty() {
            if let Some((file, content)) = &self.request.ignore_file {
                return Ignored::parse(file, content);
            }
            let own = self.request.file.trim_start_matches("./");
            files.insert(0, format!("{own}.dockerignore"));
        }
        for file in files {
            match self.host.read(name, &file, LARGEST_IGNORE) {
                Ok(bytes) => return Ignored::parse(&file, &bytes),
                Err(ReadError::NotFound) => {}
                Err(ReadError::Failed(why)) => {
                    let of = match name {
                        "" => "the build context".to_owned(),
                        name => format!("the context `{name}`"),
                    };
                    let message = format!("`{file}` of {of} cannot be read: {why}");
                    return Err(Fault::new(&rules::CONTEXT, At::default(), message));
                }
            }
        }
        Ok(Ignored::default())
    }
}

/// What an ignore file says.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    /// Its name.
    pub file: String,
    /// Its patterns as written, in order.
    pub patterns: Vec<String>,
    /// The same, ready for use.
    pub set: IgnoreSet,
}

impl Ignored {
    /// Understands an ignore file; a pattern that cannot be understood is named with its line.
    fn parse(file: &str, content: &[u8]) -> Result<Self, Fault> {
        let text = String::from_utf8_lossy(content);
        let patterns = IgnoreSet::parse(&text);
        let set = IgnoreSet::new(&patterns).map_err(|error| {
            let faulty = |line: &str| IgnoreSet::new(IgnoreSet::parse(line)).is_err();
            let line = text.lines().position(faulty).map_or(0, |n| n + 1);
            let hint = "`*`, `?`, `[…]` and `\\` are special; put a `\\` before one that is meant as it is";
            Fault::new(&rules::CONTEXT, At::default(), format!("line {line} of `{file}`: {error}")).hint(hint)
        })?;
        Ok(Self {
            file: file.to_owned(),
            patterns,
            set,
        })
    }

    /// Says whether a source of COPY is left out for certain: an exception could take anything back.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        if self.set.has_exceptions() {
            return false;
        }
        if path == "." {
            return self
                .patterns
                .iter()
                .any(|p| ["*", "**", "**/*"].contains(&p.trim_start_matches('/')));
        }
        self.set.matches(path)
    }
}
