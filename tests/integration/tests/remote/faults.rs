//! Servers that fail, lie, or want to keep the builder busy.

use std::cell::RefCell;
use std::net::TcpListener;

use stepwell_integration_tests::World;
use stepwell_integration_tests::children::{finished, nobody_stays, signal, started, wait_until};
use stepwell_integration_tests::proxy::{Proxy, Tamper};

use crate::{built, content, page};

fn world(proxy: &Proxy) -> World {
    let world = World::new();
    let host = proxy.host();
    world.dockerfile(&format!("FROM scratch\nADD http://{host}/file /f\n"));
    world
}

/// After each failure the same store has the right file from an honest server: nothing half of it was kept.
fn heals(world: &World, proxy: &Proxy) {
    proxy.tamper(|_| Some(page("whole")));
    assert_eq!(content(&built(world, &[]), "f"), "whole");
}

#[test]
fn a_missing_file_is_said_with_its_line() {
    let proxy = Proxy::alone(|_| Tamper::Answer(404, vec![], b"<html>".to_vec()));
    let world = world(&proxy);
    world.build(&[]).failed_with(
        65,
        &[
            "404 not found",
            "/file",
            "Dockerfile:2",
            "check the address",
        ],
    );
    assert_eq!(
        proxy.requests().len(),
        1,
        "a missing file is asked for once"
    );
    heals(&world, &proxy);
}

#[test]
fn nobody_at_the_address_is_said_soon() {
    let proxy = Proxy::alone(|_| page(""));
    let world = world(&proxy);
    let host = proxy.host();
    drop(proxy);
    world
        .build(&[])
        .failed_with(71, &["cannot connect", &host, "Dockerfile:2"]);
}

#[test]
fn a_body_that_ends_too_early_is_fetched_again_and_then_refused() {
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec();
    let proxy = Proxy::alone(move |_| Tamper::Raw(cut.clone()));
    let world = world(&proxy);
    world
        .build(&[])
        .failed_with(71, &["the connection broke after 4 bytes", "tried 3 times"]);
    assert_eq!(proxy.requests().len(), 3);
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec();
    proxy.tamper(move |asked| {
        Some(match asked.tampered {
            0 => Tamper::Raw(cut.clone()),
            _ => page("whole"),
        })
    });
    assert_eq!(content(&built(&world, &[]), "f"), "whole");
}

#[test]
fn a_file_larger_than_any_disk_is_not_begun() {
    let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 900000000000000\r\n\r\nx".to_vec();
    let proxy = Proxy::alone(move |_| Tamper::Raw(huge.clone()));
    let world = world(&proxy);
    world
        .build(&[])
        .failed_with(71, &["longer than the limit", "Dockerfile:2"]);
    heals(&world, &proxy);
}

#[test]
fn redirections_end_somewhere_and_stay_on_the_web() {
    let proxy = Proxy::alone(|asked| {
        let to = vec![("Location", format!("{}x", asked.target))];
        Tamper::Answer(302, to, vec![])
    });
    let world = world(&proxy);
    world
        .build(&[])
        .failed_with(65, &["there were too many before it"]);
    for to in ["file:///etc/passwd", "gopher://h/x"] {
        proxy.tamper(move |_| {
            let to = vec![("Location", to.to_owned())];
            Some(Tamper::Answer(302, to, vec![]))
        });
        world.build(&[]).failed_with(65, &["it leaves the web"]);
    }
    heals(&world, &proxy);
}

#[test]
fn an_answer_that_nothing_changed_needs_something_that_did_not() {
    // Nothing was asked about: 304 is no answer to that.
    let proxy = Proxy::alone(|_| Tamper::Answer(304, vec![], vec![]));
    let world = world(&proxy);
    world.build(&[]).failed_with(71, &["304 not modified"]);
    heals(&world, &proxy);
}

#[test]
fn what_a_server_says_cannot_control_the_terminal() {
    let proxy = Proxy::alone(|_| Tamper::Answer(500, vec![], b"\x1b[2Jgone".to_vec()));
    let world = world(&proxy);
    let ran = world.build(&[]);
    ran.failed_with(71, &["500", "gone"]);
    assert!(!ran.err.contains('\u{1b}'), "{}", ran.err);
}

/// Ids of the processes that name `text` in their arguments.
pub fn processes_with(text: &str) -> Vec<String> {
    let names = |id: &str| {
        std::fs::read(format!("/proc/{id}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    };
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let ids = all.map(|e| e.file_name().to_string_lossy().into_owned());
    ids.filter(|id| names(id)).collect()
}

#[test]
fn a_build_that_waits_for_a_silent_server_can_be_given_up() {
    let ways = [("git", "x.git"), ("http", "x.git"), ("http", "file")];
    for ((scheme, name), named) in ways.into_iter().flat_map(|w| [(w, false), (w, true)]) {
        let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = silent.local_addr().expect("the port").port();
        let world = World::new();
        let address = format!("{scheme}://127.0.0.1:{port}/{name}");
        let context = format!("--build-context=src={address}");
        let build = match named {
            true => {
                world.dockerfile("FROM scratch\nCOPY --from=src / /d/\n");
                world.build_command(&[&context])
            }
            false => {
                world.dockerfile(&format!("FROM scratch\nADD {address} /d\n"));
                world.build_command(&[])
            }
        };
        let build = RefCell::new(started(build));
        // It hears everything and says nothing.
        let heard = silent.accept().expect("a connection");
        signal(&build.borrow(), "INT");
        let ended = || build.borrow_mut().try_wait().expect("a state").is_some();
        wait_until("the end of the build", ended);
        finished(build.into_inner()).failed_with(130, &[]);
        assert_eq!(processes_with(&format!(":{port}/")), Vec::<String>::new());
        nobody_stays(&world, "store");
        drop(heard);
    }
}
