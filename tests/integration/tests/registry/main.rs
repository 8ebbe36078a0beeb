//! A registry that fails or lies, met through the command line: what can be mended is mended, what cannot is said clearly,
//! and nothing wrong is kept.
//!
//! The registry is the real one behind a proxy that tampers with chosen answers and counts them.  After each failure the
//! same store is used with the honest registry, and has to give the digest that a fresh one gives.

mod forged;
mod pull;
mod push;

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

fn unauthorized(asked: &Asked) -> Option<Tamper> {
    asked.target.starts_with("/v2/").then(|| {
        Tamper::Answer(
            401,
            vec![("WWW-Authenticate", "Basic realm=\"r\"".into())],
            vec![],
        )
    })
}
