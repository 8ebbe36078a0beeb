//! Servers that break, lie, stall and send us elsewhere.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use stepwell_registry::{
    Digest, ErrorKind, Reference, Registry, RegistryError, RegistryOptions, media_type, no_progress,
};

use crate::support::{Body, Reply, Seen, Server, image_manifest, noise, quick, reference};

const BLOB: usize = 300_000;

fn blob() -> (Vec<u8>, Digest) {
    let bytes = noise(BLOB);
    let digest = Digest::of(&bytes);
    (bytes, digest)
}

async fn pull(server: &Server, digest: &Digest, size: usize) -> Result<Vec<u8>, RegistryError> {
    let from = reference(&server.authority(), "a:1");
    Registry::new(quick())
        .pull_blob(&from, digest, size as u64, Vec::new(), no_progress())
        .await
}

/// Where a `Range: bytes=N-` begins.
fn begin(seen: &Seen) -> Option<usize> {
    seen.header("range")?
        .strip_prefix("bytes=")?
        .strip_suffix('-')?
        .parse()
        .ok()
}

#[tokio::test]
async fn a_cut_connection_is_taken_up_where_it_broke() {
    let (bytes, digest) = blob();
    let whole = bytes.clone();
    let server = Server::start(move |seen, _| match begin(seen) {
        None => Reply::status(200).body(Body::Cut {
            announced: BLOB,
            bytes: whole[..100_000].to_vec(),
        }),
        Some(from) if from < 200_000 => Reply::status(206)
            .with("content-range", format!("bytes {from}-{}/{BLOB}", BLOB - 1))
            .body(Body::Cut {
                announced: BLOB - from,
                bytes: whole[from..200_000].to_vec(),
            }),
        Some(from) => Reply::ok(&whole[from..])
            .with("content-range", format!("bytes {from}-{}/{BLOB}", BLOB - 1))
            .status_206(),
    })
    .await;
    assert!(pull(&server, &digest, BLOB).await.unwrap() == bytes);
    let begins: Vec<_> = server.seen().iter().map(begin).collect();
    assert_eq!(begins, [None, Some(100_000), Some(200_000)]);
}

#[tokio::test]
async fn a_server_without_ranges_begins_again_and_nothing_is_written_twice() {
    let (bytes, digest) = blob();
    let whole = bytes.clone();
    let server = Server::start(move |_, before| match before {
        0 => Reply::status(200).body(Body::Cut {
            announced: BLOB,
            bytes: whole[..123_457].to_vec(),
        }),
        1 => Reply::status(200).body(Body::UntilClosed(whole[..5_000].to_vec())),
        _ => Reply::ok(whole.clone()),
    })
    .await;
    assert!(pull(&server, &digest, BLOB).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_rest_from_the_wrong_place_is_refused() {
    let (bytes, digest) = blob();
    let server = Server::start(move |seen, _| match begin(seen) {
        None => Reply::status(200).body(Body::Cut {
            announced: BLOB,
            bytes: bytes[..1000].to_vec(),
        }),
        Some(_) => Reply::ok(&bytes[500..])
            .with("content-range", format!("bytes 500-{}/{BLOB}", BLOB - 1))
            .status_206(),
    })
    .await;
    let error = pull(&server, &digest, BLOB).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::BadAnswer { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_connection_that_always_breaks_is_given_up() {
    let (_, digest) = blob();
    let server = Server::start(|_, _| {
        Reply::status(200).body(Body::Cut {
            announced: BLOB,
            bytes: Vec::new(),
        })
    })
    .await;
    let error = pull(&server, &digest, BLOB).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Cut { .. }) && error.is_temporary(),
        "{error}"
    );
    assert_eq!((error.attempts(), server.seen().len()), (4, 4));
}

#[tokio::test]
async fn another_content_is_noticed() {
    let (mut bytes, digest) = blob();
    bytes[77] ^= 1;
    let server = Server::start(move |_, _| Reply::ok(bytes.clone())).await;
    let error = pull(&server, &digest, BLOB).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::DigestMismatch { expected, .. } if *expected == digest),
        "{error}"
    );
    assert!(error.to_string().contains("/v2/a/blobs/sha256:"), "{error}");
}

#[tokio::test]
async fn another_size_is_noticed_before_it_is_read() {
    let (bytes, digest) = blob();
    let server = Server::start(move |_, _| Reply::ok(bytes.clone())).await;
    for size in [BLOB - 1, BLOB + 1] {
        let error = pull(&server, &digest, size).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::SizeMismatch { actual, .. } if *actual == BLOB as u64),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_endless_body_ends_where_it_should_have() {
    let server = Server::start(|_, _| Reply::status(200).body(Body::Endless)).await;
    let error = pull(&server, &Digest::of(b""), 10_000).await.unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::SizeMismatch {
                expected: 10_000,
                ..
            }
        ),
        "{error}"
    );
    let error = Registry::new(quick())
        .manifest(&reference(&server.authority(), "a:1"))
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::TooLarge { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_endless_failure_is_cut_short() {
    let server = Server::start(|_, _| Reply::status(403).body(Body::Endless)).await;
    let error = Registry::new(quick())
        .manifest(&reference(&server.authority(), "a:1"))
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(403));
    assert!(error.to_string().len() < 1000);
}

