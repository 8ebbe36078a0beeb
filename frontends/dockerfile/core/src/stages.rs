//! Stages: where each begins, what it builds on, and which of them a target needs.
//!
//! Expands FROM with the arguments that stand before the first of them; looks nothing up.  The next step is
//! [`crate::lower`].

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{Body, Declaration, Fault, File, Instruction, Keyword, mount};
use crate::diagnostic::{did_you_mean, rules};
use crate::expand::{Env, Expanded, Expander};
use crate::lexer::At;
use crate::lexer::split::Word;
use crate::lower::SOURCE_DATE_EPOCH;
use crate::lower::host::{NamedContext, Platform, Request};
use crate::reference;

/// One stage.
#[derive(Debug, Clone)]
pub struct Stage<'a> {
    /// Its name in lower case.
    pub name: Option<String>,
    /// Its FROM.
    pub from: &'a Instruction,
    /// What it begins with.
    pub base: Base,
    /// `--platform`, or the target's.
    pub platform: Platform,
    /// Its instructions behind FROM.
    pub steps: &'a [Instruction],
}

/// What a stage begins with, or COPY takes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// An earlier stage.
    Stage(usize),
    /// Nothing.
    Scratch,
    /// The named context with this index.
    Context(usize),
    /// An image.
    Image(String),
}

/// Whose time `SOURCE_DATE_EPOCH` is.
#[derive(Debug, Clone)]
pub struct EpochSource<'a> {
    /// `context`, the name of a context, or that of a stage.
    pub value: String,
    /// Place of the name of the argument.
    pub at: At,
    /// Where it is declared; nothing where it is only given.
    pub instruction: Option<&'a Instruction>,
}

/// All stages and the arguments that they can inherit.
#[derive(Debug, Clone, Default)]
pub struct Stages<'a> {
    /// In the order of the file.
    pub list: Vec<Stage<'a>>,
    /// What stands before the first FROM.
    pub preamble: &'a [Instruction],
    /// Arguments from before the first FROM, and those that the builder sets.
    pub globals: Env,
    /// Default of a global `ARG SOURCE_DATE_EPOCH`, or what the user gives for it, in seconds since 1970.
    pub source_date_epoch: Option<i64>,
    /// Whose time it is, where it is no number.
    pub epoch_source: Option<EpochSource<'a>>,
    /// The same without anything that the user gives.
    defaults: Env,
    /// Arguments that are declared before the first FROM, with a value or without.
    declared: BTreeSet<&'a str>,
    names: BTreeMap<String, usize>,
}

/// Something wrong, and the instruction it is in.
pub type StageFault<'a> = (Fault, &'a Instruction);

/// Splits a file into stages; faults and warnings go to `faults`.
pub fn split<'a>(
    file: &'a File,
    request: &Request,
    faults: &mut Vec<StageFault<'a>>,
) -> Stages<'a> {
    let mut splitter = Splitter {
        request,
        escape: file.directives.escape,
        stages: Stages::default(),
        faults,
    };
    let instructions = &file.instructions;
    let first = instructions
        .iter()
        .position(|i| i.node.keyword == Keyword::From)
        .unwrap_or(instructions.len());
    splitter.stages.preamble = &instructions[..first];
    splitter.globals(instructions, first, file.broken_from);
    if !splitter.stages.declared.contains(SOURCE_DATE_EPOCH)
        && let Some(given) = splitter.given(SOURCE_DATE_EPOCH).map(str::to_owned)
    {
        splitter.epoch(&given, At::default(), None);
    }
    let starts: Vec<usize> = (first..instructions.len())
        .filter(|i| instructions[*i].node.keyword == Keyword::From)
        .collect();
    for (n, start) in starts.iter().enumerate() {
        let end = starts.get(n + 1).copied().unwrap_or(instructions.len());
        splitter.stage(&instructions[*start], &instructions[start + 1..end]);
    }
    splitter.stages
}

struct Splitter<'a, 'b> {
    request: &'b Request,
    escape: char,
    stages: Stages<'a>,
    faults: &'b mut Vec<StageFault<'a>>,
}

