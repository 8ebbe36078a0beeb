//! ADD of repositories.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;

use stepwell_integration_tests::World;
use stepwell_integration_tests::proxy::{Proxy, Tamper};
use stepwell_test_support::cmd::run;

use crate::repository::{Daemon, Repositories, git};
use crate::{built, content, is_not_in_store};

/// A repository with a program, a link and a directory.
fn repositories() -> Repositories {
    let all = Repositories::new();
    all.init("a");
    all.write("a", "sub/x", "one");
    all.write("a", "run", "#!/bin/sh\n");
    let program = all.path("a").join("run");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("sub/x", all.path("a").join("link")).unwrap();
    all.commit("a");
    all.git("a", &["tag", "--annotate", "--message=v1", "v1"]);
    all
}

fn add(world: &World, flags: &str, address: &str) {
    world.dockerfile(&format!(
        "FROM @BUSYBOX@\nADD {flags} {address} /d/\nRUN echo ran-$(cat /d/sub/x /d/x 2>/dev/null)\n"
    ));
}

#[test]
fn the_files_of_a_commit_are_roots_and_its_ref_is_asked_about() {
    let (world, all) = (World::new(), repositories());
    let daemon = Daemon::start(&all);
    add(&world, "", &format!("{}#main", daemon.url("a")));
    let files = built(&world, &[]);
    assert_eq!(content(&files, "d/sub/x"), "one");
    for (path, kind, mode) in [
        ("d/sub", '5', 0o755),
        ("d/sub/x", '0', 0o644),
        ("d/run", '0', 0o755),
    ] {
        let entry = &files[path];
        assert_eq!(
            (entry.kind, entry.mode, entry.owner),
            (kind, mode, (0, 0)),
            "{path}"
        );
    }
    assert_eq!(files["d/link"].link, "sub/x");
    assert!(
        !files.keys().any(|p| p.contains(".git")),
        "{:?}",
        files.keys()
    );

    // Nothing changed: the ref is asked about, and nothing is fetched.
    let before = daemon.connections();
    let again = world.built(&[]);
    assert_eq!(again.steps().0, 0, "{}", again.err);
    assert_eq!(daemon.connections(), before + 1);

    all.write("a", "sub/x", "two");
    all.commit("a");
    assert!(world.built(&[]).err.contains("ran-two"));
    // The tag stays where it was.
    add(&world, "", &format!("{}?tag=v1", daemon.url("a")));
    assert_eq!(content(&built(&world, &[]), "d/sub/x"), "one");
    // A part of it.
    add(
        &world,
        "--chown=1:2 --exclude=y",
        &format!("{}#main:sub", daemon.url("a")),
    );
    let part = built(&world, &[]);
    assert_eq!(
        (content(&part, "d/x").as_str(), part["d/x"].owner),
        ("two", (1, 2))
    );
    assert!(!part.contains_key("d/run"));
}

#[test]
fn a_whole_commit_is_fetched_once_and_nobody_is_asked_again() {
    let (world, all) = (World::new(), repositories());
    let first = all.git("a", &["rev-parse", "HEAD"]).trim().to_owned();
    all.write("a", "sub/x", "two");
    all.commit("a");
    let daemon = Daemon::start(&all);
    add(&world, "", &format!("{}#{first}", daemon.url("a")));
    assert!(world.built(&[]).err.contains("ran-one"));
    drop(daemon);
    assert_eq!(world.built(&[]).steps().0, 0);
}

#[test]
fn a_commit_that_is_not_the_expected_one_is_refused() {
    let (world, all) = (World::new(), repositories());
    let first = all.git("a", &["rev-parse", "HEAD"]).trim().to_owned();
    let daemon = Daemon::start(&all);
    let url = daemon.url("a");
    add(
        &world,
        &format!("--checksum={first}"),
        &format!("{url}#main"),
    );
    assert!(world.built(&[]).err.contains("ran-one"));
    all.write("a", "sub/x", "two");
    let second = all.commit("a");
    world
        .build(&[])
        .failed_with(65, &["`main`", &first, &second, "Dockerfile:2"]);
    for (address, part) in [
        (format!("{url}#none"), "no branch, tag or commit `none`"),
        (format!("{url}#main:none"), "`none` is no directory"),
        (format!("{url}#main:run"), "`run` is no directory"),
        (daemon.url("none"), "cannot fetch"),
        ("git@127.0.0.1:x".to_owned(), "add `--ssh default`"),
    ] {
        add(&world, "", &address);
        let ran = world.build(&[]);
        assert!(matches!(ran.code, Some(65 | 71)), "{address}: {}", ran.err);
        ran.failed_with(ran.code.unwrap(), &[part, "Dockerfile:2"]);
    }
}

