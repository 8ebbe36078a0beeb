//! Runs the frontend on a definition, and serves what the guest imports from contexts and registries.

use std::sync::Arc;

use stepwell_image::ManifestError;
use stepwell_model::event::{Event, EventSink};
use stepwell_model::request::{Call, Frontend, NamedContext, Request};
use stepwell_model::{Diagnostic, Op, Platform, Reference};
use stepwell_registry::ErrorKind;
use stepwell_steps::source::node::Kind;
use stepwell_steps::source::{ContextDir, SourceError};
use stepwell_wasm::frontend::{
    AccessError, ContextKind, Definition, DirectoryEntry, EntryKind, EntryStat, FrontendHost,
    FrontendInput, FrontendOutput, FrontendSource, ResolveError, ResolvedImage,
};
use stepwell_wasm::{GuestEngine, GuestError};

use crate::contexts::{self, Contexts};
use crate::error::{BuildError, ImageError};
use crate::images::Images;
use crate::remote::Remotes;
use crate::{definition, names};

/// What the frontend made of a definition.
pub struct Read {
    /// Its answer.
    pub output: FrontendOutput,
    /// Says which definition it was among all.
    pub place: String,
    /// What the definition is called.
    pub name: String,
}

/// Asks the frontend about the definition, for its graph most of all, and says which definition that was; diagnostics are told as
/// events.
pub fn run(
    engine: &GuestEngine,
    request: &Request,
    call: Call,
    contexts: &Contexts,
    remotes: &Remotes<'_>,
    images: &Images<'_>,
    events: &Arc<dyn EventSink>,
) -> Result<Read, BuildError> {
    let source = match &request.frontend {
        Frontend::Dockerfile => FrontendSource::BuiltinDockerfile,
        Frontend::Component(path) => FrontendSource::File(path.clone()),
    };
    let frontend =
        stepwell_wasm::frontend::Frontend::load(engine, &source).map_err(BuildError::Guest)?;
    let found = definition::find(&frontend, request, contexts, remotes)?;
    let name = found.definition.name.clone();
    let input = FrontendInput {
        call,
        ..input(found.definition, found.ignore_file, request)
    };
    let mut host = Host {
        contexts,
        images,
        remotes,
        failed: Vec::new(),
    };
    let result = frontend.build(&input, &request.guest_limits, &mut host);
    let diagnostics = match &result {
        Ok(output) => &output.diagnostics[..],
        Err(error) => error.diagnostics(),
    };
    for diagnostic in diagnostics {
        events.event(Event::Diagnostic(diagnostic.clone()));
    }
    result
        .map(|output| Read {
            output,
            place: found.place,
            name,
        })
        .map_err(|error| match error {
            GuestError::Refused { diagnostics } => refused(diagnostics, host.failed),
            other => BuildError::Guest(other),
        })
}

/// A guest says that it refuses the definition also where only an image could not be had.  It is believed to mean that
/// where it hands on what it was told of the failure.
fn refused(diagnostics: Vec<Diagnostic>, failed: Vec<(String, BuildError)>) -> BuildError {
    if failed
        .iter()
        .any(|(_, e)| matches!(e, BuildError::Interrupted))
    {
        return BuildError::Interrupted;
    }
    let is_told = |e: &BuildError| {
        let text = e.to_string();
        diagnostics.iter().any(|d| d.message.contains(&text))
    };
    match failed.into_iter().find(|(_, e)| is_told(e)) {
        None => BuildError::Refused(diagnostics),
        Some((what, source)) => BuildError::Unresolved {
            what,
            diagnostics,
            source: Box::new(source),
        },
    }
}

fn input(
    definition: Definition,
    ignore_file: Option<Definition>,
    request: &Request,
) -> FrontendInput {
    FrontendInput {
        call: Call::Build,
        ignore_file,
        definition,
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        labels: request.labels.clone(),
        options: request.options.clone(),
        target_platform: request.platform.clone(),
        build_platform: Platform::host(),
        named_contexts: request
            .named_contexts
            .iter()
            .map(|(name, context)| (name.clone(), kind(name, context)))
            .collect(),
        extra_hosts: request.extra_hosts.clone(),
        network: request.network,
        shm_size: request.shm_size,
        limits: request.limits.clone(),
    }
}

fn kind(name: &str, context: &NamedContext) -> ContextKind {
    match context {
        NamedContext::Directory(_) | NamedContext::Remote(_) => ContextKind::Directory,
        NamedContext::Image(reference) => ContextKind::Image(reference.clone()),
        // The reference that `Images` knows the layout by.
        NamedContext::OciLayout { .. } => ContextKind::Image(Images::layout_reference(name)),
    }
}

