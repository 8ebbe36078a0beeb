//! One entry of a layer: a path, what is there, and its metadata.  Pure data; how it is encoded is in `header`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path below the root: no leading or trailing slash, no empty, `.` or `..` element, no NUL; any other byte
    /// may occur.  Empty means the root directory itself.
    #[serde(with = "text")]
    pub path: Vec<u8>,
    /// What is there.
    pub kind: Kind,
    /// Permission, set-id and sticky bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last modification.
    pub mtime: Mtime,
    /// Extended attributes: full name (`user.x`, `security.capability`) and value.
    #[serde(
        with = "text::map",
        default,
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where a file that was stored sparse has data: offset and length, ascending.  A hint for the unpacker:
    /// the content that is read beside an entry always has the holes filled with zeros.  The writer does not
    /// look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File {
        /// Its length in bytes, holes included.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Its text, as it is.
        #[serde(with = "text")]
        target: Vec<u8>,
    },
    /// Another name of an earlier entry.
    Hardlink {
        /// Path of that entry, below the root like [`Entry::path`].
        #[serde(with = "text")]
        target: Vec<u8>,
    },
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// A time: seconds since 1970 and nanoseconds (below 1,000,000,000) added to them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Mtime {
    /// Seconds; negative before 1970.
    pub secs: i64,
    /// Nanoseconds after `secs`.
    pub nanos: u32,
}

impl Mtime {
    /// A time in whole seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }

    /// Returns the earlier of this time and `secs` (`SOURCE_DATE_EPOCH`).
    pub fn clamp_to(self, secs: i64) -> Self {
        self.min(Self::from_secs(secs))
    }
}

impl Entry {
    /// An entry without owner, time and attributes: root's, 1970.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Mtime::default(),
            xattrs: BTreeMap::new(),
            sparse: None,
        }
    }

    /// Length of the content in bytes; 0 for everything that is not a regular file.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size } => size,
            _ => 0,
        }
    }

    /// Whether the entry is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir)
    }

    /// Last element of the path; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|b| *b == b'/').next().unwrap_or(&[])
    }

    /// The path for people, with a leading slash.
    pub fn display(&self) -> String {
        display_path(&self.path)
    }
}

/// A path of an entry for people: a leading slash, control bytes and invalid UTF-8 escaped.
pub fn display_path(path: &[u8]) -> String {
    format!("/{}", text::escape(path))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File { .. } => "file",
            Self::Dir => "directory",
            Self::Symlink { .. } => "symbolic link",
            Self::Hardlink { .. } => "hard link",
            Self::Char { .. } => "character device",
            Self::Block { .. } => "block device",
            Self::Fifo => "named pipe",
        })
    }
}

/// Bytes as text, for serde and for people: what is not printable UTF-8 becomes `\xHH`, and `\` becomes `\\`.
/// Every byte string has exactly one text, and the text reads back as the same bytes.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    /// Escapes `bytes`.
    pub fn escape(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => text.push_str("\\\\"),
                    c if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", c as u32)),
                    c => text.push(c),
                }
            }
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        text
    }

    /// Takes [`escape`] back; none where the text has an escape of another kind.
    pub fn unescape(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match (byte, tail) {
                (b'\\', [b'\\', tail @ ..]) => {
                    bytes.push(b'\\');
                    tail
                }
                (b'\\', [b'x', high, low, tail @ ..]) => {
                    let digit = |b: &u8| (*b as char).to_digit(16);
                    bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                    tail
                }
                (b'\\', _) => return None,
                (byte, tail) => {
                    bytes.push(byte);
                    tail
                }
            };
        }
        Some(bytes)
    }

    /// For `#[serde(with = …)]` on a `Vec<u8>`.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(bytes))
    }

    /// For `#[serde(with = …)]` on a `Vec<u8>`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        unescape(&text).ok_or_else(|| D::Error::custom("bad escape in a byte string"))
    }

    /// For `#[serde(with = …)]` on a `BTreeMap<Vec<u8>, Vec<u8>>`.
    pub mod map {
        use std::collections::BTreeMap;

        use serde::ser::SerializeMap as _;
        use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

        /// Writes a map of escaped texts.
        pub fn serialize<S: Serializer>(
            map: &BTreeMap<Vec<u8>, Vec<u8>>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            let mut out = serializer.serialize_map(Some(map.len()))?;
            for (key, value) in map {
                out.serialize_entry(&super::escape(key), &super::escape(value))?;
            }
            out.end()
        }

        /// Reads a map of escaped texts.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, D::Error> {
            BTreeMap::<String, String>::deserialize(deserializer)?
                .into_iter()
                .map(|(key, value)| Some((super::unescape(&key)?, super::unescape(&value)?)))
                .collect::<Option<_>>()
                .ok_or_else(|| D::Error::custom("bad escape in an extended attribute"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_json() {
        let mut entry = Entry::new(
            b"dir/\xff\x00\\x41 \xc3\xa9\n".to_vec(),
            Kind::File { size: 3 },
            0o644,
        );
        entry.xattrs.insert(
            b"security.capability".to_vec(),
            (0..=255).collect::<Vec<u8>>(),
        );
        entry.sparse = Some(vec![(0, 1)]);
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    }

    #[test]
    fn clamping_only_moves_times_back() {
        let late = Mtime { secs: 10, nanos: 5 };
        assert_eq!(late.clamp_to(10), Mtime::from_secs(10));
        assert_eq!(late.clamp_to(11), late);
    }
}
