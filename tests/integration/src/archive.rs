//! Reads and writes layers as archives, to compare what no unprivileged unpacking can hold: device nodes, owners, attributes,
//! fractions of seconds.
//!
//! On purpose no code of the product: a reader that shares a writer's mistake would not see it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use stepwell_test_support::cmd::output;

const BLOCK: usize = 512;

/// One entry of an archive.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Path without a slash at its ends.
    pub path: String,
    /// As in the header: `0` file, `1` hard link, `2` symbolic link, `3` and `4` devices, `5` directory, `6` pipe.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u64, u64),
    /// Target of a link.
    pub link: String,
    /// Numbers of a device.
    pub device: (u64, u64),
    /// Time of the last change: seconds, and a fraction where there is one.
    pub mtime: String,
    /// Extended attributes; values in hexadecimal digits.
    pub xattrs: BTreeMap<String, String>,
    /// The content.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            mode,
            owner,
            link,
            device,
            mtime,
            xattrs,
            ..
        } = self;
        write!(
            f,
            "{kind} {mode:o} {owner:?} `{link}` {device:?} {mtime} {xattrs:?} {} bytes",
            self.content.len()
        )
    }
}

/// What the layers of an image in an OCI layout make on top of each other, by path.
pub fn merged(layout: &Path) -> BTreeMap<String, Entry> {
    let read = |digest: &Value| {
        let hex = digest.as_str().and_then(|d| d.strip_prefix("sha256:"));
        layout.join("blobs/sha256").join(hex.expect("a digest"))
    };
    let json = |path: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(path).expect("a document")).expect("JSON")
    };
    let index = json(&layout.join("index.json"));
    let manifest = json(&read(&index["manifests"][0]["digest"]));
    let mut tree = BTreeMap::new();
    for layer in manifest["layers"].as_array().expect("layers") {
        let blob = read(&layer["digest"]);
        let tar = output(
            Command::new("gzip")
                .arg("-dc")
                .stdin(Stdio::null())
                .arg(blob),
        );
        lay(&mut tree, entries(&tar.expect("gzip runs").stdout));
    }
    tree
}

fn lay(tree: &mut BTreeMap<String, Entry>, layer: Vec<Entry>) {
    let beneath =
        |dir: &str, path: &str| path.strip_prefix(dir).is_some_and(|r| r.starts_with('/'));
    for entry in &layer {
        let (dir, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
        let Some(removed) = name.strip_prefix(".wh.") else {
            continue;
        };
        let gone = format!("{dir}/{removed}");
        let gone = gone.trim_start_matches('/');
        match removed {
            ".wh..opq" => tree.retain(|path, _| !beneath(dir, path)),
            _ => tree.retain(|path, _| path != gone && !beneath(gone, path)),
        }
    }
    for entry in layer {
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        if name.starts_with(".wh.") {
            continue;
        }
        if entry.kind != '5' {
            tree.retain(|path, _| !beneath(&entry.path, path));
        }
        tree.insert(entry.path.clone(), entry);
    }
}

/// The entries of an archive: ustar, with pax headers for single entries.
pub fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut extended = BTreeMap::<String, Vec<u8>>::new();
    let mut at = 0;
    while let Some(header) = tar
        .get(at..at + BLOCK)
        .filter(|h| h.iter().any(|b| *b != 0))
    {
        let mut size = usize::try_from(number(&header[124..136])).expect("a size");
        let kind = header[156] as char;
        if let Some(longer) = extended.get("size").filter(|_| kind != 'x') {
            size = String::from_utf8_lossy(longer).parse().expect("a size");
        }
        let content = tar[at + BLOCK..at + BLOCK + size].to_vec();
        at += BLOCK + size.next_multiple_of(BLOCK);
        match kind {
            'x' => extended = records(&content),
            _ => entries.push(entry(header, std::mem::take(&mut extended), content)),
        }
    }
    entries
}

