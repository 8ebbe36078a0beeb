//! What instructions on files become.

use super::super::host::*;
use super::support::*;

/// A Dockerfile, and the graph it becomes.
const GRAPHS: &[(&str, &str)] = &[
    ("FROM scratch", ""),
    ("FROM debian", "0 image docker.io/library/debian"),
    (
        "FROM debian\nRUN apt-get update",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"apt-get update\"] env [] in /",
    ),
    (
        "FROM debian\nRUN [\"/bin/true\", \"$LANG\"]",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/true\", \"$LANG\"] env [] in /",
    ),
    (
        "FROM scratch\nRUN [\"/x\"]",
        "0 files on scratch: \n1 run on 0 [\"/x\"] env [] in /",
    ),
    (
        "FROM app\nRUN a\nUSER root\nWORKDIR x\nRUN --network=none b",
        "0 image docker.io/library/app\n1 run on 0 [\"/bin/sh\", \"-c\", \"a\"] env [] in /srv as app\n2 files on 1: mkdir /srv/x 755 owner root:-\n3 run on 2 [\"/bin/sh\", \"-c\", \"b\"] env [] in /srv/x as root network None",
    ),
    (
        "FROM debian\nSHELL [\"/bin/bash\", \"-eu\", \"-c\"]\nRUN x",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/bash\", \"-eu\", \"-c\", \"x\"] env [] in /",
    ),
    // Environment: ENV and ARG, in order; ENV wins over ARG; values of one ENV do not see each other.
    (
        "FROM debian\nARG A=1\nENV B=$A C=$B\nARG B=9 D=$B\nRUN x",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"x\"] env [\"A=1\", \"B=9\", \"C=\", \"D=9\"] in /",
    ),
    (
        "ARG V=1\nFROM debian\nRUN a\nARG V\nRUN b",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"a\"] env [] in /\n2 run on 1 [\"/bin/sh\", \"-c\", \"b\"] env [\"V=1\"] in /",
    ),
    (
        "FROM debian\nARG TARGETARCH TARGETPLATFORM TARGETVARIANT BUILDOS NONE\nRUN x",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"x\"] env [\"TARGETARCH=amd64\", \"TARGETPLATFORM=linux/amd64\", \"TARGETVARIANT=\", \"BUILDOS=linux\"] in /",
    ),
    (
        "FROM debian\nENV A=\"x y\" B='$A' C=a\\ b\nENV D e  f\nRUN x",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"x\"] env [\"A=x y\", \"B=$A\", \"C=a b\", \"D=e  f\"] in /",
    ),
    // COPY and ADD.
    (
        "FROM debian\nCOPY a /b",
        "0 image docker.io/library/debian\n1 context \"\" []\n2 files on 0: copy [\"a\"] of 1 to /b",
    ),
    (
        "FROM scratch\nCOPY . .",
        "0 context \"\" []\n1 files on scratch: copy [\".\"] of 0 to /",
    ),
    (
        "FROM scratch\nWORKDIR /w\nCOPY a/ ../b ./d/../e/",
        "0 files on scratch: mkdir /w 755\n1 context \"\" []\n2 files on 0: copy [\"a\", \"b\"] of 1 to /w/e/",
    ),
    (
        "FROM scratch\nCOPY --chown=1:2 --chmod=u+x --exclude=*.md --exclude=x a /",
        "0 context \"\" []\n1 files on scratch: copy [\"a\"] of 0 to / owner 1:2 mode u+x without [\"*.md\", \"x\"]",
    ),
    (
        "FROM scratch\nCOPY --parents ./a/./b/*.c /x/",
        "0 context \"\" []\n1 files on scratch: copy [\"a/./b/*.c\"] of 0 to /x/ parents",
    ),
    (
        "FROM scratch\nADD a.tar /x",
        "0 context \"\" []\n1 files on scratch: copy [\"a.tar\"] of 0 to /x extract",
    ),
    (
        "FROM scratch\nADD --unpack=false a.tar /x",
        "0 context \"\" []\n1 files on scratch: copy [\"a.tar\"] of 0 to /x",
    ),
    (
        "FROM scratch\nENV D=/d S=s O=3\nCOPY --chown=$O ${S}1 $D/",
        "0 context \"\" []\n1 files on scratch: copy [\"s1\"] of 0 to /d/ owner 3:-",
    ),
    (
        "FROM scratch\nCOPY [\"a b\", \"c\\\\ d\", \"/x y/\"]",
        "0 context \"\" []\n1 files on scratch: copy [\"a b\", \"c d\"] of 0 to /x y/",
    ),
    // --link: a layer of its own, unless the base is empty or --chmod is given.
    (
        "FROM debian\nCOPY --link a /",
        "0 image docker.io/library/debian\n1 context \"\" []\n2 files on scratch: copy [\"a\"] of 1 to /\n3 merge [0, 2]",
    ),
    (
        "FROM scratch\nCOPY --link a /",
        "0 context \"\" []\n1 files on scratch: copy [\"a\"] of 0 to /",
    ),
    (
        "FROM debian\nCOPY --link --chmod=755 a /",
        "0 image docker.io/library/debian\n1 context \"\" []\n2 files on 0: copy [\"a\"] of 1 to / mode 755",
    ),
    // Here-documents.
    (
        "FROM scratch\nENV N=1\nCOPY <<EOF /a\nx $N \"q\" \\$N\nEOF",
        "0 files on scratch: mkfile /EOF 644 \"x 1 \\\"q\\\" $N\\n\"\n1 files on scratch: copy [\"EOF\"] of 0 to /a",
    ),
    (
        "FROM scratch\nCOPY --chown=1 --chmod=0600 <<'A' <<-B /d/\n$N\nA\n\tt\n\tB",
        "0 files on scratch: mkfile /A 644 \"$N\\n\"\n1 files on scratch: mkfile /B 644 \"t\\n\"\n2 files on scratch: copy [\"A\"] of 0 to /d/ owner 1:- mode 0600; copy [\"B\"] of 1 to /d/ owner 1:- mode 0600",
    ),
    (
        "FROM scratch\nCOPY a <<B c /d/\n1\nB",
        "0 context \"\" []\n1 files on scratch: copy [\"a\", \"c\"] of 0 to /d/; mkfile /d/B 644 \"1\\n\"",
    ),
    (
        "FROM debian\nRUN <<EOF\na\nb\nEOF",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"a\\nb\\n\"] env [] in /",
    ),
    (
        "FROM debian\nRUN <<-EOF\n\ta\n\tEOF",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"a\\n\"] env [] in /",
    ),
    (
        "FROM debian\nRUN <<EOF\n#!/bin/python\nx\nEOF",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"/dev/pipes/EOF\"] env [] in / file /dev/pipes/EOF 755 \"#!/bin/python\\nx\\n\"",
    ),
    (
        "FROM debian\nRUN cat <<A >x && cat <<B\n1\nA\n2\nB",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"cat <<A >x && cat <<B\\n1\\nA\\n2\\nB\"] env [] in /",
    ),
    (
        "FROM debian\nRUN bash <<EOF\n#!/x\nEOF",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"bash <<EOF\\n#!/x\\nEOF\"] env [] in /",
    ),
    // Stages.
    (
        "FROM debian AS Base\nRUN a\nFROM debian AS other\nRUN no\nFROM base\nCOPY --from=BASE /x /y",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"a\"] env [] in /\n2 files on 1: copy [\"x\"] of 1 to /y",
    ),
    (
        "FROM debian\nRUN a\nFROM scratch\nCOPY --from=0 /x /",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"a\"] env [] in /\n2 files on scratch: copy [\"x\"] of 1 to /",
    ),
    (
        "FROM scratch\nCOPY --from=busybox:1 /bin/busybox /",
        "0 image docker.io/library/busybox:1\n1 files on scratch: copy [\"bin/busybox\"] of 0 to /",
    ),
    (
        "FROM scratch AS e\nFROM scratch\nCOPY --from=e / /x/",
        "0 files on scratch: \n1 files on scratch: copy [\".\"] of 0 to /x/",
    ),
    (
        "ARG B=debian\nFROM ${B} AS a\nFROM ${NONE:-a}\nRUN x",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"x\"] env [] in /",
    ),
    (
        "FROM debian AS a\nARG X=1\nENV Y=2\nFROM a\nRUN x",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"x\"] env [\"X=1\", \"Y=2\"] in /",
    ),
    // Triggers.
    (
        "FROM triggers\nRUN own",
        "0 image docker.io/library/triggers\n1 context \"\" []\n2 files on 0: copy [\".\"] of 1 to /src\n3 run on 2 [\"/bin/sh\", \"-c\", \"make $FLAGS\"] env [] in /\n4 run on 3 [\"/bin/sh\", \"-c\", \"own\"] env [] in /",
    ),
    (
        "FROM debian AS a\nONBUILD RUN <<EOF\nt\nEOF\nFROM a AS b\nFROM b",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"t\\n\"] env [] in /",
    ),
    (
        "FROM busybox:1 AS tools\nFROM uses",
        "0 image docker.io/library/uses\n1 image docker.io/library/busybox:1\n2 files on 0: copy [\"bin/tool\"] of 1 to /usr/bin/",
    ),
    // What is elsewhere.
    (
        "FROM scratch\nADD https://u:p@h/a%20b?c a http://h/ /d/",
        "0 http https://u:p@h/a%20b?c as \"a b\" None\n1 context \"\" []\n2 http http://h/ as \"__unnamed__\" None\n3 files on scratch: copy [\"a b\"] of 0 to /d/; copy [\"a\"] of 1 to /d/ extract; copy [\"__unnamed__\"] of 2 to /d/",
    ),
    (
        "FROM scratch\nADD --unpack --chmod=644 https://h/a*.tar /",
        "0 http https://h/a*.tar as \"a*.tar\" None\n1 files on scratch: copy [\"a\\\\*.tar\"] of 0 to / extract mode 644",
    ),
    (
        "FROM scratch\nARG V=v1\nADD --keep-git-dir --chown=1:2 --exclude=x https://h/a.git#$V:sub git@h:b?submodules=0 /d/",
        "0 git https://h/a.git \"v1\" \"sub\" \"\" keep Some(true) submodules None\n1 git git@h:b \"\" \"\" \"\" keep Some(true) submodules Some(false)\n2 files on scratch: copy [\".\"] of 0 to /d/ owner 1:2 without [\"x\"]; copy [\".\"] of 1 to /d/ owner 1:2 without [\"x\"]",
    ),
    // The escape character.
    (
        "# escape=`\nFROM scratch\nENV A=C:\\dir `\n B=`$A\nCOPY a\\b `\n /",
        "0 context \"\" []\n1 files on scratch: copy [\"a\\\\b\"] of 0 to /",
    ),
    (
        "from debian\nrun a \\\n  b",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"a   b\"] env [] in /",
    ),
    (
        "FROM debian\nWORKDIR /\nRUN x",
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"x\"] env [] in /",
    ),
];

