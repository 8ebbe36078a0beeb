//! ADD of a file behind a web address.

use stepwell_integration_tests::World;
use stepwell_integration_tests::archive::{self, Entry};
use stepwell_integration_tests::proxy::{Proxy, Tamper};

use crate::{built, content, is_not_in_store, page};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const SECS: &str = "784111777";
/// Of `hello`.
const DIGEST: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn add(proxy: &Proxy, flags: &str, dest: &str) -> String {
    let host = proxy.host();
    format!("FROM @BUSYBOX@\nADD {flags} http://{host}/d/file.txt?v=1 {dest}\n")
}

#[test]
fn a_file_comes_with_the_servers_time_and_is_roots_alone() {
    let world = World::new();
    let proxy = Proxy::alone(|_| {
        let headers = vec![("Last-Modified", DATE.to_owned())];
        Tamper::Answer(200, headers, b"hello".to_vec())
    });
    world.dockerfile(&add(&proxy, "", "/in/"));
    let files = built(&world, &[]);
    let file = &files["in/file.txt"];
    assert_eq!((file.mode, file.owner), (0o600, (0, 0)));
    assert_eq!(file.mtime, SECS);
    assert_eq!(content(&files, "in/file.txt"), "hello");

    world.dockerfile(&add(&proxy, "--chmod=640 --chown=7:8", "/in/name"));
    let file = &built(&world, &[])["in/name"];
    assert_eq!((file.mode, file.owner), (0o640, (7, 8)));

    // Without a time it is the beginning of time, as docker has it.
    proxy.tamper(|_| Some(page("")));
    world.dockerfile(&add(&proxy, "--link", "/other"));
    let file = &built(&world, &[])["other"];
    assert_eq!((file.mtime.as_str(), file.content.len()), ("0", 0));
}

#[test]
fn a_file_that_did_not_change_is_asked_about_and_not_sent() {
    let world = World::new();
    let proxy = Proxy::alone(|asked| match asked.header("if-none-match") {
        Some("\"one\"") => Tamper::Answer(304, vec![], vec![]),
        _ => Tamper::Answer(200, vec![("ETag", "\"one\"".into())], b"hello".to_vec()),
    });
    world.dockerfile(&(add(&proxy, "", "/f") + "RUN echo ran-$(cat /f)\n"));
    assert!(world.built(&[]).err.contains("ran-hello"));
    let again = world.built(&[]);
    assert!(!again.err.contains("ran-hello"), "{}", again.err);
    assert_eq!(again.steps().0, 0, "{}", again.err);
    let asked = proxy.requests();
    assert_eq!(asked, ["GET /d/file.txt?v=1", "GET /d/file.txt?v=1"]);

    // Another version with the same bytes: nothing that follows is carried out.
    proxy.tamper(|_| {
        let headers = vec![("ETag", "\"two\"".into())];
        Some(Tamper::Answer(200, headers, b"hello".to_vec()))
    });
    assert!(!world.built(&[]).err.contains("ran-hello"));
    // The same bytes from another place, too.
    let elsewhere = Proxy::alone(|_| page("hello"));
    world.dockerfile(&(add(&elsewhere, "", "/f") + "RUN echo ran-$(cat /f)\n"));
    assert!(!world.built(&[]).err.contains("ran-hello"));
    // Other bytes: all of it.
    elsewhere.tamper(|_| Some(page("bye")));
    let explained = world.explain(&[]);
    assert!(
        explained.contains("what is behind the address changed"),
        "{explained}"
    );
    assert!(world.built(&[]).err.contains("ran-bye"));
}

#[test]
fn a_file_whose_digest_is_given_is_asked_for_once() {
    let world = World::new();
    let proxy = Proxy::alone(|_| page("hello"));
    world.dockerfile(&add(&proxy, &format!("--checksum={DIGEST}"), "/f"));
    assert_eq!(content(&built(&world, &[]), "f"), "hello");
    drop(proxy);
    // The server is gone, and nobody notices.
    assert_eq!(content(&built(&world, &[]), "f"), "hello");
}

#[test]
fn a_file_with_another_digest_is_refused_with_both() {
    let world = World::new();
    let proxy = Proxy::alone(|_| page("hullo"));
    world.dockerfile(&add(&proxy, &format!("--checksum={DIGEST}"), "/f"));
    let ran = world.build(&[]);
    ran.failed_with(
        65,
        &[
            "Dockerfile:2",
            DIGEST,
            "sha256:7835066a1457504217688c8f5d06909c6591e0ca78c254ccf17450d0d999cab0",
            "/d/file.txt?v=…",
        ],
    );
    // What came is not kept: the right file is fetched.
    proxy.tamper(|_| Some(page("hello")));
    assert_eq!(content(&built(&world, &[]), "f"), "hello");
}

#[test]
fn archives_are_unpacked_where_that_is_asked_for() {
    let world = World::new();
    let tar = archive::write(&[Entry {
        path: "dir/x".into(),
        kind: '0',
        mode: 0o644,
        content: b"X".to_vec(),
        mtime: "7".into(),
        ..Entry::default()
    }]);
    let proxy = Proxy::alone(move |_| page(&tar));
    world.dockerfile(&add(&proxy, "", "/d/"));
    assert!(built(&world, &[]).contains_key("d/file.txt"));
    world.dockerfile(&add(&proxy, "--unpack", "/d/"));
    let files = built(&world, &[]);
    assert_eq!(content(&files, "d/dir/x"), "X");
    assert!(!files.contains_key("d/file.txt"));
}

#[test]
fn credentials_are_a_secrets_and_stay_with_their_host() {
    let world = World::new();
    let elsewhere = Proxy::alone(|_| page("moved"));
    let there = elsewhere.host();
    let proxy = Proxy::alone(move |asked| match asked.authorization.as_str() {
        "Bearer hush-token" => {
            let to = vec![("Location", format!("http://{there}/moved"))];
            Tamper::Answer(302, to, vec![])
        }
        _ => Tamper::Answer(401, vec![], b"who are you?".to_vec()),
    });
    world
        .file("token", "hush-token\n")
        .dockerfile(&add(&proxy, "", "/f"));
    let without = world.build(&[]);
    without.failed_with(65, &["401", "HTTP_AUTH_TOKEN_127.0.0.1", "Dockerfile:2"]);

    let token = world.path("context/token");
    let secret = format!(
        "--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,src={}",
        token.display()
    );
    let files = built(&world, &[&secret]);
    assert_eq!(content(&files, "f"), "moved");
    assert_eq!(elsewhere.tampered()[0].authorization, "");
    assert_eq!(
        proxy.tampered().last().unwrap().authorization,
        "Bearer hush-token"
    );

    // What is refused with credentials does not tell them, and neither does the store.
    proxy.tamper(|_| Some(Tamper::Answer(403, vec![], b"no".to_vec())));
    let refused = world.build(&[&secret, "--no-cache"]);
    refused.failed_with(65, &["403"]);
    assert!(!refused.err.contains("hush-token"), "{}", refused.err);
    is_not_in_store(&world, "hush-token");
}

#[test]
fn a_step_mounts_what_was_fetched_by_a_stage() {
    let world = World::new();
    let proxy = Proxy::alone(|_| page("hello"));
    let host = proxy.host();
    world.dockerfile(&format!(
        "FROM scratch AS files\nADD http://{host}/a http://{host}/b%2fc /\nFROM @BUSYBOX@\nRUN --mount=from=files,target=/m cat /m/a /m/c > /both\n"
    ));
    assert_eq!(content(&built(&world, &[]), "both"), "hellohello");
}
