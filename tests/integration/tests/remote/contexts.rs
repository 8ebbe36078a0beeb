//! Contexts and Dockerfiles that are not in a directory of this machine.

use std::io::Write as _;
use std::process::{Command, Stdio};

use stepwell_integration_tests::World;
use stepwell_integration_tests::archive::{self, Entry};
use stepwell_integration_tests::proxy::{Proxy, Tamper};

use crate::repository::{Daemon, Repositories};
use crate::{build_of, built_of, content, page};

fn file(path: &str, text: &str) -> Entry {
    Entry {
        path: path.into(),
        kind: '0',
        mode: 0o640,
        owner: (7, 8),
        content: text.into(),
        mtime: "7".into(),
        ..Entry::default()
    }
}

/// A context with a Dockerfile, a file that is ignored and one that is not.
fn context() -> Vec<u8> {
    archive::write(&[
        file("Dockerfile", "FROM scratch\nCOPY . /d/\n"),
        file("other/Dockerfile", "FROM scratch\nCOPY a /other\n"),
        file(".dockerignore", "secret\n"),
        file("secret", "s"),
        file("a", "A"),
    ])
}

/// Puts bytes through a program.
fn through(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("`{program}`: {e}"));
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[test]
fn an_archive_on_standard_input_is_a_context() {
    let world = World::new();
    let tar = context();
    let inputs = [
        tar.clone(),
        through("gzip", &tar),
        through("bzip2", &tar),
        through("xz", &tar),
        through("zstd", &tar),
    ];
    for input in inputs {
        let files = built_of(&world, "-", &[], Some(&input));
        assert_eq!(content(&files, "d/a"), "A");
        // As of any context, all is root's; what is ignored is not there.
        assert_eq!((files["d/a"].owner, files["d/a"].mode), ((0, 0), 0o640));
        assert!(!files.contains_key("d/secret"));
    }
    let files = built_of(&world, "-", &["-f", "other/Dockerfile"], Some(&tar));
    assert_eq!(content(&files, "other"), "A");
    // Nothing changed: nothing is carried out.
    let again = build_of(&world, "-", &[], Some(&tar));
    assert_eq!(again.steps().0, 0, "{}", again.err);
    build_of(&world, "-", &["-f", "none"], Some(&tar))
        .failed_with(65, &["cannot read `none` of the context"]);
}

#[test]
fn a_lone_dockerfile_on_standard_input_has_an_empty_context() {
    let world = World::new();
    let text = world.expand("FROM @BUSYBOX@\nCOPY . /d/\nRUN ls -A /d | wc -l > /count\n");
    let files = built_of(&world, "-", &[], Some(text.as_bytes()));
    assert_eq!(content(&files, "count").trim(), "0");
    build_of(&world, "-", &[], Some(b"FROM scratch\nNONE x\n"))
        .failed_with(65, &["Dockerfile:2:1"]);
    build_of(&world, "-", &[], Some(b"")).failed_with(64, &["nothing on standard input"]);
    build_of(&world, "-", &["-f", "-"], Some(b"x"))
        .failed_with(64, &["cannot be the context and the Dockerfile"]);
}

#[test]
fn a_dockerfile_on_standard_input_goes_with_a_directory() {
    let world = World::new();
    world.file("a", "A");
    let dir = world.path("context").display().to_string();
    let files = built_of(
        &world,
        &dir,
        &["-f", "-"],
        Some(b"FROM scratch\nCOPY a /b\n"),
    );
    assert_eq!(content(&files, "b"), "A");
}

#[test]
fn archives_and_dockerfiles_behind_addresses_are_contexts() {
    let world = World::new();
    let tar = through("gzip", &context());
    let proxy = Proxy::alone(move |asked| match asked.target.as_str() {
        "/context.tar.gz" => page(&tar),
        "/Dockerfile" => page("FROM scratch\nCOPY context /itself\n"),
        "/copies" => page("FROM scratch\nCOPY a /b\n"),
        "/token?x=hush" => Tamper::Answer(403, vec![], vec![]),
        _ => Tamper::Answer(404, vec![], vec![]),
    });
    let at = |path: &str| format!("http://{}{path}", proxy.host());
    let files = built_of(&world, &at("/context.tar.gz"), &[], None);
    assert_eq!(content(&files, "d/a"), "A");
    let files = built_of(&world, &at("/Dockerfile"), &[], None);
    assert!(content(&files, "itself").starts_with("FROM scratch"));
    // A Dockerfile elsewhere, and the context here.
    world.file("a", "here");
    let dir = world.path("context").display().to_string();
    let files = built_of(&world, &dir, &["-f", &at("/copies")], None);
    assert_eq!(content(&files, "b"), "here");
    let missing = build_of(&world, &at("/none"), &[], None);
    missing.failed_with(65, &["404 not found", "/none"]);
    let refused = build_of(&world, &at("/token?x=hush"), &[], None);
    refused.failed_with(65, &["403"]);
    assert!(!refused.err.contains("hush"), "{}", refused.err);
}

