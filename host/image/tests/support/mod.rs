//! Shared by the tests: sample entries, and writing and reading a layer in memory.
#![allow(dead_code, reason = "each test uses some of it")]

use std::io::Read;

use stepwell_image::compress::DecodeLimits;
use stepwell_image::layer::{ReadError, ReadLimits};
use stepwell_image::{Entry, Kind, LayerOptions, LayerReader, LayerWriter, Mtime, Written};
use stepwell_model::request::Compression;

pub type Item = (Entry, Vec<u8>);

/// A generator of numbers that look random and are the same everywhere.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Bytes that compress about as well as text.
pub fn text(seed: u64, size: usize) -> Vec<u8> {
    let mut numbers = Numbers(seed | 1);
    let words: Vec<String> = (0..500)
        .map(|_| format!("{:x} ", numbers.next() >> 40))
        .collect();
    let mut bytes = Vec::with_capacity(size + 16);
    while bytes.len() < size {
        bytes.extend_from_slice(words[numbers.below(500) as usize].as_bytes());
    }
    bytes.truncate(size);
    bytes
}

pub fn file(path: impl Into<Vec<u8>>, content: &[u8]) -> Item {
    let size = content.len() as u64;
    (
        Entry::new(path, Kind::File { size }, 0o644),
        content.to_vec(),
    )
}

pub fn dir(path: impl Into<Vec<u8>>) -> Item {
    (Entry::new(path, Kind::Dir, 0o755), Vec::new())
}

/// One of everything that a layer can hold.
pub fn samples() -> Vec<Item> {
    let mut items = vec![dir(""), dir("dir"), dir("d\u{e9}")];
    items.push(file("dir/empty", b""));
    items.push(file("dir/file", b"content\n"));
    items.push(file("dir/block", &[7; 512]));
    items.push(file("d\u{e9}/\u{20ac}uro", b"unicode"));
    items.push(file(b"dir/latin-\xe9\xff".to_vec(), b"not utf-8"));
    items.push(file("dir/new\nline \\ \"quote\"", b"odd"));
    items.push(file(
        format!("dir/{}", "n".repeat(96)),
        b"exactly 100 bytes",
    ));
    items.push(file(format!("dir/{}", "n".repeat(97)), b"prefix and name"));
    items.push(file(
        format!("dir/{}", "n".repeat(250)),
        b"too long for ustar",
    ));
    items.extend([
        dir("a".repeat(120)),
        dir(format!("{}/{}", "a".repeat(120), "b".repeat(99))),
    ]);
    let deep = format!("{}/{}", "a".repeat(120), "b".repeat(99));
    items.push(file(format!("{deep}/{}", "c".repeat(99)), b"deep"));
    let links = [
        ("dir/sym", "../target".to_owned()),
        ("dir/abs", "/x//y/../z/".into()),
        ("dir/long", "t".repeat(300)),
    ];
    for (path, target) in links {
        let target = target.into_bytes();
        items.push((
            Entry::new(path, Kind::Symlink { target }, 0o777),
            Vec::new(),
        ));
    }
    let target = b"dir/latin-\xe9\xff".to_vec();
    items.push((
        Entry::new("dir/hard", Kind::Hardlink { target }, 0o644),
        Vec::new(),
    ));
    let (major, minor) = (1, 3);
    items.push((
        Entry::new("dir/null", Kind::Char { major, minor }, 0o666),
        Vec::new(),
    ));
    let (major, minor) = (259, 1_048_575);
    items.push((
        Entry::new("dir/disk", Kind::Block { major, minor }, 0o660),
        Vec::new(),
    ));
    items.push((Entry::new("dir/pipe", Kind::Fifo, 0o600), Vec::new()));
    metadata(&mut items);
    items
}

fn metadata(items: &mut Vec<Item>) {
    let mut tool = file("dir/setuid", b"#!\n");
    tool.0.mode = 0o6755;
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tool.0
        .xattrs
        .insert(b"security.capability".to_vec(), capability.to_vec());
    tool.0
        .xattrs
        .insert(b"user.text".to_vec(), b"a=b\nc".to_vec());
    tool.0.xattrs.insert(b"user.empty".to_vec(), Vec::new());
    items.push(tool);
    let mut sticky = dir("tmp");
    sticky.0.mode = 0o1777;
    items.push(sticky);
    let mut big = file("dir/big-ids", b"x");
    (big.0.uid, big.0.gid) = (4_000_000_000, 2_097_152);
    items.push(big);
    for (at, (secs, nanos)) in [
        (1_700_000_000, 123_456_789),
        (-1, 999_999_999),
        (0o77_777_777_777 + 1, 0),
    ]
    .iter()
    .enumerate()
    {
        let mut item = file(format!("dir/time-{at}"), b"t");
        item.0.mtime = Mtime {
            secs: *secs,
            nanos: *nanos,
        };
        items.push(item);
    }
}

pub fn options(compression: Compression, threads: usize) -> LayerOptions {
    LayerOptions {
        compression,
        threads,
        ..LayerOptions::default()
    }
}

pub fn write(items: &[Item], options: LayerOptions) -> Written<Vec<u8>> {
    let mut writer = LayerWriter::new(Vec::new(), options).unwrap();
    for (entry, content) in items {
        let mut content = content.as_slice();
        let content: Option<&mut dyn Read> =
            matches!(entry.kind, Kind::File { .. }).then_some(&mut content);
        writer.add(entry, content).unwrap();
    }
    writer.finish().unwrap()
}

pub fn read(bytes: &[u8], limits: ReadLimits) -> Result<Vec<Item>, ReadError> {
    let mut reader = LayerReader::compressed(bytes, limits, DecodeLimits::default()).unwrap();
    let mut items = Vec::new();
    while let Some((entry, mut content)) = reader.next_entry()? {
        let mut bytes = Vec::new();
        content
            .read_to_end(&mut bytes)
            .map_err(|error| error.downcast::<ReadError>().unwrap())?;
        items.push((entry, bytes));
    }
    Ok(items)
}

/// Runs a program that the set-up installs and returns its output.
pub fn tool(name: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(name).args(args).output();
    let output =
        output.unwrap_or_else(|error| panic!("`{name}` is needed (cargo xtask setup): {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
