//! From stages to the build graph, an image configuration and its history.
//!
//! [`build`] is the way in.  It goes through the needed stages in the order of the file; each kind of
//! instruction has a module of its own.  What lies outside (contexts, images, the graph) is asked of [`host`].

mod base;
mod config;
mod epoch;
mod files;
pub mod host;
mod mode;
mod mounts;
mod ports;
mod remote;
mod run;
mod signal;
mod sources;
mod state;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub use self::epoch::SOURCE_DATE_EPOCH;
use self::host::{Call, Host, Op, Origin, Outcome, Platform, Request, Vertex, VertexId};
use self::sources::Ignored;
use self::state::{Histories, State};
use crate::ast::{self, Fault, Instruction, Keyword, Node};
use crate::diagnostic::{Diagnostic, Diagnostics, Rule, Severity, Span, did_you_mean, rules};
use crate::expand::{ExpandError, Expander};
use crate::lexer::split::Word;
use crate::lexer::{At, Line};
use crate::source::Source;
use crate::stages::{self, Base, Stages};
use crate::{front, lint};

/// How much text a build may expand to: stops files whose graph would be far larger than they are.
const MOST_TEXT: usize = 64 << 20;
/// How much work (bytes of patterns, for each byte of a path) goes into warnings about ignored files: many sources and many
/// patterns multiply.
const MOST_MATCHING: usize = 50 << 20;
/// How deep triggers of base images may call for further stages.
const DEEPEST: usize = 32;

/// Turns a Dockerfile into a graph, or only checks it.  The messages of a failure hold at least one error.
pub fn build(request: &Request, host: &mut impl Host) -> Result<Outcome, Vec<Diagnostic>> {
    let front::Front {
        source,
        file,
        checks,
        mut diagnostics,
    } = front::read(request)?;
    let mut faults = Vec::new();
    lint::check(&file, &mut faults);
    let stages = stages::split(&file, request, &mut faults);
    for (fault, instruction) in faults {
        ast::report(vec![fault], &instruction.line, &source, &mut diagnostics);
    }
    if stages.list.is_empty() && !diagnostics.failed() {
        let hint = "a Dockerfile begins with `FROM image`".into();
        diagnostics.add(
            &rules::EMPTY_FILE,
            &source,
            Span::default(),
            format!("`{}` has no stage", request.file),
            hint,
        );
    }
    if diagnostics.failed() && (request.call == Call::Build || stages.list.is_empty()) {
        return Err(diagnostics.into_list());
    }
    Lowering {
        request,
        host,
        source: &source,
        stages: &stages,
        escape: file.directives.escape,
        diagnostics,
        histories: Histories::default(),
        done: vec![None; stages.list.len()],
        broken: BTreeSet::new(),
        contexts: BTreeMap::new(),
        ignored: BTreeMap::new(),
        text_left: MOST_TEXT,
        matching_left: MOST_MATCHING,
        strict: checks.error,
        epoch: None,
        fetched: None,
    }
    .build()
}

/// An instruction being carried out, and where to point when something is wrong with it.
#[derive(Clone, Copy)]
struct Step<'a> {
    node: &'a Node,
    line: &'a Line,
    /// Whether it is a trigger of the base; `line` is the stage's FROM then.
    trigger: bool,
}

impl<'a> Step<'a> {
    fn of(instruction: &'a Instruction) -> Self {
        Self {
            node: &instruction.node,
            line: &instruction.line,
            trigger: false,
        }
    }
}

struct Lowering<'a, H> {
    request: &'a Request,
    host: &'a mut H,
    source: &'a Source,
    stages: &'a Stages<'a>,
    escape: char,
    diagnostics: Diagnostics,
    histories: Histories,
    done: Vec<Option<State>>,
    broken: BTreeSet<usize>,
    contexts: BTreeMap<String, VertexId>,
    /// What the ignore file of each context says.
    ignored: BTreeMap<String, Rc<Ignored>>,
    text_left: usize,
    matching_left: usize,
    strict: bool,
    /// The time of new files and of the image.
    epoch: Option<i64>,
    /// What was taken from elsewhere last.
    fetched: Option<VertexId>,
}