#[test]
fn a_kept_git_directory_is_one_that_git_works_with() {
    let (world, all) = (World::new(), repositories());
    let commit = all.git("a", &["rev-parse", "HEAD"]).trim().to_owned();
    let daemon = Daemon::start(&all);
    add(
        &world,
        "--keep-git-dir",
        &format!("{}#main", daemon.url("a")),
    );
    let files = built(&world, &[]);
    assert_eq!(content(&files, "d/.git/HEAD").trim(), commit);
    let out = tempfile::tempdir().unwrap();
    run(Command::new("tar")
        .arg("-xf")
        .arg(world.path("out/result.tar"))
        .arg("-C")
        .arg(out.path())
        .arg("d"))
    .unwrap();
    let there = out.path().join("d");
    assert_eq!(git(&there, &["status", "--porcelain"]), "");
    assert_eq!(git(&there, &["rev-parse", "HEAD"]).trim(), commit);
    assert_eq!(
        git(&there, &["remote", "get-url", "origin"]).trim(),
        daemon.url("a")
    );
}

#[test]
fn submodules_come_too_unless_they_are_of_this_machine() {
    let (world, all) = (World::new(), repositories());
    all.init("inner");
    all.write("inner", "y", "inner");
    let inner = all.commit("inner");
    let link = format!("160000,{inner},lib/inner");
    let modules = |url: &str| {
        let text = format!("[submodule \"i\"]\n\tpath = lib/inner\n\turl = {url}\n");
        all.write("a", ".gitmodules", &text);
        all.git("a", &["add", ".gitmodules"]);
        all.git("a", &["update-index", "--add", "--cacheinfo", &link]);
        all.git("a", &["commit", "--quiet", "--message=m"]);
    };
    modules("../inner");
    let daemon = Daemon::start(&all);
    add(&world, "", &format!("{}#main", daemon.url("a")));
    let files = built(&world, &[]);
    assert_eq!(content(&files, "d/lib/inner/y"), "inner");
    assert!(!files.contains_key("d/lib/inner/.git"));
    add(
        &world,
        "",
        &format!("{}?ref=main&submodules=0", daemon.url("a")),
    );
    let files = built(&world, &[]);
    assert!(files.contains_key("d/lib/inner") && !files.contains_key("d/lib/inner/y"));

    // One that leads to a repository of this machine is not followed.
    modules(&all.path("inner").display().to_string());
    add(&world, "", &format!("{}#main", daemon.url("a")));
    let refused = world.build(&[]);
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.err.contains("transport 'file' not allowed"),
        "{}",
        refused.err
    );
}

#[test]
fn nothing_of_a_repository_or_of_the_user_is_run() {
    let (world, all) = (World::new(), repositories());
    // Filters that nobody configured do nothing; configuration beside the repository is not read.
    all.write("a", ".gitattributes", "* filter=evil\n");
    all.write("a", ".gitconfig", "[core]\n\tfsmonitor = touch /tmp/evil\n");
    all.commit("a");
    let daemon = Daemon::start(&all);
    add(&world, "", &format!("{}#main", daemon.url("a")));
    let home = world.path("home");
    std::fs::create_dir(&home).unwrap();
    let evil = world.path("home/evil");
    let config = format!(
        "[filter \"evil\"]\n\tsmudge = sh -c 'touch {}; cat'\n[core]\n\thooksPath = {}\n",
        evil.display(),
        home.display()
    );
    std::fs::write(home.join(".gitconfig"), config).unwrap();
    std::fs::write(
        home.join("post-checkout"),
        format!("#!/bin/sh\ntouch {}\n", evil.display()),
    )
    .unwrap();
    std::fs::set_permissions(
        home.join("post-checkout"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let mut command = world.build_command(&[]);
    command
        .env("HOME", &home)
        .env("GIT_CONFIG_GLOBAL", home.join(".gitconfig"));
    let ran = stepwell_integration_tests::ran(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!evil.exists());
}

#[test]
fn a_token_opens_a_private_repository_and_is_told_nowhere() {
    let (world, all) = (World::new(), Arc::new(repositories()));
    let served = all.clone();
    // `x-access-token:hush-token`
    let wanted = "Basic eC1hY2Nlc3MtdG9rZW46aHVzaC10b2tlbg==";
    let proxy = Proxy::alone(move |asked| match asked.authorization.as_str() {
        token if token == wanted => served.answer(asked),
        _ => {
            let ask = vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())];
            Tamper::Answer(401, ask, vec![])
        }
    });
    let host = proxy.host();
    add(&world, "", &format!("http://{host}/a.git#main"));
    world
        .build(&[])
        .failed_with(65, &["cannot fetch", "GIT_AUTH_TOKEN", "Dockerfile:2"]);

    world.file("token", "hush-token\n");
    let token = world.path("context/token");
    for id in [
        "GIT_AUTH_TOKEN".to_owned(),
        format!("GIT_AUTH_TOKEN.{host}"),
    ] {
        let secret = format!("--secret=id={id},src={}", token.display());
        let ran = world.built(&[&secret, "--no-cache"]);
        assert!(ran.err.contains("ran-one"), "{}", ran.err);
        assert!(!ran.err.contains("hush-token"), "{}", ran.err);
    }
    // A token for another host stays at home.
    let secret = format!(
        "--secret=id=GIT_AUTH_TOKEN.example.org,src={}",
        token.display()
    );
    world
        .build(&[&secret, "--no-cache"])
        .failed_with(65, &["cannot fetch"]);
    assert!(proxy.tampered().last().unwrap().authorization.is_empty());
    is_not_in_store(&world, "hush-token");
    is_not_in_store(&world, "eC1hY2Nlc3MtdG9rZW46aHVzaC10b2tlbg");
}
