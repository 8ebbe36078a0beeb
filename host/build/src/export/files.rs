//! Writes the files of the result: into a directory (`type=local`) or as a tar archive (`type=tar`).  What is there comes from the
//! layers' tables of contents, contents come from a checkout by handles that no link leads out of.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, OpenOptions, OpenOptionsExt, Permissions};
use stepwell_image::{Entry, Kind, LayerOptions, LayerWriter};
use stepwell_store::{ChainView, Compression, ReadCheckout, StoreError};

use crate::error::{BuildError, StepError};
use crate::session::{Layers, Session};

/// Writes the files into a directory; what is there and is not in the result stays, as with docker.
pub fn local(session: &Session<'_>, layers: &Layers, dest: &Path) -> Result<(), BuildError> {
    step(
        session,
        dest,
        |result| {
            std::fs::create_dir_all(dest)?;
            let dir = Dir::open_ambient_dir(dest, cap_std::ambient_authority())?;
            let mut modes = Vec::new();
            let mut names: HashMap<_, PathBuf> = HashMap::new();
            for (path, node) in result.view.iter().filter(|(path, _)| !path.is_empty()) {
                let name = Path::new(OsStr::from_bytes(path));
                let entry = node.entry();
                match &entry.kind {
                    Kind::Dir => {
                        make_dir(&dir, name)?;
                        modes.push((name.to_owned(), entry.mode & 0o777));
                    }
                    Kind::File { .. } => match names.get(&node.place()) {
                        Some(first) => replace(&dir, name, |new| dir.hard_link(first, &dir, new))?,
                        None => {
                            replace(&dir, name, |new| {
                                write_file(&dir, new, entry, &mut result.open(path)?)
                            })?;
                            names.insert(node.place(), name.to_owned());
                        }
                    },
                    Kind::Symlink { target } => replace(&dir, name, |new| {
                        dir.symlink_contents(OsStr::from_bytes(target), new)
                    })?,
                    // Who may not make device nodes gets none; a pipe is of no use in a directory of results.
                    Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo | Kind::Hardlink { .. } => {
                    }
                }
            }
            // Last and deepest first: a directory may be read-only.
            modes.into_iter().rev().try_for_each(|(name, mode)| {
                dir.set_permissions(
                    name,
                    Permissions::from_std(std::fs::Permissions::from_mode(mode)),
                )
            })
        },
        layers,
    )
}

/// Writes the files as a tar archive.
pub fn tar(session: &Session<'_>, layers: &Layers, dest: Option<&Path>) -> Result<(), BuildError> {
    let name = dest.unwrap_or(Path::new("-"));
    let clamp = session.source_date_epoch;
    step(
        session,
        name,
        |result| super::to_file(dest, |out| result.archive(out, clamp)),
        layers,
    )
}

/// The files of a result.
struct Files {
    view: ChainView,
    root: Dir,
    _checkout: ReadCheckout,
}

impl Files {
    fn open(&self, path: &[u8]) -> std::io::Result<File> {
        Ok(self
            .root
            .open(Path::new(OsStr::from_bytes(path)))?
            .into_std())
    }

    fn archive(&self, out: &mut dyn Write, clamp: Option<i64>) -> std::io::Result<()> {
        let options = LayerOptions {
            compression: Compression::Uncompressed,
            clamp_mtime: clamp,
            ..LayerOptions::default()
        };
        let mut writer = LayerWriter::new(BufWriter::with_capacity(1 << 18, Forward(out)), options)
            .map_err(std::io::Error::other)?;
        let mut names: HashMap<_, Vec<u8>> = HashMap::new();
        for (path, node) in self.view.iter().filter(|(path, _)| !path.is_empty()) {
            let mut entry = Entry {
                path: path.to_vec(),
                ..node.entry().clone()
            };
            let mut content = None;
            if let Kind::File { size } = entry.kind {
                match names.get(&node.place()) {
                    Some(first) => {
                        entry.kind = Kind::Hardlink {
                            target: first.clone(),
                        }
                    }
                    None => {
                        names.insert(node.place(), path.to_vec());
                        content = if size > 0 {
                            Some(self.open(path)?)
                        } else {
                            None
                        };
                    }
                }
            }
            writer
                .add(&entry, content.as_mut().map(|f| f as &mut dyn Read))
                .map_err(std::io::Error::other)?;
        }
        writer
            .finish()
            .map_err(std::io::Error::other)?
            .out
            .into_inner()
            .map_err(|e| e.into_error())?
            .0
            .flush()
    }
}

/// `dyn Write` as a writer of its own.
struct Forward<'a>(&'a mut dyn Write);

impl Write for Forward<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Checks the result out, works with it, and tells how it went.
fn step(
    session: &Session<'_>,
    dest: &Path,
    work: impl FnOnce(&Files) -> std::io::Result<()>,
    layers: &Layers,
) -> Result<(), BuildError> {
    let name = format!("writing files to {}", dest.display());
    session.extra_step(name.clone(), |step| {
        let open = || -> Result<Files, StepError> {
            session.images.fetch(layers, session, step)?;
            let checkout = session
                .store
                .checkout_read(layers, &session.unpacking(step))?;
            let root = checkout
                .root_dir()
                .try_clone()
                .map_err(|e| StoreError::io("open", "tree", e))?;
            Ok(Files {
                view: session.store.chain_view(layers)?,
                root,
                _checkout: checkout,
            })
        };
        let result = open().map_err(|source| BuildError::StepSetup {
            step: name,
            origin: None,
            source: Box::new(source),
        })?;
        work(&result).map_err(|source| BuildError::Output {
            dest: dest.display().to_string(),
            source,
        })
    })
}

fn make_dir(dir: &Dir, name: &Path) -> std::io::Result<()> {
    if dir.symlink_metadata(name).is_ok_and(|m| m.is_dir()) {
        return dir.set_permissions(
            name,
            Permissions::from_std(std::fs::Permissions::from_mode(0o700)),
        );
    }
    let mut builder = DirBuilder::new();
    dir.create_dir_with(name, builder.mode(0o700))
}

/// Makes something under another name first, so that what was there before is replaced whole.
fn replace(
    dir: &Dir,
    name: &Path,
    make: impl FnOnce(&Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let new = name.with_file_name(format!(".stepwell-{}", std::process::id()));
    let _ = dir.remove_file(&new);
    make(&new)
        .and_then(|()| dir.rename(&new, dir, name))
        .inspect_err(|_| {
            let _ = dir.remove_file(&new);
        })
}

fn write_file(dir: &Dir, name: &Path, entry: &Entry, content: &mut File) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = dir.open_with(name, options.write(true).create_new(true).mode(0o600))?;
    std::io::copy(content, &mut file)?;
    let file = file.into_std();
    // Set-id bits mean nothing outside the image.
    file.set_permissions(std::fs::Permissions::from_mode(entry.mode & 0o777))?;
    let mtime = std::time::UNIX_EPOCH.checked_add(std::time::Duration::new(
        u64::try_from(entry.mtime.secs).unwrap_or(0),
        entry.mtime.nanos,
    ));
    mtime.map_or(Ok(()), |time| file.set_modified(time))
}
