//! Writes OCI layouts, as directories and as tars.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use super::{IMAGE_NAME, Layout, LayoutError, MARKER, MARKER_TEXT, REF_NAME, failed};
use crate::archive::{Archive, Blobs, ImageBundle, blob_path, open, tag};
use crate::blob::BlobSource;
use crate::layer::WriteError;
use crate::manifest::{Descriptor, Index};

/// Writes a tar of a layout to `out` and returns it.
///
/// # Errors
/// The output cannot be written, or a blob cannot be read or is not what its descriptor says.
pub fn write_tar<W: Write>(
    out: W,
    image: &ImageBundle<'_>,
    source: &dyn BlobSource,
) -> Result<W, WriteError> {
    let mut archive = Archive::new(out);
    archive.blobs(&image.blobs(), source)?;
    archive.json("index.json", &index_of(image).encode())?;
    archive.json(MARKER, MARKER_TEXT)?;
    archive.finish()
}

/// The index of a layout with one image: a descriptor for each name, or one without.
pub(crate) fn index_of(image: &ImageBundle<'_>) -> Index {
    let mut manifests = Vec::new();
    for name in image.names {
        let mut descriptor = image.descriptor();
        descriptor
            .annotations
            .insert(IMAGE_NAME.into(), name.clone());
        if let Some((_, tag)) = tag(name) {
            descriptor
                .annotations
                .insert(REF_NAME.into(), tag.to_owned());
        }
        manifests.push(descriptor);
    }
    if manifests.is_empty() {
        manifests.push(image.descriptor());
    }
    Index {
        docker: false,
        manifests,
        annotations: BTreeMap::new(),
    }
}

/// Writes a layout directory, or adds the image to the layout that is there; images that had the same name lose it.
///
/// # Errors
/// See [`LayoutError`].  A directory that was not there is not there then either.
pub fn write_dir(
    dest: &Path,
    image: &ImageBundle<'_>,
    source: &dyn BlobSource,
) -> Result<(), LayoutError> {
    if occupied(dest)? {
        return add(dest, image, source);
    }
    let parent = match dest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(failed("create", parent))?;
    let temporary = tempfile::Builder::new()
        .prefix(".stepwell-layout-")
        .tempdir_in(parent);
    let temporary = temporary.map_err(failed("create a directory in", parent))?;
    // One deeper, because the temporary directory itself is for its owner only.
    let layout = temporary.path().join("layout");
    fill(&layout, &image.blobs(), source)?;
    put(&layout, MARKER, MARKER_TEXT)?;
    put(&layout, "index.json", &index_of(image).encode())?;
    match fs::rename(&layout, dest) {
        // Somebody else was faster.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
            ) =>
        {
            add(dest, image, source)
        }
        other => other.map_err(failed("create", dest)),
    }
}

/// Whether something is in the directory.
fn occupied(dest: &Path) -> Result<bool, LayoutError> {
    match fs::read_dir(dest) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(LayoutError::Occupied {
            path: dest.to_owned(),
        }),
        other => Ok(other.map_err(failed("read", dest))?.next().is_some()),
    }
}

fn add(dest: &Path, image: &ImageBundle<'_>, source: &dyn BlobSource) -> Result<(), LayoutError> {
    let marker = dest.join(MARKER);
    let Ok(marker) = File::open(&marker) else {
        return Err(LayoutError::Occupied {
            path: dest.to_owned(),
        });
    };
    // Two that change the index at once would lose one image.  Released when the file is closed.
    marker.lock().map_err(failed("lock", dest))?;
    let mut index = Layout::open(dest)?.index;
    fill(dest, &image.blobs(), source)?;
    let added = index_of(image);
    let named = |old: &Descriptor, new: &Descriptor| {
        let same = |key| {
            old.annotations
                .get(key)
                .is_some_and(|name| new.annotations.get(key) == Some(name))
        };
        same(IMAGE_NAME) || same(REF_NAME) || old == new
    };
    index
        .manifests
        .retain(|old| !added.manifests.iter().any(|new| named(old, new)));
    index.manifests.extend(added.manifests);
    put(dest, "index.json", &index.encode())
}

/// Writes the blobs that are missing.
fn fill(layout: &Path, blobs: &Blobs<'_>, source: &dyn BlobSource) -> Result<(), LayoutError> {
    let dir = layout.join("blobs/sha256");
    fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
    for (descriptor, own) in blobs.values() {
        let path = layout.join(blob_path(&descriptor.digest));
        if fs::metadata(&path).is_ok_and(|file| file.len() == descriptor.size) {
            continue;
        }
        let digest = descriptor.digest;
        let content = open(descriptor, own.as_ref(), source);
        let mut content = content.map_err(|source| LayoutError::Blob { digest, source })?;
        replace(&path, |file| {
            copy(&mut content, file).map_err(|fault| match fault {
                Fault::Read(source) => LayoutError::Blob { digest, source },
                Fault::Write(source) => failed("write", &path)(source),
            })
        })?;
    }
    Ok(())
}

enum Fault {
    Read(io::Error),
    Write(io::Error),
}

/// Copies, and knows which side failed.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<(), Fault> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read]).map_err(Fault::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Read(error)),
        }
    }
}

fn put(layout: &Path, name: &str, content: &[u8]) -> Result<(), LayoutError> {
    let path = layout.join(name);
    replace(&path, |file| {
        file.write_all(content).map_err(failed("write", &path))
    })
}

/// Writes a file under another name and renames it, so that it is there whole or not at all.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = path.parent().unwrap_or(Path::new("."));
    // As a file that open(2) makes; the process's umask is applied to it.
    let mode = fs::Permissions::from_mode(0o666);
    let temporary = tempfile::Builder::new()
        .prefix(".stepwell-")
        .permissions(mode)
        .tempfile_in(dir);
    let mut temporary = temporary.map_err(failed("create a file in", dir))?;
    write(temporary.as_file_mut())?;
    temporary
        .persist(path)
        .map_err(|error| failed("create", path)(error.error))?;
    Ok(())
}
