//! GNU tar, gzip and zstd read what is written here, and what GNU tar writes is read here.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::Path;

use stepwell_image::compress::DecodeLimits;
use stepwell_image::layer::ReadLimits;
use stepwell_image::{Entry, Kind, LayerReader};
use stepwell_model::request::Compression::{self, Gzip, Uncompressed, Zstd};
use support::{Item, dir, file, options, read, samples, text, tool, write};

/// Without devices, so that an ordinary user can unpack it.
fn portable() -> Vec<Item> {
    let device = |kind: &Kind| matches!(kind, Kind::Char { .. } | Kind::Block { .. });
    samples()
        .into_iter()
        .filter(|(entry, _)| !device(&entry.kind))
        .collect()
}

#[test]
fn gnu_tar_unpacks_what_is_written() {
    for compression in [Gzip, Zstd, Uncompressed] {
        let temp = tempfile::tempdir().unwrap();
        let (layer, root) = (temp.path().join("layer"), temp.path().join("root"));
        fs::write(&layer, write(&portable(), options(compression, 2)).out).unwrap();
        fs::create_dir(&root).unwrap();
        let flag = match compression {
            Compression::Gzip => "-xzpf",
            Compression::Zstd => "--zstd",
            Compression::Uncompressed => "-xpf",
        };
        let (layer, at) = (layer.display().to_string(), root.display().to_string());
        let args = if flag == "--zstd" {
            vec!["--zstd", "-xpf"]
        } else {
            vec![flag]
        };
        let rest = [
            layer.as_str(),
            "-C",
            &at,
            "--no-same-owner",
            "--xattrs",
            "--xattrs-include=user.*",
        ];
        tool("tar", &[&args[..], &rest].concat());
        for (entry, content) in portable() {
            compare(&root, &entry, &content);
        }
    }
}

fn compare(root: &Path, entry: &Entry, content: &[u8]) {
    let path = root.join(std::ffi::OsStr::from_bytes(&entry.path));
    let found =
        fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", entry.display()));
    match &entry.kind {
        Kind::File { .. } => assert_eq!(fs::read(&path).unwrap(), content, "{}", entry.display()),
        Kind::Dir => assert!(found.is_dir()),
        Kind::Symlink { target } => {
            assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), target)
        }
        Kind::Hardlink { target } => {
            let first = root.join(std::ffi::OsStr::from_bytes(target));
            assert_eq!(fs::metadata(first).unwrap().ino(), found.ino());
        }
        Kind::Fifo => assert!(found.file_type().is_fifo()),
        Kind::Char { .. } | Kind::Block { .. } => unreachable!("filtered out"),
    }
    if matches!(entry.kind, Kind::File { .. } | Kind::Fifo) {
        let time = (found.mtime(), found.mtime_nsec());
        assert_eq!(
            time,
            (entry.mtime.secs, i64::from(entry.mtime.nanos)),
            "{}",
            entry.display()
        );
        assert_eq!(
            found.mode() & 0o1777,
            entry.mode & 0o1777,
            "{}",
            entry.display()
        );
    }
}

#[test]
fn gnu_tar_lists_owners_devices_and_attributes() {
    let temp = tempfile::tempdir().unwrap();
    let layer = temp.path().join("layer.tar");
    fs::write(&layer, write(&samples(), options(Uncompressed, 1)).out).unwrap();
    let listed = tool(
        "tar",
        &[
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "-tvvf",
            &layer.display().to_string(),
        ],
    );
    for want in [
        "4000000000/2097152",
        "259,1048575",
        "-rwsr-sr-x",
        "drwxrwxrwt",
        "x: 20 security.capability",
    ] {
        assert!(listed.contains(want), "{want} in {listed}");
    }
}

