//! A registry that fails or lies, met through the command line: what can be mended is mended, what cannot is said clearly,
//! and nothing wrong is kept.
//!
//! The registry is the real one behind a proxy that tampers with chosen answers and counts them.  After each failure the
//! same store is used with the honest registry, and has to give the digest that a fresh one gives.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stepwell_integration_tests::proxy::{Asked, Proxy, Tamper};
use stepwell_integration_tests::{Ran, World, ran};
use stepwell_test_support::cmd::{run, tool};

/// Times of new files are these, so that digests can be compared.
const EPOCH: &str = "1700000000";

const DOCKERFILE: &str =
    "# the base is on line 2\nFROM @PROXY@/busybox:1\nRUN echo made > /made\nCOPY file /file\n";

/// What no output may contain: a login's password, as it is and as it is sent, a token, the signature of a redirection.
const SECRETS: &[&str] = &[
    "Pa55word",
    "VXNlcjpQYTU1d29yZA==",
    "s3cretT0ken",
    "s1gnature",
];

/// Exit codes: what the user wrote is at fault; the builder, the network or a registry is.
const REFUSED: i32 = 65;
const FAILED: i32 = 71;

/// A world with a proxy in front of its registry.
struct Scene {
    world: World,
    proxy: Proxy,
    /// Digests of the base's manifest, configuration and layer.
    manifest: String,
    config: String,
    layer: String,
    stores: Cell<u32>,
    login: bool,
    args: Vec<String>,
    expected: String,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let proxy = Proxy::start(&world.registry.host());
        let raw = inspect(&world, &["--raw"]);
        let json: Value = serde_json::from_str(&raw).expect("a manifest");
        let digest = |pointer: &str| {
            json.pointer(pointer)
                .and_then(Value::as_str)
                .expect("a digest")
                .to_owned()
        };
        world.file("file", "content\n");
        let mut scene = Self {
            manifest: sha256(raw.as_bytes()),
            config: digest("/config/digest"),
            layer: digest("/layers/0/digest"),
            stores: Cell::new(0),
            login: false,
            args: Vec::new(),
            expected: String::new(),
            world,
            proxy,
        };
        scene.dockerfile(DOCKERFILE);
        let (fresh, digest) = scene.build("store-fresh");
        assert_eq!(fresh.code, Some(0), "{}", fresh.err);
        scene.expected = digest.expect("a digest");
        scene
    }

    fn dockerfile(&self, text: &str) {
        self.world.dockerfile(&self.expand(text));
    }

    fn expand(&self, text: &str) -> String {
        text.replace("@PROXY@", &self.proxy.host())
    }

    /// Builds in a store; returns what the program did, and the digest of the image that it made.
    fn build(&self, store: &str) -> (Ran, Option<String>) {
        let metadata = self.world.path("metadata.json");
        let _ = std::fs::remove_file(&metadata);
        let output = format!("type=oci,dest={}", self.world.path("image.tar").display());
        let mut args = vec![
            "--output",
            &output,
            "--metadata-file",
            metadata.to_str().expect("a path"),
        ];
        args.extend(self.args.iter().map(String::as_str));
        let mut command = self.world.build_command_in(store, &args);
        command.env("SOURCE_DATE_EPOCH", EPOCH);
        if self.login {
            command.env("DOCKER_CONFIG", self.docker_config());
        }
        let ran = ran(&mut command);
        for secret in SECRETS {
            assert!(
                !format!("{}{}", ran.out, ran.err).contains(secret),
                "`{secret}` is told:\n{}",
                ran.err
            );
        }
        let json = std::fs::read(&metadata)
            .ok()
            .map(|m| serde_json::from_slice::<Value>(&m).expect("JSON"));
        let digest = json.and_then(|j| Some(j["containerimage.digest"].as_str()?.to_owned()));
        (ran, digest)
    }

    /// A login for the proxy, in a directory that the user can read.
    fn docker_config(&self) -> PathBuf {
        let dir = self.world.path("docker");
        std::fs::create_dir_all(&dir).expect("a directory");
        let login = json!({"auths": {self.proxy.host(): {"auth": SECRETS[1]}}});
        std::fs::write(dir.join("config.json"), login.to_string()).expect("a login");
        dir
    }

    fn store(&self) -> String {
        self.stores.set(self.stores.get() + 1);
        format!("store-{}", self.stores.get())
    }

    /// A build while `rule` tampers succeeds with the digest that it would have anyway; returns what was tampered with.
    #[track_caller]
    fn succeeds(
        &self,
        rule: impl Fn(&Asked) -> Option<Tamper> + Send + Sync + 'static,
    ) -> (Vec<Asked>, Duration) {
        let store = self.store();
        self.proxy.tamper(rule);
        let began = Instant::now();
        let (ran, digest) = self.build(&store);
        let tampered = self.proxy.tampered();
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(digest.as_deref(), Some(self.expected.as_str()));
        assert!(
            !tampered.is_empty(),
            "nothing was tampered with: {:?}",
            self.proxy.requests()
        );
        self.proxy.honest();
        self.is_sound(&store);
        (tampered, began.elapsed())
    }

    /// A build while `rule` tampers fails with this exit code and these words, and leaves nothing wrong behind.
    #[track_caller]
    fn fails(
        &self,
        code: i32,
        parts: &[&str],
        rule: impl Fn(&Asked) -> Option<Tamper> + Send + Sync + 'static,
    ) -> (Vec<Asked>, Ran) {
        let store = self.store();
        self.proxy.tamper(rule);
        let (ran, _) = self.build(&store);
        let tampered = self.proxy.tampered();
        println!(
            "=== {parts:?}: {} tampered with, {:?}\n{}",
            tampered.len(),
            ran.code,
            ran.err
        );
        assert!(
            !tampered.is_empty(),
            "nothing was tampered with: {:?}",
            self.proxy.requests()
        );
        let parts: Vec<String> = parts.iter().map(|p| self.expand(p)).collect();
        ran.failed_with(code, &parts.iter().map(String::as_str).collect::<Vec<_>>());
        self.proxy.honest();
        self.is_sound(&store);
        let (again, digest) = self.build(&store);
        assert_eq!(
            again.code,
            Some(0),
            "the same store, the honest registry:\n{}",
            again.err
        );
        assert_eq!(
            digest.as_deref(),
            Some(self.expected.as_str()),
            "the same store, the honest registry"
        );
        (tampered, ran)
    }

    /// The real registry has the image, and all of it: skopeo checks digests when it copies.
    #[track_caller]
    fn is_in_the_registry(&self, name: &str) {
        let copy = self.world.path(&format!("copy-{name}"));
        run(tool("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--src-tls-verify=false",
            ])
            .arg(format!("docker://{}/{name}:1", self.world.registry.host()))
            .arg(format!("dir:{}", copy.display())))
        .expect("skopeo takes the image");
        let manifest = std::fs::read(copy.join("manifest.json")).expect("a manifest");
        assert_eq!(sha256(&manifest), self.expected);
    }

    /// Each blob of a store is what its name says, and nothing half-done is left.
    #[track_caller]
    fn is_sound(&self, store: &str) {
        let script = r#"cd "$1" && for f in v1/blobs/sha256/*; do echo "$(sha256sum < "$f" | cut -d' ' -f1) $(basename "$f")"; done; find v1/tmp -mindepth 1"#;
        let text = run(Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(self.world.path(store)))
        .expect("the store");
        for line in text.lines().filter(|l| !l.ends_with('*')) {
            let (actual, name) = line.split_once(' ').unwrap_or((line, "nothing"));
            assert_eq!(actual, name, "in the store after a failure");
        }
    }
}