impl<'a> Splitter<'a, '_> {
    /// Sets the arguments of the builder, then those that the file declares before its first stage.
    fn globals(
        &mut self,
        instructions: &'a [Instruction],
        first: usize,
        broken_from: Option<usize>,
    ) {
        for (name, value) in self.builder_args(instructions) {
            let given = self.given(name).map(str::to_owned);
            self.stages.defaults.set(name, value.clone());
            self.stages.globals.set(name, given.unwrap_or(value));
        }
        for instruction in &instructions[..first] {
            match &instruction.node.body {
                Body::Arg(list) => list.iter().for_each(|d| self.global(d, instruction)),
                _ if broken_from.is_some_and(|line| line < instruction.line.first) => {}
                _ => {
                    let name = instruction.node.keyword.text();
                    let fault = Fault::new(
                        &rules::INSTRUCTION_OUTSIDE_STAGE,
                        instruction.node.written.at,
                        format!("{name} stands before the first FROM"),
                    );
                    self.faults.push((
                        fault.hint("only ARG may; begin the file with `FROM image`"),
                        instruction,
                    ));
                }
            }
        }
    }

    fn builder_args(&self, instructions: &[Instruction]) -> Vec<(&'static str, String)> {
        let last_name = instructions.iter().rev().find_map(|i| match &i.node.body {
            Body::From { name, .. } => {
                Some(name.as_ref().map(|(_, n)| n.text.to_ascii_lowercase()))
            }
            _ => None,
        });
        let target = self
            .request
            .target
            .clone()
            .or(last_name.flatten())
            .unwrap_or_else(|| "default".into());
        let (build, to) = (&self.request.build_platform, &self.request.target_platform);
        vec![
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", String::new()),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", build.variant.clone()),
            ("TARGETPLATFORM", to.to_string()),
            ("TARGETOS", to.os.clone()),
            ("TARGETOSVERSION", String::new()),
            ("TARGETARCH", to.architecture.clone()),
            ("TARGETVARIANT", to.variant.clone()),
            ("TARGETSTAGE", target),
        ]
    }

    /// Returns what the user gave with `--build-arg`.
    fn given(&self, name: &str) -> Option<&str> {
        self.request
            .build_args
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    fn global(&mut self, declaration: &'a Declaration, instruction: &'a Instruction) {
        let name = &declaration.name.text;
        self.stages.declared.insert(name);
        if let Some(word) = &declaration.value
            && let Ok(default) =
                Expander::new(self.escape).expand(&word.text, &self.stages.defaults)
        {
            self.stages.defaults.set(name.clone(), default.text);
        }
        let value = match (self.given(name), &declaration.value) {
            (Some(given), _) => Some(given.to_owned()),
            (None, Some(default)) => self.expand(default, instruction).map(|e| e.text),
            (None, None) => None,
        };
        let Some(mut value) = value else {
            return;
        };
        if name == SOURCE_DATE_EPOCH {
            self.epoch(&value, declaration.name.at, Some(instruction));
            if self.stages.source_date_epoch.is_none() {
                value.clear();
            }
        }
        self.stages.globals.set(name.clone(), value);
    }

    /// Understands a time; whose time it is else is found out when stages are known.
    fn epoch(&mut self, value: &str, at: At, instruction: Option<&'a Instruction>) {
        self.stages.source_date_epoch = value.parse().ok();
        let is_named = self.stages.source_date_epoch.is_none() && !value.is_empty();
        self.stages.epoch_source = is_named.then(|| EpochSource {
            value: value.to_owned(),
            at,
            instruction,
        });
    }

    /// Expands a word of ARG or FROM with the global arguments.
    fn expand(&mut self, word: &Word, instruction: &'a Instruction) -> Option<Expanded> {
        match Expander::new(self.escape).expand(&word.text, &self.stages.globals) {
            Ok(done) => {
                if instruction.node.keyword == Keyword::From {
                    self.undefined(&done.missing, word, instruction);
                }
                Some(done)
            }
            Err(error) => {
                self.faults.push((
                    Fault::new(&rules::INVALID_EXPANSION, word.at, error.to_string())
                        .hint(error.hint()),
                    instruction,
                ));
                None
            }
        }
    }

    fn undefined(&mut self, missing: &[String], word: &Word, instruction: &'a Instruction) {
        for name in missing
            .iter()
            .filter(|n| !self.stages.declared.contains(n.as_str()))
        {
            let candidates = self
                .stages
                .globals
                .names()
                .chain(self.stages.declared.iter().copied());
            let near = did_you_mean(name, candidates);
            let hint = if near.is_empty() {
                format!("declare it with `ARG {name}=…` before the first FROM")
            } else {
                near
            };
            let message = format!("FROM uses `{name}`, which no ARG before it declares");
            self.faults.push((
                Fault::new(&rules::UNDEFINED_ARG_IN_FROM, word.at, message).hint(hint),
                instruction,
            ));
        }
    }

    fn stage(&mut self, from: &'a Instruction, steps: &'a [Instruction]) {
        let Body::From { image, name } = &from.node.body else {
            return;
        };
        let platform = self.platform(from);
        let base = self.base(image, from, &platform);
        self.default_base(image, from);
        let at = name.as_ref().map(|(_, n)| n.at).unwrap_or_default();
        let name = name.as_ref().map(|(_, n)| n.text.to_ascii_lowercase());
        if let Some(name) = &name {
            if let Some(earlier) = self.stages.names.get(name) {
                let line = self.stages.list[*earlier].from.line.first + 1;
                let message = format!("two stages have the name `{name}`; the later one counts");
                let fault = Fault::new(&rules::DUPLICATE_STAGE_NAME, at, message);
                self.faults.push((
                    fault.hint(format!(
                        "the other one begins on line {line}: give one of them another name"
                    )),
                    from,
                ));
            }
            if name == "scratch" || name == "context" {
                let message = format!("`{name}` is reserved and should not be the name of a stage");
                self.faults
                    .push((Fault::new(&rules::RESERVED_STAGE_NAME, at, message), from));
            }
            self.stages
                .names
                .insert(name.clone(), self.stages.list.len());
        }
        // A named context with the name of a stage takes the place of the stage.
        let replaced = name
            .as_deref()
            .and_then(|n| context(&self.request.contexts, n, &platform));
        let (base, steps) = replaced.map_or((base, steps), |i| (Base::Context(i), &[][..]));
        self.stages.list.push(Stage {
            name,
            from,
            base,
            platform,
            steps,
        });
    }

    fn base(&mut self, image: &Word, from: &'a Instruction, platform: &Platform) -> Base {
        let Some(Expanded { text, .. }) = self.expand(image, from) else {
            return Base::Scratch;
        };
        if text.is_empty() {
            let message = format!("`{}` expands to nothing, so FROM has no base", image.text);
            let hint =
                "give the argument a default before the first FROM, or a value with `--build-arg`";
            self.faults.push((
                Fault::new(&rules::INVALID_REFERENCE, image.at, message).hint(hint),
                from,
            ));
            return Base::Scratch;
        }
        // A stage's name is lower case, and FROM takes it as it is written; `--from` takes it in any case.
        match self.stages.names.get(&text) {
            Some(index) => Base::Stage(*index),
            None => self
                .stages
                .elsewhere(&text, &self.request.contexts, platform),
        }
    }

    /// Warns of a base that is no image where nothing is given for the arguments in its name.
    fn default_base(&mut self, image: &Word, from: &'a Instruction) {
        let Ok(done) = Expander::new(self.escape).expand(&image.text, &self.stages.defaults) else {
            return;
        };
        if !image.text.contains('$')
            || reference::is_valid(&done.text)
            || self.stages.names.contains_key(&done.text)
        {
            return;
        }
        let what = if done.text.is_empty() {
            "nothing".to_owned()
        } else {
            format!("`{}`", done.text)
        };
        let message = format!(
            "`{}` is {what} where no build argument is given, which names no image",
            image.text
        );
        let hint = "give the arguments defaults before the first FROM that make a name";
        let fault = Fault::new(&rules::DEFAULT_ARG_IN_FROM, image.at, message);
        self.faults.push((fault.hint(hint), from));
    }

    fn platform(&mut self, from: &'a Instruction) -> Platform {
        let default = self.request.target_platform.clone();
        let Some(word) = from.node.given_flag("platform") else {
            return default;
        };
        let Some(done) = self.expand(word, from) else {
            return default;
        };
        let parsed = Platform::parse(&done.text, &self.request.build_platform);
        if let Some(parsed) = &parsed {
            self.platform_style(from, word, &done, parsed);
        }
        let text = done.text;
        parsed.unwrap_or_else(|| {
            let message = if text.is_empty() {
                format!(
                    "`{}` expands to nothing, which is not a platform",
                    word.text
                )
            } else {
                format!("`{text}` is not a platform")
            };
            self.faults.push((
                Fault::new(&rules::INVALID_ARGUMENT, word.at, message)
                    .hint("a platform is `os/architecture[/variant]`, for example `linux/amd64`"),
                from,
            ));
            default
        })
    }
}

