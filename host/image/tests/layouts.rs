//! Layouts and archives: written and read back, merged, refused, and read by skopeo and umoci.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::Path;

use stepwell_image::layout::{self, LayoutError};
use stepwell_image::manifest::layer_type;
use stepwell_image::{
    BlobSource as _, Descriptor, HistoryEntry, ImageBundle, ImageDocument, Index, Layout, Manifest,
    docker_archive,
};
use stepwell_model::request::Compression::{self, Gzip, Uncompressed, Zstd};
use stepwell_model::{Digest, Platform};
use support::{dir, file, options, tool, write};

/// An image with its blobs.
struct Image {
    manifest: Manifest,
    config: Vec<u8>,
    blobs: HashMap<Digest, Vec<u8>>,
    platform: Platform,
}

impl Image {
    fn new(text: &str, compression: Compression, docker: bool) -> Self {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let mut document = ImageDocument::scratch(platform.clone());
        document.config.cmd = Some(vec!["/hello".into()]);
        let (mut layers, mut blobs) = (Vec::new(), HashMap::new());
        for items in [
            vec![dir("etc"), file("etc/name", text.as_bytes())],
            vec![file("second", b"2")],
        ] {
            let layer = write(&items, options(compression, 1));
            layers.push(Descriptor::new(
                layer_type(compression, docker),
                layer.digest,
                layer.size,
            ));
            document.diff_ids.push(layer.diff_id);
            document.history.push(HistoryEntry {
                created_by: "COPY".into(),
                ..HistoryEntry::default()
            });
            blobs.insert(layer.digest, layer.out);
        }
        let config = document.encode();
        let manifest = Manifest::new(docker, &config, layers, BTreeMap::new());
        Self {
            manifest,
            config,
            blobs,
            platform,
        }
    }

    fn source(&self) -> impl Fn(&Digest) -> io::Result<Box<dyn Read>> + use<> {
        let blobs = self.blobs.clone();
        move |digest| match blobs.get(digest) {
            Some(blob) => Ok(Box::new(Cursor::new(blob.clone()))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn bundle<'a>(&'a self, names: &'a [String]) -> ImageBundle<'a> {
        ImageBundle {
            manifest: &self.manifest,
            config: &self.config,
            platform: &self.platform,
            names,
            attestation: None,
        }
    }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn name_of(dir: &Path, reference: &str) -> Result<String, LayoutError> {
    let layout = Layout::open(dir)?;
    let image = layout.resolve(reference, &"linux/amd64".parse().unwrap())?;
    let mut layer = Vec::new();
    layout
        .open(&image.manifest.layers[0].digest)
        .unwrap()
        .read_to_end(&mut layer)
        .unwrap();
    let items = support::read(&layer, Default::default()).unwrap();
    Ok(String::from_utf8(items[1].1.clone()).unwrap())
}

#[test]
fn a_directory_is_written_and_read() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("new/out");
    let image = Image::new("one", Gzip, false);
    layout::write_dir(
        &dest,
        &image.bundle(&names(&["docker.io/library/app:1"])),
        &image.source(),
    )
    .unwrap();
    let digest = Digest::of(&image.manifest.encode()).to_string();
    for reference in ["", "1", "docker.io/library/app:1", &digest] {
        assert_eq!(name_of(&dest, reference).unwrap(), "one", "{reference}");
    }
    let error = name_of(&dest, "2").unwrap_err();
    assert!(error.to_string().contains("it has `1`"), "{error}");
    // What the process made has the modes that it gives to new files; nothing of the work is left.
    let left: Vec<_> = fs::read_dir(temp.path().join("new")).unwrap().collect();
    assert_eq!(left.len(), 1);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&dest).unwrap());
    let plain = temp.path().join("plain");
    fs::create_dir(&plain).unwrap();
    assert_eq!(
        mode,
        std::os::unix::fs::MetadataExt::mode(&fs::metadata(plain).unwrap())
    );
}

#[test]
fn images_are_added_and_names_move() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path();
    let (one, two) = (
        Image::new("one", Gzip, false),
        Image::new("two", Zstd, false),
    );
    layout::write_dir(
        dest,
        &one.bundle(&names(&["app:1", "app:latest"])),
        &one.source(),
    )
    .unwrap();
    layout::write_dir(
        dest,
        &two.bundle(&names(&["app:2", "app:latest"])),
        &two.source(),
    )
    .unwrap();
    for (reference, want) in [("1", "one"), ("2", "two"), ("latest", "two")] {
        assert_eq!(name_of(dest, reference).unwrap(), want);
    }
    assert!(matches!(
        name_of(dest, ""),
        Err(LayoutError::Ambiguous { .. })
    ));
    // Twice the same changes nothing.
    let before = fs::read(dest.join("index.json")).unwrap();
    layout::write_dir(
        dest,
        &two.bundle(&names(&["app:2", "app:latest"])),
        &two.source(),
    )
    .unwrap();
    assert_eq!(fs::read(dest.join("index.json")).unwrap(), before);
}