fn inspect(world: &World, args: &[&str]) -> String {
    run(tool("skopeo")
        .args(["inspect", "--tls-verify=false"])
        .args(args)
        .arg(format!("docker://{}/busybox:1", world.registry.host())))
    .expect("skopeo reads the manifest")
}

/// `sha256:…` of some bytes.
fn sha256(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let mut sum = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sha256sum runs");
    sum.stdin
        .take()
        .expect("its input")
        .write_all(bytes)
        .expect("it reads");
    let out = sum.wait_with_output().expect("it ends");
    format!("sha256:{}", &String::from_utf8_lossy(&out.stdout)[..64])
}

/// Tampers with the first `times` requests of this method for this path.
fn only(
    times: usize,
    method: &'static str,
    part: &str,
    how: Tamper,
) -> impl Fn(&Asked) -> Option<Tamper> + Send + Sync + use<> {
    let part = part.to_owned();
    move |asked| (asked.tampered < times && asked.is(method, &part)).then(|| how.clone())
}

const ALWAYS: usize = usize::MAX;

fn status(code: u16) -> Tamper {
    Tamper::Answer(code, vec![], vec![])
}

fn page() -> Tamper {
    let html = b"<!DOCTYPE html><html><body>Welcome to the hotel's network</body></html>";
    Tamper::Answer(
        200,
        vec![("Content-Type", "text/html".into())],
        html.to_vec(),
    )
}

