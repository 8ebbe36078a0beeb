//! Finds the definition of a build and reads it, and the ignore file that belongs to it: beside the context, in it, on standard
//! input, behind an address.

use std::path::{Path, PathBuf};

use stepwell_model::op::HttpOp;
use stepwell_model::remote;
use stepwell_model::request::{DefinitionSource, Request};
use stepwell_wasm::frontend::{Definition, Frontend};

use crate::contexts::Contexts;
use crate::error::{BuildError, StepError};
use crate::remote::Remotes;

/// Largest definition that is read.
pub(crate) const LARGEST_DEFINITION: u64 = 16 << 20;

/// A definition that was found.
pub struct Found {
    /// Itself.
    pub definition: Definition,
    /// Its ignore file, where that is outside the context.
    pub ignore_file: Option<Definition>,
    /// Says which definition it is among all, so that later builds know it again.
    pub place: String,
}

impl Found {
    fn alone(name: String, content: Vec<u8>) -> Self {
        Self {
            place: name.clone(),
            definition: Definition { name, content },
            ignore_file: None,
        }
    }
}

/// Finds and reads the definition that the request means.
pub fn find(
    frontend: &Frontend<'_>,
    request: &Request,
    contexts: &Contexts,
    remotes: &Remotes<'_>,
) -> Result<Found, BuildError> {
    let file = match &request.file {
        Some(DefinitionSource::Text { name, content }) => {
            return Ok(Found::alone(name.clone(), content.clone()));
        }
        Some(DefinitionSource::Remote(url)) => return fetched(url, remotes),
        Some(DefinitionSource::File(path)) => Some(path.as_path()),
        None => None,
    };
    let names = || -> Result<Vec<String>, BuildError> {
        let about = frontend.describe(&request.guest_limits);
        Ok(about.map_err(BuildError::Guest)?.definition_names)
    };
    match request.context.directory() {
        Some(context) => match file {
            Some(file) => local(file, context),
            None => local(&by_default(context, &names()?), context),
        },
        None => {
            let candidates = match (file, contexts.lone_definition()) {
                (Some(file), _) => vec![file.display().to_string()],
                (None, Some((name, content))) => {
                    return Ok(Found::alone(name.clone(), content.clone()));
                }
                (None, None) => names()?,
            };
            inside(&candidates, contexts, remotes)
        }
    }
}

/// The first of the frontend's default names that is in the context.
fn by_default(context: &Path, names: &[String]) -> PathBuf {
    let candidates: Vec<_> = names.iter().map(|n| context.join(n)).collect();
    let found = candidates
        .iter()
        .find(|p| p.is_file())
        .or(candidates.first());
    found.cloned().unwrap_or_else(|| context.join("Dockerfile"))
}

/// A file of this machine.
fn local(path: &Path, context: &Path) -> Result<Found, BuildError> {
    let name = path.strip_prefix(context).unwrap_or(path);
    let whole = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    Ok(Found {
        definition: Definition {
            name: name.display().to_string(),
            content: read_definition(path)?,
        },
        ignore_file: ignore_file(path, context)?,
        place: whole.display().to_string(),
    })
}

/// The ignore file of a definition that lies outside the context, beside it; one within the context the guest reads itself.
fn ignore_file(path: &Path, context: &Path) -> Result<Option<Definition>, BuildError> {
    if path.starts_with(context) {
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

/// A file of a context that is no directory of this machine's: nothing outside the context is read, whatever links it has.
fn inside(
    candidates: &[String],
    contexts: &Contexts,
    remotes: &Remotes<'_>,
) -> Result<Found, BuildError> {
    let Some((dir, _)) = contexts.dir("", remotes)? else {
        return Err(BuildError::Interrupted);
    };
    let mut first = None;
    for name in candidates {
        match dir.read(name, LARGEST_DEFINITION) {
            Ok(content) => return Ok(Found::alone(name.clone(), content)),
            Err(source) => {
                first.get_or_insert(BuildError::Definition {
                    name: name.clone(),
                    source,
                });
            }
        }
    }
    Err(first.unwrap_or(BuildError::Interrupted))
}

fn fetched(url: &str, remotes: &Remotes<'_>) -> Result<Found, BuildError> {
    let address = remote::redact(url);
    let wrap = |source: StepError| BuildError::RemoteContext {
        address: address.clone(),
        source: Box::new(source),
    };
    let op = HttpOp {
        url: url.to_owned(),
        name: "Dockerfile".to_owned(),
        checksum: None,
    };
    let content = remotes
        .content(&op, LARGEST_DEFINITION)
        .map_err(|e| wrap(e.into()))?;
    Ok(Found::alone(address.clone(), content))
}

/// Reads a definition.
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
