//! What can be said of a Dockerfile without building it: its targets, and what can be given to a build of one.
//!
//! Nothing is looked up: no image, no file of a context.

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{self, Body, Declaration, Instruction, mount};
use crate::diagnostic::{Diagnostic, Span, did_you_mean, rules};
use crate::expand::{Env, Expander};
use crate::front;
use crate::lexer::split::Word;
use crate::lower::host::Request;
use crate::source::Source;
use crate::stages::{self, Base, Stages};

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// Its name; empty where it has none.
    pub name: String,
    /// What the comment above it says of it.
    pub description: String,
    /// What it begins with, as written.
    pub base: String,
    /// Its `--platform`, as written.
    pub platform: String,
    /// Whether it is the one that is built where none is named.
    pub is_default: bool,
    /// Where it stands.
    pub span: Span,
}

/// An argument that counts for a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What the comment above it says of it.
    pub description: String,
    /// Its value where nothing more is given.
    pub value: Option<String>,
    /// Where it stands.
    pub span: Span,
}

/// Something that steps of a target mount and that only the user has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Supply {
    /// Its id.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// Where it is asked for first.
    pub span: Span,
}

/// What can be given to the build of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// The target.
    pub target: Target,
    /// Arguments, in the order of the file.
    pub arguments: Vec<Argument>,
    /// Secrets, in the order of the file.
    pub secrets: Vec<Supply>,
    /// SSH agents, in the order of the file.
    pub agents: Vec<Supply>,
}

/// Lists the stages of a Dockerfile.
pub fn targets(request: &Request) -> Result<Vec<Target>, Vec<Diagnostic>> {
    with_stages(request, |source, stages| {
        Ok((0..stages.list.len())
            .map(|i| target(source, stages, i))
            .collect())
    })
}

fn target(source: &Source, stages: &Stages<'_>, index: usize) -> Target {
    let stage = &stages.list[index];
    let base = match &stage.from.node.body {
        Body::From { image, .. } => image.text.clone(),
        _ => String::new(),
    };
    let platform = stage.from.node.flag("platform").map(|w| w.text.clone());
    Target {
        name: stage.name.clone().unwrap_or_default(),
        description: description(stage),
        base,
        platform: platform.unwrap_or_default(),
        is_default: index + 1 == stages.list.len(),
        span: stage.from.line.span(source, Default::default()),
    }
}

/// Says what can be given to the build of the target, or of the last stage.
pub fn outline(request: &Request) -> Result<Outline, Vec<Diagnostic>> {
    with_stages(request, |source, stages| {
        let wanted = request.target.as_deref().filter(|t| !t.is_empty());
        let Some(index) = wanted.map_or(Some(stages.list.len() - 1), |t| stages.target(t)) else {
            let wanted = wanted.unwrap_or_default();
            let message = format!("the target stage `{wanted}` does not exist");
            return Err((message, did_you_mean(wanted, stages.names())));
        };
        let mut collector = Collector::new(request, source, stages);
        for needed in stages.needed(index, &request.contexts) {
            collector.stage(&stages.list[needed]);
        }
        let mut arguments: Vec<Argument> = collector.found.into_values().collect();
        arguments.sort_by_key(|a| (a.span.line, a.span.column));
        let ordered = |found: BTreeMap<String, Supply>| {
            let mut list: Vec<Supply> = found.into_values().collect();
            list.sort_by_key(|s| (s.span.line, s.span.column));
            list
        };
        Ok(Outline {
            target: target(source, stages, index),
            arguments,
            secrets: ordered(collector.secrets),
            agents: ordered(collector.agents),
        })
    })
}

fn description(stage: &stages::Stage<'_>) -> String {
    let name = stage.name.as_deref().unwrap_or_default();
    let said = if name.is_empty() {
        None
    } else {
        stage.from.line.description(name)
    };
    said.unwrap_or_default().to_owned()
}