/// A digest that nothing has.
const NOTHING: &str = "sha256:5555555555555555555555555555555555555555555555555555555555555555";

/// Where a step that needed the base is written, and where the base is.
const STEP: &str = "--> Dockerfile:3:1";
const BASE: &str = "--> Dockerfile:2:6";

fn spaced(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.push(b'\n');
    bytes
}

#[test]
fn a_layer_that_breaks_off_is_taken_up_where_it_broke() {
    let scene = Scene::new();
    let (tampered, _) = scene.succeeds(only(1, "GET", &scene.layer, Tamper::Cut(500_000)));
    assert_eq!(tampered.len(), 1);
    // A piece each time is enough.
    let (tampered, _) = scene.succeeds(only(ALWAYS, "GET", &scene.layer, Tamper::Cut(400_000)));
    assert_eq!(tampered.len(), 3);
    assert_eq!(tampered[2].header("range"), Some("bytes=800000-"));
}

#[test]
fn a_layer_that_does_not_come_is_named() {
    let scene = Scene::new();
    let url = format!("GET http://@PROXY@/v2/busybox/blobs/{}`", scene.layer);
    let always = |how: Tamper| only(ALWAYS, "GET", &scene.layer, how);
    let (tampered, _) = scene.fails(
        FAILED,
        &[
            STEP,
            &url,
            "the connection broke",
            "tried 6 times",
            "hint: the network",
        ],
        always(Tamper::Cut(0)),
    );
    assert_eq!(tampered.len(), 6);
    scene.fails(
        FAILED,
        &[
            STEP,
            &url,
            "404 not found",
            "hint: the image is incomplete in its registry",
        ],
        always(status(404)),
    );
    scene.fails(
        FAILED,
        &[
            STEP,
            &url,
            "503 service unavailable",
            "note: `GET",
            "trying again in",
            "hint: `@PROXY@` itself has a problem",
        ],
        always(status(503)),
    );
}

#[test]
fn a_layer_with_other_bytes_is_refused() {
    let scene = Scene::new();
    let url = format!("GET http://@PROXY@/v2/busybox/blobs/{}`", scene.layer);
    let kept = "hint: nothing of it was kept";
    let always = |how: Tamper| only(ALWAYS, "GET", &scene.layer, how);
    let flipped: fn(Vec<u8>) -> Vec<u8> = |mut bytes| {
        bytes[777_777] ^= 1;
        bytes
    };
    let instead = format!("instead of `{}`", scene.layer);
    scene.fails(
        FAILED,
        &[STEP, &url, "has the digest", &instead, kept],
        always(Tamper::Body(flipped)),
    );
    let shorter: fn(Vec<u8>) -> Vec<u8> = |mut bytes| {
        bytes.pop();
        bytes
    };
    for how in [shorter, spaced] {
        scene.fails(
            FAILED,
            &[STEP, &url, "the content has", "bytes instead of", kept],
            always(Tamper::Body(how)),
        );
    }
    scene.fails(
        FAILED,
        &[STEP, &url, "bytes instead of", kept],
        always(Tamper::Endless),
    );
    scene.fails(
        FAILED,
        &[
            STEP,
            &url,
            "bytes instead of",
            "hint: the answer is a web page",
        ],
        always(page()),
    );
}