impl<'a> Splitter<'a, '_> {
    /// Warns of `--platform` where it says nothing, or says too much.
    fn platform_style(
        &mut self,
        from: &'a Instruction,
        word: &Word,
        done: &Expanded,
        platform: &Platform,
    ) {
        let mut warn = |rule, message: String, hint: &str| {
            self.faults
                .push((Fault::new(rule, word.at, message).hint(hint), from))
        };
        if done.used == ["TARGETPLATFORM"]
            && done.missing.is_empty()
            && done.text == self.request.target_platform.to_string()
        {
            warn(
                &rules::REDUNDANT_PLATFORM,
                format!("`--platform={}` is the default", word.text),
                "",
            );
        }
        let name = match &from.node.body {
            Body::From {
                name: Some((_, name)),
                ..
            } => name.text.to_ascii_lowercase(),
            _ => String::new(),
        };
        // A stage that says in its name what it is for means it.
        let named = name.contains(&platform.os) || name.contains(&platform.architecture);
        if done.used.is_empty() && done.missing.is_empty() && !named && !word.text.contains('$') {
            let message = format!("`--platform={}` ties the stage to one platform", word.text);
            warn(
                &rules::CONST_PLATFORM,
                message,
                "use `--platform=$BUILDPLATFORM`, or leave it out",
            );
        }
    }
}

