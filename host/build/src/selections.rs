//! Lists of the files that steps took from contexts, kept by their digest so that `explain` can name the ones that changed.
//!
//! `selections/HEX` in the store's directory: a line `DIGEST PATH` for each file.  A list that is missing costs nothing but
//! the names.

use std::collections::BTreeMap;

use stepwell_model::VertexId;

use crate::error::BuildError;
use crate::session::Session;

/// Most files that are named.
const NAMED: usize = 10;

/// Keeps the lists of the files that a vertex took from contexts.
pub fn keep(session: &Session<'_>, vertex: VertexId) -> Result<(), BuildError> {
    for (input, digest) in session.selected_by(vertex) {
        let lines: Vec<_> = session
            .listing(vertex, input)?
            .into_iter()
            .map(|(path, digest)| format!("{digest} {path}\n"))
            .collect();
        std::fs::create_dir_all(session.store.directory().join("selections")).map_err(
            |source| BuildError::Setup {
                operation: "keep the list of copied files",
                source,
            },
        )?;
        session
            .store
            .publish(&name(&digest.to_string()), lines.concat().as_bytes())?;
    }
    Ok(())
}

/// Says which files differ between the list `before` and what the vertex takes from its input now.
pub fn changes(session: &Session<'_>, vertex: VertexId, input: u32, before: &str) -> Vec<String> {
    let unnamed = || vec!["the files that it takes changed".to_owned()];
    let Ok(text) = std::fs::read_to_string(session.store.directory().join(name(before))) else {
        return unnamed();
    };
    let Ok(now) = session.listing(vertex, input) else {
        return unnamed();
    };
    let before: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|l| l.split_once(' ').map(|(digest, path)| (path, digest)))
        .collect();
    let now: BTreeMap<String, String> = now
        .into_iter()
        .map(|(path, digest)| (path, digest.to_string()))
        .collect();
    let gone = before
        .keys()
        .filter(|path| !now.contains_key(**path))
        .map(|path| format!("file `{path}` is gone"));
    let other = now
        .iter()
        .filter_map(|(path, digest)| match before.get(path.as_str()) {
            None => Some(format!("file `{path}` is new")),
            Some(was) if was != digest => Some(format!("file `{path}` changed")),
            Some(_) => None,
        });
    let mut all: Vec<_> = other.chain(gone).collect();
    if all.len() > NAMED {
        let more = all.len() - NAMED;
        all.truncate(NAMED);
        all.push(format!("and {more} more files"));
    }
    if all.is_empty() { unnamed() } else { all }
}

fn name(digest: &str) -> String {
    format!("selections/{}", digest.trim_start_matches("sha256:"))
}
