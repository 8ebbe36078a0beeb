//! Bearer tokens, identity tokens and credential helpers, against a token server of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stepwell_registry::{Digest, ErrorKind, PushOutcome, Registry, RegistryOptions, no_progress};

use crate::support::{
    Reply, Seen, Server, image_manifest, quick, quick_with_login, reference, source,
};

/// A token server that numbers its tokens, and a registry that accepts only the newest.
struct Pair {
    tokens: Server,
    registry: Server,
}

async fn pair(
    expires_in: &'static str,
    grant: impl Fn(&Seen) -> bool + Send + Sync + 'static,
) -> Pair {
    let issued = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&issued);
    let tokens = Server::start(move |seen, _| {
        if !grant(seen) {
            return Reply::status(401).body(crate::support::Body::Whole(
                br#"{"details":"wrong password"}"#.to_vec(),
            ));
        }
        let n = counter.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::ok(format!(r#"{{"token":"token-{n}"{expires_in}}}"#))
    })
    .await;
    let realm = tokens.url("/token");
    let registry = Server::start(move |seen, _| {
        let newest = format!("Bearer token-{}", issued.load(Ordering::SeqCst));
        if seen.header("authorization") != Some(&newest) {
            let challenge = format!(
                r#"Bearer realm="{realm}",service="the service",scope="repository:a/b:pull""#
            );
            return Reply::status(401).with("www-authenticate", challenge);
        }
        match seen.method.as_str() {
            "GET" => Reply::ok(image_manifest(b"c", b"l")),
            "HEAD" => Reply::status(404),
            "POST" if seen.target.contains("mount=") => Reply::status(201),
            "POST" => Reply::status(202).with("location", "/upload?state=1"),
            _ => Reply::status(201),
        }
    })
    .await;
    Pair { tokens, registry }
}

fn query(seen: &Seen) -> Vec<(String, String)> {
    let text = seen.target.split_once('?').map_or("", |(_, q)| q);
    url::form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect()
}

fn has(pairs: &[(String, String)], key: &str, value: &str) -> bool {
    pairs.iter().any(|(k, v)| k == key && v == value)
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_again() {
    let pair = pair(r#","expires_in":300"#, |_| true).await;
    let registry = Registry::new(quick());
    let tag = reference(&pair.registry.authority(), "a/b:1");
    for _ in 0..3 {
        registry.manifest(&tag).await.unwrap();
    }
    let fetched = pair.tokens.seen();
    assert_eq!(fetched.len(), 1);
    let asked = query(&fetched[0]);
    assert!(
        has(&asked, "service", "the service") && has(&asked, "scope", "repository:a/b:pull"),
        "{asked:?}"
    );
    assert_eq!(fetched[0].header("authorization"), None);
    // One refusal that taught the challenge, and three answers.
    assert_eq!(pair.registry.seen().len(), 4);
}

#[tokio::test]
async fn ten_requests_at_once_fetch_one_token() {
    let pair = pair("", |_| true).await;
    let registry = Registry::new(quick());
    let tag = reference(&pair.registry.authority(), "a/b:1");
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            tokio::spawn({
                let (r, t) = (registry.clone(), tag.clone());
                async move { r.manifest(&t).await }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(pair.tokens.seen().len(), 1);
}

#[tokio::test]
async fn an_expired_token_is_renewed_before_use() {
    let pair = pair(r#","expires_in":0"#, |_| true).await;
    let registry = Registry::new(quick());
    let tag = reference(&pair.registry.authority(), "a/b:1");
    registry.manifest(&tag).await.unwrap();
    registry.manifest(&tag).await.unwrap();
    assert_eq!(pair.tokens.seen().len(), 2);
    assert_eq!(pair.registry.seen().len(), 3);
}

#[tokio::test]
async fn a_token_that_is_refused_early_is_renewed() {
    let pair = pair(r#","expires_in":300"#, |_| true).await;
    let registry = Registry::new(quick());
    let tag = reference(&pair.registry.authority(), "a/b:1");
    registry.manifest(&tag).await.unwrap();
    // Another client makes the server forget our token.
    Registry::new(quick()).manifest(&tag).await.unwrap();
    registry.manifest(&tag).await.unwrap();
    assert_eq!(pair.tokens.seen().len(), 3);
}

#[tokio::test]
async fn a_push_asks_for_what_it_needs_and_a_mount_for_its_source_too() {
    let pair = pair("", |_| true).await;
    let registry = Registry::new(quick());
    let authority = pair.registry.authority();
    let to = reference(&authority, "a/b:1");
    let digest = Digest::of(b"x");
    let push = async |from: &[_]| {
        registry
            .push_blob(&to, &digest, 1, source(b"x"), from, no_progress())
            .await
            .unwrap()
    };
    assert_eq!(push(&[]).await, PushOutcome::Sent);
    let scopes = |n: usize| {
        query(&pair.tokens.seen()[n])
            .into_iter()
            .filter(|(k, _)| k == "scope")
            .map(|(_, v)| v)
            .collect::<Vec<_>>()
    };
    assert_eq!(scopes(0), ["repository:a/b:pull,push"]);
    assert_eq!(pair.tokens.seen().len(), 1);
    assert_eq!(
        push(&[reference(&authority, "c:1")]).await,
        PushOutcome::Mounted
    );
    assert_eq!(scopes(1), ["repository:a/b:pull,push", "repository:c:pull"]);
}

#[tokio::test]
async fn a_wrong_password_is_said_to_be_wrong_and_whose() {
    let pair = pair("", |seen| {
        seen.header("authorization") == Some("Basic dTpw")
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let tag = reference(&pair.registry.authority(), "a/b:1");
    let login = |auth: &str| {
        format!(
            r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#,
            pair.registry.authority()
        )
    };
    Registry::new(quick_with_login(&dir, &login("dTpw")))
        .manifest(&tag)
        .await
        .unwrap();
    let good = query(&pair.tokens.seen()[0]);
    assert!(has(&good, "account", "u"), "{good:?}");
    let error = Registry::new(quick_with_login(&dir, &login("dTp4")))
        .manifest(&tag)
        .await
        .unwrap_err();
    assert_eq!((error.status(), error.attempts()), (Some(401), 1));
    assert!(error.to_string().contains("wrong password"), "{error}");
    assert!(error.hint().unwrap().contains("config.json"));
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let pair = pair("", |seen| {
        let form: Vec<(String, String)> = url::form_urlencoded::parse(&seen.body)
            .into_owned()
            .collect();
        seen.method == "POST"
            && has(&form, "grant_type", "refresh_token")
            && has(&form, "refresh_token", "r3fresh")
            && has(&form, "scope", "repository:a/b:pull")
            && has(&form, "service", "the service")
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let login = format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"r3fresh"}}}}}}"#,
        pair.registry.authority()
    );
    let registry = Registry::new(quick_with_login(&dir, &login));
    registry
        .manifest(&reference(&pair.registry.authority(), "a/b:1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_server_may_be_busy() {
    let tokens = Server::start(|_, before| {
        if before == 0 {
            Reply::status(503)
        } else {
            Reply::ok(r#"{"access_token":"t"}"#)
        }
    })
    .await;
    let realm = tokens.url("/token");
    let server = Server::start(move |seen, _| match seen.header("authorization") {
        Some("Bearer t") => Reply::ok(image_manifest(b"c", b"l")),
        _ => Reply::status(401).with("www-authenticate", format!(r#"Bearer realm="{realm}""#)),
    })
    .await;
    Registry::new(quick())
        .manifest(&reference(&server.authority(), "a/b:1"))
        .await
        .unwrap();
    assert_eq!(tokens.seen().len(), 2);
}

#[tokio::test]
async fn a_token_server_that_answers_nonsense_is_named() {
    for answer in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, "<html>"] {
        let tokens = Server::start(move |_, _| Reply::ok(answer)).await;
        let realm = tokens.url("/token");
        let server = Server::start(move |_, _| {
            Reply::status(401).with("www-authenticate", format!(r#"Bearer realm="{realm}""#))
        })
        .await;
        let error = Registry::new(quick())
            .manifest(&reference(&server.authority(), "a/b:1"))
            .await
            .unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Auth { .. }),
            "{answer}: {error}"
        );
        assert!(error.url().unwrap().contains("/token"), "{error}");
    }
}

#[tokio::test]
async fn a_realm_that_is_no_web_server_gets_nothing() {
    for realm in ["file:///etc/passwd", "not a url", "http://token.example/"] {
        let server = Server::start(move |_, _| {
            Reply::status(401).with("www-authenticate", format!(r#"Bearer realm="{realm}""#))
        })
        .await;
        let mut options = quick();
        options.retry.attempts = 1;
        let error = Registry::new(options)
            .manifest(&reference(&server.authority(), "a/b:1"))
            .await
            .unwrap_err();
        // A plain registry may have a plain token server, but that one does not exist.
        let expected = matches!(error.kind(), ErrorKind::Auth { .. }) || realm.starts_with("http:");
        assert!(expected, "{error}");
    }
}

/// Puts a helper that runs `script` in front of PATH for the whole test process: the name is the test's own.
fn helper(dir: &tempfile::TempDir, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join(format!("docker-credential-{name}"));
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs `pull_with_helper` in a process of its own, because PATH belongs to the whole process.
fn in_a_process_with_path(dir: &tempfile::TempDir, mode: &str) -> std::process::Output {
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "auth::pull_with_helper",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("PATH", path)
        .env("STEPWELL_TEST_HELPER", mode)
        .output()
        .unwrap()
}

/// The child's part of the tests of helpers; by itself it checks that a missing helper is named.
#[tokio::test]
async fn pull_with_helper() {
    let mode = std::env::var("STEPWELL_TEST_HELPER").unwrap_or_else(|_| "missing".to_owned());
    let pair = pair("", |seen| {
        seen.header("authorization") == Some("Basic dTpw")
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        r#"{{"credHelpers":{{"{}":"{mode}"}}}}"#,
        pair.registry.authority()
    );
    let registry = Registry::new(quick_with_login(&dir, &config));
    let result = registry
        .manifest(&reference(&pair.registry.authority(), "a/b:1"))
        .await;
    match mode.as_str() {
        "works" => println!("pulled {}", result.unwrap().digest),
        "knows-nothing" => println!("refused: {:?}", result.unwrap_err().hint()),
        _ => {
            let error = result.unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::CredentialHelper { .. }),
                "{error}"
            );
            println!("failed: {error}");
        }
    }
}

#[test]
fn helpers_are_run() {
    let dir = tempfile::tempdir().unwrap();
    helper(
        &dir,
        "works",
        r#"read server; case "$server" in 127.0.0.1:*) echo '{"ServerURL":"x","Username":"u","Secret":"p"}';; esac"#,
    );
    helper(
        &dir,
        "knows-nothing",
        "echo 'credentials not found in native keychain'; exit 1",
    );
    helper(&dir, "fails", "echo 'the vault is locked' >&2; exit 1");
    for (mode, wanted) in [
        ("works", "pulled sha256:"),
        ("knows-nothing", "refused: Some(\"a login for"),
        ("fails", "the vault is locked"),
    ] {
        let output = in_a_process_with_path(&dir, mode);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains(wanted),
            "{mode}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[tokio::test]
async fn a_token_goes_to_the_registry_only() {
    let pair = pair("", |_| true).await;
    let registry = Registry::new(RegistryOptions::default());
    registry
        .manifest(&reference(&pair.registry.authority(), "a/b:1"))
        .await
        .unwrap();
    assert!(
        pair.tokens
            .seen()
            .iter()
            .all(|s| s.header("authorization").is_none())
    );
}