impl<H: Host> Lowering<'_, H> {
    fn build(mut self) -> Result<Outcome, Vec<Diagnostic>> {
        self.find_epoch();
        let target = self.target();
        if let Some(target) = target {
            self.unused_build_args();
            self.lower_all(target, 0);
        }
        if self.request.call == Call::Check {
            return self.checked();
        }
        let result = target.and_then(|t| self.done[t].take());
        self.strictness();
        match result {
            Some(state) if !self.diagnostics.failed() => {
                let mut config = state.finish();
                config.labels.extend(self.request.labels.iter().cloned());
                Ok(Outcome {
                    root: state.root,
                    config,
                    history: self.histories.list(state.history),
                    source_date_epoch: self.epoch,
                    diagnostics: self.diagnostics.into_list(),
                })
            }
            _ => {
                if !self.diagnostics.failed() {
                    self.error_at(
                        Span::default(),
                        &rules::REFUSED,
                        "the target stage could not be built".into(),
                        String::new(),
                    );
                }
                Err(self.diagnostics.into_list())
            }
        }
    }

    /// Looks at the stages that the target does not need too, where no target is named; nothing is built.
    fn checked(mut self) -> Result<Outcome, Vec<Diagnostic>> {
        if self.request.target.as_deref().is_none_or(str::is_empty) {
            (0..self.stages.list.len()).for_each(|index| self.lower_once(index, 0));
        }
        match self.diagnostics.failed() {
            true => Err(self.diagnostics.into_list()),
            false => Ok(Outcome {
                root: None,
                config: host::ImageConfig::default(),
                history: Vec::new(),
                source_date_epoch: None,
                diagnostics: self.diagnostics.into_list(),
            }),
        }
    }

    /// Makes an error of the warnings where the file asks for that.
    fn strictness(&mut self) {
        let warnings = self
            .diagnostics
            .list()
            .iter()
            .filter(|d| d.severity == Severity::Warning)
            .filter(|d| !rules::OWN.iter().any(|own| own.code == d.code))
            .count();
        if self.strict && warnings > 0 {
            let message = format!(
                "the file has {warnings} warnings, and its directive `check=error=true` asks for none"
            );
            self.error_at(
                Span::default(),
                &rules::WARNINGS,
                message,
                "mend what they say, or leave rules out with `# check=skip=RuleName;error=true`"
                    .into(),
            );
        }
    }

    fn target(&mut self) -> Option<usize> {
        let Some(wanted) = self.request.target.as_deref().filter(|t| !t.is_empty()) else {
            return Some(self.stages.list.len() - 1);
        };
        let found = self.stages.target(wanted);
        if found.is_none() {
            let hint = match did_you_mean(wanted, self.stages.names()) {
                near if !near.is_empty() => near,
                _ => format!("stages of the file: {}", self.stage_list()),
            };
            self.error_at(
                Span::default(),
                &rules::UNKNOWN_STAGE,
                format!("the target stage `{wanted}` does not exist"),
                hint,
            );
        }
        found
    }

    fn stage_list(&self) -> String {
        let names: Vec<String> = self
            .stages
            .list
            .iter()
            .enumerate()
            .take(20)
            .map(|(i, s)| format!("`{}`", s.name.clone().unwrap_or_else(|| i.to_string())))
            .collect();
        names.join(", ")
    }

    /// Warns of `--build-arg` names that no ARG declares.
    fn unused_build_args(&mut self) {
        let mut declared: BTreeSet<&str> = self.stages.globals.names().collect();
        let nodes = self
            .stages
            .list
            .iter()
            .flat_map(|s| s.steps)
            .map(|i| &i.node);
        for node in nodes {
            if let ast::Body::Arg(list) = &node.body {
                declared.extend(list.iter().map(|d| d.name.text.as_str()));
            }
        }
        for (name, _) in &self.request.build_args {
            let known = declared.contains(name.as_str())
                || run::is_proxy(name)
                || name.starts_with("BUILDKIT_")
                || name == SOURCE_DATE_EPOCH;
            // A trigger may declare it, and that is not known before the base image is.
            if !known
                && !self
                    .diagnostics
                    .list()
                    .iter()
                    .any(|d| d.message.contains(&format!("`{name}`")))
            {
                let hint = did_you_mean(name, declared.iter().copied());
                self.error_at(
                    Span::default(),
                    &rules::UNUSED_BUILD_ARG,
                    format!("no ARG declares the build argument `{name}`"),
                    hint,
                );
            }
        }
    }

    /// Lowers a stage and all that it needs, in the order of the file.
    fn lower_all(&mut self, target: usize, depth: usize) {
        for index in self.stages.needed(target, &self.request.contexts) {
            if index <= target {
                self.lower_once(index, depth);
            }
        }
    }

    fn lower_once(&mut self, index: usize, depth: usize) {
        if self.done[index].is_none() && !self.broken.contains(&index) {
            let state = self.lower_stage(index, depth);
            if state.is_none() {
                self.broken.insert(index);
            }
            self.done[index] = state;
        }
    }

    fn lower_stage(&mut self, index: usize, depth: usize) -> Option<State> {
        let stage = &self.stages.list[index];
        let from = Step::of(stage.from);
        let mut state = self.begin(index)?;
        let triggers = state.take_triggers();
        let parsed: Vec<Node> = triggers
            .iter()
            .filter_map(|t| self.trigger(t, from))
            .collect();
        let own = stage.steps.iter().map(Step::of);
        let steps: Vec<Step<'_>> = parsed
            .iter()
            .map(|node| Step {
                node,
                line: from.line,
                trigger: true,
            })
            .chain(own)
            .collect();
        state.step_total = usize::from(matches!(stage.base, Base::Image(_)))
            + steps.iter().filter(|s| makes_layer(s.node.keyword)).count();
        state.step = usize::from(matches!(stage.base, Base::Image(_)));
        if state.step > 0 {
            self.root_image(&mut state, from)?;
        }
        let mut last = [None; 3];
        for step in steps {
            self.repeated(step, &mut last);
            if let Err(fault) = self.step(&mut state, index, step, depth) {
                let too_large = fault.rule == &rules::TOO_LARGE;
                self.fault(step, fault);
                if too_large {
                    // Going on would only be more of the same.
                    return None;
                }
            }
        }
        Some(state)
    }

    /// Warns of what does not count within a stage: all but the last of these.
    fn repeated<'s>(&mut self, step: Step<'s>, last: &mut [Option<Step<'s>>; 3]) {
        let slot = match step.node.keyword {
            Keyword::Cmd => 0,
            Keyword::Entrypoint => 1,
            Keyword::Healthcheck => 2,
            _ => return,
        };
        if let Some(earlier) = last[slot].replace(step) {
            let message = format!(
                "the {} on line {} takes the place of this one",
                step.node.keyword.text(),
                step.line.first + 1
            );
            let at = earlier.node.written.at;
            self.fault(
                earlier,
                Fault::new(&rules::MULTIPLE_INSTRUCTIONS, at, message),
            );
        }
    }

    fn step(
        &mut self,
        state: &mut State,
        index: usize,
        step: Step<'_>,
        depth: usize,
    ) -> Result<(), Fault> {
        state.step += usize::from(makes_layer(step.node.keyword));
        match step.node.keyword {
            Keyword::Run => self.run(state, index, step, depth),
            Keyword::Copy | Keyword::Add => self.transfer(state, index, step, depth),
            Keyword::Workdir => self.workdir(state, step),
            Keyword::From => Ok(()),
            _ => self.metadata(state, step),
        }
    }

    /// Expands a word with what the stage knows.
    fn word(&mut self, state: &State, step: Step<'_>, word: &Word) -> Result<String, Fault> {
        self.words(state, step, word).map(|e| e.text)
    }

    fn words(
        &mut self,
        state: &State,
        step: Step<'_>,
        word: &Word,
    ) -> Result<crate::expand::Expanded, Fault> {
        let done = Expander::new(self.escape_of(step)).expand(&word.text, &state.scope);
        let done = done.map_err(|e| {
            Fault::new(&rules::INVALID_EXPANSION, word.at, e.to_string())
                .hint(expansion_hint(step, word, &e))
        })?;
        self.undefined(state, step, &done.missing, word.at);
        self.spend(done.text.len(), word.at)?;
        Ok(done)
    }

    /// Triggers come as text of their own, without the file's escape directive.
    fn escape_of(&self, step: Step<'_>) -> char {
        if step.trigger { '\\' } else { self.escape }
    }

    fn undefined(&mut self, state: &State, step: Step<'_>, missing: &[String], at: At) {
        for name in missing.iter().filter(|n| !state.declares(n)) {
            let declared = state.args.iter().map(|(n, _)| n.as_str());
            let hint = did_you_mean(name, state.scope.names().chain(declared));
            if state.unknown_base && hint.is_empty() {
                // The base may well set it.
                continue;
            }
            self.fault(
                step,
                Fault::new(
                    &rules::UNDEFINED_VAR,
                    at,
                    format!("the variable `{name}` is not defined"),
                )
                .hint(hint),
            );
        }
    }

    /// Counts text against what a build may expand to.
    fn spend(&mut self, bytes: usize, at: At) -> Result<(), Fault> {
        match self.text_left.checked_sub(bytes) {
            Some(left) => self.text_left = left,
            None => {
                return Err(Fault::new(
                    &rules::TOO_LARGE,
                    at,
                    format!("the Dockerfile expands to more than {MOST_TEXT} bytes"),
                ));
            }
        }
        Ok(())
    }

    /// Adds a line of history; `layer` says whether the instruction made one.
    fn note(&mut self, state: &mut State, line: String, layer: bool) -> Result<(), Fault> {
        self.spend(line.len(), At::default())?;
        state.history = Some(self.histories.push(state.history, line, !layer));
        Ok(())
    }

    fn add(&mut self, op: Op, state: &State, step: Step<'_>, at: At) -> Result<VertexId, Fault> {
        self.add_as(
            op,
            &state.platform,
            step,
            at,
            (text::shown(step), state.label()),
        )
    }

    /// Adds a vertex under a text and a stage of its own.
    fn add_as(
        &mut self,
        op: Op,
        platform: &Platform,
        step: Step<'_>,
        at: At,
        (text, stage): (String, String),
    ) -> Result<VertexId, Fault> {
        if self.request.call == Call::Check {
            return Ok(VertexId(0));
        }
        let origin = Origin {
            file: self.source.name().to_owned(),
            span: step.line.span(self.source, at),
            text,
            stage,
        };
        let vertex = Vertex {
            op,
            platform: platform.clone(),
            origin,
        };
        self.host
            .add(vertex)
            .map_err(|why| Fault::new(&rules::REFUSED, at, why))
    }

    fn fault(&mut self, step: Step<'_>, fault: Fault) {
        if fault.rule == &rules::FOREIGN_PLATFORM && self.request.call == Call::Check {
            // The Dockerfile is right, though it cannot be built here.
            return;
        }
        let at = if step.trigger {
            At::default()
        } else {
            fault.at
        };
        let span = step.line.span(self.source, at);
        let same = |d: &Diagnostic| {
            d.code == fault.rule.code && d.span == span && d.message == fault.message
        };
        let skipped = fault.rule.severity != Severity::Error && step.line.skips(fault.rule.code);
        if !skipped && !self.diagnostics.list().iter().any(same) {
            self.error_at(span, fault.rule, fault.message, fault.hint);
        }
    }

    fn error_at(&mut self, span: Span, rule: &'static Rule, message: String, hint: String) {
        self.diagnostics.add(rule, self.source, span, message, hint);
    }
}

/// Says how to mend a word that cannot be expanded: where it was cut at a space, that may be why.
fn expansion_hint(step: Step<'_>, word: &Word, error: &ExpandError) -> String {
    let behind = step.line.text.get(word.at.end..).unwrap_or_default();
    match (step.node.keyword, error) {
        (
            Keyword::Env | Keyword::Label | Keyword::Arg,
            ExpandError::MissingBrace | ExpandError::MissingSlash,
        ) if behind.contains('}') => {
            "a space outside quotes ends the value: put the value into double quotes".into()
        }
        (Keyword::Copy | Keyword::Add | Keyword::Volume, ExpandError::Quote(quote))
            if behind.contains(*quote) =>
        {
            let keyword = step.node.keyword.text();
            format!(
                "a space parts words within quotes too: write an array, `{keyword} [\"a b\", …]`"
            )
        }
        _ => error.hint(),
    }
}

/// Says whether an instruction is a step with a number: those that work on files.
fn makes_layer(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::Run | Keyword::Copy | Keyword::Add | Keyword::Workdir
    )
}

#[cfg(test)]
mod tests;