#[test]
fn dockerfiles_become_graphs() {
    for (text, want) in GRAPHS {
        assert_eq!(built(text).0, *want, "{text}");
    }
}

#[test]
fn options_reach_the_graph() {
    let mut asked = request("FROM debian AS a\nARG X=1\nRUN $X\nFROM debian AS b\nRUN b");
    asked.target = Some("A".into());
    asked.build_args = vec![
        ("X".into(), "old".into()),
        ("X".into(), "2".into()),
        ("http_proxy".into(), "p".into()),
        ("BUILDKIT_SANDBOX_HOSTNAME".into(), "box".into()),
    ];
    asked.network = Network::Host;
    asked.hosts = vec![("h".into(), "10.0.0.1".into())];
    let mut memory = memory();
    assert_eq!(
        lowered(&asked, &mut memory).0,
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"$X\"] env [\"X=2\"] in / network Host named box"
    );
    let Op::Run(run) = &memory.vertices[1].op else {
        panic!()
    };
    assert_eq!(
        run.uncounted_env,
        [
            ("HTTP_PROXY".to_owned(), "p".to_owned()),
            ("http_proxy".into(), "p".into())
        ]
    );
    assert_eq!(run.hosts, asked.hosts);
    assert_eq!(run.env[0], ("PATH".to_owned(), "/bin".to_owned()));
}