#[tokio::test]
async fn a_body_that_stands_still_or_crawls_is_given_up() {
    for body in [
        Body::Silence { announced: 1 },
        Body::Drip {
            announced: 1,
            pause: Duration::ZERO,
        },
    ] {
        let drips = matches!(body, Body::Drip { .. });
        let server = Server::start(move |_, _| {
            Reply::status(200).body(match drips {
                true => Body::Drip {
                    announced: BLOB,
                    pause: Duration::from_millis(20),
                },
                false => Body::Silence { announced: BLOB },
            })
        })
        .await;
        let began = Instant::now();
        let error = pull(&server, &Digest::of(b""), BLOB).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Stalled { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_slow_sink_is_no_slow_server() {
    struct Slow(Vec<u8>);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                std::thread::sleep(Duration::from_millis(700));
            }
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let bytes = noise(4 << 20);
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let whole = bytes.clone();
    let server = Server::start(move |_, _| Reply::ok(whole.clone())).await;
    let from = reference(&server.authority(), "a:1");
    let got = Registry::new(quick())
        .pull_blob(&from, &digest, size, Slow(Vec::new()), no_progress())
        .await
        .unwrap();
    assert!(got.0 == bytes);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_pull_with_its_own_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (bytes, digest) = blob();
    let server = Server::start(move |_, _| Reply::ok(bytes.clone())).await;
    let from = reference(&server.authority(), "a:1");
    let error = Registry::new(quick())
        .pull_blob(&from, &digest, BLOB as u64, Full, no_progress())
        .await
        .err()
        .unwrap();
    let ErrorKind::Sink { cause, .. } = error.kind() else {
        panic!("{error}")
    };
    assert_eq!(cause.kind(), io::ErrorKind::StorageFull);
}

async fn manifest_after(
    statuses: &'static [u16],
    retry_after: &'static str,
) -> (Result<Digest, RegistryError>, usize, Duration) {
    let manifest = image_manifest(b"c", b"l");
    let server = Server::start(move |_, before| match statuses.get(before) {
        Some(status) if retry_after.is_empty() => Reply::status(*status),
        Some(status) => Reply::status(*status).with("retry-after", retry_after),
        None => Reply::ok(manifest.clone()).with("content-type", media_type::OCI_MANIFEST),
    })
    .await;
    let began = Instant::now();
    let result = Registry::new(quick())
        .manifest(&reference(&server.authority(), "a:1"))
        .await;
    (
        result.map(|m| m.digest),
        server.seen().len(),
        began.elapsed(),
    )
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let (result, requests, _) = manifest_after(&[500, 503, 429], "").await;
    assert_eq!(
        (result.unwrap(), requests),
        (Digest::of(&image_manifest(b"c", b"l")), 4)
    );
    let (result, requests, _) = manifest_after(&[502; 9], "").await;
    assert_eq!((result.unwrap_err().attempts(), requests), (4, 4));
}

#[tokio::test]
async fn who_waits_is_told_why_and_how_long() {
    let manifest = image_manifest(b"c", b"l");
    let server = Server::start(move |_, before| match before {
        0 => Reply::status(503),
        1 => Reply::status(429).with("retry-after", "1"),
        _ => Reply::ok(manifest.clone()),
    })
    .await;
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let listener = told.clone();
    let registry = Registry::new(quick());
    registry.on_retry(std::sync::Arc::new(move |error, pause| {
        listener.lock().unwrap().push((error.status(), pause))
    }));
    let from = reference(&server.authority(), "a:1");
    registry.manifest(&from).await.unwrap();
    let told = told.lock().unwrap();
    assert_eq!(
        [told[0].0, told[1].0, told.get(2).and_then(|t| t.0)],
        [Some(503), Some(429), None]
    );
    assert!(told[1].1 >= Duration::from_secs(1), "{told:?}");
}

#[tokio::test]
async fn a_web_page_is_told_from_a_registry() {
    let server = Server::start(|_, _| {
        Reply::ok(b"<html>".to_vec()).with("content-type", "text/html; charset=utf-8")
    })
    .await;
    let from = reference(&server.authority(), "a:1");
    let error = Registry::new(quick()).manifest(&from).await.unwrap_err();
    assert!(error.hint().unwrap().contains("web page"), "{error}");
}

#[tokio::test]
async fn refusals_are_not() {
    for statuses in [&[403][..], &[404], &[405], &[410], &[501], &[507], &[511]] {
        let (result, requests, _) = manifest_after(statuses, "").await;
        assert_eq!(
            (result.unwrap_err().status(), requests),
            (Some(statuses[0]), 1)
        );
    }
}

#[tokio::test]
async fn the_server_s_own_pause_is_kept() {
    let (result, _, took) = manifest_after(&[429], "1").await;
    assert!(result.is_ok() && took >= Duration::from_secs(1), "{took:?}");
    let (result, requests, _) = manifest_after(&[429], "3600").await;
    let error = result.unwrap_err();
    assert_eq!((error.status(), requests), (Some(429), 1));
    assert!(error.hint().unwrap().contains("limits requests"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_given_up_soon() {
    let gone = Server::start(|_, _| Reply::status(200)).await.authority();
    let error = Registry::new(quick())
        .manifest(&reference(&gone, "a:1"))
        .await
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Connect { .. }), "{error}");
    assert_eq!(error.attempts(), 4);
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let manifest = image_manifest(b"c", b"l");
    let lie = Digest::of(b"another").to_string();
    let header = lie.clone();
    let server = Server::start(move |_, _| {
        Reply::ok(manifest.clone()).with("docker-content-digest", header.clone())
    })
    .await;
    let registry = Registry::new(quick());
    let tag = reference(&server.authority(), "a:1");
    // By the tag the header is the lie, by the digest the content is.
    for asked in [tag.clone(), tag.clone_with_digest(lie.clone())] {
        let error = registry.resolve(&asked, None).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::DigestMismatch { .. }),
            "{error}"
        );
    }
    let error = registry
        .head(&tag.clone_with_digest(Digest::of(b"third").to_string()))
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::DigestMismatch { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_head_without_a_digest_is_made_up_for() {
    let manifest = image_manifest(b"c", b"l");
    let digest = Digest::of(&manifest);
    let server = Server::start(move |_, _| Reply::ok(manifest.clone())).await;
    let found = Registry::new(quick())
        .head(&reference(&server.authority(), "a:1"))
        .await
        .unwrap();
    assert_eq!(found.digest().to_string(), digest.to_string());
}

#[tokio::test]
async fn a_password_does_not_follow_a_redirection_elsewhere() {
    let (bytes, digest) = blob();
    let content = bytes.clone();
    let network = Server::start(move |_, _| Reply::ok(content.clone())).await;
    let to = network.url("/signed?sig=s3cret");
    let registry_server = Server::start(move |seen, _| match seen.header("authorization") {
        None => Reply::status(401).with("www-authenticate", "Basic realm=\"r\""),
        Some(_) => Reply::status(307).with("location", to.clone()),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let login = format!(
        r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#,
        registry_server.authority()
    );
    let registry = Registry::new(crate::support::quick_with_login(&dir, &login));
    let from = reference(&registry_server.authority(), "a:1");
    let got = registry
        .pull_blob(&from, &digest, BLOB as u64, Vec::new(), no_progress())
        .await
        .unwrap();
    assert!(got == bytes);
    assert_eq!(network.seen().len(), 1);
    assert_eq!(network.seen()[0].header("authorization"), None);
    assert_eq!(
        registry_server.seen()[1].header("authorization"),
        Some("Basic dTpw")
    );
}

#[tokio::test]
async fn a_content_network_s_signature_is_in_no_message() {
    let network = Server::start(|_, _| Reply::status(403)).await;
    let to = network.url("/signed?sig=s3cret");
    let server = Server::start(move |_, _| Reply::status(302).with("location", to.clone())).await;
    let error = pull(&server, &Digest::of(b"x"), 1).await.unwrap_err();
    assert_eq!(error.status(), Some(403));
    assert!(
        !format!("{error} {error:?}").contains("s3cret"),
        "{error:?}"
    );
}

#[tokio::test]
async fn redirections_in_a_circle_or_out_of_the_web_are_not_followed() {
    for to in ["/v2/a/blobs/round", "file:///etc/passwd", "http://[bad"] {
        let server = Server::start(move |_, _| Reply::status(307).with("location", to)).await;
        let error = pull(&server, &Digest::of(b"x"), 1).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Redirect { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_stalled_head_is_given_up() {
    let server = Server::start(|_, _| {
        std::thread::sleep(Duration::from_millis(400));
        Reply::status(200)
    })
    .await;
    let mut options: RegistryOptions = quick();
    options.timeouts.connect = Duration::from_millis(50);
    options.timeouts.response = Duration::from_millis(50);
    options.retry.attempts = 1;
    let asked: Reference = reference(&server.authority(), "a:1");
    let error = Registry::new(options).manifest(&asked).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Stalled { .. }), "{error}");
}

#[tokio::test]
async fn a_proxy_is_used_but_not_for_loopback() {
    let manifest = image_manifest(b"c", b"l");
    let proxied = manifest.clone();
    let proxy = Server::start(move |_, _| Reply::ok(proxied.clone())).await;
    let server = Server::start(move |_, _| Reply::ok(manifest.clone())).await;
    let mut options = quick();
    options.proxy.http = Some(proxy.url(""));
    options.plain_http = vec!["registry.example".to_owned()];
    let registry = Registry::new(options);
    registry
        .manifest(&reference("registry.example", "a:1"))
        .await
        .unwrap();
    registry
        .manifest(&reference(&server.authority(), "a:1"))
        .await
        .unwrap();
    assert_eq!(
        proxy.count("GET", "http://registry.example/v2/a/manifests/1"),
        1
    );
    assert_eq!((proxy.seen().len(), server.seen().len()), (1, 1));
}
