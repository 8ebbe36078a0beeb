//! Files behind plain addresses.

use stepwell_registry::{
    Download, ErrorKind, Fetch, FetchAuth, Fetched, Registry, RegistryError, Validators,
};

use crate::support::{Body, Reply, Server, quick};

fn fetch(url: String, limit: u64) -> Fetch {
    Fetch {
        url,
        known: Validators::default(),
        auth: FetchAuth::Anonymous,
        limit,
    }
}

async fn body(fetch: &Fetch) -> Result<(Vec<u8>, Download), RegistryError> {
    let Fetched::Body(mut download) = Registry::new(quick()).fetch_file(fetch).await? else {
        panic!("nothing was known");
    };
    let mut bytes = Vec::new();
    while let Some(piece) = download.chunk().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, download))
}

#[tokio::test]
async fn a_file_comes_with_its_version() {
    let server = Server::start(|_, _| {
        Reply::ok("hello")
            .with("ETag", "\"one\"")
            .with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    })
    .await;
    let (bytes, download) = body(&fetch(server.url("/f"), 5)).await.unwrap();
    assert_eq!(bytes, b"hello");
    assert_eq!(download.validators().etag.as_deref(), Some("\"one\""));
    assert_eq!(download.modified(), Some(784_111_777));
    assert_eq!(server.seen()[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_body_without_end_ends_at_the_limit() {
    let server = Server::start(|_, _| Reply::ok("").body(Body::Endless)).await;
    let error = body(&fetch(server.url("/f"), 1 << 20)).await.err().unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::TooLarge { limit: 1_048_576 }),
        "{error}"
    );
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_not_read() {
    let server = Server::start(|_, _| Reply::ok("").body(Body::Silence { announced: 11 })).await;
    let error = body(&fetch(server.url("/f"), 10)).await.err().unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::TooLarge { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let server = Server::start(|_, _| Reply::ok("").body(Body::Silence { announced: 5 })).await;
    let error = body(&fetch(server.url("/f"), 10)).await.err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Stalled { .. }), "{error}");
}

#[tokio::test]
async fn credentials_do_not_follow_to_another_origin() {
    let other = Server::start(|_, _| Reply::ok("there")).await;
    let to = other.url("/moved");
    let server = Server::start(move |_, _| Reply::status(302).with("Location", to.clone())).await;
    let fetch = Fetch {
        auth: FetchAuth::Bearer("hush".to_owned()),
        ..fetch(server.url("/f"), 10)
    };
    assert_eq!(body(&fetch).await.unwrap().0, b"there");
    assert_eq!(
        server.seen()[0].header("authorization"),
        Some("Bearer hush")
    );
    assert_eq!(other.seen()[0].header("authorization"), None);
}
