//! Makes the image of a build: its layers in the compression asked for, its configuration and its manifest, all in the store.

use std::sync::Arc;

use stepwell_image::manifest::{layer_type, media_type};
use stepwell_image::{
    Attestation, Descriptor, HistoryEntry, ImageBundle, ImageDocument, Manifest, config,
};
use stepwell_model::request::{ImageOptions, Provenance};
use stepwell_model::{Digest, Op, Reference, VertexId};
use stepwell_store::{Layer, LayerOptions};
use stepwell_wasm::frontend::FrontendOutput;

use crate::builder::{Exported, clock};
use crate::error::{BuildError, ImageError};
use crate::images::Image;
use crate::session::{Layers, Session};
use crate::{provenance, uploads};

/// An image that is ready to be written somewhere.
pub struct Made {
    /// Its names.
    pub names: Vec<Reference>,
    /// Digest of the manifest.
    pub digest: Digest,
    /// The manifest's bytes.
    pub bytes: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    /// Bytes of the configuration.
    pub config: Vec<u8>,
    /// Its layers, bottom first, as the manifest lists them.
    pub layers: Vec<Layer>,
    /// What is said of it.
    pub attestation: Option<Attestation>,
}

impl Made {
    /// What is told of it.
    pub fn exported(&self) -> Exported {
        let whole = self.whole();
        Exported::Image {
            manifest: whole.digest,
            media_type: whole.media_type,
            size: whole.size,
            config: self.manifest.config.digest,
            names: self.names.iter().map(Reference::whole).collect(),
        }
    }

    /// What its names lead to: its manifest, or the index with that and what is said of it.
    pub fn whole(&self) -> Descriptor {
        match &self.attestation {
            Some(attestation) => attestation.descriptor().clone(),
            None => Descriptor::new(self.media_type(), self.digest, self.bytes.len() as u64),
        }
    }

    /// Media type of the manifest.
    pub fn media_type(&self) -> &'static str {
        if self.manifest.docker {
            media_type::DOCKER_MANIFEST
        } else {
            media_type::OCI_MANIFEST
        }
    }
}

/// Makes the image.
pub fn make(
    session: &Session<'_>,
    output: &FrontendOutput,
    layers: &Layers,
    options: &ImageOptions,
) -> Result<Made, BuildError> {
    let layers = compressed(session, output, layers, options)?;
    let config = document(session, output, &layers)?.encode();
    let docker = options.docker_media_types;
    let manifest = Manifest {
        docker,
        config: Descriptor::of(
            if docker {
                media_type::DOCKER_CONFIG
            } else {
                media_type::OCI_CONFIG
            },
            &config,
        ),
        layers: layers
            .iter()
            .map(|l| Descriptor::new(layer_type(l.compression, docker), l.digest, l.size))
            .collect(),
        annotations: options.annotations.iter().cloned().collect(),
    };
    let bytes = manifest.encode();
    session.store.blobs().put(&config)?;
    let digest = session.store.blobs().put(&bytes)?;
    let mut made = Made {
        names: uploads::names(session.request, options)?,
        digest,
        bytes,
        manifest,
        config,
        layers,
        attestation: None,
    };
    if let Some(wanted) = &session.request.provenance {
        made.attestation = Some(attested(session, output, &made, wanted)?);
    }
    Ok(made)
}

/// Says how an image was made, and keeps the documents with that.
fn attested(
    session: &Session<'_>,
    output: &FrontendOutput,
    made: &Made,
    wanted: &Provenance,
) -> Result<Attestation, BuildError> {
    let platform = &session.request.platform;
    let predicate = session
        .attested
        .get_or_init(|| provenance::predicate(session, output.result, wanted, clock()));
    let statement = provenance::statement(predicate, &made.names, platform, &made.digest);
    let bundle = ImageBundle {
        manifest: &made.manifest,
        config: &made.config,
        platform,
        names: &[],
        attestation: None,
    };
    let attestation = Attestation::new(bundle.image(), provenance::PREDICATE_TYPE, statement);
    for (_, bytes) in attestation
        .blobs()
        .into_iter()
        .chain(attestation.documents())
    {
        session.store.blobs().put(bytes)?;
    }
    Ok(attestation)
}

/// The layers of the base stay as they are; new ones are in the compression asked for already, unless an earlier build made
/// them with another one.
fn compressed(
    session: &Session<'_>,
    output: &FrontendOutput,
    layers: &Layers,
    options: &ImageOptions,
) -> Result<Vec<Layer>, BuildError> {
    let base = base(session, output.result).map_or(0, |image| image.1);
    let wanted = LayerOptions {
        compression: options.compression,
        level: options.level,
        ..session.layer_options()
    };
    let convert = |(index, layer): (usize, &Layer)| {
        if index < base || layer.compression == wanted.compression {
            Ok(*layer)
        } else {
            session.store.layer_in(layer, &wanted)
        }
    };
    Ok(layers
        .iter()
        .enumerate()
        .map(convert)
        .collect::<Result<_, _>>()?)
}

/// The image that a vertex builds on, following the inputs that are changed, and how many layers it has.
fn base(session: &Session<'_>, vertex: Option<VertexId>) -> Option<(Arc<Image>, usize)> {
    let vertex = vertex?;
    match &session.graph.vertex(vertex).op {
        Op::Image(op) => {
            let image = session.images.get(op).ok()?;
            let count = session.images.layers(op).ok()?.len();
            Some((image, count))
        }
        _ => base(session, uploads::base_of(session.graph, vertex)),
    }
}

/// The configuration: the frontend's, with the base's history in front of the new one.  Its time is that of the result, which
/// is an earlier one when all was reused: a build without changes gives the same digest.
fn document(
    session: &Session<'_>,
    output: &FrontendOutput,
    layers: &[Layer],
) -> Result<ImageDocument, BuildError> {
    let base = base(session, output.result).map(|(image, _)| image);
    let made = session
        .created
        .get()
        .map(|secs| config::time(*secs as i64, 0));
    let created = match session.source_date_epoch {
        Some(secs) => Some(config::time(secs, 0)),
        None => made.or_else(|| base.as_ref().and_then(|b| b.created.clone())),
    };
    let mut history = base.map(|b| b.history.clone()).unwrap_or_default();
    history.extend(
        output
            .history
            .iter()
            .map(|line| HistoryEntry::new(line, created.clone())),
    );
    let mut document = ImageDocument {
        config: output.config.clone(),
        created,
        history,
        ..ImageDocument::scratch(session.request.platform.clone())
    };
    document.diff_ids = layers.iter().map(|l| l.diff_id).collect();
    if let Some(secs) = session.source_date_epoch {
        document
            .clamp_times(secs)
            .map_err(|source| ImageError::Manifest {
                reference: "(result)".to_owned(),
                source,
            })?;
    }
    Ok(document)
}