fn entry(header: &[u8], extended: BTreeMap<String, Vec<u8>>, content: Vec<u8>) -> Entry {
    let text = |from: usize, to: usize| {
        let bytes = &header[from..to];
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let said = |key: &str| {
        extended
            .get(key)
            .map(|v| String::from_utf8_lossy(v).into_owned())
    };
    let id = |key, from| {
        said(key).map_or(number(&header[from..from + 8]), |v| {
            v.parse().expect("an id")
        })
    };
    let prefix = text(345, 500);
    let short = if prefix.is_empty() {
        text(0, 100)
    } else {
        format!("{prefix}/{}", text(0, 100))
    };
    let xattrs = extended.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix("SCHILY.xattr.")?;
        Some((
            name.to_owned(),
            value.iter().map(|b| format!("{b:02x}")).collect(),
        ))
    });
    Entry {
        path: said("path")
            .unwrap_or(short)
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned(),
        kind: if header[156] == 0 {
            '0'
        } else {
            header[156] as char
        },
        mode: number(&header[100..108]) as u32 & 0o7777,
        owner: (id("uid", 108), id("gid", 116)),
        link: said("linkpath").unwrap_or_else(|| text(157, 257)),
        device: (number(&header[329..337]), number(&header[337..345])),
        mtime: said("mtime").unwrap_or_else(|| number(&header[136..148]).to_string()),
        xattrs: xattrs.collect(),
        content,
    }
}

/// An octal number, or one in base 256.
fn number(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        return field[1..].iter().fold(0, |n, b| n << 8 | u64::from(*b));
    }
    let text = String::from_utf8_lossy(field);
    let text = text.trim_matches(|c: char| c == '\0' || c == ' ');
    u64::from_str_radix(if text.is_empty() { "0" } else { text }, 8).expect("an octal number")
}

/// The records of a pax header: `LENGTH KEY=VALUE\n`.
fn records(mut text: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut records = BTreeMap::new();
    while let Some(space) = text.iter().position(|b| *b == b' ') {
        let length: usize = String::from_utf8_lossy(&text[..space])
            .parse()
            .expect("a length");
        let record = &text[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').expect("a record");
        let key = String::from_utf8_lossy(&record[..equals]).into_owned();
        records.insert(key, record[equals + 1..].to_vec());
        text = &text[length..];
    }
    records
}

/// Writes an archive.
pub fn write(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let mut extended = Vec::new();
        for (name, hex) in &entry.xattrs {
            let digits: Vec<u8> = hex.bytes().collect();
            let byte = |pair: &[u8]| {
                u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("a byte")
            };
            record(
                &mut extended,
                &format!("SCHILY.xattr.{name}"),
                &digits.chunks(2).map(byte).collect::<Vec<_>>(),
            );
        }
        if entry.mtime.contains('.') {
            record(&mut extended, "mtime", entry.mtime.as_bytes());
        }
        if !extended.is_empty() {
            let pax = Entry {
                path: "pax".to_owned(),
                kind: 'x',
                mode: 0o644,
                content: extended,
                ..Entry::default()
            };
            write_one(&mut out, &pax);
        }
        write_one(&mut out, entry);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let length = (1..)
        .map(|digits| rest + digits)
        .find(|l| l.to_string().len() + rest == *l);
    out.extend_from_slice(format!("{} {key}=", length.expect("a length")).as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn write_one(out: &mut Vec<u8>, entry: &Entry) {
    let mut header = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, &entry.path);
    put(100, &format!("{:07o}", entry.mode));
    put(108, &format!("{:07o}", entry.owner.0));
    put(116, &format!("{:07o}", entry.owner.1));
    put(124, &format!("{:011o}", entry.content.len()));
    let seconds = entry
        .mtime
        .split('.')
        .next()
        .and_then(|s| s.parse::<u64>().ok());
    put(136, &format!("{:011o}", seconds.unwrap_or(0)));
    put(148, "        ");
    put(156, &entry.kind.to_string());
    put(157, &entry.link);
    put(257, "ustar\x0000");
    put(329, &format!("{:07o}", entry.device.0));
    put(337, &format!("{:07o}", entry.device.1));
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&entry.content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}
