//! Whiteouts: how a layer says that something of the layers below is gone (OCI image-spec, layer.md).

use crate::layer::{Entry, Kind, Mtime};

/// What the names of all whiteouts begin with.
pub const PREFIX: &[u8] = b".wh.";

/// Name of the marker that hides everything that the layers below have in its directory.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// What begins so belongs to AUFS (`.wh..wh.plnk`, `.wh..wh.aufs`) and means nothing, [`OPAQUE`] apart.
const RESERVED: &[u8] = b".wh..wh.";

/// What an entry of a layer means by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marker {
    /// It is an entry like any other.
    Entry,
    /// What the layers below have at this path is gone.
    Removed(Vec<u8>),
    /// All that the layers below have in this directory is gone; the directory itself stays.
    Opaque(Vec<u8>),
    /// Book-keeping of AUFS, to be ignored.
    Ignored,
}

/// Says what the path of an entry means.  Any element counts: what is *below* a whiteout or below AUFS'
/// directories is ignored.
pub fn classify(path: &[u8]) -> Marker {
    let (dir, name) = split(path);
    if dir.split(|b| *b == b'/').any(|e| e.starts_with(PREFIX)) {
        return Marker::Ignored;
    }
    match name.strip_prefix(PREFIX) {
        None => Marker::Entry,
        Some(_) if name == OPAQUE => Marker::Opaque(dir.to_vec()),
        Some(_) if name.starts_with(RESERVED) => Marker::Ignored,
        // `.wh.`, `.wh..` and `.wh...` would name the directory itself or its parent.
        Some(b"" | b"." | b"..") => Marker::Ignored,
        Some(hidden) => Marker::Removed(join(dir, hidden)),
    }
}

/// Whether a file of this name cannot be in a layer, because it would be read as a whiteout.
pub fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// The entry that removes `path`.
pub fn removed(path: &[u8], mtime: Mtime) -> Entry {
    let (dir, name) = split(path);
    marker(join(dir, &[PREFIX, name].concat()), mtime)
}

/// The entry that hides what the layers below have in `dir`.
pub fn opaque(dir: &[u8], mtime: Mtime) -> Entry {
    marker(join(dir, OPAQUE), mtime)
}

fn marker(path: Vec<u8>, mtime: Mtime) -> Entry {
    Entry {
        mtime,
        // The mode that docker and BuildKit write; nobody unpacks it.
        ..Entry::new(path, Kind::File { size: 0 }, 0)
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_the_specification_says() {
        let removed = |p: &str| Marker::Removed(p.as_bytes().to_vec());
        let opaque = |p: &str| Marker::Opaque(p.as_bytes().to_vec());
        for (path, want) in [
            ("a/b", Marker::Entry),
            (".whisky", Marker::Entry),
            (".wh.a", removed("a")),
            ("d/.wh.a", removed("d/a")),
            ("d/.wh..a", removed("d/.a")),
            ("d/.wh..wh..opq", opaque("d")),
            (".wh..wh..opq", opaque("")),
            (".wh..wh.plnk/1.2", Marker::Ignored),
            ("d/.wh..wh.aufs", Marker::Ignored),
            (".wh.a/b", Marker::Ignored),
            (".wh.", Marker::Ignored),
            ("d/.wh..", Marker::Ignored),
            ("d/.wh...", Marker::Ignored),
        ] {
            assert_eq!(classify(path.as_bytes()), want, "{path}");
        }
    }

    #[test]
    fn what_is_built_is_read_back() {
        let t = Mtime::default();
        assert_eq!(
            classify(&removed(b"d/x", t).path),
            Marker::Removed(b"d/x".to_vec())
        );
        assert_eq!(
            classify(&opaque(b"d", t).path),
            Marker::Opaque(b"d".to_vec())
        );
        assert_eq!(classify(&opaque(b"", t).path), Marker::Opaque(Vec::new()));
    }
}