#[test]
fn gzip_and_zstd_unpack_what_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let items = [dir("d"), file("d/text", &text(4, 2_000_000))];
    let plain = write(&items, options(Uncompressed, 1)).out;
    for (compression, program) in [(Gzip, "gzip"), (Zstd, "zstd")] {
        let packed = temp.path().join("layer");
        fs::write(&packed, write(&items, options(compression, 3)).out).unwrap();
        let input = fs::File::open(&packed).unwrap();
        let output = std::process::Command::new(program)
            .arg("-dc")
            .stdin(input)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout == plain, "{program}");
    }
}

/// What GNU tar makes of a directory with a bit of everything, in one of its formats.
fn made_by_gnu_tar(format: &[&str]) -> BTreeMap<String, Item> {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    let long = root.join("l".repeat(150)).join("m".repeat(120));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("deep"), "deep").unwrap();
    fs::write(root.join("file"), text(8, 70_000)).unwrap();
    fs::hard_link(root.join("file"), root.join("zlink")).unwrap();
    symlink("t".repeat(200), root.join("sym")).unwrap();
    let holes = fs::File::create(root.join("holes")).unwrap();
    holes.set_len(40 << 20).unwrap();
    for at in 0..60 {
        std::os::unix::fs::FileExt::write_all_at(&holes, b"data", at << 19).unwrap();
    }
    let tar = temp.path().join("made.tar");
    let (tar, at) = (tar.display().to_string(), root.display().to_string());
    tool(
        "tar",
        &[
            &["--sparse", "--sort=name", "-cf", &tar, "-C", &at],
            format,
            &["."],
        ]
        .concat(),
    );
    let items = read(&fs::read(&tar).unwrap(), ReadLimits::default()).unwrap();
    items
        .into_iter()
        .map(|item| (item.0.display(), item))
        .collect()
}

#[test]
fn all_formats_of_gnu_tar_are_read() {
    let pax = |version| vec!["--format=posix", version];
    for format in [
        vec!["--format=gnu"],
        vec!["--format=oldgnu"],
        pax("--sparse-version=0.0"),
        pax("--sparse-version=0.1"),
        pax("--sparse-version=1.0"),
    ] {
        let items = made_by_gnu_tar(&format);
        let deep = format!("/{}/{}/deep", "l".repeat(150), "m".repeat(120));
        assert_eq!(items[&deep].1, b"deep", "{format:?}");
        assert_eq!(items["/file"].1, text(8, 70_000));
        assert_eq!(
            items["/zlink"].0.kind,
            Kind::Hardlink {
                target: b"file".to_vec()
            }
        );
        assert_eq!(
            items["/sym"].0.kind,
            Kind::Symlink {
                target: "t".repeat(200).into_bytes()
            }
        );
        let (entry, content) = &items["/holes"];
        assert!(
            entry.sparse.as_ref().is_some_and(|map| map.len() >= 50),
            "{format:?}"
        );
        assert_eq!(content.len(), 40 << 20);
        for (at, chunk) in content.chunks(1 << 19).enumerate() {
            let data: &[u8] = if at < 60 { b"data" } else { &[0; 4] };
            assert!(
                &chunk[..4] == data && chunk[4..].iter().all(|b| *b == 0),
                "{format:?} {at}"
            );
        }
    }
}

#[test]
fn what_pads_the_end_counts_in_the_diff_id() {
    let temp = tempfile::tempdir().unwrap();
    let tar = temp.path().join("x.tar");
    fs::write(temp.path().join("f"), "content").unwrap();
    let (tar, at) = (tar.display().to_string(), temp.path().display().to_string());
    tool("tar", &["-czf", &tar, "-C", &at, "f"]);
    let packed = fs::read(&tar).unwrap();
    let reader =
        LayerReader::compressed(&packed[..], ReadLimits::default(), DecodeLimits::default())
            .unwrap();
    let summary = reader.finish().unwrap();
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_end(&mut plain)
        .unwrap();
    // GNU tar pads to 10,240 bytes: all of it counts.
    assert_eq!(summary.uncompressed_size, 10_240);
    assert_eq!(summary.diff_id, stepwell_model::Digest::of(&plain));
}
