//! Checks definitions without building them: no store, no registry, no context but the directory that the file is in.
//!
//! Each file gets a guest of its own, as a build's does: a Dockerfile is hostile until it is read.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use stepwell_model::request::{Call, GuestLimits};
use stepwell_model::{Diagnostic, Platform};
use stepwell_steps::source::ContextDir;
use stepwell_wasm::frontend::{
    AccessError, Definition, DirectoryEntry, EntryStat, Frontend, FrontendHost, FrontendInput,
    FrontendSource, ResolveError, ResolvedImage,
};
use stepwell_wasm::{GuestEngine, GuestError};

use crate::definition::read_definition;
use crate::error::BuildError;
use crate::frontend::access;

/// Names that definitions have, in lower case: these, with anything behind a dot, or as an ending.
const NAMES: &[&str] = &["dockerfile", "containerfile"];

/// Finds the definitions in a directory and all below it, in the order of their names; a file is what it is.
///
/// Links are not followed, and `.git` is left out.
pub fn find(path: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let fail = |path: &Path, source| BuildError::Read {
        path: path.to_owned(),
        source,
    };
    let kind = std::fs::metadata(path).map_err(|e| fail(path, e))?;
    if !kind.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut todo) = (Vec::new(), vec![path.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).map_err(|e| fail(&dir, e))? {
            let entry = entry.map_err(|e| fail(&dir, e))?;
            let kind = entry.file_type().map_err(|e| fail(&entry.path(), e))?;
            let name = entry.file_name();
            if kind.is_dir() && name != ".git" {
                todo.push(entry.path());
            } else if kind.is_file() && is_definition(&name.to_string_lossy()) {
                found.push(entry.path());
            }
        }
    }
    if path == Path::new(".") {
        // As people name the files of the directory that they are in.
        found
            .iter_mut()
            .for_each(|f| *f = f.strip_prefix(".").unwrap_or(f).to_owned());
    }
    found.sort();
    Ok(found)
}

/// Says whether a file is a definition by its name: `Dockerfile`, `Dockerfile.dev`, `app.Dockerfile`, `Containerfile`, …
fn is_definition(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_one = |n: &&str| {
        let behind = lower.strip_prefix(*n);
        behind.is_some_and(|b| b.is_empty() || b.starts_with('.'))
            || lower.ends_with(&format!(".{n}"))
    };
    !lower.ends_with(".dockerignore")
        && !lower.ends_with(".containerignore")
        && NAMES.iter().any(is_one)
}

/// Checks files on `jobs` threads; the results are in the order of the files.
pub fn files(
    files: &[PathBuf],
    limits: &GuestLimits,
    jobs: usize,
) -> Result<Vec<Checked>, BuildError> {
    let engine = GuestEngine::new(None).map_err(BuildError::Guest)?;
    let frontend =
        Frontend::load(&engine, &FrontendSource::BuiltinDockerfile).map_err(BuildError::Guest)?;
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Checked)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, files.len().max(1)) {
            scope.spawn(|| {
                while let Some((index, file)) = take(files, &next) {
                    let checked = Checked {
                        file: file.clone(),
                        result: check(&frontend, file, limits),
                    };
                    done.lock()
                        .unwrap_or_else(|e| e.into_inner())
                        .push((index, checked));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, checked)| checked).collect())
}

fn take<'a>(files: &'a [PathBuf], next: &AtomicUsize) -> Option<(usize, &'a PathBuf)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    files.get(index).map(|file| (index, file))
}

/// What became of one file.
#[derive(Debug)]
pub struct Checked {
    /// The file.
    pub file: PathBuf,
    /// What is to be said of it, or why nothing can be.
    pub result: Result<Vec<Diagnostic>, BuildError>,
}

fn check(
    frontend: &Frontend<'_>,
    file: &Path,
    limits: &GuestLimits,
) -> Result<Vec<Diagnostic>, BuildError> {
    let dir = file
        .parent()
        .filter(|d| !d.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let input = FrontendInput {
        call: Call::Check,
        definition: Definition {
            name: file.display().to_string(),
            content: read_definition(file)?,
        },
        target_platform: Platform::host(),
        build_platform: Platform::host(),
        ..FrontendInput::default()
    };
    let mut host = Offline {
        dir,
        name: file
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        full_name: input.definition.name.clone(),
        context: None,
    };
    match frontend.build(&input, limits, &mut host) {
        Ok(output) => Ok(output.diagnostics),
        Err(GuestError::Refused { diagnostics }) => Ok(diagnostics),
        Err(other) => Err(BuildError::Guest(other)),
    }
}

/// The directory of a file as its context, and no image.
struct Offline<'a> {
    dir: &'a Path,
    /// Name of the file in the directory, and as it was given.
    name: String,
    full_name: String,
    context: Option<ContextDir>,
}