#[test]
fn ten_writers_at_once_lose_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("shared");
    std::thread::scope(|scope| {
        for at in 0..10 {
            let dest = &dest;
            scope.spawn(move || {
                let image = Image::new(&format!("image {at}"), Gzip, false);
                let names = names(&[&format!("app:{at}")]);
                layout::write_dir(dest, &image.bundle(&names), &image.source()).unwrap();
            });
        }
    });
    for at in 0..10 {
        assert_eq!(
            name_of(&dest, &at.to_string()).unwrap(),
            format!("image {at}")
        );
    }
}

#[test]
fn a_failure_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("out");
    let mut image = Image::new("one", Gzip, false);
    let layer = image.manifest.layers[1].digest;
    image.blobs.get_mut(&layer).unwrap()[20] ^= 1;
    let error = layout::write_dir(&dest, &image.bundle(&[]), &image.source()).unwrap_err();
    assert!(
        matches!(error, LayoutError::Blob { digest, .. } if digest == layer),
        "{error}"
    );
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    assert!(layout::write_tar(Vec::new(), &image.bundle(&[]), &image.source()).is_err());
    image.blobs.remove(&layer);
    assert!(docker_archive::write(Vec::new(), &image.bundle(&[]), &image.source()).is_err());
}

#[test]
fn what_is_no_layout_is_not_touched() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("precious"), "x").unwrap();
    let image = Image::new("one", Gzip, false);
    for dest in [temp.path().to_owned(), temp.path().join("precious")] {
        let refused = layout::write_dir(&dest, &image.bundle(&[]), &image.source());
        assert!(
            matches!(refused, Err(LayoutError::Occupied { .. })),
            "{refused:?}"
        );
    }
    assert!(matches!(
        Layout::open(temp.path()),
        Err(LayoutError::NotLayout { .. })
    ));
    fs::write(
        temp.path().join("oci-layout"),
        r#"{"imageLayoutVersion":"2.0.0"}"#,
    )
    .unwrap();
    assert!(matches!(
        Layout::open(temp.path()),
        Err(LayoutError::NotLayout { .. })
    ));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
}

#[test]
fn hostile_layouts_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let image = Image::new("one", Gzip, false);
    let dest = temp.path();
    layout::write_dir(dest, &image.bundle(&names(&["a:1"])), &image.source()).unwrap();
    let blob = |digest: &Digest| dest.join("blobs/sha256").join(digest.hex());
    // A configuration that was exchanged.
    let config = blob(&image.manifest.config.digest);
    let good = fs::read(&config).unwrap();
    fs::write(&config, [&good[..good.len() - 1], b" "].concat()).unwrap();
    assert!(matches!(name_of(dest, "1"), Err(LayoutError::Blob { .. })));
    fs::write(&config, &good).unwrap();
    assert_eq!(name_of(dest, "1").unwrap(), "one");
    // Indexes in indexes, without end.
    let mut inner = image.bundle(&[]).descriptor();
    for _ in 0..10 {
        let index = Index {
            docker: false,
            manifests: vec![inner],
            annotations: BTreeMap::new(),
        };
        let bytes = index.encode();
        inner = Descriptor {
            platform: None,
            ..Descriptor::of(index.media_type(), &bytes)
        };
        fs::write(blob(&inner.digest), bytes).unwrap();
    }
    let deep = Index {
        docker: false,
        manifests: vec![inner],
        annotations: BTreeMap::new(),
    };
    fs::write(dest.join("index.json"), deep.encode()).unwrap();
    let error = name_of(dest, "").unwrap_err();
    assert!(error.to_string().contains("more than 4 deep"), "{error}");
    // A manifest that claims to be huge.
    let huge = Descriptor {
        size: 1 << 40,
        ..image.bundle(&[]).descriptor()
    };
    let index = Index {
        docker: false,
        manifests: vec![huge],
        annotations: BTreeMap::new(),
    };
    fs::write(dest.join("index.json"), index.encode()).unwrap();
    assert!(
        name_of(dest, "")
            .unwrap_err()
            .to_string()
            .contains("more than the")
    );
}

