//! What is said about Dockerfiles that cannot be built, and about those that could be better.

use super::super::host::*;
use super::support::*;
use crate::diagnostic::Severity;

/// A Dockerfile, and the errors it gets.
const ERRORS: &[(&str, &str)] = &[
    (
        "",
        "0:0 EmptyFile: `Dockerfile` has no stage (a Dockerfile begins with `FROM image`)",
    ),
    (
        "# nothing\n",
        "0:0 EmptyFile: `Dockerfile` has no stage (a Dockerfile begins with `FROM image`)",
    ),
    (
        "ARG A=1",
        "0:0 EmptyFile: `Dockerfile` has no stage (a Dockerfile begins with `FROM image`)",
    ),
    (
        "RUN x\nFROM debian",
        "1:1 InstructionOutsideStage: RUN stands before the first FROM (only ARG may; begin the file with `FROM image`)",
    ),
    (
        "# syntax=docker/dockerfile:1.7\nFROM debain",
        "2:6 ImageNotResolved: the image `debain` cannot be used: no such image",
    ),
    (
        "# syntax=tonistiigi/other:2\nFROM debian",
        "1:1 UnsupportedSyntax: the file asks for the frontend `tonistiigi/other:2`, which is not the built-in one (remove the directive, or give the frontend as a component with `--frontend FILE.wasm`)",
    ),
    (
        "FROM debian AS build\nFROM biuld",
        "2:6 ImageNotResolved: the image `biuld` cannot be used: no such image (did you mean `build`?)",
    ),
    (
        "FROM Debian",
        "1:6 InvalidReference: `Debian` is not the name of an image: names are lower case (no stage of the file has this name either)",
    ),
    (
        "ARG X\nFROM $X",
        "2:6 InvalidReference: `$X` expands to nothing, so FROM has no base (give the argument a default before the first FROM, or a value with `--build-arg`)",
    ),
    (
        "FROM debian\nADD --checksum=sha256:0 https://x/y z",
        "2:5 InvalidFlag: `sha256:0` is not a digest (write `--checksum=sha256:` and 64 hexadecimal digits)",
    ),
    (
        "FROM debian\nADD --checksum=main git@x:y.git z",
        "2:5 InvalidFlag: `main` is not a commit (write the 40 (or 64) hexadecimal digits of the commit)",
    ),
    (
        "FROM debian\nADD --checksum=sha256:0 a z",
        "2:5 InvalidFlag: `--checksum` is for URLs and Git repositories only (files of the build context need none: their content counts)",
    ),
    (
        "FROM debian\nADD --checksum=sha256:0 https://x/y https://x/z z/",
        "2:5 InvalidFlag: `--checksum` takes one source, and no here-document (write an ADD for each source)",
    ),
    (
        "FROM debian\nADD --keep-git-dir https://x/y.git?keep-git-dir=0 z",
        "2:5 InvalidFlag: `--keep-git-dir=true` and `keep-git-dir=false` of the address say different things (say it in one of the two places)",
    ),
    (
        "# check=skp=all\nFROM debian",
        "1:1 InvalidDirective: `skp` is not an option of checks: did you mean `skip`? (write `# check=skip=RuleA,RuleB;error=true`)",
    ),
    ("FROM ${X", "1:6 InvalidExpansion: `${` lacks its `}`"),
    (
        "FROM ${X:?needed}",
        "1:6 InvalidExpansion: X: needed (declare `ARG X` and give `--build-arg X=…`, or set it with ENV)",
    ),
    (
        "FROM --platform=x/y/z/w debian",
        "1:6 InvalidArgument: `x/y/z/w` is not a platform (a platform is `os/architecture[/variant]`, for example `linux/amd64`)",
    ),
    (
        "FROM --platform=linux/arm64 debian\nRUN x",
        "2:1 ForeignPlatform: a RUN step of `linux/arm64` cannot run on this machine, which is `linux/amd64` (build such a stage on a machine of that kind, or begin it with `FROM --platform=linux/amd64` or `--platform=$BUILDPLATFORM`)",
    ),
    (
        "FROM debian\nCOPY --from=2 a b",
        "2:6 UnknownStage: there is no stage number 2 (stages of the file: `0`)",
    ),
    (
        "FROM debian AS a\nCOPY --from=a b c",
        "2:6 StageOrder: a stage cannot copy from itself (take from the stage it builds on, or split it in two)",
    ),
    (
        "FROM debian AS a\nCOPY --from=b x y\nFROM a AS b",
        "2:6 StageOrder: the stage `b` comes after the one that copies from it (it begins on line 3: move it in front of this one; stages may not use each other in a circle)",
    ),
    (
        "FROM debian\nCOPY --from=$X a b",
        "2:6 InvalidFlag: `--from` does not take variables (give the stage of a FROM line a name: `FROM $VARIABLE AS name`, and take from that)",
    ),
    (
        "FROM debian\nCOPY --chmod=99 a b",
        "2:6 InvalidFlag: `99` is not a mode (write up to four octal digits such as `0755`, or `u+x,go=rX` as chmod(1) takes it)",
    ),
    (
        "FROM debian\nCOPY https://x/y z",
        "2:6 InvalidArgument: `https://x/y` is a URL, which COPY does not take (use ADD, or fetch it with RUN)",
    ),
    (
        "FROM debian\nADD https:///y z",
        "2:5 InvalidArgument: `https:///y` names no host",
    ),
    (
        "FROM debian\nADD https://u:secret@x/y.git?rev=main z",
        "2:5 InvalidArgument: `https://x/y.git?rev=…`: `rev` is not a key of a repository; there are ref, tag, branch, subdir, checksum, commit, keep-git-dir, submodules, fetch-by-commit, mtime",
    ),
    (
        "FROM debian\nADD --checksum=0123456 https://x/y.git?commit=7654321 z",
        "2:5 InvalidFlag: `--checksum=0123456` and the commit `7654321` of the address are not the same (say it in one of the two places)",
    ),
    (
        "FROM debian\nRUN --network=nnoe y",
        "2:5 InvalidFlag: `nnoe` is not a network (did you mean `none`?)",
    ),
    (
        "FROM debian\nENV $NOTHING=1",
        "2:5 InvalidArgument: `$NOTHING` expands to nothing, which is not a name",
    ),
    (
        "FROM debian\nENV A='x",
        "2:7 InvalidExpansion: `'` lacks the quote that ends it (close it, or put the escape character before a `'` that is meant as it is)",
    ),
    (
        "FROM debian\nENV A=${B^^}",
        "2:7 InvalidExpansion: `^` is not a modifier of `${…}` (the modifiers are `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` and `//`)",
    ),
    (
        "FROM debian\nEXPOSE 80/icmp",
        "2:8 InvalidArgument: `icmp` is not a protocol: there are `tcp`, `udp` and `sctp` (write `80`, `80/udp` or `8000-8010/tcp`)",
    ),
    (
        "FROM debian\nVOLUME $NOTHING",
        "2:8 InvalidArgument: `$NOTHING` expands to nothing, which is not a mount point",
    ),
    (
        "FROM debian\nSTOPSIGNAL SIGTREM",
        "2:12 InvalidArgument: `SIGTREM` is not a signal (did you mean `SIGTERM`?)",
    ),
    (
        "FROM debian\nCOPY <<EOF /x\n${A:?b}\nEOF",
        "2:6 InvalidExpansion: in the here-document `EOF`: A: b",
    ),
    (
        "FROM debian\nRUN a\nRUN <<EOF\nb",
        "3:5 UnterminatedHeredoc: the here-document `EOF` does not end (end it with a line that holds `EOF` and nothing else)",
    ),
    (
        "FROM debian\nRUN cat <<EOF\nb\n\tEOF\n EOF",
        "2:9 UnterminatedHeredoc: the here-document `EOF` does not end (line 4 has `EOF` behind tabs: take them away, or begin the document with `<<-`)",
    ),
    (
        "FROM debian\nCOPY <<'A' <<B /d/\nA\nb\n B ",
        "2:12 UnterminatedHeredoc: the here-document `B` does not end (line 5 has `B` with spaces around it: take them away)",
    ),
    (
        "FROM debian\nCMD <<EOF\nx\nEOF",
        "3:1 UnknownInstruction: `x` is not an instruction (a line begins with an instruction; to go on from the line above, end that with `\\`)\n4:1 UnknownInstruction: `EOF` is not an instruction (a line begins with an instruction; to go on from the line above, end that with `\\`)",
    ),
    (
        "FROM faulty\nRUN x",
        "1:1 InvalidArgument: the trigger `RNU x` of the base is faulty: `RNU` is not an instruction (did you mean `RUN`?)\n1:1 InvalidArgument: the trigger `FROM y` of the base is faulty: FROM cannot be a trigger\n1:1 InvalidArgument: the trigger `RUN a` of the base is faulty: it has to be one instruction",
    ),
    (
        "FROM uses",
        "1:1 ImageNotResolved: the image `tools` cannot be used: no such image",
    ),
    (
        "FROM debian\nCOPY --from=missing a b\nFROM 0x",
        "3:6 ImageNotResolved: the image `0x` cannot be used: no such image",
    ),
];

