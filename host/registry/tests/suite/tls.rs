//! TLS, with certificates made for the test.

use std::path::Path;

use stepwell_registry::{ErrorKind, Registry, RegistryOptions};

use crate::support::{Body, DockerRegistry, Reply, Server, quick, reference};

/// Writes an authority's certificate, and a certificate and key signed by it for `127.0.0.1`.
fn certificates(dir: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(
        dir.join("ca.pem"),
        authority.self_signed(&authority_key).unwrap().pem(),
    )
    .unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(
        dir.join("cert.pem"),
        server.signed_by(&key, &issuer).unwrap().pem(),
    )
    .unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn a_loopback_registry_that_wants_tls_gets_it() {
    let server = DockerRegistry::with_tls(certificates);
    let tag = reference(&server.authority, "a:1");
    let trusting = RegistryOptions {
        ca_files: vec![server.dir.path().join("ca.pem")],
        ..quick()
    };
    let error = Registry::new(trusting).manifest(&tag).await.unwrap_err();
    assert_eq!(error.status(), Some(404), "{error}");
    assert!(
        error.url().unwrap().starts_with("https://127.0.0.1"),
        "{error}"
    );
}

#[tokio::test]
async fn an_unknown_authority_is_not_trusted_and_not_tried_again() {
    let server = DockerRegistry::with_tls(certificates);
    let error = Registry::new(quick())
        .manifest(&reference(&server.authority, "a:1"))
        .await
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Tls { .. }), "{error}");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert!(error.hint().unwrap().contains("certificate authority"));
    assert_eq!(error.attempts(), 1);
}

#[tokio::test]
async fn the_system_s_authorities_may_be_a_directory() {
    let server = DockerRegistry::with_tls(certificates);
    let system = server.dir.path().join("certs");
    std::fs::create_dir(&system).unwrap();
    std::fs::copy(server.dir.path().join("ca.pem"), system.join("a.pem")).unwrap();
    std::fs::write(system.join("rubbish.pem"), "nothing").unwrap();
    let trusting = RegistryOptions {
        system_ca: vec![system],
        ..quick()
    };
    let error = Registry::new(trusting)
        .manifest(&reference(&server.authority, "a:1"))
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(404), "{error}");
}

#[tokio::test]
async fn a_plain_server_behind_an_https_url_is_called_that() {
    let plain = Server::start(|_, _| Reply::status(404)).await;
    let port = plain.address.port();
    let registry = Server::start(move |_, _| {
        Reply::status(307).with("location", format!("https://127.0.0.1:{port}/x"))
    })
    .await;
    let error = Registry::new(quick())
        .manifest(&reference(&registry.authority(), "a:1"))
        .await
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotTls), "{error}");
    assert!(error.hint().unwrap().contains("insecure registry"));
    assert_eq!(error.attempts(), 1);
}

#[tokio::test]
async fn a_plain_registry_that_answers_400_stays_plain() {
    let server = Server::start(|_, _| Reply::status(400)).await;
    let error = Registry::new(quick())
        .manifest(&reference(&server.authority(), "a:1"))
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(400), "{error}");
}

#[tokio::test]
async fn what_is_neither_http_nor_tls_is_said_to_be() {
    let server =
        Server::start(|_, _| Reply::status(0).body(Body::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec())))
            .await;
    let error = Registry::new(quick())
        .manifest(&reference(&server.authority(), "a:1"))
        .await
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotHttp { .. }), "{error}");
}
