use stepwell_model::request::Compression;

use super::*;

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(media_type: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{SHA}","size":7}}"#)
}

fn manifest(media_type: &str) -> String {
    let (config, layer) = (
        descriptor(media_type::OCI_CONFIG),
        descriptor(media_type::OCI_LAYER_GZIP),
    );
    format!(
        r#"{{"schemaVersion":2,{media_type}"config":{config},"layers":[{layer}],"annotations":null}}"#
    )
}

fn parse(text: &str, delivered: Option<&str>) -> Result<Document, ManifestError> {
    Document::parse(text.as_bytes(), delivered)
}

#[test]
fn manifests_with_and_without_a_type_are_read() {
    let plain = manifest("");
    for delivered in [
        None,
        Some("application/json"),
        Some(media_type::OCI_MANIFEST),
    ] {
        let Document::Manifest(manifest) = parse(&plain, delivered).unwrap() else {
            panic!("an index")
        };
        assert!(!manifest.docker);
        assert_eq!(manifest.layers[0].compression().unwrap(), Compression::Gzip);
    }
    let Document::Manifest(docker) = parse(&plain, Some(media_type::DOCKER_MANIFEST)).unwrap()
    else {
        panic!("an index")
    };
    assert!(docker.docker);
}

#[test]
fn what_is_ambiguous_or_no_image_is_refused() {
    let index = format!(r#""mediaType":"{}","#, media_type::OCI_INDEX);
    let both = manifest("").replace("\"layers\"", "\"manifests\":[],\"layers\"");
    let helm = r#""mediaType":"application/vnd.cncf.helm.config.v1+json","#;
    for (text, delivered, want) in [
        (manifest(&index), None, "ambiguous"),
        (
            manifest(&index),
            Some(media_type::OCI_MANIFEST),
            "delivered as",
        ),
        (both, None, "ambiguous"),
        (manifest(helm), None, "not that of an image"),
        (
            r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#.into(),
            None,
            "schema 1",
        ),
        (
            manifest(""),
            Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            "schema 1",
        ),
        ("[]".into(), None, "not valid"),
        ("{".into(), None, "not valid"),
        (manifest("").replace("sha256:", "sha512:"), None, "sha256"),
        (manifest("").replace(":7}", ":-7}"), None, "not valid"),
        (" ".repeat(MANIFEST_LIMIT as usize + 1), None, "more than"),
    ] {
        let error = parse(&text, delivered).unwrap_err().to_string();
        assert!(error.contains(want), "{want}: {error}");
    }
    let layer = descriptor(media_type::OCI_LAYER_GZIP);
    let many = vec![layer.as_str(); MAX_LAYERS + 1].join(",");
    let many = format!(r#"{{"schemaVersion":2,"config":{layer},"layers":[{many}]}}"#);
    assert!(matches!(
        parse(&many, None),
        Err(ManifestError::Layers(1001))
    ));
}

#[test]
fn a_manifest_is_written_as_it_is_read_and_does_not_mix_families() {
    let layers = [
        media_type::DOCKER_LAYER_GZIP,
        media_type::OCI_LAYER_ZSTD,
        media_type::DOCKER_LAYER,
    ];
    let layers: Vec<_> = layers
        .iter()
        .map(|t| Descriptor::new(*t, Digest::of(b"x"), 1))
        .collect();
    for docker in [false, true] {
        let annotations = (0..20)
            .map(|n| (format!("key-{n}"), "value".into()))
            .collect();
        let manifest = Manifest::new(docker, b"{}", layers.clone(), annotations);
        let family = if docker { ".docker." } else { ".oci." };
        assert!(
            manifest
                .layers
                .iter()
                .all(|layer| layer.media_type.contains(family))
        );
        let bytes = manifest.encode();
        assert_eq!(
            Document::parse(&bytes, None).unwrap(),
            Document::Manifest(manifest)
        );
    }
}

#[test]
fn the_right_platform_is_chosen() {
    let image = |name: &str, size| {
        let mut image =
            Descriptor::new(media_type::OCI_MANIFEST, Digest::of(name.as_bytes()), size);
        let parts: Vec<&str> = name.split('/').collect();
        image.platform = Some(DescriptorPlatform {
            os: parts[0].into(),
            architecture: parts[1].into(),
            variant: parts.get(2).copied().unwrap_or_default().into(),
            ..DescriptorPlatform::default()
        });
        image
    };
    let index = |names: &[&str]| {
        let mut manifests: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(at, n)| image(n, at as u64))
            .collect();
        let mut attestation = image("linux/amd64", 99);
        attestation.annotations.insert(
            "vnd.docker.reference.type".into(),
            "attestation-manifest".into(),
        );
        manifests.insert(0, attestation);
        Index {
            docker: false,
            manifests,
            annotations: BTreeMap::new(),
        }
    };
    for (wanted, names, want) in [
        ("linux/amd64", &["linux/arm64", "linux/amd64"][..], Some(1)),
        (
            "linux/amd64",
            &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"],
            Some(2),
        ),
        (
            "linux/amd64",
            &["linux/amd64/v3", "linux/amd64/v2"],
            Some(1),
        ),
        ("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"], Some(1)),
        (
            "linux/arm/v7",
            &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"],
            Some(1),
        ),
        ("linux/arm/v6", &["linux/arm/v7"], None),
        ("linux/arm", &["linux/arm/v5", "linux/arm/v7"], Some(1)),
        ("linux/amd64", &["windows/amd64", "unknown/unknown"], None),
        ("linux/amd64", &[], None),
    ] {
        let index = index(names);
        let chosen = index.select(&wanted.parse().unwrap()).ok().map(|d| d.size);
        assert_eq!(chosen, want, "{wanted} of {names:?}");
    }
    let error = index(&["linux/arm64"])
        .select(&"linux/s390x".parse().unwrap())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the image is not there for `linux/s390x`, only for `linux/arm64`"
    );
}

#[test]
fn media_types_of_layers_tell_the_compression() {
    for docker in [false, true] {
        for compression in [
            Compression::Gzip,
            Compression::Zstd,
            Compression::Uncompressed,
        ] {
            assert_eq!(
                layer_compression(layer_type(compression, docker)),
                Some(compression)
            );
        }
    }
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    assert_eq!(layer_compression(foreign), Some(Compression::Gzip));
    for other in [
        "application/vnd.oci.image.layer.v1.tar+encrypted",
        "text/plain",
        media_type::OCI_CONFIG,
    ] {
        assert_eq!(layer_compression(other), None);
    }
}
