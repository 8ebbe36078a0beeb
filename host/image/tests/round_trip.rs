//! What is written is read back, in every compression; equal entries give equal bytes, whatever the threads.

mod support;

use std::io::Read;

use stepwell_image::compress::DecodeLimits;
use stepwell_image::layer::{ReadLimits, WriteError};
use stepwell_image::{Entry, Kind, LayerOptions, LayerReader, LayerWriter, Mtime};
use stepwell_model::Digest;
use stepwell_model::request::Compression::{self, Gzip, Uncompressed, Zstd};
use support::{Numbers, dir, file, options, read, samples, text, write};

const ALL: [Compression; 3] = [Gzip, Zstd, Uncompressed];

#[test]
fn everything_survives_every_compression() {
    for compression in ALL {
        let written = write(&samples(), options(compression, 2));
        let items = read(&written.out, ReadLimits::default()).unwrap();
        assert_eq!(items, samples(), "{compression:?}");
        assert_eq!(written.digest, Digest::of(&written.out));
        assert_eq!(written.size, written.out.len() as u64);
        let reader = LayerReader::compressed(
            &written.out[..],
            ReadLimits::default(),
            DecodeLimits::default(),
        );
        let summary = reader.unwrap().finish().unwrap();
        assert_eq!(summary.diff_id, written.diff_id);
        assert_eq!(summary.uncompressed_size, written.uncompressed_size);
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() {
    // Around the block size of gzip, and more than the jobs of zstd.
    for size in [
        0,
        100,
        (256 << 10) - 1536,
        (256 << 10) - 1024,
        300 << 10,
        9 << 20,
    ] {
        let items = [file("f", &text(size as u64, size))];
        for compression in ALL {
            let one = write(&items, options(compression, 1));
            for threads in [2, 3, 8] {
                let many = write(&items, options(compression, threads));
                assert!(
                    one.out == many.out,
                    "{compression:?}, {size} bytes, {threads} threads"
                );
                assert_eq!((one.digest, one.diff_id), (many.digest, many.diff_id));
            }
            assert_eq!(read(&one.out, ReadLimits::default()).unwrap(), items);
        }
    }
}

/// A reader that gives little at a time, and never the same amount.
struct Trickle<'a>(&'a [u8], Numbers);

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let want = buf.len().min(1 + self.1.below(5000) as usize);
        self.0.read(&mut buf[..want])
    }
}

#[test]
fn the_bytes_do_not_depend_on_how_the_content_comes() {
    let content = text(5, 3 << 20);
    let item = file("f", &content);
    for compression in ALL {
        let mut writer = LayerWriter::new(Vec::new(), options(compression, 2)).unwrap();
        writer
            .add(&item.0, Some(&mut Trickle(&content, Numbers(9))))
            .unwrap();
        let trickled = writer.finish().unwrap();
        assert!(trickled.out == write(std::slice::from_ref(&item), options(compression, 2)).out);
    }
}

#[test]
fn random_layers_survive() {
    for seed in 1..60u64 {
        let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let items: Vec<_> = (0..numbers.below(40))
            .map(|at| random_item(&mut numbers, at))
            .collect();
        let compression = ALL[numbers.below(3) as usize];
        let written = write(&items, options(compression, 1 + numbers.below(3) as usize));
        assert_eq!(
            read(&written.out, ReadLimits::default()).unwrap(),
            items,
            "seed {seed}"
        );
    }
}

fn random_item(numbers: &mut Numbers, at: u64) -> support::Item {
    let mut path = format!("{at}-").into_bytes();
    for _ in 0..numbers.below(300) {
        match (numbers.below(30), path.last()) {
            (0, Some(last)) if *last != b'/' => path.extend(b"/x"),
            _ => path.push(match numbers.below(256) as u8 {
                0 | b'/' => b'.',
                byte => byte,
            }),
        }
    }
    let (mut entry, content) = match numbers.below(4) {
        0 => dir(path),
        _ => {
            let size = numbers.below(5000) as usize;
            file(path, &text(numbers.next(), size))
        }
    };
    entry.mode = numbers.below(0o10000) as u32;
    entry.uid = (numbers.next() >> numbers.below(64)) as u32 & 0x7fff_ffff;
    entry.gid = (numbers.next() >> numbers.below(64)) as u32 & 0x7fff_ffff;
    entry.mtime = Mtime {
        secs: numbers.next() as i64 >> (20 + numbers.below(40)),
        nanos: if numbers.below(2) == 0 {
            0
        } else {
            numbers.below(1_000_000_000) as u32
        },
    };
    for _ in 0..numbers.below(3) {
        let value = (0..numbers.below(200))
            .map(|_| numbers.next() as u8)
            .collect();
        entry
            .xattrs
            .insert(format!("user.{}", numbers.below(9)).into_bytes(), value);
    }
    (entry, content)
}

