//! From a recipe to the build graph.

use stepwell_guest::frontend::graph::{self, Copy, Files, GraphError, Run, Vertex};
use stepwell_guest::frontend::images::{self, ResolveError};
use stepwell_guest::frontend::{
    Diagnostic, History, Image, ImageConfig, Network, Options, Origin, Owner,
};
use toml::Spanned;

use crate::recipe::{Recipe, Source, Step};

/// The result so far.
struct Build<'a> {
    options: &'a Options,
    root: Option<Vertex>,
    config: ImageConfig,
    history: Vec<History>,
}

/// Lowers a recipe.
pub fn lower(
    recipe: &Recipe,
    source: &Source<'_>,
    options: &Options,
) -> Result<Image, Box<Diagnostic>> {
    let mut build = Build {
        options,
        root: None,
        config: ImageConfig::default(),
        history: Vec::new(),
    };
    let at = recipe.base.span();
    build
        .base(recipe.base.as_ref(), source.origin(at.clone(), "base"))
        .map_err(|(message, hint)| source.error(at, "Base", &message, hint))?;
    for (name, value) in &recipe.env {
        build.set_env(name, value);
    }
    if let Some(packages) = &recipe.packages {
        build
            .packages(
                packages.as_ref(),
                source.origin(packages.span(), "packages"),
            )
            .map_err(|message| source.error(packages.span(), "Packages", &message, ""))?;
    }
    for step in &recipe.step {
        build
            .step(step, source)
            .map_err(|message| source.error(step.span(), "Step", &message, ""))?;
    }
    build.settings(recipe);
    Ok(Image {
        root: build.root,
        config: build.config,
        history: build.history,
        source_date_epoch: None,
    })
}

impl Build<'_> {
    fn base(&mut self, reference: &str, origin: Origin) -> Result<(), (String, &'static str)> {
        if reference == "scratch" {
            return Ok(());
        }
        let platform = &self.options.target_platform;
        let image = images::resolve(reference, platform).map_err(unresolved)?;
        let root = graph::image(
            &image.reference,
            &image.digest,
            &image.platform,
            Some(&origin),
        )
        .map_err(|e| (text_of(&e), ""))?;
        self.root = Some(root);
        self.config = image.config;
        Ok(())
    }

    fn packages(&mut self, packages: &[String], origin: Origin) -> Result<(), String> {
        if let Some(bad) = packages.iter().find(|p| !is_package(p)) {
            return Err(format!("`{bad}` is not the name of a package"));
        }
        let line = format!(
            "apt-get update && apt-get install -y --no-install-recommends {} && rm -rf /var/lib/apt/lists/*",
            packages.join(" ")
        );
        self.run(&line, "", false, origin)
    }

    fn step(&mut self, step: &Spanned<Step>, source: &Source<'_>) -> Result<(), String> {
        let origin = |text: &str| source.origin(step.span(), text);
        match step.as_ref() {
            Step::Run { run, user, offline } => {
                self.run(run, user, *offline, origin(&format!("run {run}")))
            }
            Step::Copy {
                copy,
                to,
                owner,
                mode,
            } => {
                let text = format!("copy {} to {to}", copy.join(" "));
                self.copy(copy, to, owner.as_deref(), mode, origin(&text))
            }
            Step::Write {
                write,
                content,
                executable,
            } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                let files = Files::new(self.root.as_ref());
                files.mkfile(write, content.as_bytes(), mode, None);
                self.files(files, origin(&format!("write {write}")))
            }
        }
    }

    fn run(&mut self, line: &str, user: &str, offline: bool, origin: Origin) -> Result<(), String> {
        let Some(root) = &self.root else {
            return Err("there is nothing to run on `scratch`".into());
        };
        let args = ["/bin/sh", "-c", line].map(String::from);
        let run = Run::new(root, &args);
        for variable in &self.config.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            run.add_env(name, value);
        }
        run.set_user(user);
        run.set_network(match offline {
            true => Network::None,
            false => self.options.network,
        });
        let text = origin.text.clone();
        let made = Run::finish(run, &self.options.target_platform, Some(&origin));
        self.layer(made, text)
    }

    fn copy(
        &mut self,
        sources: &[String],
        to: &str,
        owner: Option<&str>,
        mode: &str,
        origin: Origin,
    ) -> Result<(), String> {
        let platform = &self.options.target_platform;
        let context = graph::context("", &[], platform, None).map_err(|e| text_of(&e))?;
        let copy = Copy::new(&context, sources, to);
        copy.set_mode(mode);
        if let Some(owner) = owner {
            copy.set_owner(&owner_of(owner));
        }
        let files = Files::new(self.root.as_ref());
        files.copy(copy);
        self.files(files, origin)
    }

    fn files(&mut self, files: Files, origin: Origin) -> Result<(), String> {
        let text = origin.text.clone();
        let made = Files::finish(files, &self.options.target_platform, Some(&origin));
        self.layer(made, text)
    }

    /// Goes on from a new vertex.
    fn layer(&mut self, made: Result<Vertex, GraphError>, text: String) -> Result<(), String> {
        self.root = Some(made.map_err(|e| text_of(&e))?);
        self.history.push(History {
            created_by: text,
            comment: "recipe".into(),
            empty_layer: false,
        });
        Ok(())
    }

    fn set_env(&mut self, name: &str, value: &str) {
        let of_name = |v: &String| v.split('=').next() == Some(name);
        self.config.env.retain(|v| !of_name(v));
        self.config.env.push(format!("{name}={value}"));
    }

    fn settings(&mut self, recipe: &Recipe) {
        let (config, settings) = (&mut self.config, &recipe.image);
        if settings.entrypoint.is_some() {
            config.entrypoint = settings.entrypoint.clone();
            config.cmd = None;
        }
        if settings.cmd.is_some() {
            config.cmd = settings.cmd.clone();
        }
        for (field, value) in [
            (&mut config.working_dir, &settings.workdir),
            (&mut config.user, &settings.user),
        ] {
            if !value.is_empty() {
                field.clone_from(value);
            }
        }
        let labels = settings.labels.iter().map(|(k, v)| (k.clone(), v.clone()));
        let given = self.options.labels.iter().cloned();
        config.labels.extend(labels.chain(given));
        config.exposed_ports.extend(settings.ports.iter().cloned());
    }
}

