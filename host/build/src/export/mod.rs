//! Writes the result: one table row for each kind of output.  Several outputs of one build share the layers; an image
//! that is the same for two outputs is made once.

mod archive;
mod files;
mod image;
mod push;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use stepwell_model::request::Output;
use stepwell_wasm::frontend::FrontendOutput;

use crate::builder::Exported;
use crate::error::BuildError;
use crate::session::{Layers, Session};

/// Writes everything that the request asks for; without any output the result stays in the store.
pub fn run(
    session: &Session<'_>,
    output: &FrontendOutput,
    layers: &Layers,
) -> Result<Vec<Exported>, BuildError> {
    let requested = if session.request.outputs.is_empty() {
        &[Output::Image {
            push: false,
            image: Default::default(),
        }][..]
    } else {
        &session.request.outputs
    };
    requested
        .iter()
        .map(|wanted| match wanted {
            Output::Image { push, image } => {
                let made = image::make(session, output, layers, image)?;
                if *push {
                    push::push(session, &made)?;
                }
                Ok(made.exported())
            }
            Output::Oci { dest, tar, image } => {
                let made = image::make(session, output, layers, image)?;
                archive::oci(session, &made, dest.as_deref(), *tar)?;
                Ok(made.exported())
            }
            Output::Docker { dest, image } => {
                let made = image::make(session, output, layers, image)?;
                archive::docker(session, &made, dest.as_deref())?;
                Ok(made.exported())
            }
            Output::Local { dest } => files::local(session, layers, dest).map(|()| Exported::Files),
            Output::Tar { dest } => {
                files::tar(session, layers, dest.as_deref()).map(|()| Exported::Files)
            }
        })
        .collect()
}

/// Writes a file whole or not at all; without `dest`, to standard output.
fn to_file(
    dest: Option<&Path>,
    work: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let Some(dest) = dest else {
        let mut out = std::io::stdout().lock();
        return work(&mut out).and_then(|()| out.flush());
    };
    let parent = dest
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let part = tempfile::Builder::new()
        .prefix(".stepwell-")
        .tempfile_in(parent)?;
    let mut out = BufWriter::with_capacity(1 << 18, part.as_file());
    work(&mut out)?;
    out.flush()?;
    drop(out);
    set_usual_mode(part.as_file())?;
    part.persist(dest).map(drop).map_err(|e| e.error)
}

/// Temporary files are the user's alone; a result is as readable as any other file.
fn set_usual_mode(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}
