//! `SOURCE_DATE_EPOCH` as the time of something: the main context, a named one, or a stage that takes one thing from elsewhere
//! (docker/dockerfile 1.24).  What has no time of its own, as a directory, gives none.

use super::Lowering;
use super::host::{Call, Host};
use crate::ast::{Body, Fault, Keyword};
use crate::diagnostic::{Span, rules};
use crate::stages::{self, Base, EpochSource};

/// The argument that sets the time of new files and of the image.
pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What stands for the main context.
const CONTEXT: &str = "context";

impl<H: Host> Lowering<'_, H> {
    /// Finds out which time is meant, where that takes asking.
    pub(super) fn find_epoch(&mut self) {
        self.epoch = self.stages.source_date_epoch;
        let Some(source) = self.stages.epoch_source.clone() else {
            return;
        };
        match self.time_of(&source) {
            Ok(Some(seconds)) => self.epoch = Some(seconds),
            // A check asks nobody.
            Ok(None) if self.request.call == Call::Check => {}
            Ok(None) => {
                let message = format!(
                    "`{SOURCE_DATE_EPOCH}` is `{}`, which has no time of its own",
                    source.value
                );
                let hint = "a directory has none: `--build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)` gives that of its last commit";
                let fault = Fault::new(&rules::NO_SOURCE_DATE, source.at, message).hint(hint);
                self.epoch_fault(&source, fault);
            }
            Err(fault) => self.epoch_fault(&source, fault),
        }
    }

    /// The argument's value as steps see it.
    pub(super) fn epoch_text(&self) -> String {
        self.epoch.map_or_else(String::new, |s| s.to_string())
    }

    fn epoch_fault(&mut self, source: &EpochSource<'_>, fault: Fault) {
        match source.instruction {
            Some(instruction) => self.fault(super::Step::of(instruction), fault),
            // It was given on the command line.
            None => self.error_at(Span::default(), fault.rule, fault.message, fault.hint),
        }
    }

    fn time_of(&mut self, source: &EpochSource<'_>) -> Result<Option<i64>, Fault> {
        let failed = |what: &str, why: String| {
            let message = format!("the time of {what} cannot be found out: {why}");
            Fault::new(&rules::CONTEXT, source.at, message)
        };
        let value = source.value.as_str();
        let asks = self.request.call != Call::Check;
        if value == CONTEXT {
            let time = asks.then(|| self.host.context_time(""));
            let time = time.transpose().map(Option::flatten);
            return time.map_err(|why| failed("the build context", why));
        }
        let (contexts, platform) = (&self.request.contexts, &self.request.target_platform);
        if let Some(index) = stages::context(contexts, value, platform) {
            let context = &contexts[index];
            let is_directory = context.image.is_none();
            let time = (asks && is_directory).then(|| self.host.context_time(&context.name));
            let time = time.transpose().map(Option::flatten);
            return time.map_err(|why| failed(&format!("the context `{value}`"), why));
        }
        let Some(stage) = self.stages.named(value) else {
            let message = format!(
                "`{SOURCE_DATE_EPOCH}` is `{value}`, which is no number of seconds since 1970"
            );
            let hint = "write it as digits, for example `git log -1 --format=%ct` prints it; `context`, a named context or a stage that takes one thing from elsewhere stands for its time";
            return Err(Fault::new(&rules::INVALID_ARGUMENT, source.at, message).hint(hint));
        };
        let no_source = || {
            let message = format!(
                "`{SOURCE_DATE_EPOCH}` is the stage `{value}`, which has no time of its own"
            );
            let hint = "such a stage begins with `FROM scratch` and has one ADD of one URL or Git repository, and no other instruction but ARG";
            Fault::new(&rules::INVALID_ARGUMENT, source.at, message).hint(hint)
        };
        if !self.has_one_source(stage) {
            return Err(no_source());
        }
        self.fetched = None;
        self.lower_once(stage, 0);
        if self.broken.contains(&stage) || !asks {
            // What is wrong with the stage is told already.
            return Ok(None);
        }
        let vertex = self.fetched.ok_or_else(no_source)?;
        let time = self.host.fetched_time(vertex);
        time.map_err(|why| failed(&format!("the stage `{value}`"), why))
    }

    /// Says whether a stage is what one ADD takes, and nothing besides.
    fn has_one_source(&self, stage: usize) -> bool {
        let stage = &self.stages.list[stage];
        let mut adds = 0;
        let fits = stage.steps.iter().all(|i| match &i.node.body {
            Body::Arg(_) => true,
            Body::Transfer { sources, .. } if i.node.keyword == Keyword::Add => {
                adds += 1;
                sources.len() == 1
            }
            _ => false,
        });
        stage.base == Base::Scratch && fits && adds == 1
    }
}