#[test]
fn errors_have_place_rule_message_and_hint() {
    for (text, want) in ERRORS {
        assert_eq!(refused(text), *want, "{text}");
    }
}

#[test]
fn a_missing_target_is_named_with_what_there_is() {
    for (target, want) in [
        ("biuld", "did you mean `build`?"),
        ("7", "stages of the file: `build`, `1`"),
        ("zzz", "stages of the file: `build`, `1`"),
    ] {
        let mut asked = request("FROM debian AS build\nFROM build");
        asked.target = Some(target.into());
        let list = super::super::build(&asked, &mut memory()).unwrap_err();
        assert_eq!(
            (list[0].code, list[0].hint.as_str()),
            ("UnknownStage", want),
            "{target}"
        );
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_place() {
    for (bytes, place) in [
        (&b"FROM debian\nRUN \xff\n"[..], (2, 5)),
        (b"FROM debian\nRUN a\0b", (2, 6)),
        (b"FROM debian\rRUN a", (1, 12)),
    ] {
        let asked = Request {
            content: bytes.to_vec(),
            ..request("")
        };
        let list = super::super::build(&asked, &mut memory()).unwrap_err();
        assert_eq!(
            (list[0].code, list[0].span.line, list[0].span.column),
            ("InvalidEncoding", place.0, place.1)
        );
    }
}

#[test]
fn the_host_s_refusals_are_errors_at_the_instruction() {
    let mut small = Memory {
        limit: Some(2),
        ..memory()
    };
    let list = super::super::build(&request("FROM debian\nRUN a\nRUN b"), &mut small).unwrap_err();
    assert_eq!(shown(&list), "3:1 Refused: the build graph is full");
    let mut denied = memory();
    denied
        .files
        .insert((String::new(), ".dockerignore".into()), "unreadable".into());
    let list = super::super::build(&request("FROM scratch\nCOPY a /"), &mut denied).unwrap_err();
    assert_eq!(
        shown(&list),
        "2:1 ContextUnreadable: `.dockerignore` of the build context cannot be read: permission denied"
    );
}

/// A Dockerfile, and the warnings it gets.
const WARNINGS: &[(&str, &str)] = &[
    (
        "FROM debian AS Build",
        "1:16 StageNameCasing: the stage name `Build` should be lower case",
    ),
    (
        "FROM debian as build",
        "1:13 FromAsCasing: `as` should have the case of `FROM`",
    ),
    (
        "FROM debian\nRUN a \\\n\n b",
        "4:1 NoEmptyContinuation: line 3, within this instruction, is empty (remove the empty line, or end the instruction before it)",
    ),
    (
        "FROM debian\nrun a\nRUN b",
        "2:1 ConsistentInstructionCasing: `run` should be upper case like the other instructions",
    ),
    (
        "from debian\nRun a\nrun b",
        "2:1 ConsistentInstructionCasing: `Run` should be lower case like the other instructions",
    ),
    (
        "FROM debian AS a\nFROM debian AS a",
        "2:16 DuplicateStageName: two stages have the name `a`; the later one counts (the other one begins on line 1: give one of them another name)",
    ),
    (
        "FROM debian AS context",
        "1:16 ReservedStageName: `context` is reserved and should not be the name of a stage",
    ),
    (
        "FROM debian\nCMD a b",
        "2:5 JSONArgsRecommended: CMD in shell form runs under a shell, which does not pass signals on (write `CMD [\"program\", \"argument\"]`)",
    ),
    (
        "FROM debian\nENTRYPOINT ['a']",
        "2:12 JSONArgsRecommended: ENTRYPOINT in shell form runs under a shell, which does not pass signals on (this looks like a JSON array but is none: strings need double quotes)",
    ),
    ("FROM debian\nSHELL [\"/bin/bash\", \"-c\"]\nCMD a", ""),
    (
        "FROM debian\nMAINTAINER me",
        "2:1 MaintainerDeprecated: MAINTAINER is deprecated (write `LABEL org.opencontainers.image.authors=…`)",
    ),
    (
        "ARG BSE=1\nFROM debian${BASE}",
        "2:6 UndefinedArgInFrom: FROM uses `BASE`, which no ARG before it declares (did you mean `BSE`?)",
    ),
    (
        "FROM debian\nWORKDIR app",
        "2:9 WorkdirRelativePath: `app` is relative to whatever directory the base image sets (write `WORKDIR /app`)",
    ),
    ("FROM debian\nWORKDIR /a\nWORKDIR b", ""),
    (
        "ARG BASE\nFROM ${BASE:-debian} AS a\nFROM debian:$BASE\nFROM ${BASE:-a}",
        "3:6 InvalidDefaultArgInFrom: `debian:$BASE` is `debian:` where no build argument is given, which names no image (give the arguments defaults before the first FROM that make a name)",
    ),
    (
        "# check=experimental=all\n# what\nFROM debian AS a\n# a is this\nFROM debian AS b\n# other\n\nARG X\n# Y is\nARG Y Z\n# nothing\n#\nARG Q",
        "3:1 InvalidDefinitionDescription: the comment above FROM does not begin with the name that it describes (write `# a what it is`, or put an empty line below the comment)\n5:1 InvalidDefinitionDescription: the comment above FROM does not begin with the name that it describes (write `# b what it is`, or put an empty line below the comment)",
    ),
    ("# what\nFROM debian AS a", ""),
    ("ARG X\nFROM debian$X", ""),
    (
        "FROM debian\nENV A=$LANGG",
        "2:7 UndefinedVar: the variable `LANGG` is not defined (did you mean `LANG`?)",
    ),
    ("FROM debian\nARG A\nENV B=$A C=${D:-x} E=${F:+y}", ""),
    (
        "FROM debian\nCMD [\"a\"]\nCMD [\"b\"]",
        "2:1 MultipleInstructionsDisallowed: the CMD on line 3 takes the place of this one",
    ),
    (
        "FROM debian\nENV a b",
        "2:5 LegacyKeyValueFormat: `ENV a …` is the old form of `ENV a=…` (write `ENV a=…`)",
    ),
    (
        "FROM debian\nARG API_TOKEN\nENV PUBLIC_KEY=1 DB_PASSWORD=2 TOKEN_FILE=/x KEY_VERSION=3",
        "2:5 SecretsUsedInArgOrEnv: `ARG API_TOKEN` looks like a secret, and its value ends up in the image\n3:18 SecretsUsedInArgOrEnv: `ENV DB_PASSWORD` looks like a secret, and its value ends up in the image",
    ),
    (
        "FROM debian\nEXPOSE 80/TCP",
        "2:8 ExposeProtoCasing: the protocol of `80/TCP` should be lower case",
    ),
    (
        "FROM debian\nEXPOSE 8080:80",
        "2:8 ExposeInvalidFormat: `8080:80` names an address or port of the host, which EXPOSE drops (name the container's port alone)",
    ),
    (
        "FROM debian\nCOPY a b /c",
        "2:10 CopyDestinationNotDirectory: with 2 sources the destination `/c` has to be a directory (write `/c/`)",
    ),
    (
        "# check=skip=StageNameCasing,FromAsCasing\nFROM debian as Build",
        "",
    ),
    ("# check=skip=all\nFROM debian as Build\nCMD x", ""),
    (
        "FROM --platform=$TARGETPLATFORM debian",
        "1:6 RedundantTargetPlatform: `--platform=$TARGETPLATFORM` is the default",
    ),
    (
        "FROM --platform=linux/amd64 debian",
        "1:6 FromPlatformFlagConstDisallowed: `--platform=linux/amd64` ties the stage to one platform (use `--platform=$BUILDPLATFORM`, or leave it out)",
    ),
    ("FROM --platform=linux/amd64 debian AS build-amd64", ""),
    ("FROM --platform=$BUILDPLATFORM debian", ""),
];

#[test]
fn warnings_do_not_stop_the_build() {
    for (text, want) in WARNINGS {
        let (_, outcome) = built(text);
        assert!(
            outcome
                .diagnostics
                .iter()
                .all(|d| d.severity == Severity::Warning)
        );
        assert_eq!(shown(&outcome.diagnostics), *want, "{text}");
    }
}

#[test]
fn comments_above_an_instruction_leave_rules_out() {
    let text = "# check=skip=StageNameCasing\nFROM debian AS Build\n# why\n# check=skip=UndefinedVar,JSONArgsRecommended\nENV A=$B\nENV C=$D";
    let (_, outcome) = built(&format!("\n{text}"));
    assert_eq!(
        shown(&outcome.diagnostics),
        "7:7 UndefinedVar: the variable `D` is not defined"
    );
}

#[test]
fn a_file_can_ask_for_no_warnings() {
    let list = super::super::build(
        &request("# check=error=true\nFROM debian AS Build"),
        &mut memory(),
    )
    .unwrap_err();
    assert_eq!(
        list.iter().map(|d| d.code).collect::<Vec<_>>(),
        ["WarningsDenied", "StageNameCasing"]
    );
    built("# check=skip=StageNameCasing;error=true\nFROM debian AS Build");
}

#[test]
fn a_build_argument_that_nothing_declares_is_pointed_out() {
    let mut asked = request("ARG BASE=debian\nFROM $BASE\nARG VERSION\nENV V=$VERSION");
    asked.build_args = [
        ("VERSON", "1"),
        ("BASE", "debian"),
        ("HTTPS_PROXY", "x"),
        ("TARGETARCH", "amd64"),
        ("SOURCE_DATE_EPOCH", "1"),
    ]
    .iter()
    .map(|(n, v)| (n.to_string(), v.to_string()))
    .collect();
    let (_, outcome) = lowered(&asked, &mut memory());
    assert_eq!(
        shown(&outcome.diagnostics),
        "0:0 BuildArgNotDeclared: no ARG declares the build argument `VERSON` (did you mean `VERSION`?)"
    );
}

/// The text of an ignore file, a Dockerfile, and the warnings it gets.
const IGNORED: &[(&str, &str, &str)] = &[
    (
        "*/tmp/*",
        "FROM scratch\nCOPY ./x/tmp/y /y",
        "2:6 CopyIgnoredFile: `x/tmp/y` is left out of the build context by `.dockerignore` (take it back with a pattern that begins with `!`, or do not copy it)",
    ),
    ("*/tmp/*", "FROM scratch\nCOPY ./x/other/y /y", ""),
    ("*\n!x", "FROM scratch\nCOPY y /y", ""),
    (
        "a",
        "FROM scratch\nADD [\"b\", \"a/b\", \"/c/\"]",
        "2:5 CopyIgnoredFile: `a/b` is left out of the build context by `.dockerignore` (take it back with a pattern that begins with `!`, or do not copy it)",
    ),
    (
        "a",
        "FROM scratch AS s\nFROM scratch\nCOPY --from=s a /",
        "",
    ),
    ("a*", "FROM scratch\nCOPY . /", ""),
    (
        "**",
        "FROM scratch\nCOPY . /",
        "2:6 CopyIgnoredFile: `.` is left out of the build context by `.dockerignore` (take it back with a pattern that begins with `!`, or do not copy it)",
    ),
];

#[test]
fn copying_what_is_left_out_is_pointed_out() {
    for (ignore, text, want) in IGNORED {
        let mut memory = memory();
        memory
            .files
            .insert((String::new(), ".dockerignore".into()), ignore.to_string());
        let (_, outcome) = lowered(&request(text), &mut memory);
        assert_eq!(shown(&outcome.diagnostics), *want, "{ignore} {text}");
    }
}

#[test]
fn a_faulty_ignore_pattern_is_named_with_its_line() {
    let mut memory = memory();
    memory.files.insert(
        (String::new(), ".dockerignore".into()),
        "# c\n\nok\n[a\n".into(),
    );
    let list = super::super::build(&request("FROM scratch\nCOPY a /"), &mut memory).unwrap_err();
    assert_eq!(
        shown(&list),
        "2:1 ContextUnreadable: line 4 of `.dockerignore`: ignore pattern `[a`: malformed `[…]` or `\\` (`*`, `?`, `[…]` and `\\` are special; put a `\\` before one that is meant as it is)"
    );
}

#[test]
fn checks_can_be_chosen_by_build_argument() {
    let mut asked = request("# check=error=true\nFROM debian AS Build\nCMD x");
    asked.build_args = vec![(
        "BUILDKIT_DOCKERFILE_CHECK".into(),
        "skip=StageNameCasing,JSONArgs".into(),
    )];
    let (_, outcome) = lowered(&asked, &mut memory());
    assert_eq!(
        shown(&outcome.diagnostics),
        "0:0 UnknownCheck: there is no check `JSONArgs`\n3:5 JSONArgsRecommended: CMD in shell form runs under a shell, which does not pass signals on (write `CMD [\"program\", \"argument\"]`)"
    );
}

#[test]
fn a_check_looks_at_every_stage_and_builds_nothing() {
    let text = "FROM missing AS a\nENV X=$Y\nRUN --network=nonee x\nFROM debian AS Build\nADD https://x/y z\nENV Z=$Q PATHS=$PAHT\nFROM --platform=linux/s390x gone AS c\nARG HOEM HOME\nRUN y\nENV A=$HOMEE B=$FROM_BASE\nFROM a\nCMD x";
    let check = |target: Option<&str>| {
        let mut asked = Request {
            call: Call::Check,
            target: target.map(str::to_owned),
            ..request(text)
        };
        asked.build_args = vec![("NOT".into(), "1".into())];
        let mut memory = Memory {
            offline: true,
            ..memory()
        };
        let list = super::super::build(&asked, &mut memory).unwrap_or_else(|list| Outcome {
            root: None,
            config: ImageConfig::default(),
            history: Vec::new(),
            source_date_epoch: None,
            diagnostics: list,
        });
        assert!(memory.vertices.is_empty());
        list.diagnostics
            .iter()
            .map(|d| format!("{}:{} {}", d.span.line, d.span.column, d.code))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        check(None),
        [
            "0:0 BuildArgNotDeclared",
            "3:5 InvalidFlag",
            "4:16 StageNameCasing",
            "6:16 UndefinedVar",
            "7:6 FromPlatformFlagConstDisallowed",
            "10:7 UndefinedVar",
            "12:5 JSONArgsRecommended"
        ]
    );
    assert_eq!(check(Some("c")).len(), 4);
}