#[test]
fn times_are_clamped_and_never_moved_forward() {
    let (mut late, mut early) = (file("late", b""), file("early", b""));
    late.0.mtime = Mtime {
        secs: 2000,
        nanos: 1,
    };
    early.0.mtime = Mtime {
        secs: 999,
        nanos: 5,
    };
    let clamp = LayerOptions {
        clamp_mtime: Some(1000),
        ..LayerOptions::default()
    };
    let items = read(
        &write(&[late, early.clone()], clamp).out,
        ReadLimits::default(),
    )
    .unwrap();
    assert_eq!(items[0].0.mtime, Mtime::from_secs(1000));
    assert_eq!(items[1].0.mtime, early.0.mtime);
}

#[test]
fn whiteouts_are_written_on_purpose_only() {
    let mut writer = LayerWriter::new(Vec::new(), LayerOptions::default()).unwrap();
    writer.remove(b"etc/gone", Mtime::from_secs(5)).unwrap();
    writer.opaque(b"var", Mtime::from_secs(5)).unwrap();
    for name in ["a/.wh.b", ".wh..wh..opq", ".wh.x/y"] {
        let refused = writer.add(&file(name, b"").0, None);
        assert!(
            matches!(refused, Err(WriteError::ReservedName { .. })),
            "{name}"
        );
    }
    let items = read(&writer.finish().unwrap().out, ReadLimits::default()).unwrap();
    let paths: Vec<_> = items
        .iter()
        .map(|(entry, _)| entry.path.as_slice())
        .collect();
    assert_eq!(paths, [&b"etc/.wh.gone"[..], b"var/.wh..wh..opq"]);
}

#[test]
fn what_a_tar_cannot_hold_is_refused() {
    let entry = |path: &[u8]| Entry::new(path, Kind::File { size: 0 }, 0o644);
    let mut equals = entry(b"x");
    equals.xattrs.insert(b"user.a=b".to_vec(), Vec::new());
    let mut private = entry(b"x");
    private
        .xattrs
        .insert(b"user.stepwell.meta".to_vec(), b"x".to_vec());
    let mut huge = entry(b"x");
    huge.xattrs.insert(b"user.big".to_vec(), vec![0; 1 << 20]);
    let (major, minor) = (0x40_0000, 0);
    let cases = [
        entry(b"../x"),
        entry(b"a/../b"),
        entry(b"/a"),
        entry(b"a//b"),
        entry(b"a/"),
        entry(b"./a"),
        entry(b"a\0b"),
        entry(b""),
        equals,
        private,
        huge,
        Entry::new("d", Kind::Char { major, minor }, 0o600),
        Entry::new("s", Kind::Symlink { target: Vec::new() }, 0o777),
        Entry::new(
            "s",
            Kind::Symlink {
                target: b"a\0b".to_vec(),
            },
            0o777,
        ),
        Entry::new(
            "h",
            Kind::Hardlink {
                target: b"../x".to_vec(),
            },
            0o644,
        ),
        Entry::new("f", Kind::File { size: 1 }, 0o644),
    ];
    for case in cases {
        let mut writer = LayerWriter::new(Vec::new(), LayerOptions::default()).unwrap();
        let error = writer.add(&case, None).expect_err(&case.display());
        assert!(!error.to_string().contains('\0'));
    }
}

#[test]
fn content_of_another_length_is_refused() {
    let entry = Entry::new("f", Kind::File { size: 5 }, 0o644);
    let add = |mut content: &[u8]| {
        let mut writer = LayerWriter::new(Vec::new(), LayerOptions::default()).unwrap();
        writer.add(&entry, Some(&mut content))
    };
    assert!(matches!(
        add(b"1234"),
        Err(WriteError::ContentShort { got: 4, .. })
    ));
    assert!(matches!(
        add(b"123456"),
        Err(WriteError::ContentLong { .. })
    ));
    add(b"12345").unwrap();
}

#[test]
fn levels_that_do_not_exist_are_refused() {
    for (compression, level) in [(Gzip, 10), (Gzip, -1), (Zstd, 0), (Zstd, 23)] {
        let options = LayerOptions {
            compression,
            level: Some(level),
            ..LayerOptions::default()
        };
        let refused = LayerWriter::new(Vec::new(), options).err().unwrap();
        assert!(
            matches!(refused, WriteError::Level { .. }),
            "{compression:?} {level}"
        );
    }
    for (compression, level) in [(Gzip, 0), (Gzip, 9), (Zstd, 1), (Zstd, 19)] {
        let options = LayerOptions {
            level: Some(level),
            ..options(compression, 2)
        };
        let written = write(&[file("f", &text(3, 700_000))], options);
        assert_eq!(
            read(&written.out, ReadLimits::default()).unwrap()[0].1,
            text(3, 700_000)
        );
    }
}
