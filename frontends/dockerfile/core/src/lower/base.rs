//! What a stage begins with: an image, another stage, a named context or nothing; and the triggers it leaves.

use super::host::{self, Call, Host, Op, Platform, ResolveError};
use super::state::State;
use super::{Lowering, Step};
use crate::ast::{self, Fault, Keyword, Node};
use crate::diagnostic::{Diagnostics, Severity, did_you_mean, rules};
use crate::lexer::{At, lex};
use crate::reference;
use crate::source::Source;
use crate::stages::Base;

impl<H: Host> Lowering<'_, H> {
    /// Makes the state that a stage begins with.  An image's vertex comes later, when its number is known.
    pub(super) fn begin(&mut self, index: usize) -> Option<State> {
        let stage = &self.stages.list[index];
        let from = Step::of(stage.from);
        let name = match &stage.name {
            Some(name) => name.clone(),
            None if self.stages.list.len() == 1 => String::new(),
            None => format!("stage-{index}"),
        };
        let mut state = match &stage.base {
            Base::Stage(base) => self.done[*base].as_ref()?.child(),
            Base::Scratch => State::empty(stage.platform.clone()),
            Base::Context(context) => self.context_base(*context, &stage.platform, from)?,
            Base::Image(reference) => State::of_image(
                self.resolve(reference, &stage.platform, from, Self::base_word(from))?,
                stage.platform.clone(),
            ),
        };
        state.stage = name;
        state.ensure_path();
        Some(state)
    }

    fn base_word(from: Step<'_>) -> At {
        match &from.node.body {
            ast::Body::From { image, .. } => image.at,
            _ => At::default(),
        }
    }

    /// Begins a stage on a named context: an image's file system, or the files of a directory.
    fn context_base(
        &mut self,
        context: usize,
        platform: &Platform,
        from: Step<'_>,
    ) -> Option<State> {
        if let Some(reference) = self.request.contexts[context].image.clone() {
            let image = self.resolve(&reference, platform, from, Self::base_word(from))?;
            let op = Op::Image {
                reference: image.reference.clone(),
                digest: image.digest.clone(),
            };
            let mut state = State::of_image(image, platform.clone());
            state.root = Some(
                self.add(op, &state, from, At::default())
                    .map_err(|f| self.fault(from, f))
                    .ok()?,
            );
            return Some(state);
        }
        let name = self.request.contexts[context].name.clone();
        let based = self.directory_base(&name, platform, from);
        based.map_err(|fault| self.fault(from, fault)).ok()
    }

    /// Begins a stage on a copy of a whole directory.
    fn directory_base(
        &mut self,
        name: &str,
        platform: &Platform,
        from: Step<'_>,
    ) -> Result<State, Fault> {
        let mut state = State::empty(platform.clone());
        let copy = host::Copy {
            from: self.context(name, &state, from)?,
            sources: vec![".".into()],
            dest: "/".into(),
            owner: None,
            mode: String::new(),
            extract: false,
            exclude: Vec::new(),
            parents: false,
        };
        let actions = vec![host::FileAction::Copy(copy)];
        let base = None;
        let root = self.add(Op::Files { base, actions }, &state, from, At::default())?;
        state.root = Some(root);
        self.note(&mut state, format!("COPY / / # context {name}"), true)?;
        Ok(state)
    }

    pub(super) fn root_image(&mut self, state: &mut State, from: Step<'_>) -> Option<()> {
        let (reference, digest) = state.image.clone()?;
        let added = self.add(Op::Image { reference, digest }, state, from, At::default());
        state.root = Some(added.map_err(|f| self.fault(from, f)).ok()?);
        Some(())
    }

    /// Finds an image, and says what is wrong where it cannot be found.
    pub(super) fn resolve(
        &mut self,
        reference: &str,
        platform: &Platform,
        step: Step<'_>,
        at: At,
    ) -> Option<host::ResolvedImage> {
        let found = self.resolved(reference, platform, step, at);
        found.map_err(|fault| self.fault(step, fault)).ok()
    }

    /// Finds an image.
    pub(super) fn resolved(
        &mut self,
        reference: &str,
        platform: &Platform,
        step: Step<'_>,
        at: At,
    ) -> Result<host::ResolvedImage, Fault> {
        let (rule, message) = match self.host.resolve(reference, platform) {
            Ok(image) => {
                if !image.platform.runs_on(platform) && !image.platform.os.is_empty() {
                    let message = format!(
                        "the image `{reference}` is for `{}`, not for `{platform}`",
                        image.platform
                    );
                    self.fault(step, Fault::new(&rules::BASE_PLATFORM, at, message));
                }
                return Ok(image);
            }
            Err(ResolveError::Invalid(why)) => (
                &rules::INVALID_REFERENCE,
                format!("`{reference}` is not the name of an image: {why}"),
            ),
            Err(ResolveError::Unavailable(_))
                if self.request.call == Call::Check && reference::is_valid(reference) =>
            {
                return Ok(host::ResolvedImage {
                    reference: reference.to_owned(),
                    ..host::ResolvedImage::default()
                });
            }
            Err(ResolveError::Unavailable(_))
                if self.request.call == Call::Check && !reference::is_valid(reference) =>
            {
                let why = match reference::is_valid(&reference.to_ascii_lowercase()) {
                    true => ": it has to be lower case",
                    false => "",
                };
                (
                    &rules::INVALID_REFERENCE,
                    format!("`{reference}` is not the name of an image{why}"),
                )
            }
            Err(ResolveError::Failed(why) | ResolveError::Unavailable(why)) => (
                &rules::IMAGE_NOT_RESOLVED,
                format!("the image `{reference}` cannot be used: {why}"),
            ),
        };
        let hint = match did_you_mean(reference, self.stages.names()) {
            near if near.is_empty() && rule == &rules::INVALID_REFERENCE => {
                "no stage of the file has this name either".into()
            }
            near => near,
        };
        Err(Fault::new(rule, at, message).hint(hint))
    }

    /// Understands a trigger of the base.
    pub(super) fn trigger(&mut self, text: &str, from: Step<'_>) -> Option<Node> {
        let shown: String = text.lines().next().unwrap_or("").chars().take(80).collect();
        let refuse = |this: &mut Self, why: &str, hint: &str| {
            let fault = Fault::new(
                &rules::INVALID_ARGUMENT,
                At::default(),
                format!("the trigger `{shown}` of the base is faulty: {why}"),
            );
            this.fault(from, fault.hint(hint));
        };
        let mut messages = Diagnostics::default();
        let parsed = Source::new("", text.as_bytes()).map(|source| {
            let lexed = lex(&source, &mut messages);
            ast::parse(lexed, &source, &mut messages)
        });
        match parsed {
            Err(refused) => refuse(self, &refused.2.to_string(), ""),
            Ok(_) if messages.failed() => {
                let first = messages
                    .list()
                    .iter()
                    .find(|d| d.severity == Severity::Error);
                let (why, hint) = first.map_or(("", ""), |d| (&d.message, &d.hint));
                refuse(self, why, hint);
            }
            Ok(mut file) if file.instructions.len() == 1 => {
                match file.instructions.remove(0).node {
                    node if matches!(
                        node.keyword,
                        Keyword::From | Keyword::Onbuild | Keyword::Maintainer
                    ) =>
                    {
                        let why = format!("{} cannot be a trigger", node.keyword.text());
                        refuse(self, &why, "");
                    }
                    node => return Some(node),
                }
            }
            Ok(_) => refuse(self, "it has to be one instruction", ""),
        }
        None
    }
}
