//! What is said of how an image was made: in a registry and in layouts, as other programs read it, and in the metadata file.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use stepwell_integration_tests::World;
use stepwell_integration_tests::proxy::Proxy;
use stepwell_test_support::cmd::{run, tool};

use crate::repository::{Daemon, Repositories};
use crate::{build_of, is_not_in_store, page};

/// What SLSA wants (<https://slsa.dev/spec/v1.1/provenance#schema>), and in-toto of a statement.
#[track_caller]
fn is_slsa_v1(statement: &Value) {
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let subjects = statement["subject"].as_array().expect("subjects");
    assert!(!subjects.is_empty());
    for subject in subjects {
        assert!(!subject["name"].as_str().expect("a name").is_empty());
        assert_eq!(subject["digest"]["sha256"].as_str().unwrap().len(), 64);
    }
    is_predicate(&statement["predicate"]);
}

#[track_caller]
fn is_predicate(predicate: &Value) {
    let is_uri = |v: &Value| v.as_str().is_some_and(|t| t.contains(':'));
    let definition = &predicate["buildDefinition"];
    assert!(is_uri(&definition["buildType"]), "{definition}");
    assert!(definition["externalParameters"].is_object());
    for dependency in definition["resolvedDependencies"].as_array().unwrap() {
        assert!(is_uri(&dependency["uri"]), "{dependency}");
        let digests = dependency["digest"].as_object().unwrap();
        assert!(digests.values().all(|d| d.as_str().unwrap().len() >= 40));
    }
    let details = &predicate["runDetails"];
    assert!(is_uri(&details["builder"]["id"]), "{details}");
    let time = |key: &str| -> jiff::Timestamp {
        let text = details["metadata"][key].as_str().expect("a time");
        text.parse().expect("RFC 3339")
    };
    assert!(time("startedOn") <= time("finishedOn"));
}

/// Metadata of a build.
fn metadata(world: &World) -> Value {
    let file = world.path("out/metadata.json");
    serde_json::from_slice(&std::fs::read(file).expect("the metadata")).expect("JSON")
}

/// Builds the world's context with a metadata file.
#[track_caller]
fn built(world: &World, args: &[&str]) -> Value {
    std::fs::create_dir_all(world.path("out")).expect("a directory");
    let file = format!(
        "--metadata-file={}",
        world.path("out/metadata.json").display()
    );
    let all: Vec<&str> = args.iter().copied().chain([file.as_str()]).collect();
    world.built(&all);
    metadata(world)
}

/// A document of the world's registry, as skopeo gives it.
fn raw(world: &World, what: &str) -> Value {
    let image = format!("docker://{}/{what}", world.registry.host());
    let text = run(tool("skopeo").args(["inspect", "--raw", "--tls-verify=false", &image]));
    serde_json::from_str(&text.expect("skopeo reads it")).expect("JSON")
}

/// Copies an image with everything that belongs to it.
fn copy(from: &str, to: &str) {
    run(tool("skopeo").args([
        "--insecure-policy",
        "copy",
        "--quiet",
        "--all",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        from,
        to,
    ]))
    .expect("skopeo copies it");
}