#[test]
fn a_hostile_archive_stays_in_its_context() {
    let world = World::new();
    let link = |path: &str, target: &str| Entry {
        kind: '2',
        link: target.into(),
        ..file(path, "")
    };
    let outside = world.path("out").join("written");
    let tar = archive::write(&[
        file("Dockerfile", "FROM scratch\nCOPY . /d/\n"),
        link("up", &world.path("out").display().to_string()),
        file("up/written", "x"),
        link("passwd", "/etc/passwd"),
    ]);
    let ran = build_of(&world, "-", &[], Some(&tar));
    assert!(!outside.exists());
    assert!(ran.code.is_some());
    // The Dockerfile itself may not be a link that leads out.
    let tar = archive::write(&[link("Dockerfile", "/etc/passwd")]);
    build_of(&world, "-", &[], Some(&tar)).failed_with(65, &["Dockerfile"]);
    let tar = archive::write(&[file("../x", "y"), file("Dockerfile", "FROM scratch\n")]);
    assert_ne!(build_of(&world, "-", &[], Some(&tar)).code, Some(0));
}

#[test]
fn repositories_are_contexts_by_ref_and_directory() {
    let (world, all) = (World::new(), Repositories::new());
    all.init("a");
    all.write("a", "sub/Dockerfile", "FROM scratch\nCOPY . /d/\n");
    all.write("a", "sub/x", "one");
    all.commit("a");
    let daemon = Daemon::start(&all);
    let address = format!("{}#main:sub", daemon.url("a"));
    let files = built_of(&world, &address, &[], None);
    assert_eq!(content(&files, "d/x"), "one");
    assert!(!files.contains_key("d/.git"));
    let again = build_of(&world, &address, &[], None);
    assert_eq!(again.steps().0, 0, "{}", again.err);
    all.write("a", "sub/x", "two");
    all.commit("a");
    assert_eq!(
        content(&built_of(&world, &address, &[], None), "d/x"),
        "two"
    );
    let whole = daemon.url("a");
    let keep = [
        "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1",
        "-f",
        "sub/Dockerfile",
    ];
    assert!(built_of(&world, &whole, &keep, None).contains_key("d/.git/HEAD"));
    let ran = build_of(&world, &format!("{whole}#none"), &[], None);
    ran.failed_with(65, &["no branch, tag or commit `none`"]);
}

#[test]
fn named_contexts_are_behind_addresses_too() {
    let (world, all) = (World::new(), Repositories::new());
    all.init("a");
    all.write("a", "x", "of a repository");
    all.commit("a");
    let daemon = Daemon::start(&all);
    let tar = context();
    let proxy = Proxy::alone(move |_| page(&tar));
    world.dockerfile(
        "FROM @BUSYBOX@\nCOPY --from=repo x /x\nCOPY --from=web a /a\nRUN --mount=from=repo,target=/m cat /m/x > /y\n",
    );
    let repo = format!("--build-context=repo={}#main", daemon.url("a"));
    let web = format!("--build-context=web=http://{}/c.tar", proxy.host());
    let dir = world.path("context").display().to_string();
    let files = built_of(&world, &dir, &[&repo, &web], None);
    assert_eq!(content(&files, "x"), "of a repository");
    assert_eq!(content(&files, "y"), "of a repository");
    assert_eq!(content(&files, "a"), "A");
    build_of(&world, &dir, &["--build-context=repo=ftp://x/y"], None)
        .failed_with(64, &["ftp://x/y"]);
}

