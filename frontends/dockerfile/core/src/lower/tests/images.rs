//! What instructions make of the image's configuration and history.

use super::super::host::*;
use super::support::*;

fn history(text: &str) -> Vec<String> {
    let (_, outcome) = built(text);
    assert!(
        outcome
            .history
            .iter()
            .all(|h| h.comment == "buildkit.dockerfile.v0")
    );
    outcome
        .history
        .into_iter()
        .map(|h| {
            format!(
                "{}{}",
                h.created_by,
                if h.empty_layer { " (empty)" } else { "" }
            )
        })
        .collect()
}

/// An instruction behind `FROM debian`, and the lines of history it makes.
const HISTORY: &[(&str, &[&str])] = &[
    (
        "RUN apt-get  update",
        &["RUN /bin/sh -c apt-get  update # buildkit"],
    ),
    ("RUN [\"a\", \"b c\"]", &["RUN a b c # buildkit"]),
    (
        "ARG A=1 B\nARG A=2\nRUN x",
        &[
            "ARG A=1 B (empty)",
            "ARG A=2 (empty)",
            "RUN |2 A=2 B= /bin/sh -c x # buildkit",
        ],
    ),
    (
        "ARG A=1\nENV A=2\nRUN x",
        &[
            "ARG A=1 (empty)",
            "ENV A=2 (empty)",
            "RUN |1 A=2 /bin/sh -c x # buildkit",
        ],
    ),
    ("RUN <<EOF\na\nEOF", &["RUN /bin/sh -c a\n # buildkit"]),
    ("COPY a b /c/", &["COPY a b /c/ # buildkit"]),
    (
        "COPY --chown=1:2 --chmod=755 --parents --link a .",
        &["COPY --parents --chown=1:2 --chmod=755 a . # buildkit"],
    ),
    ("COPY --from=busybox:1 /a /b", &["COPY /a /b # buildkit"]),
    ("COPY a <<EOF /d/\nEOF", &["COPY a <<EOF /d/ # buildkit"]),
    ("ADD a.tar /x", &["ADD a.tar /x # buildkit"]),
    ("WORKDIR /a\nWORKDIR b", &["WORKDIR /a", "WORKDIR /a/b"]),
    ("WORKDIR /", &["WORKDIR / (empty)"]),
    ("ENV a=\"b c\" d=$LANG", &["ENV a=b c d=C (empty)"]),
    ("LABEL a=b \"c d\"='e f'", &["LABEL a=b c d=e f (empty)"]),
    (
        "CMD [\"a\", \"b\\\"c\"]",
        &["CMD [\"a\" \"b\\\"c\"] (empty)"],
    ),
    ("CMD a b", &["CMD [\"/bin/sh\" \"-c\" \"a b\"] (empty)"]),
    ("ENTRYPOINT [\"/x\"]", &["ENTRYPOINT [\"/x\"] (empty)"]),
    (
        "EXPOSE 80 53/udp 1-2",
        &["EXPOSE [1/tcp 2/tcp 53/udp 80/tcp] (empty)"],
    ),
    ("VOLUME /a $LANG", &["VOLUME [/a C] (empty)"]),
    ("USER me:us", &["USER me:us (empty)"]),
    ("STOPSIGNAL SIGQUIT", &["STOPSIGNAL SIGQUIT (empty)"]),
    (
        "SHELL [\"/bin/bash\", \"-c\"]",
        &["SHELL [/bin/bash -c] (empty)"],
    ),
    ("MAINTAINER Me <a@b>", &["MAINTAINER Me <a@b> (empty)"]),
    ("ONBUILD RUN x", &[]),
    (
        "HEALTHCHECK --interval=30s --retries=3 CMD curl x",
        &[
            "HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3} (empty)",
        ],
    ),
    (
        "HEALTHCHECK NONE",
        &[
            "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0} (empty)",
        ],
    ),
];

#[test]
fn histories_are_docker_s() {
    for (text, want) in HISTORY {
        assert_eq!(history(&format!("FROM debian\n{text}")), *want, "{text}");
    }
}

#[test]
fn a_stage_goes_on_with_the_history_of_its_base_stage() {
    assert_eq!(
        history("FROM debian AS a\nENV a=1\nFROM a\nENV b=2"),
        ["ENV a=1 (empty)", "ENV b=2 (empty)"]
    );
    assert_eq!(
        history("FROM debian AS a\nENV a=1\nFROM debian\nCOPY --from=a x /"),
        ["COPY x / # buildkit"]
    );
}

fn config(text: &str) -> ImageConfig {
    built(text).1.config
}