impl Offline<'_> {
    /// Opens the directory where something of it is asked for at all.
    fn context(&mut self) -> Result<&ContextDir, AccessError> {
        if self.context.is_none() {
            self.context = Some(ContextDir::open(self.dir, &[]).map_err(access)?);
        }
        self.context.as_ref().ok_or(AccessError::UnknownContext)
    }
}

impl FrontendHost for Offline<'_> {
    fn read(&mut self, context: &str, path: &str, max: u64) -> Result<Vec<u8>, AccessError> {
        if !context.is_empty() {
            return Err(AccessError::UnknownContext);
        }
        // What lies beside the file is asked for by the name that the file was given.
        let beside = path.strip_prefix(self.full_name.trim_start_matches("./"));
        let path = beside.map_or(path.to_owned(), |ending| format!("{}{ending}", self.name));
        let found = self.context()?.read_if_there(&path, max);
        found.map_err(access)?.ok_or(AccessError::NotFound)
    }

    fn stat(&mut self, _: &str, _: &str) -> Result<EntryStat, AccessError> {
        Err(AccessError::NotFound)
    }

    fn list(&mut self, _: &str, _: &str) -> Result<Vec<DirectoryEntry>, AccessError> {
        Err(AccessError::NotFound)
    }

    fn resolve_image(&mut self, _: &str, _: &Platform) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError::Unavailable("a check asks no registry".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_known_by_their_names() {
        for good in [
            "Dockerfile",
            "dockerfile",
            "Dockerfile.dev",
            "a.Dockerfile",
            "x.y.dockerfile",
            "Containerfile",
            "Containerfile.in",
        ] {
            assert!(is_definition(good), "{good}");
        }
        for bad in [
            "Dockerfile.dockerignore",
            "Dockerfiles",
            "MyDockerfile",
            "docker",
            ".dockerignore",
            "Dockerfile-x",
        ] {
            assert!(!is_definition(bad), "{bad}");
        }
    }

    #[test]
    fn a_tree_is_searched_without_following_links() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for name in [
            "b/Dockerfile",
            "a/x.Dockerfile",
            ".git/Dockerfile",
            "a/c/Dockerfile.dev",
            "a/readme",
        ] {
            std::fs::create_dir_all(at(name).parent().expect("a parent")).expect("a directory");
            std::fs::write(at(name), "FROM scratch").expect("a file");
        }
        std::os::unix::fs::symlink("..", at("a/up")).expect("a link");
        std::os::unix::fs::symlink("/etc/passwd", at("Dockerfile")).expect("a link");
        let found = find(dir.path()).expect("it is a directory");
        assert_eq!(
            found,
            [
                at("a/c/Dockerfile.dev"),
                at("a/x.Dockerfile"),
                at("b/Dockerfile")
            ]
        );
        assert_eq!(
            find(&at("a/readme")).expect("it is a file"),
            [at("a/readme")]
        );
        assert!(find(&at("missing")).is_err());
    }

    #[test]
    fn files_are_checked_beside_each_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut paths = Vec::new();
        for i in 0..40 {
            let path = dir.path().join(format!("Dockerfile.{i:02}"));
            let text = if i % 2 == 0 {
                "FROM never-pulled AS a\nCOPY secret /\n"
            } else {
                "FROM x\nRNU y\nFROM x AS Y\nCMD x"
            };
            std::fs::write(&path, text).expect("a file");
            paths.push(path);
        }
        std::fs::write(dir.path().join("Dockerfile.04.dockerignore"), "secret").expect("a file");
        let done = files(&paths, &GuestLimits::default(), 4).expect("the frontend loads");
        let codes = |i: usize| -> Vec<String> {
            let list = done[i].result.as_ref().expect("it was checked");
            list.iter().map(|d| d.code.clone()).collect()
        };
        assert_eq!(
            done.iter().map(|c| c.file.clone()).collect::<Vec<_>>(),
            paths
        );
        assert_eq!(codes(0), [""; 0]);
        assert_eq!(
            codes(1),
            [
                "UnknownInstruction",
                "StageNameCasing",
                "JSONArgsRecommended"
            ]
        );
        assert_eq!(codes(4), ["CopyIgnoredFile"]);
    }
}
