//! Guests that misbehave (`tests/hostile-guests`): each is refused with an error that says what it is, and the host goes
//! on, with bounded memory.

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use common::{TestHost, component, engine, input, limits};
use stepwell_model::request::GuestLimits;
use stepwell_model::{GraphBuilder, Severity};
use stepwell_wasm::frontend::{Frontend, FrontendSource};
use stepwell_wasm::limits::LimitReached;
use stepwell_wasm::policy::{Budget, Operation, Policy, PolicySource, RecordInfo};
use stepwell_wasm::{GuestEngine, GuestError};

/// Small limits, so that the test is quick.
fn tight() -> GuestLimits {
    GuestLimits {
        memory: 64 << 20,
        time: Duration::from_secs(2),
        vertices: 200,
        host_calls: 300_000,
        bytes_read: 1 << 20,
        output: 1 << 20,
    }
}

/// What is expected of one way to misbehave.
type Expectation = fn(&GuestError) -> bool;

macro_rules! is {
    ($pattern:pat) => {
        |error| matches!(error, $pattern)
    };
}

macro_rules! reached {
    ($pattern:pat) => {
        is!(GuestError::Limit {
            limit: $pattern,
            ..
        })
    };
}

const EXPECTED: &[(&str, Expectation)] = &[
    ("loops for ever", reached!(LimitReached::Time(_))),
    ("allocates for ever", reached!(LimitReached::Memory(_))),
    (
        "builds an endless graph",
        reached!(LimitReached::Vertices(200)),
    ),
    (
        "builds an endless operation",
        reached!(LimitReached::GraphBytes(_)),
    ),
    // Its digests take time as well.
    ("builds a chain of huge files", |e| {
        matches!(
            e,
            GuestError::Limit {
                limit: LimitReached::GraphBytes(_) | LimitReached::Time(_),
                ..
            }
        )
    }),
    ("recurses for ever", |e| trapped(e, "stack overflow")),
    ("floods diagnostics", reached!(LimitReached::Output(_))),
    ("floods the history", reached!(LimitReached::Output(_))),
    ("calls the host for ever", |e| {
        matches!(
            e,
            GuestError::Limit {
                limit: LimitReached::HostCalls(_) | LimitReached::Time(_),
                ..
            }
        )
    }),
    ("reads for ever", reached!(LimitReached::BytesRead(_))),
    ("resolves for ever", reached!(LimitReached::Resolves(_))),
    ("collects handles", reached!(LimitReached::Handles(_))),
    (
        "points many strings at one place",
        reached!(LimitReached::CallBytes(_)),
    ),
    ("makes up a handle", |e| trapped(e, "handle")),
    ("uses a handle of another kind", |e| trapped(e, "handle")),
    ("uses a handle twice", |e| trapped(e, "handle")),
    ("panics", |e| trapped(e, "panicked")),
    ("names a context that it does not have", |e| {
        gave_up(e, "refused as it should be")
    }),
    ("names an image that it did not resolve", |e| {
        gave_up(e, "refused as it should be")
    }),
    ("refuses without a reason", |e| {
        refused(e, "does not say why")
    }),
    ("reports an error and answers an image", |e| {
        refused(e, "this is wrong")
    }),
    ("gives up", |e| gave_up(e, "no strength")),
    ("gives relative paths", |e| {
        gave_up(e, "refused as it should be")
    }),
];

fn trapped(error: &GuestError, with: &str) -> bool {
    matches!(error, GuestError::Trapped { reason, .. } if reason.contains(with))
}

fn gave_up(error: &GuestError, with: &str) -> bool {
    matches!(error, GuestError::GaveUp { reason, .. } if reason.contains(with))
}

fn refused(error: &GuestError, with: &str) -> bool {
    matches!(error, GuestError::Refused { diagnostics }
        if diagnostics.iter().any(|d| d.severity == Severity::Error && d.message.contains(with)))
}

/// Largest resident size of this process so far, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .expect("a number")
}

