//! Caches that several steps use at once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use stepwell_integration_tests::World;
use stepwell_integration_tests::children::{finished, signal, started, wait_until};
use stepwell_integration_tests::way::Way;

/// Two steps that use one cache, each of which looks for the other for a while.
fn at_once(sharing: &str) -> String {
    let step = |name: &str, other: &str| {
        format!(
            "FROM @BUSYBOX@ AS {name}\nRUN --mount=type=cache,target=/c,id=at-once,sharing={sharing} echo > /c/{name}; n=0; while [ $n -lt 20 ]; do [ -e /c/{other} ] && echo {name}-sees-{other} && break; sleep 0.1; n=$((n+1)); done; rm -f /c/{name}; true\n"
        )
    };
    format!(
        "{}{}FROM @BUSYBOX@\nCOPY --from=one /bin/sh /1\nCOPY --from=two /bin/sh /2\n",
        step("one", "two"),
        step("two", "one")
    )
}

#[test]
fn steps_that_use_a_cache_at_once_wait_or_get_another() {
    let world = World::new();
    let way = Way::USERNS;
    for sharing in ["locked", "shared", "private"] {
        world.dockerfile(&at_once(sharing));
        let ran = way.built(&world, &["--jobs=4", "--no-cache"]);
        assert!(
            !ran.printed().iter().any(|l| l.contains("-sees-")),
            "{sharing}:\n{}",
            ran.err
        );
        let waits = ran.err.contains("waits for the cache `at-once`");
        assert_eq!(waits, sharing != "private", "{sharing}:\n{}", ran.err);
    }
    // Two builds at once: one waits for the other.
    world.dockerfile("FROM @BUSYBOX@\nARG WHO\nRUN --mount=type=cache,target=/c,sharing=locked echo $WHO >> /c/who; sleep 2; tail -n 1 /c/who\n");
    let children: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|who| {
            (
                who,
                started(way.command(&world, &[&format!("--build-arg=WHO={who}")])),
            )
        })
        .collect();
    for (who, child) in children {
        let ran = finished(child);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(
            ran.printed(),
            [who],
            "another one wrote meanwhile:\n{}",
            ran.err
        );
    }
    // Waiting ends with the build.
    let holder = started(way.command(&world, &["--build-arg=WHO=d"]));
    wait_until("the step", || way.inside(&world, "c/who").is_some());
    let mut waiter = started(way.command(&world, &["--build-arg=WHO=e"]));
    sleep(Duration::from_millis(500));
    signal(&waiter, "INT");
    let start = Instant::now();
    assert_eq!(waiter.wait().expect("ends").code(), Some(130));
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(finished(holder).code, Some(0));
    world.dockerfile("FROM @BUSYBOX@\nRUN --mount=type=cache,id=x,target=/a --mount=type=cache,id=x,target=/b true\n");
    way.build(&world, &[]).failed_with(
        65,
        &[
            "the cache `x` is mounted twice in one step",
            "Dockerfile:2:1",
        ],
    );
}
