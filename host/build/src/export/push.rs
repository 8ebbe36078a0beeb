//! Pushes an image: its blobs at the same time, then the manifest under each name.

use std::io::Read;
use std::sync::Arc;

use stepwell_model::event::StepId;
use stepwell_model::{Digest, Reference};
use stepwell_registry::{BlobSource, Progress, RegistryError};

use crate::error::BuildError;
use crate::export::image::Made;
use crate::session::Session;

/// Pushes to the registries of all names.
pub fn push(session: &Session<'_>, made: &Made) -> Result<(), BuildError> {
    for name in &made.names {
        session.extra_step(format!("pushing {}", name.whole()), |step| {
            push_one(session, made, name, step)
        })?;
    }
    Ok(())
}

fn push_one(
    session: &Session<'_>,
    made: &Made,
    name: &Reference,
    step: StepId,
) -> Result<(), BuildError> {
    let mut blobs: Vec<(Digest, u64)> = made.layers.iter().map(|l| (l.digest, l.size)).collect();
    blobs.push((made.manifest.config.digest, made.config.len() as u64));
    blobs.sort();
    blobs.dedup();
    std::thread::scope(|scope| {
        let pushes: Vec<_> = blobs
            .iter()
            .map(|(digest, size)| {
                scope.spawn(move || push_blob(session, made, name, step, *digest, *size))
            })
            .collect();
        pushes.into_iter().try_for_each(|p| {
            p.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let (registry, runtime) = session.images.registry();
    runtime
        .block_on(registry.push_manifest(name, made.media_type(), made.bytes.clone().into()))
        .map_err(failed(name, format!("the manifest `{}`", made.digest)))?;
    Ok(())
}

/// Says what could not be pushed, and to where.
fn failed(name: &Reference, what: String) -> impl FnOnce(RegistryError) -> BuildError {
    let name = name.whole();
    |source| BuildError::Push { name, what, source }
}

/// Pushes a blob that the registry does not have.  One of a base image that was never fetched may be in another repository of
/// the same registry, and is then taken from there; else it has to be fetched after all.
fn push_blob(
    session: &Session<'_>,
    made: &Made,
    name: &Reference,
    step: StepId,
    digest: Digest,
    size: u64,
) -> Result<(), BuildError> {
    let (registry, runtime) = session.images.registry();
    let is_config = digest == made.manifest.config.digest;
    let what = if is_config {
        "the configuration"
    } else {
        "layer"
    };
    let what = format!("{what} `{digest}`");
    let from: Vec<Reference> = session.images.repository_of(&digest).into_iter().collect();
    if !session.store.blobs().has(&digest, Some(size)) {
        let has = runtime.block_on(registry.has_blob(name, &digest));
        if has.map_err(failed(name, what.clone()))? {
            return Ok(());
        }
        let layers: Vec<_> = made
            .layers
            .iter()
            .filter(|l| l.digest == digest)
            .copied()
            .collect();
        session
            .images
            .fetch(&layers, session, step)
            .map_err(|source| BuildError::StepSetup {
                step: format!("pushing {}", name.whole()),
                origin: None,
                source: Box::new(source),
            })?;
    }
    let path = session.store.blobs().path(&digest);
    let source: BlobSource =
        Arc::new(move || Ok(Box::new(std::fs::File::open(&path)?) as Box<dyn Read + Send>));
    let progress = session.transfer(step, "push", digest, size);
    let told = progress.clone();
    // What was sent is not there yet: the registry may still refuse it, and then all is sent again.
    let sent: Progress = Arc::new(move |done| told(done.min(size.saturating_sub(1))));
    runtime
        .block_on(registry.push_blob(name, &digest, size, source, &from, sent))
        .map_err(failed(name, what))?;
    progress(size);
    Ok(())
}