#[test]
fn a_manifest_that_is_another_is_refused() {
    let scene = Scene::new();
    let url = format!(
        "GET http://@PROXY@/v2/busybox/manifests/{}`",
        scene.manifest
    );
    let instead = format!("instead of `{}`", scene.manifest);
    let base = "error: the image `@PROXY@/busybox:1` cannot be had";
    let all = [BASE, base, &url, &instead, "hint: nothing of it was kept"];
    scene.fails(
        FAILED,
        &all,
        only(ALWAYS, "GET", "/manifests/", Tamper::Body(spaced)),
    );
    // The tag's digest is the registry's word, which it then has to keep.
    scene.fails(
        FAILED,
        &[
            BASE,
            base,
            NOTHING,
            "and does not have that",
            "404 not found: MANIFEST_UNKNOWN",
            "hint: a mirror or a cache",
        ],
        only(
            ALWAYS,
            "HEAD",
            "/manifests/",
            Tamper::Header("docker-content-digest", NOTHING.into()),
        ),
    );
    scene.fails(
        FAILED,
        &[
            BASE,
            base,
            &scene.config,
            "bytes instead of",
            "hint: nothing of it was kept",
        ],
        only(ALWAYS, "GET", &scene.config, Tamper::Body(spaced)),
    );
    scene.fails(
        FAILED,
        &[BASE, base, "longer than the limit", "hint: "],
        only(ALWAYS, "GET", "/manifests/", Tamper::Endless),
    );
    scene.fails(
        FAILED,
        &[
            BASE,
            base,
            "the manifest is not json",
            "hint: the answer is a web page",
        ],
        |asked| asked.target.contains("/manifests/").then(page),
    );
    scene.dockerfile(&DOCKERFILE.replace(":1", &format!("@{}", scene.manifest)));
    let all = [BASE, &url, &instead, "hint: nothing of it was kept"];
    scene.fails(
        FAILED,
        &all,
        only(ALWAYS, "GET", "/manifests/", Tamper::Body(spaced)),
    );
}

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

fn unauthorized(asked: &Asked) -> Option<Tamper> {
    asked.target.starts_with("/v2/").then(|| {
        Tamper::Answer(
            401,
            vec![("WWW-Authenticate", "Basic realm=\"r\"".into())],
            vec![],
        )
    })
}

#[test]
fn refusals_say_what_to_do() {
    let mut scene = Scene::new();
    let manifests =
        |code: u16| move |asked: &Asked| asked.target.contains("/manifests/").then(|| status(code));
    let base = "the image `@PROXY@/busybox:1` cannot be had";
    let url = "`HEAD http://@PROXY@/v2/busybox/manifests/1`";
    scene.fails(
        FAILED,
        &[
            BASE,
            base,
            url,
            "401 unauthorized",
            "hint: a login for `@PROXY@` is needed",
            "docker login @PROXY@",
        ],
        unauthorized,
    );
    scene.fails(
        FAILED,
        &[
            BASE,
            base,
            url,
            "403 forbidden",
            "hint: `@PROXY@` did not ask for a login",
        ],
        manifests(403),
    );
    // Only this one is the Dockerfile's fault.
    scene.fails(
        REFUSED,
        &[
            BASE,
            base,
            url,
            "404 not found",
            "hint: check the name and the tag",
        ],
        manifests(404),
    );
    scene.login = true;
    scene.fails(
        FAILED,
        &[
            BASE,
            base,
            url,
            "401 unauthorized",
            "docker/config.json",
            "was used and not accepted",
        ],
        unauthorized,
    );
    let denied = |asked: &Asked| match asked.authorization.as_str() {
        "" => unauthorized(asked),
        _ => asked.target.contains("/v2/").then(|| status(403)),
    };
    scene.fails(
        FAILED,
        &[
            BASE,
            base,
            url,
            "403 forbidden",
            "may lack the right to read",
        ],
        denied,
    );
    scene.args = vec!["--quiet".into()];
    scene.fails(
        FAILED,
        &[
            BASE,
            base,
            url,
            "403 forbidden",
            "may lack the right to read",
        ],
        denied,
    );
}

#[test]
fn a_registry_that_is_busy_is_waited_for_but_not_for_ever() {
    let scene = Scene::new();
    let busy = |after: &str| Tamper::Answer(429, vec![("Retry-After", after.into())], vec![]);
    let (tampered, took) = scene.succeeds(only(1, "GET", &scene.layer, busy("2")));
    assert_eq!(tampered.len(), 1);
    assert!(took >= Duration::from_secs(2), "{took:?}");
    for code in [500, 503] {
        scene.succeeds(only(1, "GET", &scene.layer, status(code)));
        scene.succeeds(only(1, "HEAD", "/manifests/", status(code)));
    }
    let base = "the image `@PROXY@/busybox:1` cannot be had";
    let limits = "hint: `@PROXY@` limits requests";
    let always = |how: Tamper| only(ALWAYS, "HEAD", "/manifests/", how);
    let (tampered, _) = scene.fails(
        FAILED,
        &[
            BASE,
            base,
            "429 too many requests (tried 6 times)",
            "trying again in 1 s",
            limits,
        ],
        always(busy("1")),
    );
    assert_eq!(tampered.len(), 6);
    // An hour is not waited for.
    let (tampered, _) = scene.fails(
        FAILED,
        &[
            BASE,
            base,
            "429 too many requests",
            "asks to wait for 3600 s",
            limits,
        ],
        always(busy("3600")),
    );
    assert_eq!(tampered.len(), 1);
    for code in [500, 503] {
        scene.fails(
            FAILED,
            &[
                BASE,
                base,
                "tried 6 times",
                "hint: `@PROXY@` itself has a problem",
            ],
            only(ALWAYS, "HEAD", "/manifests/", status(code)),
        );
    }
}

