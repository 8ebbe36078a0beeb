//! The ways a registry can want a blob.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use stepwell_registry::{Digest, ErrorKind, PushOutcome, Registry, RegistryError, no_progress};

use crate::support::{
    Body, Reply, Seen, Server, noise, quick, quick_with_login, reference, source,
};

async fn push(server: &Server, bytes: &[u8]) -> Result<PushOutcome, RegistryError> {
    let to = reference(&server.authority(), "a:1");
    let size = bytes.len() as u64;
    Registry::new(quick())
        .push_blob(
            &to,
            &Digest::of(bytes),
            size,
            source(bytes),
            &[],
            no_progress(),
        )
        .await
}

/// Answers the begin of an upload, and leaves the rest to `rest`.
async fn server(
    location: &'static str,
    rest: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
) -> Server {
    Server::start(move |seen, before| match seen.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => Reply::status(202).with("location", location),
        _ => rest(seen, before),
    })
    .await
}

#[tokio::test]
async fn a_location_is_taken_as_it_is() {
    let digest = Digest::of(b"blob");
    for (location, target) in [
        (
            "/up/1?_state=a%2Fb%3D",
            format!("/up/1?_state=a%2Fb%3D&digest={digest}"),
        ),
        ("1", format!("/v2/a/blobs/uploads/1?digest={digest}")),
        ("?x=1", format!("/v2/a/blobs/uploads/?x=1&digest={digest}")),
    ] {
        let server = server(location, |_, _| Reply::status(201)).await;
        assert_eq!(push(&server, b"blob").await.unwrap(), PushOutcome::Sent);
        let put = server
            .seen()
            .into_iter()
            .find(|s| s.method == "PUT")
            .unwrap();
        assert_eq!(put.target, target);
        assert_eq!(put.body, b"blob");
        assert_eq!(put.header("content-length"), Some("4"));
    }
}

#[tokio::test]
async fn an_upload_that_fails_is_sent_again_as_a_whole() {
    let bytes = noise(700_000);
    let tries = AtomicUsize::new(0);
    let server = server("/up", move |_, _| {
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::status(502),
            1 => Reply::status(0).body(Body::Raw(Vec::new())),
            _ => Reply::status(201),
        }
    })
    .await;
    assert_eq!(push(&server, &bytes).await.unwrap(), PushOutcome::Sent);
    let puts: Vec<Seen> = server
        .seen()
        .into_iter()
        .filter(|s| s.method == "PUT")
        .collect();
    assert_eq!(puts.len(), 3);
    assert!(puts.iter().all(|p| p.body == bytes));
    assert_eq!(server.count("POST", "/v2/a/blobs/uploads/"), 3);
}

#[tokio::test]
async fn a_blob_that_is_too_large_for_one_request_goes_in_chunks() {
    let bytes = noise((8 << 20) + 12_345);
    let received = Arc::new(Mutex::new(Vec::new()));
    let store = Arc::clone(&received);
    let failed = AtomicUsize::new(0);
    let server = server("/up?s=0", move |seen, _| match seen.method.as_str() {
        "PUT" if !seen.body.is_empty() => Reply::status(413),
        "PUT" => Reply::status(201),
        // The second chunk is lost once on the way.
        "PATCH" if seen.target == "/up?s=1" && failed.fetch_add(1, Ordering::SeqCst) == 0 => {
            Reply::status(500)
        }
        _ => {
            let mut store = store.lock().unwrap();
            let range = format!("{}-{}", store.len(), store.len() + seen.body.len() - 1);
            assert_eq!(seen.header("content-range"), Some(range.as_str()));
            store.extend_from_slice(&seen.body);
            Reply::status(202).with("location", format!("/up?s={}", store.len() / (8 << 20)))
        }
    })
    .await;
    assert_eq!(push(&server, &bytes).await.unwrap(), PushOutcome::Sent);
    assert!(*received.lock().unwrap() == bytes);
    let last = server.seen().pop().unwrap();
    assert!(
        last.method == "PUT"
            && last.body.is_empty()
            && last
                .target
                .ends_with(&format!("&digest={}", Digest::of(&bytes)))
    );
}

