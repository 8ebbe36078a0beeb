//! Pushes an image: its blobs at the same time, then the manifest under each name.

use stepwell_model::event::StepId;
use stepwell_model::{Digest, Reference};
use stepwell_registry::RegistryError;

use crate::error::BuildError;
use crate::export::image::Made;
use crate::session::Session;
use crate::uploads::Blob;

/// Pushes to the registries of all names.
pub fn push(session: &Session<'_>, made: &Made) -> Result<(), BuildError> {
    for name in &made.names {
        let step = session.uploads.step(session, name);
        step.carry_out(|step| push_one(session, made, name, step))?;
    }
    Ok(())
}

fn push_one(
    session: &Session<'_>,
    made: &Made,
    name: &Reference,
    step: StepId,
) -> Result<(), BuildError> {
    let (registry, runtime) = session.images.registry();
    let whole = made.whole();
    let manifest = || failed(name, format!("the manifest `{}`", whole.digest));
    if runtime
        .block_on(registry.has_manifest(name, &whole.digest))
        .map_err(manifest())?
    {
        return Ok(());
    }
    let mut blobs: Vec<(Digest, u64)> = made.layers.iter().map(|l| (l.digest, l.size)).collect();
    blobs.push((made.manifest.config.digest, made.config.len() as u64));
    let attestation = made.attestation.iter();
    blobs.extend(attestation.flat_map(|a| a.blobs().map(|(d, _)| (d.digest, d.size))));
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
    let put = |name: &Reference, media_type: &str, bytes: &[u8]| {
        let pushed = registry.push_manifest(name, media_type, bytes.to_vec().into());
        runtime.block_on(pushed).map_err(manifest()).map(drop)
    };
    let Some(attestation) = &made.attestation else {
        return put(name, made.media_type(), &made.bytes);
    };
    // What an index points at has to be there before it; the name is moved last.
    let by_digest = |digest: &Digest| {
        let (registry, repository) = (name.registry().to_owned(), name.repository().to_owned());
        Reference::with_digest(registry, repository, digest.to_string())
    };
    put(&by_digest(&made.digest), made.media_type(), &made.bytes)?;
    let [(about, bytes), (index, whole)] = attestation.documents();
    put(&by_digest(&about.digest), &about.media_type, bytes)?;
    put(name, &index.media_type, whole)
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
    if session.uploads.is_done(session, name, &digest) {
        return Ok(());
    }
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
    let blob = Blob::new(session, step, digest, size);
    runtime
        .block_on(blob.push(registry, name, &from))
        .map_err(failed(name, what))
}
