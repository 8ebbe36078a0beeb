//! Components from files: the example frontend, the cache of compiled code, and files that are no frontends.

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::{TestHost, component, digest_of_image, engine, input, limits};
use stepwell_model::op::{FileAction, Network};
use stepwell_model::{ImageConfig, Op};
use stepwell_wasm::frontend::{Frontend, FrontendSource};
use stepwell_wasm::policy::{Policy, PolicySource};
use stepwell_wasm::{GuestEngine, GuestError};

const RECIPE: &str = include_str!("../../../examples/recipe-frontend/example/recipe.toml");

fn debian() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/usr/bin:/bin".into()],
        cmd: Some(vec!["bash".into()]),
        ..ImageConfig::default()
    }
}

#[test]
fn the_example_frontend_makes_an_image_of_its_example() {
    let engine = engine();
    let source = FrontendSource::File(component("recipe-frontend"));
    let frontend = Frontend::load(&engine, &source).expect("it fits the contract");
    let about = frontend.describe(&limits()).expect("it describes itself");
    assert_eq!(about.definition_names, ["recipe.toml"]);

    let context = tempfile::tempdir().expect("a directory");
    let mut host = TestHost::new(context.path()).with_image("debian:bookworm-slim", debian());
    let output = frontend
        .build(&input("recipe.toml", RECIPE), &limits(), &mut host)
        .expect("the example is good");
    let graph = &output.graph;
    let ids = graph.needed_by(output.result.expect("it has files"));
    assert_eq!(ids.len(), 6, "image, packages, context, copy, run, write");
    let Op::Image(image) = &graph.vertex(ids[0]).op else {
        panic!("the base comes first");
    };
    assert_eq!(image.digest, digest_of_image("debian:bookworm-slim"));
    let runs: Vec<_> = graph
        .iter()
        .filter_map(|(_, v)| match &v.op {
            Op::Run(run) => Some(run),
            _ => None,
        })
        .collect();
    assert!(runs[0].args[2].contains("ca-certificates"));
    assert_eq!(runs[1].network, Network::None);
    assert!(runs[1].env.iter().any(|v| v.name == "GREETING"));
    let Op::Files(last) = &graph.vertex(ids[5]).op else {
        panic!("the file is written last");
    };
    assert!(matches!(&last.actions[0], FileAction::Mkfile { path, .. } if path == "/etc/motd"));
    assert_eq!(output.config.user, "nobody");
    assert_eq!(
        output.config.cmd, None,
        "an entry point resets the base's command"
    );
    assert_eq!(output.history.len(), 4);
}

#[test]
fn the_example_frontend_says_what_is_wrong_and_where() {
    let engine = engine();
    let source = FrontendSource::File(component("recipe-frontend"));
    let frontend = Frontend::load(&engine, &source).expect("it fits the contract");
    let context = tempfile::tempdir().expect("a directory");
    for (recipe, line, message) in [
        ("base = 1", 1, "invalid type"),
        (
            "base = \"scratch\"\n\n[[step]]\nrun = \"ls\"\n",
            3,
            "nothing to run on",
        ),
        ("base = \"nowhere\"\n", 1, "no `nowhere` here"),
        (
            "base = \"scratch\"\npackages = [\"a;b\"]\n",
            2,
            "not the name of a package",
        ),
    ] {
        let mut host = TestHost::new(context.path());
        let error = frontend
            .build(&input("recipe.toml", recipe), &limits(), &mut host)
            .expect_err(recipe);
        let GuestError::Refused { diagnostics } = &error else {
            panic!("{recipe}: {error:?}");
        };
        let first = &diagnostics[0];
        assert!(first.message.contains(message), "{recipe}: {first:?}");
        assert_eq!(first.span.line, line, "{recipe}: {first:?}");
    }
}

#[test]
fn compiled_code_is_kept_and_damage_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = dir.path().join("code");
    let file = component("recipe-frontend");
    let load = || {
        let engine = GuestEngine::new(Some(cache.clone())).expect("it starts");
        let source = FrontendSource::File(file.clone());
        let frontend = Frontend::load(&engine, &source).expect("it fits the contract");
        assert_eq!(
            frontend.describe(&limits()).expect("it answers").name,
            "recipe"
        );
    };
    load();
    let kept: Vec<_> = std::fs::read_dir(&cache)
        .expect("the cache is there")
        .map(|e| e.expect("an entry").path())
        .collect();
    let [kept] = &kept[..] else {
        panic!("one entry, not {kept:?}");
    };
    let whole = std::fs::read(kept).expect("it can be read");
    let written = || {
        std::fs::metadata(kept)
            .expect("it is there")
            .modified()
            .expect("a time")
    };

    let before = written();
    load();
    assert_eq!(written(), before, "the second load takes what is kept");

    for damage in [
        whole[..whole.len() / 2].to_vec(),
        Vec::new(),
        whole.iter().map(|b| b ^ 1).collect(),
    ] {
        std::fs::write(kept, damage).expect("it can be damaged");
        load();
        assert_eq!(
            std::fs::read(kept).expect("it is there"),
            whole,
            "it is mended"
        );
    }

    // What others may write is not trusted.
    std::fs::set_permissions(kept, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    let before = written();
    load();
    assert_ne!(written(), before, "it was compiled anew");
}

#[test]
fn what_is_no_frontend_is_refused() {
    let engine = engine();
    let dir = tempfile::tempdir().expect("a directory");
    let load = |path: std::path::PathBuf| {
        let answer = Frontend::load(&engine, &FrontendSource::File(path));
        answer.err().expect("it is no frontend")
    };
    let missing = load(dir.path().join("missing.wasm"));
    assert!(matches!(missing, GuestError::Read { .. }), "{missing:?}");
    for content in [&b""[..], b"not wasm", b"\0asm\x01\0\0\0"] {
        let path = dir.path().join("bad.wasm");
        std::fs::write(&path, content).expect("it is written");
        let error = load(path);
        assert!(
            matches!(error, GuestError::NotAComponent { .. }),
            "{error:?}"
        );
    }
    let policy = load(component("hostile-policy"));
    assert!(
        matches!(policy, GuestError::WrongWorld { .. }),
        "{policy:?}"
    );
    let text = policy.to_string();
    assert!(
        text.contains("does not fit the contract `stepwell:frontend/"),
        "{text}"
    );
    let frontend = PolicySource::File(component("recipe-frontend"));
    let error = Policy::load(&engine, &frontend)
        .err()
        .expect("it is no policy");
    assert!(matches!(error, GuestError::WrongWorld { .. }), "{error:?}");
}

#[test]
fn a_guest_that_needs_wasi_gets_an_empty_one() {
    let engine = engine();
    let source = FrontendSource::File(component("wasi-frontend"));
    let frontend = Frontend::load(&engine, &source).expect("it fits the contract");
    assert!(frontend.imports().iter().any(|i| i.starts_with("wasi:")));
    let context = tempfile::tempdir().expect("a directory");
    let seen = |name: &str| {
        let mut host = TestHost::new(context.path());
        let output = frontend
            .build(&input("x", ""), &limits(), &mut host)
            .expect("it answers");
        let found = output.diagnostics.into_iter().find(|d| d.code == name);
        found.expect(name).message
    };
    assert_eq!(seen("environment"), "[]");
    assert_eq!(seen("arguments"), "[]");
    assert_eq!(seen("cwd"), "None");
    assert_eq!(seen("directories"), "0");
    assert_eq!(seen("time"), "(0, 0, 0)");
    assert_eq!(seen("random"), seen("random"));
}
