//! Pulling: layers, manifests and refusals.

use super::*;

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
    let told = [
        BASE,
        base,
        url,
        "403 forbidden",
        "may lack the right to read",
    ];
    scene.fails(FAILED, &told, denied);
    scene.args = vec!["--quiet".into()];
    scene.fails(FAILED, &told, denied);
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

#[test]
fn a_name_is_asked_about_once_and_stands_for_one_image() {
    let scene = Scene::new();
    let dockerfile = "FROM @PROXY@/busybox:1 AS first\nRUN echo 1 > /one\nFROM @PROXY@/busybox:1\nCOPY --from=first /one /\n";
    scene.dockerfile(dockerfile);
    scene.proxy.honest();
    let (ran, _) = scene.build("store-once");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let requests = scene.proxy.requests();
    let asked = requests
        .iter()
        .filter(|r| r.ends_with("/busybox/manifests/1"));
    assert_eq!(asked.count(), 1, "{requests:#?}");
    // Also where nothing is to be done.
    scene.proxy.honest();
    let (ran, _) = scene.build("store-once");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(scene.proxy.requests(), ["HEAD /v2/busybox/manifests/1"]);
}
