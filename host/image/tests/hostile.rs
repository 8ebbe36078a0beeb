//! Layers that nobody should trust: each is refused with an error that says what and where, in bounded memory, or is
//! read as something harmless.

mod support;

use std::io::{self, Read};

use stepwell_image::compress::DecodeLimits;
use stepwell_image::layer::{ReadError, ReadFault, ReadLimits};
use stepwell_image::{Kind, LayerReader};
use support::{Numbers, file, options, read, samples, write};

/// A ustar header made by hand, with whatever is wanted in it.
#[derive(Clone)]
struct Raw([u8; 512]);

impl Raw {
    fn new(name: &[u8], flag: u8, size: u64) -> Self {
        let mut raw = Self([0; 512]);
        raw.put(0, name)
            .put(100, b"0000644\0")
            .put(108, b"0000000\0")
            .put(116, b"0000000\0");
        raw.put(124, format!("{size:011o}\0").as_bytes())
            .put(136, b"00000000000\0");
        raw.put(156, &[flag]).put(257, b"ustar\x0000");
        raw
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The header with its checksum, and content.
    fn with(&self, content: &[u8]) -> Vec<u8> {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = block.to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

fn entry(name: &[u8], flag: u8) -> Vec<u8> {
    Raw::new(name, flag, 0).with(b"")
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let bare = key.len() + value.len() + 3;
        let length = (1..8)
            .map(|digits| bare + digits)
            .find(|n| n.to_string().len() + bare == *n)
            .unwrap();
        body.extend(
            format!("{length} {key}=")
                .bytes()
                .chain(value.iter().copied())
                .chain([b'\n']),
        );
    }
    Raw::new(b"x", b'x', body.len() as u64).with(&body)
}

fn problem(bytes: &[u8]) -> ReadError {
    read(bytes, ReadLimits::default()).expect_err("was read")
}

fn paths(bytes: &[u8]) -> Vec<String> {
    let items = read(bytes, ReadLimits::default()).unwrap();
    items.iter().map(|(entry, _)| entry.display()).collect()
}

#[test]
fn paths_that_lead_out_are_refused() {
    for bad in ["..", "../x", "a/../../x", "a/..", "/..", "./../x", "a/../b"] {
        let error = problem(&entry(bad.as_bytes(), b'0'));
        assert!(matches!(error.fault, ReadFault::Path(_)), "{bad}: {error}");
        assert!(
            error.to_string().contains(bad) && error.to_string().contains("at byte 512"),
            "{error}"
        );
        let long = [pax(&[("path", bad.as_bytes())]), entry(b"ok", b'0')].concat();
        assert!(matches!(problem(&long).fault, ReadFault::Path(_)), "{bad}");
        let gnu = [
            Raw::new(b"././@LongLink", b'L', bad.len() as u64).with(bad.as_bytes()),
            entry(b"ok", b'0'),
        ]
        .concat();
        assert!(matches!(problem(&gnu).fault, ReadFault::Path(_)), "{bad}");
        let mut link = Raw::new(b"ok", b'1', 0);
        link.put(157, bad.as_bytes());
        assert!(
            matches!(problem(&link.with(b"")).fault, ReadFault::Path(_)),
            "{bad}"
        );
    }
    let nul = [pax(&[("path", b"a\0b")]), entry(b"ok", b'0')].concat();
    assert!(matches!(problem(&nul).fault, ReadFault::Path(_)));
    assert!(
        matches!(problem(&entry(b"", b'0')).fault, ReadFault::Path(_)),
        "a file without a name"
    );
    assert!(
        matches!(problem(&entry(b"link", b'2')).fault, ReadFault::Path(_)),
        "a link to nothing"
    );
}

#[test]
fn odd_but_harmless_paths_become_normal() {
    for (raw, want) in [
        ("./a", "/a"),
        ("/etc//passwd", "/etc/passwd"),
        ("a/./b", "/a/b"),
        ("...", "/..."),
        ("..a", "/..a"),
    ] {
        assert_eq!(paths(&entry(raw.as_bytes(), b'0')), [want]);
    }
    for root in ["./", "/", "."] {
        assert_eq!(paths(&entry(root.as_bytes(), b'5')), ["/"]);
    }
    // Before ustar, a directory was a file whose name ends in a slash.
    let items = read(&entry(b"dir/", 0), ReadLimits::default()).unwrap();
    assert_eq!(items[0].0.kind, Kind::Dir);
}

/// Where readers disagree, one could be shown another layer than the next.
#[test]
fn content_is_never_taken_for_headers() {
    let hidden = entry(b"hidden", b'0');
    let bytes = Raw::new(b"x/", b'0', 512).with(&hidden);
    assert_eq!(paths(&bytes), ["/x"]);
    let mut link = Raw::new(b"l", b'2', 512);
    link.put(157, b"target");
    assert_eq!(
        paths(&[link.with(b""), entry(b"next", b'0')].concat()),
        ["/l", "/next"]
    );
    for twice in [
        pax(&[("path", b"a")]).repeat(2),
        Raw::new(b"L", b'L', 1).with(b"a").repeat(2),
        Raw::new(b"K", b'K', 1).with(b"a").repeat(2),
    ] {
        let error = problem(&[twice, entry(b"f", b'0')].concat());
        assert!(
            error.to_string().contains("two extended headers"),
            "{error}"
        );
    }
    let unset = [pax(&[("path", b"a"), ("path", b"")]), entry(b"f", b'0')].concat();
    assert_eq!(paths(&unset), ["/f"]);
}

#[test]
fn absurd_headers_are_refused() {
    let with = |at, bytes: &[u8]| Raw::new(b"f", b'0', 0).put(at, bytes).with(b"");
    let negative = [0xff; 12];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("size", with(124, &negative)),
        ("size", with(124, b"99999999999\0")),
        (
            "size",
            with(
                124,
                &[
                    0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                ],
            ),
        ),
        ("owner", with(108, b"-000001\0")),
        (
            "number 4294967295",
            [pax(&[("uid", b"4294967295")]), entry(b"f", b'0')].concat(),
        ),
        (
            "number 99999999999",
            [pax(&[("gid", b"99999999999")]), entry(b"f", b'0')].concat(),
        ),
        (
            "bad number",
            [pax(&[("size", b"-1")]), entry(b"f", b'0')].concat(),
        ),
        (
            "bad number",
            [pax(&[("size", b"99999999999999999999")]), entry(b"f", b'0')].concat(),
        ),
        (
            "bad time",
            [pax(&[("mtime", b"1e9")]), entry(b"f", b'0')].concat(),
        ),
        ("unknown type `X`", Raw::new(b"x", b'X', 0).with(b"")),
        ("unknown type `Q`", entry(b"f", b'Q')),
        ("checksum", {
            let mut bytes = entry(b"f", b'0');
            bytes[0] = b'g';
            bytes
        }),
        ("record", Raw::new(b"x", b'x', 9).with(b"99 a=bcd\n")),
        (
            "allowed 1048576 bytes",
            Raw::new(b"x", b'x', 1 << 30).with(b""),
        ),
        (
            "allowed 1048576 bytes",
            Raw::new(b"x", b'L', 1 << 40 >> 10).with(b""),
        ),
        ("truncated", pax(&[("path", b"a")])),
        ("something else", [vec![0; 512], entry(b"f", b'0')].concat()),
        ("damaged or not a tar", vec![b'x'; 1024]),
        ("device number", {
            let mut raw = Raw::new(b"d", b'3', 0);
            raw.put(329, &[0xff; 8]);
            raw.with(b"")
        }),
    ];
    for (want, bytes) in cases {
        let error = problem(&bytes).to_string();
        assert!(error.contains(want), "{want}: {error}");
        assert!(error.contains("at byte"), "{error}");
    }
}

#[test]
fn truncated_layers_are_refused_wherever_they_end() {
    let whole = write(
        &samples(),
        options(stepwell_model::request::Compression::Uncompressed, 1),
    )
    .out;
    let count = samples().len();
    for cut in (1..whole.len() - 1024).step_by(97) {
        match read(&whole[..cut], ReadLimits::default()) {
            // Behind a whole entry an archive may end; what is missing shows in the digest of the layer.
            Ok(items) => assert!(
                cut % 512 == 0 && items.len() < count || items == samples()[..items.len()],
                "{cut}"
            ),
            Err(error) => assert!(
                matches!(error.fault, ReadFault::Truncated),
                "{cut}: {error}"
            ),
        }
    }
}

#[test]
fn damaged_layers_never_panic_or_hang() {
    let whole = write(
        &samples(),
        options(stepwell_model::request::Compression::Uncompressed, 1),
    )
    .out;
    let limits = ReadLimits {
        content: 1 << 20,
        ..ReadLimits::default()
    };
    let mut numbers = Numbers(77);
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + numbers.below(4) {
            let block = numbers.below(bytes.len() as u64 / 512) as usize * 512;
            let at = block + numbers.below(512) as usize;
            bytes[at] = numbers.next() as u8;
            // Mended checksums let the damage through to the rest.
            let mut header = bytes[block..block + 512].to_vec();
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
            bytes[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        if let Ok(items) = read(&bytes, limits) {
            assert!(
                items
                    .iter()
                    .all(|(entry, content)| entry.size() == content.len() as u64)
            );
        }
    }
}

#[test]
fn limits_hold() {
    let many: Vec<_> = (0..100).map(|at| file(format!("f{at}"), b"")).collect();
    let layer = write(&many, options(Default::default(), 1)).out;
    let few = ReadLimits {
        entries: 10,
        ..ReadLimits::default()
    };
    assert!(matches!(
        read(&layer, few).unwrap_err().fault,
        ReadFault::Entries { limit: 10 }
    ));
    let headers: Vec<u8> = (0..100)
        .flat_map(|_| Raw::new(b"g", b'g', 0).with(b""))
        .collect();
    assert!(matches!(
        read(&headers, few).unwrap_err().fault,
        ReadFault::Entries { .. }
    ));
    let layer = write(
        &[file("a", &[1; 600]), file("b", &[2; 600])],
        options(Default::default(), 1),
    )
    .out;
    let small = ReadLimits {
        content: 1000,
        ..ReadLimits::default()
    };
    let error = read(&layer, small).unwrap_err();
    assert!(matches!(error.fault, ReadFault::Content { limit: 1000 }));
    assert!(error.to_string().contains("`/b`"), "{error}");
    let decode = DecodeLimits {
        output: 1024,
        ..DecodeLimits::default()
    };
    let mut reader = LayerReader::compressed(&layer[..], ReadLimits::default(), decode).unwrap();
    let error = loop {
        match reader.next_entry() {
            Ok(entry) => assert!(entry.is_some(), "no error"),
            Err(error) => break error,
        }
    };
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("1024"),
        "{error}"
    );
}

/// 0.0 has a record for every number, 0.1 has one list, 1.0 has the list in front of the data.
fn sparse(version: &str, size: &[u8], numbers: &[u64], data: &[u8]) -> Vec<u8> {
    let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let count = (numbers.len() / 2).to_string();
    let stored = |data: &[u8]| Raw::new(b"GNUSparseFile.0/f", b'0', data.len() as u64).with(data);
    match version {
        "0.0" => {
            let mut records = vec![
                ("GNU.sparse.size", size),
                ("GNU.sparse.numblocks", count.as_bytes()),
            ];
            let keys = ["GNU.sparse.offset", "GNU.sparse.numbytes"];
            records.extend(
                texts
                    .iter()
                    .enumerate()
                    .map(|(at, text)| (keys[at % 2], text.as_bytes())),
            );
            [pax(&records), stored(data)].concat()
        }
        "0.1" => {
            let map = texts.join(",");
            let records = [
                ("GNU.sparse.size", size),
                ("GNU.sparse.name", b"f"),
                ("GNU.sparse.map", map.as_bytes()),
            ];
            [pax(&records), stored(data)].concat()
        }
        _ => {
            let records = [
                ("GNU.sparse.major", &b"1"[..]),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"f"),
                ("GNU.sparse.realsize", size),
            ];
            let mut map = format!("{count}\n{}\n", texts.join("\n")).into_bytes();
            map.resize(map.len().next_multiple_of(512), 0);
            [pax(&records), stored(&[&map, data].concat())].concat()
        }
    }
}