struct Host<'a> {
    contexts: &'a Contexts,
    images: &'a Images<'a>,
    remotes: &'a Remotes<'a>,
    /// Images and sources that could not be had, and why.
    failed: Vec<(String, BuildError)>,
}

impl Host<'_> {
    /// An opened context, and when what it is made of was last changed.
    fn opened(&mut self, context: &str) -> Result<(ContextDir, Option<i64>), AccessError> {
        match self.contexts.dir(context, self.remotes) {
            Ok(found) => found.ok_or(AccessError::UnknownContext),
            Err(error) => {
                let answer = AccessError::Io(error.to_string());
                self.failed
                    .push((format!("the context `{context}`"), error));
                Err(answer)
            }
        }
    }

    fn dir(&mut self, context: &str) -> Result<ContextDir, AccessError> {
        Ok(self.opened(context)?.0)
    }
}

impl FrontendHost for Host<'_> {
    fn open_context(&mut self, context: &str) -> Result<(), AccessError> {
        self.opened(context).map(drop)
    }

    fn read(&mut self, context: &str, path: &str, max: u64) -> Result<Vec<u8>, AccessError> {
        let found = self.dir(context)?.read_if_there(path, max);
        found.map_err(access)?.ok_or(AccessError::NotFound)
    }

    fn stat(&mut self, context: &str, path: &str) -> Result<EntryStat, AccessError> {
        let found = self.dir(context)?.stat(path).map_err(access)?;
        let stat = found.ok_or(AccessError::NotFound)?;
        Ok(EntryStat {
            kind: entry_kind(stat.kind),
            size: stat.size,
            mode: stat.mode,
        })
    }

    fn list(&mut self, context: &str, path: &str) -> Result<Vec<DirectoryEntry>, AccessError> {
        let entries = self.dir(context)?.list(path).map_err(access)?;
        // A name that is not UTF-8 cannot be said to a guest.
        Ok(entries
            .into_iter()
            .filter_map(|e| {
                Some(DirectoryEntry {
                    name: String::from_utf8(e.name).ok()?,
                    kind: entry_kind(e.kind),
                })
            })
            .collect())
    }

    fn context_time(&mut self, context: &str) -> Result<Option<i64>, AccessError> {
        Ok(self.opened(context)?.1)
    }

    fn fetched_time(&mut self, op: &Op) -> Result<Option<i64>, AccessError> {
        contexts::fetched_time(self.remotes, op).map_err(|error| {
            let answer = AccessError::Io(error.to_string());
            self.failed.push((format!("`{}`", names::bare(op)), error));
            answer
        })
    }

    fn resolve_image(
        &mut self,
        reference: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError> {
        let image = match self.images.resolve(reference, platform) {
            Ok(image) => image,
            Err(error) => {
                let answer = resolve_error(&error);
                self.failed
                    .push((format!("the image `{reference}`"), error));
                return Err(answer);
            }
        };
        Ok(ResolvedImage {
            reference: image.reference.clone(),
            digest: image.digest,
            platform: image.platform.clone(),
            config: image.config.clone(),
        })
    }
}

pub(crate) fn entry_kind(kind: Kind) -> EntryKind {
    match kind {
        Kind::File => EntryKind::File,
        Kind::Directory => EntryKind::Directory,
        Kind::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    }
}

pub(crate) fn access(error: SourceError) -> AccessError {
    match error {
        SourceError::NotFound { .. } => AccessError::NotFound,
        SourceError::NotAFile { .. } => AccessError::NotAFile,
        SourceError::NotADirectory { .. } => AccessError::NotADirectory,
        SourceError::Outside { .. } => AccessError::Outside,
        SourceError::TooLarge { limit, .. } => AccessError::TooLarge(limit),
        other => AccessError::Io(other.to_string()),
    }
}

fn resolve_error(failure: &BuildError) -> ResolveError {
    let text = failure.to_string();
    match failure {
        BuildError::Image(ImageError::Reference { .. }) => ResolveError::InvalidReference(text),
        BuildError::Image(ImageError::Manifest {
            source: ManifestError::Platform { .. },
            ..
        }) => ResolveError::NoSuchPlatform(text),
        BuildError::Registry(e) => match (e.kind(), e.status()) {
            (ErrorKind::NoPlatform { .. }, _) => ResolveError::NoSuchPlatform(text),
            (_, Some(404)) => ResolveError::NotFound(text),
            (_, Some(401 | 403)) => ResolveError::Denied(text),
            _ => ResolveError::Unavailable(text),
        },
        _ => ResolveError::Unavailable(text),
    }
}

/// Parses and normalises a reference.
pub fn parse_reference(text: &str) -> Result<Reference, ImageError> {
    stepwell_model::parse_reference(text).map_err(|e| ImageError::Reference {
        reference: text.to_owned(),
        reason: format!("{e}"),
    })
}