#[test]
fn configurations_are_inherited_and_changed() {
    let scratch = config("FROM scratch");
    assert_eq!(
        scratch.env,
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    );
    assert_eq!(scratch.working_dir, "/");
    let debian = config(
        "FROM debian\nENV LANG=de X=1\nENV X=2\nLABEL a=1\nLABEL a=2 b=3\nEXPOSE 80\nVOLUME [\"/v\"]\nUSER u\nWORKDIR /w\nSTOPSIGNAL 9\nONBUILD COPY . .\nARG A=1",
    );
    assert_eq!(debian.env, ["PATH=/bin", "LANG=de", "X=2"]);
    assert_eq!(
        debian.labels.into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), "2".to_owned()), ("b".into(), "3".into())]
    );
    assert_eq!(
        debian.exposed_ports.into_iter().collect::<Vec<_>>(),
        ["80/tcp"]
    );
    assert_eq!(debian.volumes.into_iter().collect::<Vec<_>>(), ["/v"]);
    assert_eq!(
        (
            debian.user.as_str(),
            debian.working_dir.as_str(),
            debian.stop_signal.as_str()
        ),
        ("u", "/w", "9")
    );
    assert_eq!(debian.on_build, ["COPY . ."]);
    assert_eq!(debian.cmd, Some(vec!["bash".to_owned()]));
    let app = config("FROM app");
    assert_eq!(
        (app.entrypoint, app.user, app.working_dir),
        (Some(vec!["/app".into()]), "app".into(), "/srv".into())
    );
    assert!(
        app.env[0].starts_with("PATH=/usr/local/sbin"),
        "docker adds a PATH to a base that has none"
    );
}

#[test]
fn entrypoint_takes_back_an_inherited_command() {
    for (text, entrypoint, cmd) in [
        ("FROM app\nENTRYPOINT [\"x\"]", Some("x"), None),
        (
            "FROM app\nCMD [\"y\"]\nENTRYPOINT [\"x\"]",
            Some("x"),
            Some("y"),
        ),
        (
            "FROM app\nENTRYPOINT [\"x\"]\nCMD [\"y\"]",
            Some("x"),
            Some("y"),
        ),
        ("FROM app\nCMD [\"y\"]", Some("/app"), Some("y")),
        (
            "FROM app AS a\nCMD [\"y\"]\nFROM a\nENTRYPOINT [\"x\"]",
            Some("x"),
            None,
        ),
        ("FROM app\nENTRYPOINT []", None, None),
    ] {
        let config = config(text);
        let first = |list: Option<Vec<String>>| list.map(|l| l[0].clone());
        assert_eq!(
            (first(config.entrypoint), first(config.cmd)),
            (entrypoint.map(str::to_owned), cmd.map(str::to_owned)),
            "{text}"
        );
    }
    assert_eq!(config("FROM app\nCMD []").cmd, Some(vec![]));
}

#[test]
fn health_checks() {
    let check = config("FROM debian\nHEALTHCHECK --interval=1m30s --timeout=500ms --start-period=5s --start-interval=1s --retries=4 CMD [\"a\", \"b\"]").healthcheck.unwrap();
    assert_eq!(
        check,
        Healthcheck {
            test: vec!["CMD".into(), "a".into(), "b".into()],
            interval: 90_000_000_000,
            timeout: 500_000_000,
            start_period: 5_000_000_000,
            start_interval: 1_000_000_000,
            retries: 4
        }
    );
    assert_eq!(
        config("FROM debian\nHEALTHCHECK CMD a b")
            .healthcheck
            .unwrap()
            .test,
        ["CMD-SHELL", "a b"]
    );
    assert_eq!(
        config("FROM debian\nHEALTHCHECK NONE")
            .healthcheck
            .unwrap()
            .test,
        ["NONE"]
    );
}

#[test]
fn labels_of_the_command_line_win() {
    let mut asked = request("FROM debian\nLABEL a=1 b=2");
    asked.labels = vec![("a".into(), "9".into()), ("c".into(), "3".into())];
    let labels = lowered(&asked, &mut memory()).1.config.labels;
    assert_eq!(
        labels
            .into_iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>(),
        ["a=9", "b=2", "c=3"]
    );
}

#[test]
fn triggers_run_once_and_are_handed_on_no_further() {
    let (graph, outcome) = built("FROM triggers AS a\nONBUILD RUN second\nFROM a AS b\nFROM b");
    assert_eq!(graph.matches("make").count(), 1);
    assert_eq!(graph.matches("second").count(), 1);
    assert!(outcome.config.on_build.is_empty());
    assert_eq!(
        config("FROM debian\nONBUILD COPY <<E /x\n1\nE").on_build,
        ["COPY <<E /x\n1\nE"]
    );
}