/// A blob of a layout, whose bytes have to be what its name says.
fn blob(layout: &Path, digest: &Value) -> Value {
    let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = std::fs::read(layout.join("blobs/sha256").join(hex)).expect("the blob");
    let found: String = Sha256::digest(&bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(found, hex);
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The image and the statement in an index, which has nothing else.
#[track_caller]
fn statement(layout: &Path, index: &Value) -> (Value, Value) {
    let [image, about] = &index["manifests"].as_array().unwrap()[..] else {
        panic!("{index}");
    };
    assert_eq!(
        about["annotations"],
        json!({"vnd.docker.reference.digest": image["digest"], "vnd.docker.reference.type": "attestation-manifest"})
    );
    assert_eq!(
        about["platform"],
        json!({"architecture": "unknown", "os": "unknown"})
    );
    let manifest = blob(layout, &about["digest"]);
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
    assert_eq!(
        layer["annotations"]["in-toto.io/predicate-type"],
        "https://slsa.dev/provenance/v1"
    );
    let config = blob(layout, &manifest["config"]["digest"]);
    assert_eq!(config["rootfs"]["diff_ids"], json!([layer["digest"]]));
    let statement = blob(layout, &layer["digest"]);
    is_slsa_v1(&statement);
    let subject = &statement["subject"][0]["digest"]["sha256"];
    let digest = format!("sha256:{}", subject.as_str().unwrap());
    assert_eq!(json!(digest), image["digest"]);
    (image.clone(), statement)
}

#[test]
fn an_image_in_a_registry_has_its_provenance_beside_it() {
    let world = World::new();
    world.file("a", "A").dockerfile(
        "FROM @BUSYBOX@\nARG WHO\nRUN echo $WHO > /who\nRUN --network=none true\nCOPY a /\n",
    );
    let push = ["--push", "--tag", "@REGISTRY@/app:1"];
    let plain = built(&world, &push);
    let attested = [
        &push[..],
        &["--provenance=mode=max,builder-id=https://ci.example.org/7"],
    ]
    .concat();
    let with = built(&world, &[&attested[..], &["--build-arg=WHO=me"]].concat());
    let plain_again = built(&world, &[&push[..], &["--build-arg=WHO=me"]].concat());
    let with_again = built(&world, &[&attested[..], &["--build-arg=WHO=me"]].concat());
    assert_ne!(
        plain["containerimage.digest"],
        plain_again["containerimage.digest"]
    );
    assert_ne!(
        with["containerimage.digest"],
        with_again["containerimage.digest"]
    );

    let index = raw(&world, "app:1");
    assert_eq!(
        index["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    let told = &with_again["containerimage.descriptor"];
    assert_eq!(told["mediaType"], index["mediaType"]);
    // The image is what it is without anything beside it.
    let image = &index["manifests"][0];
    assert_eq!(image["digest"], plain_again["containerimage.digest"]);
    assert_eq!(image["platform"]["os"], "linux");

    // There and back again, with everything.
    let layout = world.path("copied");
    let here = format!("docker://{}/app:1", world.registry.host());
    copy(&here, &format!("oci:{}:1", layout.display()));
    let there = format!("docker://{}/mirror:1", world.registry.host());
    copy(&format!("oci:{}:1", layout.display()), &there);
    assert_eq!(raw(&world, "mirror:1"), index);

    let (_, statement) = statement(&layout, &index);
    let host = world.registry.host();
    let name = format!("pkg:docker/{host}/app@1?platform=linux%2Famd64");
    let platform = std::env::consts::ARCH == "x86_64";
    assert!(
        !platform || statement["subject"][0]["name"] == json!(name),
        "{statement}"
    );
    let predicate = &statement["predicate"];
    let definition = &predicate["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:WHO"], "me");
    assert_eq!(request["frontend"], "dockerfile.v0");
    assert_eq!(
        request["locals"],
        json!([{"name": "context"}, {"name": "dockerfile"}])
    );
    assert_eq!(
        definition["externalParameters"]["configSource"],
        json!({"path": "Dockerfile"})
    );
    let base = &definition["resolvedDependencies"][0];
    assert!(
        base["uri"]
            .as_str()
            .unwrap()
            .starts_with(&format!("pkg:docker/{host}/busybox@1?"))
    );
    let busybox = Sha256::digest(skopeo_bytes(&world, "busybox:1"));
    let busybox: String = busybox.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(base["digest"]["sha256"], json!(busybox));
    // Nothing was carried out in this build; the one before was.
    let ours = &definition["internalParameters"]["stepwell"];
    assert_eq!(ours["networks"], json!({"default": 1, "none": 1}));
    assert_eq!(ours["isolation"]["tier"], "none");
    let before = &with["buildx.build.provenance"]["buildDefinition"]["internalParameters"];
    assert_eq!(before["stepwell"]["isolation"], with["stepwell.isolation"]);
    assert_ne!(before["stepwell"]["isolation"]["tier"], "none");
    let details = &predicate["runDetails"];
    assert_eq!(details["builder"]["id"], "https://ci.example.org/7");
    assert_eq!(details["metadata"]["buildkit_hermetic"], false);
    assert_eq!(
        details["metadata"]["buildkit_completeness"],
        json!({"request": true, "resolvedDependencies": false})
    );
    let steps = &definition["internalParameters"]["buildConfig"]["stepwellDefinition"];
    let runs = steps.as_array().unwrap().iter();
    assert_eq!(runs.filter(|s| s["op"]["op"] == "run").count(), 2);

    // It is a base like any other.
    world.dockerfile("FROM @REGISTRY@/app:1\nRUN echo is-$(cat /who)\n");
    assert!(world.built(&[]).err.contains("is-me"));
}

fn skopeo_bytes(world: &World, what: &str) -> Vec<u8> {
    let image = format!("docker://{}/{what}", world.registry.host());
    let text = run(tool("skopeo").args(["inspect", "--raw", "--tls-verify=false", &image]));
    text.expect("skopeo reads it").into_bytes()
}

#[test]
fn layouts_have_it_as_well_and_the_metadata_always() {
    let world = World::new();
    world
        .file("a", "A")
        .dockerfile("FROM scratch\nARG WHO\nCOPY a /\nLABEL x=$WHO\n");
    std::fs::create_dir_all(world.path("out")).unwrap();
    world.give();
    let dir = world.path("out/layout");
    let output = format!("--output=type=oci,tar=false,dest={}", dir.display());
    let args = ["--tag=app:1", "--build-arg=WHO=me", "--label=l=v", &output];
    let with = built(&world, &[&args[..], &["--provenance"]].concat());
    let top: Value =
        serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    let [named] = &top["manifests"].as_array().unwrap()[..] else {
        panic!("{top}");
    };
    assert_eq!(named["digest"], with["containerimage.digest"]);
    assert_eq!(
        named["annotations"]["org.opencontainers.image.ref.name"],
        "1"
    );
    let index = blob(&dir, &named["digest"]);
    let (image, statement) = statement(&dir, &index);
    // The short form says less.
    let request = &statement["predicate"]["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["args"], json!({}));
    assert!(request.get("secrets").is_none());
    let internal = &statement["predicate"]["buildDefinition"]["internalParameters"];
    assert!(internal.get("buildConfig").is_none());
    let metadata = &statement["predicate"]["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_completeness"]["request"], false);
    // skopeo finds the image in it.
    let inspected = run(tool("skopeo").args(["inspect", &format!("oci:{}:1", dir.display())]));
    let inspected: Value = serde_json::from_str(&inspected.unwrap()).unwrap();
    assert_eq!(inspected["Labels"], json!({"l": "v", "x": "me"}));

    // Two outputs of one build have the same.
    let [first, second] = ["first", "second"].map(|name| {
        let dir = world.path(&format!("out/{name}"));
        (
            format!("--output=type=oci,tar=false,dest={}", dir.display()),
            dir,
        )
    });
    world.built(&["--provenance", "--tag=app:1", &first.0, &second.0]);
    let [first, second] =
        [first.1, second.1].map(|dir| std::fs::read(dir.join("index.json")).unwrap());
    assert_eq!(first, second);

    // Without it the image is the same, alone, and the metadata file still says how it was made.
    let tar = world.path("out/image.tar");
    let output = format!("--output=type=oci,dest={}", tar.display());
    let args = ["--tag=app:1", "--build-arg=WHO=me", "--label=l=v", &output];
    let without = built(&world, &args);
    assert_eq!(without["containerimage.digest"], image["digest"]);
    is_predicate(&without["buildx.build.provenance"]);
}

#[test]
fn sources_are_told_with_their_digests_and_nothing_confidential_is() {
    let (world, all) = (World::new(), Repositories::new());
    all.init("a");
    all.write("a", "x", "one");
    all.write("a", "Dockerfile", "FROM scratch\nCOPY x /\n");
    let commit = all.commit("a");
    let daemon = Daemon::start(&all);
    let proxy = Proxy::alone(|_| page("content"));
    let host = proxy.host();
    let token = Arc::new("hush-token".to_owned());
    world.file("token", token.as_bytes());
    world.dockerfile(&format!(
        "FROM @BUSYBOX@\nARG T\nADD http://u:hush-password@{host}/f?sig=hush-query /f\nADD {}#main /r\nRUN --mount=type=secret,id=t,required=true --mount=type=ssh true\n",
        daemon.url("a")
    ));
    let secret = format!(
        "--secret=id=t,src={}",
        world.path("context/token").display()
    );
    let args = [
        "--provenance=mode=max",
        "--tag=@REGISTRY@/app:1",
        "--push",
        &secret,
        // The user's own mistake is not made worse.
        "--build-arg=T=hush-token",
        "--build-arg=HTTP_PROXY=http://me:hush-proxy@127.0.0.1:1",
        "--build-arg=no_proxy=127.0.0.1",
    ];
    std::fs::create_dir_all(world.path("out")).unwrap();
    let told = built(&world, &args);
    let layout = world.path("copied");
    let here = format!("docker://{}/app:1", world.registry.host());
    copy(&here, &format!("oci:{}:1", layout.display()));
    let (_, statement) = statement(&layout, &raw(&world, "app:1"));
    let texts = [statement.to_string(), told.to_string()];
    for hushed in ["hush-token", "hush-password", "hush-query", "hush-proxy"] {
        for text in &texts {
            assert!(!text.contains(hushed), "{hushed}: {text}");
        }
    }
    is_not_in_store(&world, "hush-proxy");
    let definition = &statement["predicate"]["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["secrets"], json!([{"id": "t"}]));
    assert_eq!(request["ssh"], json!([{"id": "default", "optional": true}]));
    assert_eq!(request["args"]["build-arg:T"], "***");
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    let content: String = Sha256::digest(b"content")
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    for wanted in [
        json!({"uri": format!("http://{host}/f?sig=…"), "digest": {"sha256": content}}),
        json!({"uri": format!("{}#refs/heads/main", daemon.url("a")), "digest": {"sha1": commit}}),
    ] {
        assert!(dependencies.contains(&wanted), "{wanted}: {dependencies:?}");
    }

    // A build of a commit knows all that it is made of.
    let file = format!(
        "--metadata-file={}",
        world.path("out/metadata.json").display()
    );
    let context = format!("{}#main", daemon.url("a"));
    let ran = build_of(&world, &context, &[&file], None);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let predicate = &metadata(&world)["buildx.build.provenance"];
    is_predicate(predicate);
    let source = &predicate["buildDefinition"]["externalParameters"]["configSource"];
    let uri = format!("{}#refs/heads/main", daemon.url("a"));
    assert_eq!(
        *source,
        json!({"uri": uri, "digest": {"sha1": commit}, "path": "Dockerfile"})
    );
    let told = &predicate["runDetails"]["metadata"];
    assert_eq!(told["buildkit_completeness"]["resolvedDependencies"], true);
    assert_eq!(told["buildkit_hermetic"], true);
}