#[test]
fn sparse_files_are_filled_with_zeros() {
    for version in ["0.0", "0.1", "1.0"] {
        let bytes = sparse(version, b"20", &[2, 3, 10, 0, 15, 1, 20, 0], b"abcX");
        let items = read(&bytes, ReadLimits::default()).unwrap();
        let mut want = [0; 20];
        want[2..5].copy_from_slice(b"abc");
        want[15] = b'X';
        assert_eq!(items[0].1, want, "{version}");
        assert_eq!(items[0].0.sparse, Some(vec![(2, 3), (15, 1)]));
        assert_eq!(items[0].0.kind, Kind::File { size: 20 });
    }
}

#[test]
fn holes_can_be_skipped() {
    let bytes = sparse("1.0", b"20", &[2, 3, 15, 1], b"abcX");
    let mut reader = LayerReader::new(&bytes[..], ReadLimits::default());
    let (_, mut content) = reader.next_entry().unwrap().unwrap();
    let (mut pieces, mut buffer) = (Vec::new(), [0; 64]);
    loop {
        content.skip_hole();
        let at = content.position();
        match content.read(&mut buffer).unwrap() {
            0 => break,
            read => pieces.push((at, buffer[..read].to_vec())),
        }
    }
    assert_eq!(pieces, [(2, b"abc".to_vec()), (15, b"X".to_vec())]);
    assert_eq!(content.position(), 20);
}