#[test]
fn every_way_to_misbehave_is_refused_and_the_host_goes_on() {
    let engine = engine();
    let source = FrontendSource::File(component("hostile-frontend"));
    let frontend = Frontend::load(&engine, &source).expect("it fits the contract");
    let context = tempfile::tempdir().expect("a directory");
    std::fs::write(context.path().join("file"), vec![b'x'; 70_000]).expect("a file");

    let known = frontend.describe(&limits()).expect("it describes itself");
    let known: BTreeSet<_> = known.definition_names.into_iter().collect();
    let mut untested = known.clone();
    // Tests of their own, below.
    untested.remove("reads outside its context");
    untested.remove("paints the screen");

    let before = peak_memory();
    let mut wrong = Vec::new();
    for (way, expected) in EXPECTED {
        assert!(untested.remove(*way), "no guest does `{way}`");
        let started = Instant::now();
        let answer = frontend.build(
            &input("x", way),
            &tight(),
            &mut TestHost::new(context.path()),
        );
        let error = answer.expect_err(way);
        if !expected(&error) {
            wrong.push(format!("{way}: {error:?}"));
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{way} takes too long"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(untested.is_empty(), "no expectation of {untested:?}");
    let grown = (peak_memory() - before) >> 10;
    assert!(grown < 600, "the host grew by {grown} MiB");

    builtin_still_works(&engine);
}

fn builtin_still_works(engine: &GuestEngine) {
    let policy = Policy::load(engine, &PolicySource::Builtin).expect("it loads");
    assert_eq!(policy.describe(&limits()).expect("it answers").0, "default");
}

#[test]
fn errors_name_the_guest_the_limit_and_the_flag() {
    let engine = engine();
    let source = FrontendSource::File(component("hostile-frontend"));
    let frontend = Frontend::load(&engine, &source).expect("it fits the contract");
    let context = tempfile::tempdir().expect("a directory");
    let limits = GuestLimits {
        time: Duration::from_millis(100),
        ..limits()
    };
    let mut host = TestHost::new(context.path());
    let started = Instant::now();
    let error = frontend
        .build(&input("x", "loops for ever"), &limits, &mut host)
        .expect_err("it loops");
    assert!(started.elapsed() < Duration::from_secs(5));
    let text = error.to_string();
    assert!(text.starts_with("the frontend `"), "{text}");
    assert!(
        text.contains("was stopped: it ran for longer than the 100ms allowed"),
        "{text}"
    );
    assert!(text.contains("`--guest-time`"), "{text}");
}

#[test]
fn nothing_outside_the_context_is_seen() {
    let outer = tempfile::tempdir().expect("a directory");
    let context = outer.path().join("context");
    std::fs::create_dir_all(context.join("directory")).expect("a directory");
    std::fs::write(outer.path().join("secret"), "the secret").expect("a file");
    for (target, name) in [
        ("..", "link-to-parent"),
        ("/etc/passwd", "absolute-link"),
        ("chain-2", "chain-1"),
        ("chain-3", "chain-2"),
        ("../secret", "chain-3"),
        ("../../secret", "directory/chain-up"),
        ("loop-2", "loop-1"),
        ("loop-1", "loop-2"),
    ] {
        symlink(target, context.join(name)).expect("a link");
    }
    let engine = engine();
    let source = FrontendSource::File(component("hostile-frontend"));
    let frontend = Frontend::load(&engine, &source).expect("it fits the contract");
    let answer = frontend
        .build(
            &input("x", "reads outside its context"),
            &limits(),
            &mut TestHost::new(&context),
        )
        .expect("it finds nothing to tell");
    let refused = answer.diagnostics.iter().filter(|d| d.code == "Refused");
    assert_eq!(refused.count(), 9, "{:?}", answer.diagnostics);
}

#[test]
fn what_a_guest_says_does_not_reach_the_terminal_as_it_is() {
    let engine = engine();
    let source = FrontendSource::File(component("hostile-frontend"));
    let frontend = Frontend::load(&engine, &source).expect("it fits the contract");
    let context = tempfile::tempdir().expect("a directory");
    let mut host = TestHost::new(context.path());
    let error = frontend
        .build(&input("x", "paints the screen"), &limits(), &mut host)
        .expect_err("it gives up");
    let said = &error.diagnostics()[0].message;
    for text in [said, &error.to_string()] {
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{202e}'),
            "{text:?}"
        );
        assert!(text.contains("red"), "{text:?}");
    }
}

#[test]
fn a_hostile_policy_is_refused() {
    let engine = engine();
    let file = component("hostile-policy");
    let policy = Policy::load(&engine, &PolicySource::File(file)).expect("it fits the contract");
    let graph = GraphBuilder::new(1).finish();
    let plan = |way: &str, limits: &GuestLimits| {
        policy.plan(&graph, limits, &[("way".into(), way.into())])
    };
    assert_eq!(plan("", &tight()).expect("it answers"), []);
    assert!(matches!(
        plan("loops", &tight()),
        Err(GuestError::Limit {
            limit: LimitReached::Time(_),
            ..
        })
    ));
    let huge = plan("huge answer", &limits()).expect_err("it is too large");
    assert!(
        matches!(
            huge,
            GuestError::Limit {
                limit: LimitReached::CallBytes(_),
                ..
            }
        ),
        "{huge:?}"
    );
    let record = RecordInfo {
        operation: Operation::Run,
        size: 1,
        created: 0,
        last_used: 0,
        uses: 1,
        attributes: vec![],
    };
    let error = policy
        .retain(Budget::default(), &[record], &limits())
        .expect_err("there is no such result");
    assert!(
        error.to_string().contains("answered result 1 of 1"),
        "{error}"
    );
}
