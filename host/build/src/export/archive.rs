//! Writes an image as an OCI layout (`type=oci`) or as an archive for `docker load` (`type=docker`).

use std::io::Read;
use std::path::Path;

use stepwell_image::archive::ImageBundle;
use stepwell_image::blob::BlobSource;
use stepwell_image::{docker_archive, layout};
use stepwell_model::event::StepId;
use stepwell_model::{Digest, Reference};

use crate::error::BuildError;
use crate::export::image::Made;
use crate::session::Session;

/// Writes an OCI layout, as a directory or a tar archive.
pub fn oci(
    session: &Session<'_>,
    made: &Made,
    dest: Option<&Path>,
    tar: bool,
) -> Result<(), BuildError> {
    step(session, made, dest, |image, source| match dest {
        Some(dir) if !tar => layout::write_dir(dir, image, source).map_err(std::io::Error::other),
        _ => super::to_file(dest, |out| {
            layout::write_tar(out, image, source)
                .map(drop)
                .map_err(std::io::Error::other)
        }),
    })
}

/// Writes an archive for `docker load`.
pub fn docker(session: &Session<'_>, made: &Made, dest: Option<&Path>) -> Result<(), BuildError> {
    step(session, made, dest, |image, source| {
        super::to_file(dest, |out| {
            docker_archive::write(out, image, source)
                .map(drop)
                .map_err(std::io::Error::other)
        })
    })
}

/// Opens blobs of the store.
struct Blobs<'a>(&'a Session<'a>);

impl BlobSource for Blobs<'_> {
    fn open(&self, digest: &Digest) -> std::io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(
            self.0
                .store
                .blobs()
                .open(digest, None)
                .map_err(std::io::Error::other)?,
        ))
    }
}

/// Fetches what is missing, writes, and tells how it went.
fn step(
    session: &Session<'_>,
    made: &Made,
    dest: Option<&Path>,
    write: impl FnOnce(&ImageBundle<'_>, &dyn BlobSource) -> std::io::Result<()>,
) -> Result<(), BuildError> {
    let dest = dest.map_or_else(|| "-".to_owned(), |d| d.display().to_string());
    session.extra_step(format!("writing the image to {dest}"), |step| {
        let names = prepared(session, made, step, &dest)?;
        let image = ImageBundle {
            manifest: &made.manifest,
            config: &made.config,
            platform: &session.request.platform,
            names: &names,
            attestation: made.attestation.as_ref(),
        };
        let dest = dest.clone();
        write(&image, &Blobs(session)).map_err(|source| BuildError::Output { dest, source })
    })
}

fn prepared(
    session: &Session<'_>,
    made: &Made,
    step: StepId,
    dest: &str,
) -> Result<Vec<String>, BuildError> {
    session
        .images
        .fetch(&made.layers, session, step)
        .map_err(|source| BuildError::StepSetup {
            step: format!("writing the image to {dest}"),
            origin: None,
            source: Box::new(source),
        })?;
    Ok(made.names.iter().map(Reference::whole).collect())
}