#[test]
fn broken_maps_of_sparse_files_are_refused() {
    for version in ["0.0", "0.1", "1.0"] {
        for (size, numbers, data) in [
            (&b"20"[..], &[2u64, 3, 4, 1][..], &b"abcX"[..]),
            (b"20", &[10, 3, 2, 1], b"abcX"),
            (b"20", &[2, 3], b"abcX"),
            (b"20", &[2, 30], b"abcX"),
            (b"20", &[18, 4], b"abcX"),
            (b"20", &[u64::MAX, 4], b"abcX"),
            (b"99999999999999999999", &[0, 4], b"abcX"),
        ] {
            let error = problem(&sparse(version, size, numbers, data));
            assert!(
                matches!(error.fault, ReadFault::Damaged(_)),
                "{version} {numbers:?}: {error}"
            );
        }
        // Exabytes of nothing.
        let huge = sparse(version, b"9000000000000000000", &[0, 4], b"abcX");
        assert!(matches!(problem(&huge).fault, ReadFault::Content { .. }));
    }
    let endless = Raw::new(b"f", b'0', 512).with(&[b'1'; 512]);
    let records = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"5"),
    ];
    assert!(matches!(
        problem(&[pax(&records), endless].concat()).fault,
        ReadFault::Damaged(_)
    ));
    let many = Raw::new(b"f", b'0', 512).with(b"99999999999\n");
    assert!(
        problem(&[pax(&records), many].concat())
            .to_string()
            .contains("too many")
    );
}

#[test]
fn an_input_that_fails_is_named_as_such() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("cable cut"))
        }
    }
    let good = entry(b"f", b'0');
    let mut reader = LayerReader::new(good.chain(Failing), ReadLimits::default());
    reader.next_entry().unwrap();
    let error = reader.next_entry().map(|_| ()).unwrap_err();
    assert!(matches!(error.fault, ReadFault::Input(_)));
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "cable cut"
    );
}
