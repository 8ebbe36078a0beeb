//! Pushing: what is sent again, renewed, and refused.

use super::*;

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

#[test]
fn layers_are_pushed_while_the_next_step_runs() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let mut scene = Scene::new();
    pushes(&mut scene, "early");
    // Ends when the registry was sent the layer of the step before, and never where that waits for the end.
    scene.dockerfile(
        "FROM @PROXY@/busybox:1\nRUN echo made > /made\n\
         RUN until wget -q -O /dev/null http://@PROXY@/was-a-blob-sent; do sleep 0.1; done\n",
    );
    scene.args.push("--step-timeout=120s".into());
    let sent = AtomicBool::new(false);
    scene.proxy.tamper(move |asked| {
        if asked.target == "/was-a-blob-sent" {
            let status = if sent.load(SeqCst) { 200 } else { 404 };
            return Some(Tamper::Answer(status, vec![], vec![]));
        }
        sent.fetch_or(asked.is("PUT", "/blobs/uploads/"), SeqCst);
        None
    });
    let (ran, digest) = scene.build("store-early");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let requests = scene.proxy.requests();
    let puts = requests
        .iter()
        .filter(|r| r.starts_with("PUT ") && r.contains("/blobs/"));
    // Two layers, the second of which has nothing, and the configuration: each once.
    assert_eq!(puts.count(), 3, "{requests:#?}");
    scene.proxy.honest();
    scene.expected = digest.expect("a digest");
    scene.is_in_the_registry("early");
}

#[test]
fn what_is_pushed_early_is_given_up_with_the_build() {
    let mut scene = Scene::new();
    pushes(&mut scene, "given-up");
    scene.dockerfile("FROM @PROXY@/busybox:1\nRUN echo made > /made\nRUN exit 7\n");
    // A registry that never answers keeps nobody waiting.
    scene.proxy.tamper(|asked| {
        asked.is("POST", "/given-up/blobs/uploads/").then(|| {
            std::thread::sleep(Duration::from_secs(300));
            Tamper::Answer(500, vec![], vec![])
        })
    });
    let began = Instant::now();
    let (ran, digest) = scene.build("store-given-up");
    assert_eq!((ran.code, digest), (Some(7), None), "{}", ran.err);
    assert!(began.elapsed() < Duration::from_secs(200), "{}", ran.err);
}