#[test]
fn targets_are_names_or_numbers() {
    for (target, want) in [("b", 2), ("0", 1), ("1", 2), ("", 3)] {
        let mut asked = request("FROM debian AS a\nFROM a AS b\nRUN b\nFROM b\nRUN c");
        asked.target = Some(target.into());
        assert_eq!(
            lowered(&asked, &mut memory()).0.lines().count(),
            want,
            "{target}"
        );
    }
}

#[test]
fn named_contexts_replace_images_stages_and_directories() {
    let build = |text: &str, contexts: &[(&str, Option<&str>)]| {
        let mut asked = request(text);
        asked.contexts = contexts
            .iter()
            .map(|(n, i)| NamedContext {
                name: n.to_string(),
                image: i.map(str::to_owned),
            })
            .collect();
        let mut memory = memory();
        memory
            .files
            .insert(("src".into(), ".dockerignore".into()), "*.o\n".into());
        lowered(&asked, &mut memory).0
    };
    assert_eq!(
        build("FROM scratch\nCOPY --from=src a /", &[("src", None)]),
        "0 context \"src\" [\"*.o\"]\n1 files on scratch: copy [\"a\"] of 0 to /"
    );
    assert_eq!(
        build(
            "FROM scratch\nCOPY --from=src a /",
            &[("src", Some("debian"))]
        ),
        "0 image docker.io/library/debian\n1 files on scratch: copy [\"a\"] of 0 to /"
    );
    assert_eq!(
        build("FROM alpine:latest", &[("alpine", Some("debian"))]),
        "0 image docker.io/library/debian"
    );
    assert_eq!(
        build("FROM src\nRUN x", &[("src", None)]),
        "0 context \"src\" [\"*.o\"]\n1 files on scratch: copy [\".\"] of 0 to /\n2 run on 1 [\"/bin/sh\", \"-c\", \"x\"] env [] in /"
    );
    assert_eq!(
        build(
            "FROM missing AS base\nRUN never\nFROM base\nRUN y",
            &[("base", Some("debian"))]
        ),
        "0 image docker.io/library/debian\n1 run on 0 [\"/bin/sh\", \"-c\", \"y\"] env [] in /"
    );
}

