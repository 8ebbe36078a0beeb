//! Images whose digests are all right and whose layers are not what their configurations say.

use super::*;

/// An image whose digests are all right, but whose layer is not what its configuration says.
struct Forged {
    manifest: String,
    config: String,
    layer: Vec<u8>,
}

impl Forged {
    fn new(diff_id: &str, layer: Vec<u8>) -> Self {
        let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}).to_string();
        let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": sha256(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
        });
        Self {
            manifest: manifest.to_string(),
            config,
            layer,
        }
    }

    /// Serves it as `…/forged`.
    fn serve(self) -> impl Fn(&Asked) -> Option<Tamper> + Send + Sync {
        let digests = [self.config.as_bytes(), &self.layer].map(sha256);
        let headers = vec![
            (
                "Content-Type",
                "application/vnd.oci.image.manifest.v1+json".to_owned(),
            ),
            ("Docker-Content-Digest", sha256(self.manifest.as_bytes())),
        ];
        move |asked| {
            let ours = |body: &[u8]| Tamper::Answer(200, vec![], body.to_vec());
            let (name, rest) = asked.target.split_once("/forged/")?;
            match rest.rsplit('/').next()? {
                last if last == digests[0] => Some(ours(self.config.as_bytes())),
                last if last == digests[1] => Some(ours(&self.layer)),
                _ if name == "/v2" => Some(Tamper::Answer(
                    200,
                    headers.clone(),
                    self.manifest.as_bytes().to_vec(),
                )),
                _ => None,
            }
        }
    }
}

const ON_FORGED: &str = "FROM @PROXY@/forged:1\n\nRUN cat /etc/passwd > /seen\n";

#[test]
fn a_layer_that_is_no_layer_is_named() {
    let scene = Scene::new();
    let page = &b"<html>neither compressed nor a tar</html>"[..];
    let no_gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\0and no gzip behind it";
    let no_tar = &[7; 5000];
    for (junk, why) in [
        (page, "is truncated"),
        (no_gzip, "cannot be had or decompressed: "),
        (no_tar, "is damaged or not a tar archive"),
    ] {
        scene.dockerfile(ON_FORGED);
        let store = scene.store();
        let image = scene.expand("the image `@PROXY@/forged:1` is broken: layer");
        scene
            .proxy
            .tamper(Forged::new(NOTHING, junk.to_vec()).serve());
        let (ran, _) = scene.build(&store);
        println!("{}", ran.err);
        ran.failed_with(
            FAILED,
            &[STEP, "RUN cat", &image, why, "hint: push the image again"],
        );
        assert!(
            scene.proxy.tampered().len() >= 4,
            "{:?}",
            scene.proxy.requests()
        );
        scene.proxy.honest();
        scene.is_sound(&store);
        scene.dockerfile(DOCKERFILE);
        assert_eq!(
            scene.build(&store).1.as_deref(),
            Some(scene.expected.as_str())
        );
    }
}

/// Whoever could have a layer taken for another image's layer would be in all images that are built on that one.
#[test]
fn an_image_that_claims_another_ones_layer_does_not_get_into_its_place() {
    let mut scene = Scene::new();
    let honest = DOCKERFILE.replace("echo made", "cat /etc/passwd");
    scene.dockerfile(&honest);
    let store = scene.store();
    let (first, expected) = scene.build(&store);
    assert_eq!(first.code, Some(0), "{}", first.err);
    // The base's own diff id, and its own tar but for the content of a file.
    let config: Value =
        serde_json::from_str(&inspect(&scene.world, &["--config", "--raw"])).expect("JSON");
    let diff_id = config["rootfs"]["diff_ids"][0].as_str().expect("a diff id");
    let blob = format!(
        "{store}/v1/blobs/sha256/{}",
        &scene.layer["sha256:".len()..]
    );
    let changed = scene.world.path("changed");
    // What is unpacked already would serve; what is not has to be read.
    let script = "gzip -dc \"$1\" | LC_ALL=C sed s/root:x:0:0/evil:x:0:0/ | gzip -n > \"$2\" && rm -r \"$3\"/*";
    run(Command::new("sh").args(["-c", script, "sh"]).args([
        scene.world.path(&blob),
        changed.clone(),
        scene.world.path(&format!("{store}/v1/trees")),
    ]))
    .expect("another layer");
    scene.dockerfile(ON_FORGED);
    scene
        .proxy
        .tamper(Forged::new(diff_id, std::fs::read(&changed).expect("the layer")).serve());
    let (forged, _) = scene.build(&store);
    println!("{}", forged.err);
    // A reader that believes the claim unpacks the one in the place of the other, which the honest image then gets.
    scene.proxy.honest();
    scene.dockerfile(&honest);
    scene.args = vec!["--no-cache".into()];
    let (again, digest) = scene.build(&store);
    assert_eq!(again.code, Some(0), "{}", again.err);
    assert_eq!(digest, expected, "the forged layer is in the honest image");
    scene.is_sound(&store);
    let image = scene.expand("the image `@PROXY@/forged:1` is broken: content of layer");
    forged.failed_with(FAILED, &[STEP, diff_id, &image]);
}