fn is_package(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "+-.:=~".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(good)
}

fn owner_of(text: &str) -> Owner {
    match text.split_once(':') {
        Some((user, group)) => Owner {
            user: user.into(),
            group: Some(group.into()),
        },
        None => Owner {
            user: text.into(),
            group: None,
        },
    }
}

fn unresolved(error: ResolveError) -> (String, &'static str) {
    match error {
        ResolveError::InvalidReference(m) => (m, "a base is written like `debian:bookworm-slim`"),
        ResolveError::NotFound(m) | ResolveError::NoSuchPlatform(m) => (m, ""),
        ResolveError::Denied(m) => (m, "log in to the registry"),
        ResolveError::Unavailable(m) => (m, "try again later"),
    }
}

fn text_of(error: &GraphError) -> String {
    match error {
        GraphError::RelativePath(path) => format!("`{path}` is not an absolute path"),
        GraphError::UnknownContext(name) => format!("there is no context `{name}`"),
        GraphError::UnresolvedImage(name) => format!("`{name}` was not resolved"),
        GraphError::TooLarge(limit) => format!("the graph has more than {limit} vertices"),
        GraphError::NoInput => "there is nothing to merge".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_cannot_smuggle_commands() {
        for good in ["curl", "g++", "libc6:amd64", "jq=1.6-2.1"] {
            assert!(is_package(good), "{good}");
        }
        for bad in ["", "-y", "a;b", "a b", "$(x)", "a\nb", "--force"] {
            assert!(!is_package(bad), "{bad}");
        }
    }

    #[test]
    fn owners_have_a_group_or_none() {
        assert_eq!(owner_of("app").group, None);
        assert_eq!(owner_of("1:2").group.as_deref(), Some("2"));
    }
}