#[test]
fn a_context_for_a_platform_goes_before_the_one_for_all() {
    let build = |text: &str, names: &[&str]| {
        let mut asked = request(text);
        asked.target_platform = Platform::parse("linux/amd64", &Platform::default()).unwrap();
        asked.build_platform = Platform::parse("linux/arm64", &Platform::default()).unwrap();
        let named = |n: &&str| NamedContext {
            name: n.to_string(),
            image: None,
        };
        asked.contexts = names.iter().map(named).collect();
        let (graph, _) = lowered(&asked, &mut memory());
        let lines = graph.lines().filter(|l| l.contains(" context "));
        let names = lines.map(|l| l.split('"').nth(1).unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let all = ["src", "src::linux/amd64", "src::linux/arm64/v8"];
    let copy = "COPY --from=src a /";
    // The platform is that of the stage that uses it, not the build's.
    let arm = format!("FROM --platform=$BUILDPLATFORM scratch AS b\n{copy}\n");
    let both = format!("{arm}FROM scratch\n{copy}\nCOPY --from=b /a /b");
    assert_eq!(
        build(&both, &all),
        ["src::linux/arm64/v8", "src::linux/amd64"]
    );
    let own = &all[..2];
    assert_eq!(build(&both, own), ["src", "src::linux/amd64"]);
    // As a base, and in the place of a stage and of an image.
    let base = "FROM --platform=linux/arm64 src\nLABEL x=y";
    assert_eq!(build(base, &all), ["src::linux/arm64/v8"]);
    let stage = "FROM --platform=$BUILDPLATFORM missing AS src\nFROM src\nLABEL x=y";
    assert_eq!(build(stage, &all), ["src::linux/arm64/v8"]);
    let image = "FROM docker.io/library/src:latest\nLABEL x=y";
    assert_eq!(build(image, &all), ["src::linux/amd64"]);
    // One for another platform alone is none.
    let (other, mut memory) = (request("FROM scratch\nCOPY --from=debian a /"), memory());
    let mut other = other;
    other.contexts.push(NamedContext {
        name: "debian::plan9/amd64".into(),
        image: None,
    });
    assert!(
        lowered(&other, &mut memory)
            .0
            .contains("image docker.io/library/debian")
    );
}

#[test]
fn the_epoch_is_the_time_of_what_it_names() {
    let build = |text: &str, given: Option<&str>| {
        let mut asked = request(text);
        asked.contexts = [("src", None), ("img", Some("debian")), ("broken", None)]
            .map(|(name, image): (&str, Option<&str>)| NamedContext {
                name: name.into(),
                image: image.map(str::to_owned),
            })
            .to_vec();
        let given = given.map(|v| ("SOURCE_DATE_EPOCH".to_owned(), v.to_owned()));
        asked.build_args.extend(given);
        let mut memory = memory();
        let times = [
            ("", 7),
            ("src", 8),
            ("https://h/f", 9),
            ("https://h/x.git", 10),
        ];
        memory.times = times.map(|(n, t)| (n.to_owned(), t)).into();
        match super::super::build(&asked, &mut memory) {
            Ok(outcome) => {
                let run = memory.vertices.iter().find_map(|v| match &v.op {
                    Op::Run(run) => run.env.iter().find(|(n, _)| n == "SOURCE_DATE_EPOCH"),
                    _ => None,
                });
                (
                    outcome.source_date_epoch,
                    run.map_or_else(String::new, |(_, value)| value.clone()),
                    shown(&outcome.diagnostics),
                )
            }
            Err(list) => (None, String::new(), shown(&list)),
        }
    };
    let is = |seconds: i64, found: (Option<i64>, String, String)| {
        assert_eq!(found, (Some(seconds), seconds.to_string(), String::new()));
    };
    let steps = "FROM debian\nARG SOURCE_DATE_EPOCH\nRUN x\n";
    let of = |value: &str| format!("ARG SOURCE_DATE_EPOCH={value}\n{steps}");
    is(7, build(&of("context"), None));
    is(8, build(&of("src"), None));
    // What the user gives counts, declared before the first stage or not.
    is(8, build(&of("context"), Some("src")));
    is(7, build(steps, Some("context")));
    is(5, build(&of("context"), Some("5")));
    // A stage that takes one thing from elsewhere.
    let stage = |lines: &str| {
        format!(
            "{}FROM scratch AS src2\n{lines}\n{steps}",
            "ARG SOURCE_DATE_EPOCH=SRC2\n"
        )
    };
    is(9, build(&stage("ARG U=https://h/f\nADD $U /"), None));
    is(
        10,
        build(&stage("ADD --keep-git-dir https://h/x.git#v1 /"), None),
    );
    for lines in [
        "ADD a /",
        "ADD https://h/f https://h/g /",
        "ADD https://h/f /\nADD https://h/f /",
        "ADD https://h/f /\nLABEL a=b",
        "RUN x",
    ] {
        let (.., told) = build(&stage(lines), None);
        assert!(told.contains("1:5 InvalidArgument"), "{told}");
        assert!(told.contains("has no time of its own"), "{told}");
    }
    // An image has none, and nobody is asked in vain.
    let (epoch, _, told) = build(&of("img"), None);
    assert_eq!(epoch, None);
    assert!(told.contains("NoSourceDate"), "{told}");
    for (value, part) in [
        (
            "broken",
            "the time of the context `broken` cannot be found out: no network",
        ),
        ("yesterday", "which is no number of seconds since 1970"),
    ] {
        let (.., told) = build(&of(value), None);
        assert!(told.starts_with("1:5 ") && told.contains(part), "{told}");
    }
    // A check asks nobody.
    let mut check = request(&of("broken"));
    check.call = Call::Check;
    check.contexts.push(NamedContext {
        name: "broken".into(),
        image: None,
    });
    super::super::build(&check, &mut memory()).expect("nothing is wrong with it");
}

#[test]
fn an_ignore_file_from_outside_the_context_wins() {
    let mut memory = memory();
    memory
        .files
        .insert((String::new(), ".dockerignore".into()), "a".into());
    let asked = Request {
        ignore_file: Some(("/x/Dockerfile.dockerignore".into(), b"x\n".to_vec())),
        ..request("FROM scratch\nCOPY a /")
    };
    assert_eq!(
        lowered(&asked, &mut memory).0.lines().next(),
        Some("0 context \"\" [\"x\"]")
    );
}

#[test]
fn platforms_are_read_as_containerd_reads_them() {
    let default = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        variant: String::new(),
    };
    for (text, want) in [
        ("linux", Some("linux/amd64")),
        ("windows", Some("windows/amd64")),
        ("arm64", Some("linux/arm64")),
        ("linux/arm64/v8", Some("linux/arm64")),
        ("Linux/AArch64", Some("linux/arm64")),
        ("linux/arm", Some("linux/arm")),
        ("armhf", Some("linux/arm")),
        ("armel", Some("linux/arm/v6")),
        ("linux/arm/7", Some("linux/arm/v7")),
        ("linux/amd64/v2", Some("linux/amd64/v2")),
        ("x86_64", Some("linux/amd64")),
        ("macos/arm64", Some("darwin/arm64")),
        ("windows(10.0.17763)/amd64", Some("windows/amd64")),
        ("foo", None),
        ("", None),
        ("linux/", None),
        ("a/b/c/d", None),
        ("linux/a b", None),
    ] {
        assert_eq!(
            Platform::parse(text, &default)
                .map(|p| p.to_string())
                .as_deref(),
            want,
            "{text}"
        );
    }
}

#[test]
fn the_ignore_file_beside_the_dockerfile_wins() {
    for (files, want) in [
        (
            &[(".dockerignore", "a\n\n# c\n!b\n")][..],
            "[\"a\", \"!b\"]",
        ),
        (
            &[(".dockerignore", "a"), ("Dockerfile.dockerignore", "x\n")][..],
            "[\"x\"]",
        ),
        (&[][..], "[]"),
    ] {
        let mut memory = memory();
        for (name, text) in files {
            memory
                .files
                .insert((String::new(), name.to_string()), text.to_string());
        }
        let (graph, _) = lowered(&request("FROM scratch\nCOPY a /\nCOPY b /"), &mut memory);
        assert_eq!(
            graph.lines().next(),
            Some(format!("0 context \"\" {want}").as_str())
        );
        assert_eq!(graph.lines().count(), 3, "the context is one vertex");
    }
}

#[test]
fn vertices_know_where_they_come_from() {
    let mut memory = memory();
    lowered(
        &request(
            "FROM debian AS build\nRUN one \\\n   two\nFROM triggers\nCOPY --from=build a /\nRUN <<EOF\nfirst\nsecond\nEOF",
        ),
        &mut memory,
    );
    let origins: Vec<_> = memory
        .vertices
        .iter()
        .map(|v| {
            format!(
                "[{}] {} @{}:{}-{}:{}",
                v.origin.stage,
                v.origin.text,
                v.origin.span.line,
                v.origin.span.column,
                v.origin.span.end_line,
                v.origin.span.end_column
            )
        })
        .collect();
    assert_eq!(
        origins,
        [
            "[build 1/2] FROM debian AS build @1:1-1:21",
            "[build 2/2] RUN one two @2:1-3:7",
            "[stage-1 1/5] FROM triggers @4:1-4:14",
            "[internal] load build context @4:1-4:14",
            "[stage-1 2/5] ONBUILD COPY . /src @4:1-4:14",
            "[stage-1 3/5] ONBUILD RUN make $FLAGS @4:1-4:14",
            "[stage-1 4/5] COPY --from=build a / @5:1-5:22",
            "[stage-1 5/5] RUN <<EOF (first...) @6:1-6:10",
        ]
    );
}

#[test]
fn what_is_not_needed_is_not_asked_for() {
    let mut memory = memory();
    lowered(
        &request("FROM missing AS unused\nRUN x\nFROM debian\nENV A=1"),
        &mut memory,
    );
    assert_eq!(memory.resolved, ["debian"]);
}
