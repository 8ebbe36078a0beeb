//! What every entry of a tree was when its index was written.
//!
//! # Format
//! Magic `SWIX1\n`, generation (the same number as in `state`), the side table as JSON, number of nodes, then the
//! nodes in order of their paths (a directory, then all that is in it): the entry, whether there is a digest and the
//! digest, inode, seconds and nanoseconds of the ctime; encoded as `codec` says.

use std::cmp::Ordering;

use stepwell_image::Entry;
use stepwell_model::Digest;
use stepwell_sys::meta::SideTable;

use crate::codec::{Decoder, Encoder};

const MAGIC: &[u8] = b"SWIX1\n";

/// A time of change: seconds and nanoseconds.
pub type Ctime = (i64, u32);

/// What tells that an inode was not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Number of the inode; 0 where nothing is known of it.
    pub ino: u64,
    /// Time of its last change.
    pub ctime: Ctime,
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexNode {
    /// What it is; never a hard link: other names of the same file have the same inode.
    pub entry: Entry,
    /// Digest of the content of a regular file.
    pub digest: Option<Digest>,
    /// How to tell that it was not touched.
    pub stamp: Stamp,
}

/// All entries of a tree, the root first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    /// Number that `state` has too, so that the two belong together.
    pub generation: u64,
    /// Metadata of inodes that take no extended attribute.
    pub side: SideTable,
    /// The entries, in the order of [`order`].
    pub nodes: Vec<IndexNode>,
}

/// The order of paths in which a directory is followed by all that is in it, names by their bytes.
pub fn order(a: &[u8], b: &[u8]) -> Ordering {
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    match (a.get(same), b.get(same)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(b'/'), Some(_)) => Ordering::Less,
        (Some(_), Some(b'/')) => Ordering::Greater,
        (Some(x), Some(y)) => x.cmp(y),
    }
}

impl Index {
    /// For each node, the number of the first one behind all that is in it.
    pub(crate) fn ends(&self) -> Vec<u32> {
        let mut ends = vec![self.nodes.len() as u32; self.nodes.len()];
        let mut open: Vec<(usize, usize)> = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let path = &node.entry.path;
            while let Some((above, length)) = open.last().copied() {
                let is_below = length == 0
                    || path.get(length) == Some(&b'/')
                        && path[..length] == self.nodes[above].entry.path[..];
                if is_below {
                    break;
                }
                ends[above] = number as u32;
                open.pop();
            }
            open.push((number, path.len()));
        }
        ends
    }

    /// The newest ctime.
    pub(crate) fn newest(&self) -> Ctime {
        self.nodes
            .iter()
            .map(|n| n.stamp.ctime)
            .max()
            .unwrap_or_default()
    }

    /// Writes the format that the head of this file describes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new(MAGIC);
        out.number(self.generation);
        // A table of numbers and byte strings always has a JSON text.
        out.bytes(&serde_json::to_vec(&self.side).unwrap_or_default());
        out.number(self.nodes.len() as u64);
        for node in &self.nodes {
            out.entry(&node.entry);
            out.optional_digest(node.digest.as_ref());
            out.number(node.stamp.ino);
            out.signed(node.stamp.ctime.0);
            out.number(node.stamp.ctime.1.into());
        }
        out.finish()
    }

    /// Reads it back; `None` where it is damaged.
    pub fn decode(file: &[u8]) -> Option<Self> {
        let mut rest = Decoder::new(MAGIC, file)?;
        let generation = rest.number()?;
        let side = serde_json::from_slice(rest.bytes()?).ok()?;
        let count = usize::try_from(rest.number()?).ok()?;
        let mut nodes = Vec::with_capacity(count.min(rest.left()));
        for _ in 0..count {
            let entry = rest.entry()?;
            let digest = rest.optional_digest()?;
            let stamp = Stamp {
                ino: rest.number()?,
                ctime: (rest.signed()?, rest.small()?),
            };
            nodes.push(IndexNode {
                entry,
                digest,
                stamp,
            });
        }
        rest.is_empty().then_some(Self {
            generation,
            side,
            nodes,
        })
    }
}

#[cfg(test)]
mod tests {
    use stepwell_image::Kind;

    use super::*;

    fn index(paths: &[&str]) -> Index {
        let node = |path: &&str| IndexNode {
            entry: Entry::new(*path, Kind::Dir, 0o755),
            digest: Some(Digest::of(path.as_bytes())),
            stamp: Stamp {
                ino: 7,
                ctime: (-1, 5),
            },
        };
        Index {
            generation: 3,
            nodes: paths.iter().map(node).collect(),
            ..Index::default()
        }
    }

    #[test]
    fn a_directory_is_followed_by_what_is_in_it() {
        let mut paths = ["a-b", "a/b", "", "a", "a/b/c", "a/bc", "a.b"];
        paths.sort_by(|a, b| order(a.as_bytes(), b.as_bytes()));
        assert_eq!(paths, ["", "a", "a/b", "a/b/c", "a/bc", "a-b", "a.b"]);
        assert_eq!(index(&paths).ends(), [7, 5, 4, 4, 5, 6, 7]);
    }

    #[test]
    fn comes_back() {
        let index = index(&["", "a", "a/b"]);
        assert_eq!(Index::decode(&index.encode()), Some(index.clone()));
        assert_eq!(Digest::of(&index.encode()).short(), "81e694a29701");
        assert_eq!(Index::decode(b"SWIX1\n"), None);
    }
}