/// Splits a Dockerfile into stages and works on them; the error of `work` is a message and a hint.
fn with_stages<T>(
    request: &Request,
    work: impl FnOnce(&Source, &Stages<'_>) -> Result<T, (String, String)>,
) -> Result<T, Vec<Diagnostic>> {
    let front::Front {
        source,
        file,
        mut diagnostics,
        ..
    } = front::read(request)?;
    let mut faults = Vec::new();
    let stages = stages::split(&file, request, &mut faults);
    for (fault, instruction) in faults {
        ast::report(vec![fault], &instruction.line, &source, &mut diagnostics);
    }
    if stages.list.is_empty() && !diagnostics.failed() {
        let message = format!("`{}` has no stage", request.file);
        let hint = "a Dockerfile begins with `FROM image`".into();
        diagnostics.add(&rules::EMPTY_FILE, &source, Span::default(), message, hint);
    }
    if !diagnostics.failed() {
        match work(&source, &stages) {
            Ok(done) => return Ok(done),
            Err((message, hint)) => {
                diagnostics.add(
                    &rules::UNKNOWN_STAGE,
                    &source,
                    Span::default(),
                    message,
                    hint,
                );
            }
        }
    }
    Err(diagnostics.into_list())
}

/// Gathers the arguments of stages.
struct Collector<'a> {
    request: &'a Request,
    source: &'a Source,
    stages: &'a Stages<'a>,
    /// Where each argument of before the first FROM is declared last.
    globals: BTreeMap<&'a str, (&'a Declaration, &'a Instruction)>,
    found: BTreeMap<String, Argument>,
    secrets: BTreeMap<String, Supply>,
    agents: BTreeMap<String, Supply>,
}

impl<'a> Collector<'a> {
    fn new(request: &'a Request, source: &'a Source, stages: &'a Stages<'a>) -> Self {
        let declared = stages.preamble.iter().filter_map(|i| match &i.node.body {
            Body::Arg(list) => Some(list.iter().map(move |d| (d.name.text.as_str(), (d, i)))),
            _ => None,
        });
        Self {
            request,
            source,
            stages,
            globals: declared.flatten().collect(),
            found: BTreeMap::new(),
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
        }
    }

    fn stage(&mut self, stage: &'a stages::Stage<'a>) {
        if let Body::From { image, .. } = &stage.from.node.body {
            let platform = stage.from.node.flag("platform").map(|w| w.text.as_str());
            for text in std::iter::once(image.text.as_str()).chain(platform) {
                self.globals_in(text);
            }
        }
        if let Base::Context(_) = stage.base {
            return;
        }
        for step in stage.steps {
            step.node
                .flag_list("mount")
                .for_each(|flag| self.mount(step, flag));
            let Body::Arg(list) = &step.node.body else {
                continue;
            };
            for declaration in list {
                let name = declaration.name.text.as_str();
                let is_given = self.request.build_args.iter().any(|(n, _)| n == name);
                // Without a default of its own it is the one of before the first FROM.
                if declaration.value.is_none() && self.globals.contains_key(name) {
                    self.global(name);
                } else if declaration.value.is_some()
                    || is_given
                    || self.stages.globals.get(name).is_none()
                {
                    let value = declaration.value.as_ref().map(|w| w.text.clone());
                    self.add(declaration, step, value);
                }
            }
        }
    }

    /// Adds the secret or the agent that a step mounts.  An id that is made of variables is known when it is built.
    fn mount(&mut self, step: &Instruction, flag: &Word) {
        let Ok(fields) = mount::fields(flag) else {
            return;
        };
        let value = |name: &str| {
            let field = fields.iter().rfind(|f| f.key.name == name)?;
            Some(field.value.as_ref().map_or("true", |v| v.text.as_str()))
        };
        let last = |path: &str| {
            let path = path.trim_end_matches('/');
            path.rsplit('/').next().unwrap_or(path).to_owned()
        };
        let (found, id) = match value("type") {
            Some("secret") => {
                let named = value("id").or(value("source")).map(str::to_owned);
                let Some(id) = named.or_else(|| value("target").map(last)) else {
                    return;
                };
                (&mut self.secrets, id)
            }
            Some("ssh") => (
                &mut self.agents,
                value("id").unwrap_or("default").to_owned(),
            ),
            _ => return,
        };
        let required = value("required").is_some_and(|v| matches!(v, "true" | "1"));
        let supply = found.entry(id.clone()).or_insert_with(|| Supply {
            id,
            required,
            span: step.line.span(self.source, flag.at),
        });
        supply.required |= required;
    }

    /// Adds the arguments that a text uses.
    fn globals_in(&mut self, text: &str) {
        let used = Expander::new('\\').expand(text, &self.stages.globals);
        for name in used
            .map(|e| [e.used, e.missing].concat())
            .unwrap_or_default()
        {
            self.global(&name);
        }
    }

