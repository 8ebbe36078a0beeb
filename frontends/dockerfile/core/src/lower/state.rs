//! What is known at one point of a stage: the file system so far, the configuration, the variables.
//!
//! Cheap to copy, because a stage may begin where another ended: the large parts are shared until they change.

use std::rc::Rc;

use super::host::{History, ImageConfig, Platform, ResolvedImage, VertexId};
use crate::expand::Env;

/// `PATH` where the base sets none, as docker has it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Arguments that say what is scanned and are no variables of steps.
const NO_VARIABLES: &[&str] = &["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// What is known at one point of a stage.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// The files; none means empty.
    pub root: Option<VertexId>,
    /// Whether a check knows nothing of the image that it begins with.
    pub unknown_base: bool,
    /// Reference and digest of the image that the stage begins with.
    pub image: Option<(String, String)>,
    /// What the steps are for.
    pub platform: Platform,
    /// Name for messages.
    pub stage: String,
    /// Number of the step, and of how many.
    pub step: usize,
    /// How many steps the stage has.
    pub step_total: usize,
    /// The configuration, but for `env`, which is kept apart.
    config: Rc<ImageConfig>,
    /// Variables of ENV.
    env: Rc<Env>,
    /// What words are expanded with, and what steps see: ENV and ARG, of which the later one counts.
    pub scope: Rc<Env>,
    /// Arguments declared so far, with their values.
    pub args: Rc<Vec<(String, Option<String>)>>,
    /// Newest line of history.
    pub history: Option<usize>,
    /// Whether WORKDIR was used in this file.
    pub workdir_set: bool,
    /// Whether CMD was used in this stage: ENTRYPOINT takes back an inherited one.
    pub cmd_set: bool,
}

impl State {
    /// Makes the state of an empty file system.
    pub(super) fn empty(platform: Platform) -> Self {
        let config = ImageConfig {
            working_dir: "/".into(),
            ..ImageConfig::default()
        };
        Self::new(config, platform)
    }

    /// Makes the state that an image leaves.
    pub(super) fn of_image(image: ResolvedImage, platform: Platform) -> Self {
        Self {
            unknown_base: image.digest.is_empty(),
            image: Some((image.reference, image.digest)),
            ..Self::new(image.config, platform)
        }
    }

    fn new(mut config: ImageConfig, platform: Platform) -> Self {
        let pairs = std::mem::take(&mut config.env);
        let env: Env = pairs
            .iter()
            .map(|line| line.split_once('=').unwrap_or((line, "")))
            .collect();
        Self {
            root: None,
            unknown_base: false,
            image: None,
            platform,
            stage: String::new(),
            step: 0,
            step_total: 0,
            config: Rc::new(config),
            scope: Rc::new(env.clone()),
            env: Rc::new(env),
            args: Rc::default(),
            history: None,
            workdir_set: false,
            cmd_set: false,
        }
    }

    /// Makes the state of a stage that begins where this one ends.
    pub(super) fn child(&self) -> Self {
        let mut child = Self {
            cmd_set: false,
            image: None,
            ..self.clone()
        };
        // What an ARG of the base stage hid is seen again.
        for (name, value) in self.env.iter() {
            if child.scope.get(name) != Some(value) {
                Rc::make_mut(&mut child.scope).set(name, value);
            }
        }
        child
    }

    /// Makes sure that there is a `PATH`.
    pub(super) fn ensure_path(&mut self) {
        if self.env.get("PATH").is_none() {
            self.set_env("PATH", DEFAULT_PATH);
        }
    }

    /// Sets a variable of the image.
    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        Rc::make_mut(&mut self.env).set(name, value);
        Rc::make_mut(&mut self.scope).set(name, value);
    }

    /// Declares an argument.  With a value it hides a variable of ENV with its name from what follows in the stage, not from
    /// the image.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value.as_ref().filter(|_| !NO_VARIABLES.contains(&name)) {
            Rc::make_mut(&mut self.scope).set(name, value);
        }
        Rc::make_mut(&mut self.args).push((name.to_owned(), value));
    }

    /// Returns the value of an argument that is declared, as it is seen now.
    pub(super) fn value_of(&self, name: &str) -> &str {
        let declared = || self.args.iter().rev().find(|(n, _)| n == name);
        let seen = self.scope.get(name);
        seen.or_else(|| declared()?.1.as_deref())
            .unwrap_or_default()
    }

    /// Says whether an argument is declared, with a value or without.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.args.iter().any(|(n, _)| n == name)
    }

    /// Returns the configuration so far, without variables.
    pub(super) fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// Returns the configuration for a change.
    pub(super) fn config_mut(&mut self) -> &mut ImageConfig {
        Rc::make_mut(&mut self.config)
    }

    /// Takes the triggers that the base left.
    pub(super) fn take_triggers(&mut self) -> Vec<String> {
        if self.config.on_build.is_empty() {
            Vec::new()
        } else {
            std::mem::take(&mut self.config_mut().on_build)
        }
    }

    /// Returns the whole configuration.
    pub(super) fn finish(&self) -> ImageConfig {
        let env = self.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        ImageConfig {
            env,
            ..(*self.config).clone()
        }
    }

    /// Returns the name and number of the step for messages, for example `build 2/5`.
    pub(super) fn label(&self) -> String {
        if self.step_total == 0 {
            return self.stage.clone();
        }
        let width = self.step_total.to_string().len();
        let number = format!("{:>width$}/{}", self.step, self.step_total);
        if self.stage.is_empty() {
            number
        } else {
            format!("{} {number}", self.stage)
        }
    }
}

/// The histories of all stages: each line knows the one before it, so that stages share what they have in common.
#[derive(Debug, Default)]
pub(super) struct Histories(Vec<(Option<usize>, History)>);

impl Histories {
    /// Adds a line behind `before`.
    pub(super) fn push(
        &mut self,
        before: Option<usize>,
        created_by: String,
        empty_layer: bool,
    ) -> usize {
        self.0.push((
            before,
            History {
                created_by,
                comment: "buildkit.dockerfile.v0",
                empty_layer,
            },
        ));
        self.0.len() - 1
    }

    /// Returns the lines up to `last`, from the oldest.
    pub(super) fn list(&self, last: Option<usize>) -> Vec<History> {
        let mut lines: Vec<History> = std::iter::successors(last, |at| self.0[*at].0)
            .map(|at| self.0[at].1.clone())
            .collect();
        lines.reverse();
        lines
    }
}