#[test]
fn a_redirection_is_followed_without_the_login_and_told_without_its_signature() {
    let mut scene = Scene::new();
    scene.login = true;
    let network = Proxy::start(&scene.world.registry.host());
    let redirects = |to: String| {
        let layer = scene.layer.clone();
        move |asked: &Asked| match asked.authorization.as_str() {
            "" => unauthorized(asked),
            _ => asked
                .is("GET", &layer)
                .then(|| Tamper::Answer(307, vec![("Location", to.clone())], vec![])),
        }
    };
    let signed = format!(
        "http://{}/v2/busybox/blobs/{}?X-Amz-Signature=s1gnature",
        network.host(),
        scene.layer
    );
    network.tamper(only(
        ALWAYS,
        "GET",
        "s1gnature",
        Tamper::Header("x-network", "1".into()),
    ));
    scene.succeeds(redirects(signed.clone()));
    let asked = network.tampered();
    assert!(
        !asked.is_empty() && asked.iter().all(|a| a.authorization.is_empty()),
        "{asked:?}"
    );
    network.tamper(only(ALWAYS, "GET", "s1gnature", status(403)));
    let there = format!(
        "GET http://{}/v2/busybox/blobs/{}?X-Amz-Signature=…`",
        network.host(),
        scene.layer
    );
    let hint = format!(
        "hint: `@PROXY@` sent the request on to `{}`",
        network.host()
    );
    scene.fails(
        FAILED,
        &[STEP, &there, "403 forbidden", &hint],
        redirects(signed),
    );
    assert!(!network.tampered().is_empty());
    for to in ["file:///etc/passwd", "http://[bad"] {
        scene.fails(
            FAILED,
            &[STEP, "the redirection to", "is not followed"],
            redirects(to.into()),
        );
    }
}

/// A registry with a token server, whose token number `n` is good while `n` is the number of tokens that were revoked.
fn tokens(
    host: String,
    revoke: impl Fn(&Asked) -> bool + Send + Sync,
) -> impl Fn(&Asked) -> Option<Tamper> + Send + Sync {
    let revoked = std::sync::atomic::AtomicUsize::new(0);
    move |asked| {
        use std::sync::atomic::Ordering::SeqCst;
        if asked.target.starts_with("/token?") {
            let token =
                json!({"token": format!("s3cretT0ken{}", revoked.load(SeqCst)), "expires_in": 300});
            return Some(Tamper::Answer(200, vec![], token.to_string().into_bytes()));
        }
        let good = format!("Bearer s3cretT0ken{}", revoked.load(SeqCst));
        let is_good = asked.authorization == good;
        if is_good && !revoke(asked) {
            return None;
        }
        revoked.fetch_add(usize::from(is_good), SeqCst);
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"r\"");
        Some(Tamper::Answer(
            401,
            vec![("WWW-Authenticate", challenge)],
            vec![],
        ))
    }
}

/// Pushes to a repository of its own.
fn pushes(scene: &mut Scene, name: &str) {
    scene.args = vec![
        "--push".into(),
        "--tag".into(),
        scene.expand(&format!("@PROXY@/{name}:1")),
    ];
}

#[test]
fn a_push_that_breaks_off_is_sent_again() {
    let mut scene = Scene::new();
    let ways: [Tamper; 3] = [
        Tamper::Deaf(100),
        status(500),
        Tamper::Answer(503, vec![("Retry-After", "1".into())], vec![]),
    ];
    for (n, how) in ways.into_iter().enumerate() {
        pushes(&mut scene, &format!("again{n}"));
        let (tampered, _) = scene.succeeds(only(1, "PUT", "/blobs/uploads/", how.clone()));
        assert_eq!(tampered.len(), 1);
        scene.is_in_the_registry(&format!("again{n}"));
        let manifest = format!("/manifest{n}/manifests/");
        pushes(&mut scene, &format!("manifest{n}"));
        scene.succeeds(only(1, "PUT", &manifest, how));
    }
    // A registry or a proxy that takes no large requests is given the blob in chunks.
    pushes(&mut scene, "chunks");
    let (tampered, _) = scene.succeeds(|asked| {
        (asked.is("PUT", "/blobs/uploads/") && asked.length() > 0).then(|| status(413))
    });
    assert_eq!(tampered.len(), 3);
    scene.is_in_the_registry("chunks");
}