#[tokio::test]
async fn a_chunk_that_arrived_though_its_answer_did_not_is_not_an_error() {
    let bytes = noise(1000);
    let patched = AtomicUsize::new(0);
    let server = server("/up", move |seen, _| match seen.method.as_str() {
        "PUT" if !seen.body.is_empty() => Reply::status(405),
        "PUT" => Reply::status(201),
        "PATCH" if patched.fetch_add(1, Ordering::SeqCst) == 0 => {
            Reply::status(0).body(Body::Raw(Vec::new()))
        }
        "PATCH" => Reply::status(416),
        _ => Reply::status(204)
            .with("range", "0-999")
            .with("location", "/up?done"),
    })
    .await;
    assert_eq!(push(&server, &bytes).await.unwrap(), PushOutcome::Sent);
    assert!(
        server
            .seen()
            .pop()
            .unwrap()
            .target
            .starts_with("/up?done&digest=")
    );
}

#[tokio::test]
async fn a_password_does_not_go_to_a_location_elsewhere() {
    let storage = Server::start(|_, _| Reply::status(201)).await;
    let location = storage.url("/bucket?sig=1");
    let registry_server =
        Server::start(
            move |seen, _| match (seen.method.as_str(), seen.header("authorization")) {
                (_, None) => Reply::status(401).with("www-authenticate", "Basic realm=\"r\""),
                ("HEAD", _) => Reply::status(404),
                _ => Reply::status(202).with("location", location.clone()),
            },
        )
        .await;
    let dir = tempfile::tempdir().unwrap();
    let login = format!(
        r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#,
        registry_server.authority()
    );
    let to = reference(&registry_server.authority(), "a:1");
    let registry = Registry::new(quick_with_login(&dir, &login));
    registry
        .push_blob(&to, &Digest::of(b"x"), 1, source(b"x"), &[], no_progress())
        .await
        .unwrap();
    assert_eq!(storage.seen()[0].body, b"x");
    assert_eq!(storage.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn an_upload_is_redirected_with_its_body() {
    let storage = Server::start(|_, _| Reply::status(201)).await;
    let to = storage.url("/elsewhere");
    let server = server("/up", move |_, _| {
        Reply::status(307).with("location", to.clone())
    })
    .await;
    push(&server, b"the blob").await.unwrap();
    assert_eq!(storage.seen()[0].body, b"the blob");
}

#[tokio::test]
async fn a_registry_that_took_something_else_is_caught() {
    let other = Digest::of(b"other").to_string();
    let server = server("/up", move |_, _| {
        Reply::status(201).with("docker-content-digest", other.clone())
    })
    .await;
    let error = push(&server, b"blob").await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::DigestMismatch { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_upload_to_nowhere_is_an_error() {
    for location in ["", "http://[bad", "file:///tmp/x"] {
        let server = Server::start(move |seen, _| match (seen.method.as_str(), location) {
            ("HEAD", _) => Reply::status(404),
            (_, "") => Reply::status(202),
            _ => Reply::status(202).with("location", location),
        })
        .await;
        let error = push(&server, b"blob").await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::BadAnswer { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_refused_push_says_so() {
    let server = server("/up", |_, _| {
        Reply::status(403).body(Body::Whole(
            br#"{"errors":[{"code":"DENIED","message":"read only"}]}"#.to_vec(),
        ))
    })
    .await;
    let error = push(&server, b"blob").await.unwrap_err();
    assert_eq!((error.status(), error.attempts()), (Some(403), 1));
    assert!(error.to_string().contains("DENIED: read only"), "{error}");
}

#[tokio::test]
async fn an_upload_that_nobody_reads_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf = format!("http://{}/up", listener.local_addr().unwrap());
    let server = Server::start(move |seen, _| match seen.method.as_str() {
        "HEAD" => Reply::status(404),
        _ => Reply::status(202).with("location", deaf.clone()),
    })
    .await;
    // More than the buffers of a connection hold.
    let bytes = noise(16 << 20);
    let mut options = quick();
    options.retry.attempts = 2;
    let to = reference(&server.authority(), "a:1");
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let error = Registry::new(options)
        .push_blob(&to, &digest, size, source(&bytes), &[], no_progress())
        .await
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Stalled { .. }), "{error}");
    assert_eq!(error.attempts(), 2);
}
