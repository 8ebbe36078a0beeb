//! Runs the frontend: finds the definition, and serves what the guest imports from contexts and registries.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stepwell_image::ManifestError;
use stepwell_model::event::{Event, EventSink};
use stepwell_model::request::{Call, Frontend, NamedContext, Request};
use stepwell_model::{Diagnostic, Platform, Reference};
use stepwell_registry::ErrorKind;
use stepwell_steps::source::SourceError;
use stepwell_steps::source::node::Kind;
use stepwell_wasm::frontend::{
    self, AccessError, ContextKind, Definition, DirectoryEntry, EntryKind, EntryStat, FrontendHost,
    FrontendInput, FrontendOutput, FrontendSource, ResolveError, ResolvedImage,
};
use stepwell_wasm::{GuestEngine, GuestError};

use crate::contexts::Contexts;
use crate::error::{BuildError, ImageError};
use crate::images::Images;

/// Largest definition that is read.
const LARGEST_DEFINITION: u64 = 16 << 20;

/// Asks the frontend about the definition, for its graph most of all; diagnostics are told as events.
pub fn run(
    engine: &GuestEngine,
    request: &Request,
    call: Call,
    contexts: &Contexts,
    images: &Images<'_>,
    events: &Arc<dyn EventSink>,
) -> Result<(FrontendOutput, PathBuf), BuildError> {
    let source = match &request.frontend {
        Frontend::Dockerfile => FrontendSource::BuiltinDockerfile,
        Frontend::Component(path) => FrontendSource::File(path.clone()),
    };
    let path = definition_path(engine, &source, request)?;
    let input = FrontendInput {
        call,
        ..input(&path, request)?
    };
    let mut host = Host {
        contexts,
        images,
        failed: Vec::new(),
    };
    let result = frontend::run(engine, &source, &input, &request.guest_limits, &mut host);
    let diagnostics = match &result {
        Ok(output) => &output.diagnostics[..],
        Err(error) => error.diagnostics(),
    };
    for diagnostic in diagnostics {
        events.event(Event::Diagnostic(diagnostic.clone()));
    }
    result
        .map(|output| (output, path))
        .map_err(|error| match error {
            GuestError::Refused { diagnostics } => refused(diagnostics, host.failed),
            other => BuildError::Guest(other),
        })
}

/// A guest says that it refuses the definition also where only an image could not be had.  It is believed to mean that
/// where it hands on what it was told of the failure.
fn refused(diagnostics: Vec<Diagnostic>, failed: Vec<(String, BuildError)>) -> BuildError {
    let is_told = |e: &BuildError| {
        let text = e.to_string();
        diagnostics.iter().any(|d| d.message.contains(&text))
    };
    match failed.into_iter().find(|(_, e)| is_told(e)) {
        None => BuildError::Refused(diagnostics),
        Some((reference, source)) => BuildError::Unresolved {
            reference,
            diagnostics,
            source: Box::new(source),
        },
    }
}

fn input(path: &Path, request: &Request) -> Result<FrontendInput, BuildError> {
    let name = path
        .strip_prefix(&request.context)
        .unwrap_or(path)
        .display()
        .to_string();
    Ok(FrontendInput {
        call: Call::Build,
        ignore_file: ignore_file(path, request)?,
        definition: Definition {
            name,
            content: read_definition(path)?,
        },
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
    })
}

/// The ignore file of a definition that lies outside the context, beside it; one within the context the guest reads itself.
fn ignore_file(path: &Path, request: &Request) -> Result<Option<Definition>, BuildError> {
    if path.starts_with(&request.context) {
        return Ok(None);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".dockerignore");
    let file = PathBuf::from(name);
    // No link: who may write beside the definition must not choose what else is read.
    if !std::fs::symlink_metadata(&file).is_ok_and(|m| m.is_file()) {
        return Ok(None);
    }
    Ok(Some(Definition {
        name: file.display().to_string(),
        content: read_definition(&file)?,
    }))
}

/// The file that the user named, else the first of the frontend's default names that is in the context.
fn definition_path(
    engine: &GuestEngine,
    source: &FrontendSource,
    request: &Request,
) -> Result<PathBuf, BuildError> {
    if let Some(file) = &request.file {
        return Ok(file.clone());
    }
    let names = frontend::describe(engine, source, &request.guest_limits)
        .map_err(BuildError::Guest)?
        .definition_names;
    let candidates: Vec<_> = names.iter().map(|n| request.context.join(n)).collect();
    let found = candidates
        .iter()
        .find(|p| p.is_file())
        .or(candidates.first());
    Ok(found
        .cloned()
        .unwrap_or_else(|| request.context.join("Dockerfile")))
}

pub(crate) fn read_definition(path: &Path) -> Result<Vec<u8>, BuildError> {
    use std::io::Read as _;
    let fail = |source| BuildError::Read {
        path: path.to_owned(),
        source,
    };
    let mut content = Vec::new();
    std::fs::File::open(path)
        .map_err(fail)?
        .take(LARGEST_DEFINITION + 1)
        .read_to_end(&mut content)
        .map_err(fail)?;
    if content.len() as u64 > LARGEST_DEFINITION {
        return Err(fail(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("it has more than {LARGEST_DEFINITION} bytes"),
        )));
    }
    Ok(content)
}

fn kind(name: &str, context: &NamedContext) -> ContextKind {
    match context {
        NamedContext::Directory(_) => ContextKind::Directory,
        NamedContext::Image(reference) => ContextKind::Image(reference.clone()),
        // The reference that `Images` knows the layout by.
        NamedContext::OciLayout { .. } => ContextKind::Image(Images::layout_reference(name)),
    }
}

struct Host<'a> {
    contexts: &'a Contexts,
    images: &'a Images<'a>,
    /// Images that could not be had, and why.
    failed: Vec<(String, BuildError)>,
}

impl Host<'_> {
    fn dir(&self, context: &str) -> Result<&stepwell_steps::source::ContextDir, AccessError> {
        self.contexts
            .dir(context)
            .ok_or(AccessError::UnknownContext)
    }
}

impl FrontendHost for Host<'_> {
    fn read(&mut self, context: &str, path: &str, max: u64) -> Result<Vec<u8>, AccessError> {
        self.dir(context)?.read(path, max).map_err(access)
    }

    fn stat(&mut self, context: &str, path: &str) -> Result<EntryStat, AccessError> {
        let stat = self.dir(context)?.stat(path).map_err(access)?;
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

    fn resolve_image(
        &mut self,
        reference: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError> {
        let image = match self.images.resolve(reference, platform) {
            Ok(image) => image,
            Err(error) => {
                let answer = resolve_error(&error);
                self.failed.push((reference.to_owned(), error));
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