impl Stages<'_> {
    /// Says what a name behind `--from=` means to a stage for `platform`.
    pub fn find(&self, name: &str, contexts: &[NamedContext], platform: &Platform) -> Base {
        match self.names.get(&name.to_ascii_lowercase()) {
            Some(index) => Base::Stage(*index),
            None => self.elsewhere(name, contexts, platform),
        }
    }

    /// Says what a name means that is no stage's.
    fn elsewhere(&self, name: &str, contexts: &[NamedContext], platform: &Platform) -> Base {
        match context(contexts, name, platform) {
            _ if name == "scratch" => Base::Scratch,
            Some(index) => Base::Context(index),
            None => Base::Image(name.to_owned()),
        }
    }

    /// Returns the stage with a name.
    pub fn named(&self, name: &str) -> Option<usize> {
        self.names.get(&name.to_ascii_lowercase()).copied()
    }

    /// Returns the stage with a name, or else with a number.
    pub fn target(&self, wanted: &str) -> Option<usize> {
        self.named(wanted)
            .or_else(|| wanted.parse().ok())
            .filter(|i| *i < self.list.len())
    }

    /// Iterates over the names of all stages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Returns what the COPY and RUN instructions of a stage take from, where that is another stage.
    pub fn copies_from<'s>(
        &'s self,
        index: usize,
        contexts: &'s [NamedContext],
    ) -> impl Iterator<Item = usize> + 's {
        let steps = self.list[index].steps.iter();
        let froms = steps.flat_map(|i| {
            let mounts = i.node.flag_list("mount").filter_map(mount::source_of);
            i.node.given_flag("from").cloned().into_iter().chain(mounts)
        });
        froms.filter_map(move |word| match word.text.parse() {
            Ok(number) => Some(number).filter(|n| *n < self.list.len()),
            Err(_) => match self.find(&word.text, contexts, &self.list[index].platform) {
                Base::Stage(index) => Some(index),
                _ => None,
            },
        })
    }

    /// Returns the stages that `target` needs, itself included, in the order of the file.
    pub fn needed(&self, target: usize, contexts: &[NamedContext]) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut todo = vec![target];
        while let Some(index) = todo.pop() {
            if needed.insert(index) {
                todo.extend(self.copies_from(index, contexts));
                if let Base::Stage(base) = self.list[index].base {
                    todo.push(base);
                }
            }
        }
        needed
    }
}

/// Finds a named context: one that is for this platform (`NAME::PLATFORM`), else one that is for all; by the name as given, else
/// by the familiar form of an image's name.
pub(crate) fn context(contexts: &[NamedContext], name: &str, platform: &Platform) -> Option<usize> {
    let is_for = |text: &str| Platform::parse(text, platform).as_ref() == Some(platform);
    let own = named(contexts, name, |context| {
        let (name, wanted) = context.split_once(PLATFORM)?;
        is_for(wanted).then_some(name)
    });
    own.or_else(|| named(contexts, name, |c| (!c.contains(PLATFORM)).then_some(c)))
}

/// What is between the name of a context and the platform that it is for.
const PLATFORM: &str = "::";

/// Finds a context among those that `of` has a name for.
fn named<'c>(
    contexts: &'c [NamedContext],
    name: &str,
    of: impl Fn(&'c str) -> Option<&'c str>,
) -> Option<usize> {
    let familiar = |name: &str| {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        let name = name.strip_prefix("library/").unwrap_or(name);
        name.strip_suffix(":latest")
            .unwrap_or(name)
            .to_ascii_lowercase()
    };
    let find =
        |fits: &dyn Fn(&str) -> bool| contexts.iter().rposition(|c| of(&c.name).is_some_and(fits));
    find(&|c| c == name).or_else(|| find(&|c| familiar(c) == familiar(name)))
}
