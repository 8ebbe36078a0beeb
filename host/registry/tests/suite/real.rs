//! Against Debian's docker-registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use stepwell_registry::{Digest, ErrorKind, PushOutcome, Registry, media_type, no_progress};

use crate::support::{
    DockerRegistry, image_manifest, noise, quick, quick_with_login, reference, source,
};

async fn push_image(registry: &Registry, authority: &str, rest: &str, layer: &[u8]) -> Digest {
    let to = reference(authority, rest);
    let config = br#"{"architecture":"amd64","os":"linux"}"#;
    for blob in [&config[..], layer] {
        let size = blob.len() as u64;
        registry
            .push_blob(
                &to,
                &Digest::of(blob),
                size,
                source(blob),
                &[],
                no_progress(),
            )
            .await
            .unwrap();
    }
    let manifest = Bytes::from(image_manifest(config, layer));
    registry
        .push_manifest(&to, media_type::OCI_MANIFEST, manifest)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_image_goes_there_and_comes_back() {
    let server = DockerRegistry::open();
    let registry = Registry::new(quick());
    let layer = noise(3 << 20);
    let digest = push_image(&registry, &server.authority, "team/app:1", &layer).await;
    let tag = reference(&server.authority, "team/app:1");
    let resolved = registry
        .resolve(&tag, Some(&"linux/amd64".parse().unwrap()))
        .await
        .unwrap();
    assert_eq!(resolved.manifest.digest, digest);
    assert!(resolved.index.is_none());
    let head = registry.head(&tag).await.unwrap();
    assert_eq!(head, resolved.manifest.descriptor);
    assert!(registry.has_manifest(&tag, &digest).await.unwrap());
    for (name, other) in [
        ("team/app:1", Digest::of(b"")),
        ("team/app:2", digest),
        ("new:1", digest),
    ] {
        let name = reference(&server.authority, name);
        assert!(!registry.has_manifest(&name, &other).await.unwrap());
    }

    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let progress = Arc::new(move |done| counter.store(done, Ordering::Relaxed));
    let pulled = registry
        .pull_blob(
            &tag,
            &Digest::of(&layer),
            layer.len() as u64,
            Vec::new(),
            progress,
        )
        .await
        .unwrap();
    assert!(pulled == layer);
    assert_eq!(seen.load(Ordering::Relaxed), layer.len() as u64);
}

#[tokio::test]
async fn a_blob_is_not_sent_twice_and_is_mounted_from_a_neighbour() {
    let server = DockerRegistry::open();
    let registry = Registry::new(quick());
    let blob = noise(100_000);
    let digest = Digest::of(&blob);
    let (first, second) = (
        reference(&server.authority, "a:1"),
        reference(&server.authority, "b/c:1"),
    );
    let stranger = reference("127.0.0.1:9", "a:1");
    let elsewhere = reference(&server.authority, "nowhere:1");
    let push = async |to, from: &[_]| {
        registry
            .push_blob(to, &digest, 100_000, source(&blob), from, no_progress())
            .await
            .unwrap()
    };
    assert_eq!(push(&first, &[]).await, PushOutcome::Sent);
    assert_eq!(push(&first, &[]).await, PushOutcome::Present);
    assert_eq!(
        push(&second, &[stranger.clone(), first.clone()]).await,
        PushOutcome::Mounted
    );
    assert!(registry.has_blob(&second, &digest).await.unwrap());
    let third = reference(&server.authority, "d:1");
    assert_eq!(push(&third, &[elsewhere]).await, PushOutcome::Sent);
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let server = DockerRegistry::open();
    let registry = Registry::new(quick());
    let to = reference(&server.authority, "empty:1");
    let digest = Digest::of(b"");
    assert_eq!(
        registry
            .push_blob(&to, &digest, 0, source(b""), &[], no_progress())
            .await
            .unwrap(),
        PushOutcome::Sent
    );
    assert!(registry.blob(&to, &digest, 0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_index_gives_the_image_of_the_platform() {
    let server = DockerRegistry::open();
    let registry = Registry::new(quick());
    let arm = push_image(&registry, &server.authority, "multi:arm", b"arm").await;
    let amd = push_image(&registry, &server.authority, "multi:amd", b"amd").await;
    let tag = reference(&server.authority, "multi:latest");
    let mut entries = Vec::new();
    for (digest, architecture) in [(arm, "arm64"), (amd, "amd64")] {
        let size = registry
            .head(&tag.clone_with_digest(digest.to_string()))
            .await
            .unwrap()
            .size();
        entries.push(serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": size,
            "platform": {"os": "linux", "architecture": architecture}}));
    }
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    let bytes = Bytes::from(serde_json::to_vec(&index).unwrap());
    let digest = registry
        .push_manifest(&tag, media_type::OCI_INDEX, bytes)
        .await
        .unwrap();

    let resolved = registry
        .resolve(&tag, Some(&"linux/arm64".parse().unwrap()))
        .await
        .unwrap();
    assert_eq!(resolved.manifest.digest, arm);
    assert_eq!(resolved.index.unwrap().digest, digest);
    let pinned = tag.clone_with_digest(digest.to_string());
    assert!(
        registry
            .resolve(&pinned, None)
            .await
            .unwrap()
            .manifest
            .is_index()
    );
    let error = registry
        .resolve(&tag, Some(&"linux/riscv64".parse().unwrap()))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("only for `linux/arm64`, `linux/amd64`"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_not_there_is_said_clearly() {
    let server = DockerRegistry::open();
    let registry = Registry::new(quick());
    let error = registry
        .resolve(&reference(&server.authority, "no/such:tag"), None)
        .await
        .unwrap_err();
    assert_eq!((error.status(), error.attempts()), (Some(404), 1));
    assert_eq!(error.codes()[0].code, "MANIFEST_UNKNOWN");
    let text = error.to_string();
    assert!(
        text.contains("/v2/no/such/manifests/tag`: 404 not found: MANIFEST_UNKNOWN"),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("check the name"));
}

#[tokio::test]
async fn a_password_is_asked_for_and_found() {
    let server = DockerRegistry::with_password();
    let dir = tempfile::tempdir().unwrap();
    // tester:s3cret
    let login = format!(
        r#"{{"auths":{{"{}":{{"auth":"dGVzdGVyOnMzY3JldA=="}}}}}}"#,
        server.authority
    );
    let registry = Registry::new(quick_with_login(&dir, &login));
    push_image(&registry, &server.authority, "private:1", b"layer").await;

    let tag = reference(&server.authority, "private:1");
    let nobody = Registry::new(quick()).manifest(&tag).await.unwrap_err();
    assert_eq!(nobody.status(), Some(401));
    assert!(
        nobody.hint().unwrap().contains("docker login"),
        "{:?}",
        nobody.hint()
    );

    let wrong = login.replace("dGVzdGVyOnMzY3JldA==", "dGVzdGVyOndyb25n");
    let refused = Registry::new(quick_with_login(&dir, &wrong))
        .manifest(&tag)
        .await
        .unwrap_err();
    assert_eq!((refused.status(), refused.attempts()), (Some(401), 1));
    let hint = refused.hint().unwrap();
    assert!(
        hint.contains(&format!("the entry `{}`", server.authority)) && hint.contains("config.json"),
        "{hint}"
    );
}

#[tokio::test]
async fn many_at_once_with_few_connections() {
    let server = DockerRegistry::open();
    let registry = Registry::new(stepwell_registry::RegistryOptions {
        max_connections: 2,
        ..quick()
    });
    let to = reference(&server.authority, "many:1");
    let tasks: Vec<_> = (0..20u8)
        .map(|n| {
            let (registry, to) = (registry.clone(), to.clone());
            tokio::spawn(async move {
                let blob = vec![n; 200_000];
                let digest = Digest::of(&blob);
                registry
                    .push_blob(&to, &digest, 200_000, source(&blob), &[], no_progress())
                    .await
                    .unwrap();
                assert!(registry.blob(&to, &digest, 200_000, 1 << 20).await.unwrap() == blob);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_source_that_fails_or_lies_about_its_size_is_named() {
    let server = DockerRegistry::open();
    let registry = Registry::new(quick());
    let to = reference(&server.authority, "bad:1");
    let digest = Digest::of(b"12345");
    for (size, says) in [(9, "shorter"), (3, "longer")] {
        let error = registry
            .push_blob(&to, &digest, size, source(b"12345"), &[], no_progress())
            .await
            .unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Source { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.attempts(), 1);
    }
    let gone = Arc::new(|| Err(std::io::Error::from(std::io::ErrorKind::NotFound)));
    let error = registry
        .push_blob(&to, &digest, 5, gone, &[], no_progress())
        .await
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Source { .. }), "{error}");
    assert!(!registry.has_blob(&to, &digest).await.unwrap());
}

#[tokio::test]
async fn the_registry_refuses_a_blob_with_another_digest() {
    let server = DockerRegistry::open();
    let registry = Registry::new(quick());
    let to = reference(&server.authority, "bad:1");
    let error = registry
        .push_blob(
            &to,
            &Digest::of(b"other"),
            5,
            source(b"12345"),
            &[],
            no_progress(),
        )
        .await
        .unwrap_err();
    assert_eq!((error.status(), error.attempts()), (Some(400), 1));
    assert_eq!(error.codes()[0].code, "DIGEST_INVALID");
}