#[test]
fn skopeo_and_umoci_read_layouts() {
    let temp = tempfile::tempdir().unwrap();
    for compression in [Gzip, Zstd, Uncompressed] {
        let image = Image::new("from a layout", compression, false);
        let dest = temp.path().join(format!("{compression:?}"));
        let names = names(&["docker.io/library/app:1"]);
        layout::write_dir(&dest, &image.bundle(&names), &image.source()).unwrap();
        let oci = format!("oci:{}:1", dest.display());
        let copy = dest.with_extension("copy");
        tool(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "-q",
                &oci,
                &format!("dir:{}", copy.display()),
            ],
        );
        let tar = dest.with_extension("tar");
        let file = fs::File::create(&tar).unwrap();
        layout::write_tar(file, &image.bundle(&names), &image.source()).unwrap();
        let archive = format!("oci-archive:{}", tar.display());
        let inspected = tool("skopeo", &["inspect", "--raw", &archive]);
        assert_eq!(inspected.as_bytes(), image.manifest.encode());
        // Debian's umoci does not know zstd.
        if compression != Zstd {
            let root = dest.with_extension("root");
            let at = format!("{}:1", dest.display());
            let root_text = root.display().to_string();
            tool(
                "umoci",
                &["raw", "unpack", "--rootless", "--image", &at, &root_text],
            );
            let content = fs::read_to_string(root.join("etc/name")).unwrap();
            assert_eq!(content, "from a layout");
        }
    }
}

/// skopeo does not look for docker's media types in a layout, but this program does: BuildKit writes such layouts.
#[test]
fn layouts_with_docker_media_types_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let image = Image::new("docker's", Gzip, true);
    layout::write_dir(
        temp.path(),
        &image.bundle(&names(&["a:1"])),
        &image.source(),
    )
    .unwrap();
    assert_eq!(name_of(temp.path(), "1").unwrap(), "docker's");
}

#[test]
fn skopeo_reads_docker_archives() {
    let temp = tempfile::tempdir().unwrap();
    for compression in [Gzip, Zstd, Uncompressed] {
        let image = Image::new("from an archive", compression, false);
        let path = temp.path().join(format!("{compression:?}.tar"));
        let names = names(&["docker.io/library/app:1", "localhost:5000/me/app:2"]);
        let file = fs::File::create(&path).unwrap();
        docker_archive::write(file, &image.bundle(&names), &image.source()).unwrap();
        for name in ["app:1", "localhost:5000/me/app:2"] {
            let archive = format!("docker-archive:{}:{name}", path.display());
            let config = tool("skopeo", &["inspect", "--config", "--raw", &archive]);
            assert_eq!(config.as_bytes(), image.config);
            let copy = temp.path().join("copy");
            tool(
                "skopeo",
                &[
                    "--insecure-policy",
                    "copy",
                    "-q",
                    &archive,
                    &format!("oci:{}:x", copy.display()),
                ],
            );
            assert_eq!(name_of(&copy, "x").unwrap(), "from an archive");
            fs::remove_dir_all(copy).unwrap();
        }
        let listed = tool("tar", &["tf", &path.display().to_string()]);
        for name in ["manifest.json", "repositories", "index.json", "oci-layout"] {
            assert!(
                listed.lines().any(|line| line == name),
                "{name} in {listed}"
            );
        }
    }
}