#[test]
fn a_token_that_expires_during_a_push_is_renewed() {
    let mut scene = Scene::new();
    pushes(&mut scene, "token");
    let once = std::sync::atomic::AtomicBool::new(true);
    let host = scene.proxy.host();
    let (tampered, _) = scene.succeeds(tokens(host, move |asked| {
        asked.is("PUT", "/blobs/uploads/") && once.swap(false, std::sync::atomic::Ordering::SeqCst)
    }));
    assert!(tampered.iter().any(|a| a.is("PUT", "/blobs/uploads/")));
    assert!(
        tampered.iter().filter(|a| a.is("GET", "/token?")).count() >= 3,
        "{tampered:?}"
    );
    scene.is_in_the_registry("token");
    pushes(&mut scene, "never");
    let host = scene.proxy.host();
    scene.fails(
        FAILED,
        &[
            "cannot push",
            "@PROXY@/never:1",
            "401 unauthorized",
            "hint: a login for `@PROXY@` is needed",
        ],
        tokens(host, |asked| asked.is("PUT", "/blobs/uploads/")),
    );
}

#[test]
fn a_push_that_is_refused_says_why() {
    let mut scene = Scene::new();
    let problem = "hint: `@PROXY@` itself has a problem";
    let upload = "/blobs/uploads/";
    let cases: [(&str, &str, Tamper, &[&str]); 8] = [
        (
            "PUT",
            upload,
            Tamper::Deaf(100),
            &["the connection broke", "tried 6 times", "hint: the network"],
        ),
        (
            "PUT",
            upload,
            status(500),
            &["500 internal server error (tried 6 times)", problem],
        ),
        (
            "POST",
            upload,
            status(403),
            &["403 forbidden", "hint: `@PROXY@` did not ask for a login"],
        ),
        (
            "POST",
            upload,
            status(404),
            &[
                "404 not found",
                "hint: the repository may have to be created first",
            ],
        ),
        (
            "P",
            upload,
            status(413),
            &[
                "413 ",
                "hint: the registry, or a proxy in front of it, limits the size",
            ],
        ),
        (
            "PUT",
            upload,
            status(507),
            &[
                "507 insufficient storage",
                "hint: `@PROXY@` has no room left",
            ],
        ),
        (
            "PUT",
            upload,
            Tamper::Header("docker-content-digest", NOTHING.into()),
            &[
                NOTHING,
                "instead of",
                "hint: the registry took something else",
            ],
        ),
        ("POST", upload, page(), &["the answer is a web page"]),
    ];
    for (n, (method, part, how, parts)) in cases.into_iter().enumerate() {
        pushes(&mut scene, &format!("out{n}"));
        let name = format!("to `@PROXY@/out{n}:1`");
        let all: Vec<&str> = ["cannot push ", " `sha256:", &name]
            .iter()
            .chain(parts)
            .copied()
            .collect();
        scene.fails(FAILED, &all, move |asked| {
            (asked.method.starts_with(method) && asked.target.contains(part)).then(|| how.clone())
        });
    }
    let denied: Tamper = Tamper::Answer(
        403,
        vec![],
        br#"{"errors":[{"code":"DENIED","message":"read\u001b[2J only"}]}"#.to_vec(),
    );
    let invalid: Tamper = Tamper::Answer(
        400,
        vec![],
        br#"{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}"#.to_vec(),
    );
    let lies: Tamper = Tamper::Header("docker-content-digest", NOTHING.into());
    for (n, (how, parts)) in [
        (denied, ["403 forbidden: DENIED: read [2J only", "hint: "]),
        (
            invalid,
            ["400 bad request: MANIFEST_INVALID: no", "cannot push"],
        ),
        (lies, [NOTHING, "hint: the registry took something else"]),
    ]
    .into_iter()
    .enumerate()
    {
        pushes(&mut scene, &format!("manifest{n}"));
        let what = format!(
            "cannot push the manifest `{}` to `@PROXY@/manifest{n}:1`",
            scene.expected
        );
        let all: Vec<&str> = [what.as_str()].into_iter().chain(parts).collect();
        scene.fails(FAILED, &all, only(ALWAYS, "PUT", "/manifests/", how));
    }
}