#[test]
fn a_named_context_can_be_for_one_platform() {
    let world = World::new();
    for name in ["amd64", "arm64", "all"] {
        let dir = world.path(&format!("named/{name}"));
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::write(dir.join("a"), name).expect("a file");
    }
    let given = |name: &str, dir: &str| {
        let dir = world.path(&format!("named/{dir}"));
        format!("--build-context={name}={}", dir.display())
    };
    let (amd64, arm64, all) = (
        given("src::linux/x86_64", "amd64"),
        given("src::linux/arm64/v8", "arm64"),
        given("src", "all"),
    );
    world.dockerfile(
        "FROM --platform=linux/arm64 scratch AS arm\nCOPY --from=src a /\nFROM scratch\nCOPY --from=src a /\nCOPY --from=arm a /arm\n",
    );
    let context = world.path("context").display().to_string();
    let build = |platform: &str, args: &[&String]| {
        let platform = format!("--platform={platform}");
        let args: Vec<&str> = args
            .iter()
            .map(|a| a.as_str())
            .chain([&platform[..]])
            .collect();
        let files = built_of(&world, &context, &args, None);
        (content(&files, "a"), content(&files, "arm"))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let both = [&amd64, &arm64, &all];
    assert_eq!(build("linux/amd64", &both), pair("amd64", "arm64"));
    assert_eq!(build("linux/arm64", &both), pair("arm64", "arm64"));
    assert_eq!(build("linux/s390x", &both), pair("all", "arm64"));
    assert_eq!(build("linux/arm64", &[&amd64, &all]), pair("all", "all"));
}

#[test]
fn the_time_of_a_source_is_that_of_the_build() {
    let (world, all) = (World::new(), Repositories::new());
    let steps = world
        .expand("FROM @BUSYBOX@\nARG SOURCE_DATE_EPOCH\nRUN echo is-$SOURCE_DATE_EPOCH > /is\n");
    let is = |files: &crate::Files, seconds: &str| {
        assert_eq!(content(files, "is").trim(), format!("is-{seconds}"));
        assert_eq!(files["is"].mtime, seconds);
    };
    // As the repositories of tests are committed.
    const COMMITTED: &str = "1000000000";
    all.init("a");
    let text = format!("ARG SOURCE_DATE_EPOCH=context\n{steps}");
    all.write("a", "Dockerfile", &text);
    all.commit("a");
    let daemon = Daemon::start(&all);
    let repository = format!("{}#main", daemon.url("a"));
    is(&built_of(&world, &repository, &[], None), COMMITTED);
    // It is kept with the commit.
    is(
        &built_of(&world, &repository, &["--no-cache"], None),
        COMMITTED,
    );

    // An archive: as the server says, else its youngest file.
    let tar = archive::write(&[
        file("Dockerfile", &steps),
        Entry {
            mtime: "5".into(),
            ..file("old", "x")
        },
        Entry {
            kind: '5',
            mtime: "99".into(),
            ..file("young", "")
        },
    ]);
    let served = tar.clone();
    let proxy = Proxy::alone(move |asked| {
        let dated = vec![("Last-Modified", "Thu, 01 Jan 1970 00:20:00 GMT".to_owned())];
        match asked.target.as_str() {
            "/dated.tar" => Tamper::Answer(200, dated, served.clone()),
            "/tar" => page(&served),
            "/plain" => page("no archive"),
            _ => Tamper::Answer(404, vec![], vec![]),
        }
    });
    let at = |path: &str| format!("http://{}{path}", proxy.host());
    let given = ["--build-arg=SOURCE_DATE_EPOCH=context"];
    is(&built_of(&world, &at("/dated.tar"), &given, None), "1200");
    is(&built_of(&world, &at("/tar"), &given, None), "7");
    is(&built_of(&world, "-", &given, Some(&tar)), "7");

    // A named context, and a stage that is one source.
    let context = world.path("context").display().to_string();
    let build = |first: &str, args: &[&str]| {
        world.dockerfile(&format!("ARG SOURCE_DATE_EPOCH=from\n{first}{steps}"));
        built_of(&world, &context, args, None)
    };
    let named = format!("--build-context=from={}", at("/dated.tar"));
    is(&build("", &[&named]), "1200");
    for (source, seconds) in [
        (at("/dated.tar"), "1200"),
        (at("/tar"), "7"),
        (repository, COMMITTED),
    ] {
        let stage = format!("FROM scratch AS from\nADD {source} /\n");
        is(&build(&stage, &[]), seconds);
    }

    // What has no time is said, and goes on without; what is not there is not.
    world.dockerfile(&format!("ARG SOURCE_DATE_EPOCH=context\n{steps}"));
    let local = world.built(&[]);
    assert!(
        local.err.contains("which has no time of its own"),
        "{}",
        local.err
    );
    assert!(local.err.contains("git log -1"), "{}", local.err);
    let stage = |source: &str| format!("FROM scratch AS from\nADD {source} /\n");
    world.dockerfile(&format!(
        "ARG SOURCE_DATE_EPOCH=from\n{}{steps}",
        stage(&at("/plain"))
    ));
    assert!(world.built(&[]).err.contains("NoSourceDate"));
    world.dockerfile(&format!(
        "ARG SOURCE_DATE_EPOCH=from\n{}{steps}",
        stage(&at("/none"))
    ));
    world.build(&[]).failed_with(
        65,
        &["404 not found", "Dockerfile:1:5", "check the address"],
    );
    world
        .build(&["--build-arg=SOURCE_DATE_EPOCH=nobody"])
        .failed_with(65, &["`SOURCE_DATE_EPOCH` is `nobody`"]);
}

#[test]
fn a_named_context_is_fetched_where_it_is_used() {
    let world = World::new();
    let proxy = Proxy::alone(|asked| match asked.target.as_str() {
        "/file" => page("content"),
        _ => Tamper::Answer(404, vec![], vec![]),
    });
    let at =
        |name: &str, path: &str| format!("--build-context={name}=http://{}{path}", proxy.host());
    let (here, elsewhere) = (at("src", "/file"), at("src::linux/s390x", "/none"));
    world.dockerfile("FROM scratch\nLABEL a=b\n");
    world.built(&[&here, &elsewhere]);
    assert_eq!(proxy.requests(), Vec::<String>::new());
    world.dockerfile("FROM scratch\nCOPY --from=src context /c\n");
    assert_eq!(
        content(&crate::built(&world, &[&here, &elsewhere]), "c"),
        "content"
    );
    assert_eq!(proxy.requests().len(), 1, "{:?}", proxy.requests());
    world
        .build(&[&here, &elsewhere, "--platform=linux/s390x"])
        .failed_with(
            65,
            &[
                "the context `src::linux/s390x` cannot be had",
                "404 not found",
                "/none",
                "check the address",
            ],
        );
}