    /// Adds an argument of before the first FROM, and those that its default is made of.
    fn global(&mut self, name: &str) {
        let mut seen = BTreeSet::new();
        let mut todo = vec![name.to_owned()];
        while let Some(name) = todo.pop() {
            let Some((declaration, instruction)) = self.globals.get(name.as_str()).copied() else {
                continue;
            };
            if !seen.insert(name.clone()) {
                continue;
            }
            let value = self.stages.globals.get(&name).map(str::to_owned);
            self.add(declaration, instruction, value);
            if let Some(default) = &declaration.value {
                let parts = Expander::new('\\').expand(&default.text, &Env::default());
                todo.extend(parts.map(|e| e.missing).unwrap_or_default());
            }
        }
    }

    fn add(&mut self, declaration: &Declaration, instruction: &Instruction, value: Option<String>) {
        let name = &declaration.name.text;
        let given = self
            .request
            .build_args
            .iter()
            .rev()
            .find(|(n, _)| n == name);
        let argument = Argument {
            name: name.clone(),
            description: instruction
                .line
                .description(name)
                .unwrap_or_default()
                .to_owned(),
            value: given.map(|(_, v)| v.clone()).or(value),
            span: instruction.line.span(self.source, declaration.name.at),
        };
        self.found.entry(name.clone()).or_insert(argument);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::host::Platform;

    fn request(text: &str, target: &str, args: &[(&str, &str)]) -> Request {
        let platform = Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: String::new(),
        };
        Request {
            file: "Dockerfile".into(),
            content: text.into(),
            build_platform: platform.clone(),
            target_platform: platform,
            target: Some(target.into()),
            build_args: args
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect(),
            ..Request::default()
        }
    }

    const FILE: &str = "# BASE is what all stages begin with\nARG BASE=debian:${TAG}\nARG TAG=12 UNUSED=1\n\n\
        # tools compiles\nFROM --platform=$BUILDPLATFORM $BASE AS tools\nARG TAG FLAGS=\"-O2 $TAG\" NONE\n\
        FROM scratch AS other\nARG OTHER=1\n# not a description\nFROM other AS app\nCOPY --from=tools /x /\n# last stage\nFROM scratch";

    #[test]
    fn targets_are_listed_with_what_they_begin_with() {
        let list = targets(&request(FILE, "", &[])).unwrap();
        let shown: Vec<_> = list
            .iter()
            .map(|t| {
                format!(
                    "{}|{}|{}|{}|{}|{}",
                    t.span.line, t.name, t.description, t.base, t.platform, t.is_default
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "6|tools|compiles|$BASE|$BUILDPLATFORM|false",
                "8|other||scratch||false",
                "11|app||other||false",
                "14|||scratch||true"
            ]
        );
    }

    #[test]
    fn an_outline_has_the_secrets_and_agents_of_the_target() {
        let text = "FROM scratch AS other\nRUN --mount=type=secret,id=other x\nFROM scratch AS app\n\
            RUN --mount=type=secret,target=/run/token --mount=type=ssh x\n\
            RUN --mount=type=secret,id=token,required --mount=type=ssh,id=git --mount=type=cache,target=/c y";
        let outline = outline(&request(text, "app", &[])).unwrap();
        let shown = |list: &[Supply]| {
            let one = |s: &Supply| format!("{}:{} {}", s.span.line, s.id, s.required);
            list.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(shown(&outline.secrets), ["4:token true"]);
        assert_eq!(shown(&outline.agents), ["4:default false", "5:git false"]);
    }

    #[test]
    fn an_outline_has_what_the_target_and_all_below_it_use() {
        let shown = |target: &str, args: &[(&str, &str)]| {
            let outline = outline(&request(FILE, target, args)).unwrap();
            let one = |a: &Argument| {
                format!(
                    "{}:{} {}={} {}",
                    a.span.line,
                    a.span.column,
                    a.name,
                    a.value.as_deref().unwrap_or("?"),
                    a.description
                )
            };
            outline.arguments.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(
            shown("app", &[]),
            [
                "2:5 BASE=debian: is what all stages begin with",
                "3:5 TAG=12 ",
                "7:9 FLAGS=\"-O2 $TAG\" ",
                "7:26 NONE=? ",
                "9:5 OTHER=1 "
            ]
        );
        assert_eq!(shown("other", &[("OTHER", "2")]), ["9:5 OTHER=2 "]);
        assert!(shown("", &[]).is_empty());
        assert_eq!(
            outline(&request(FILE, "ap", &[])).unwrap_err()[0].hint,
            "did you mean `app`?"
        );
        assert_eq!(
            outline(&request("RNU x", "", &[])).unwrap_err()[0].code,
            "UnknownInstruction"
        );
    }
}
