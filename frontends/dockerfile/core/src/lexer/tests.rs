use super::*;

fn lexed(text: &str) -> (Lexed, Vec<String>) {
    let source = Source::new("Dockerfile", text.as_bytes()).unwrap();
    let mut diagnostics = Diagnostics::default();
    let lexed = lex(&source, &mut diagnostics);
    let messages = diagnostics
        .into_list()
        .iter()
        .map(|d| format!("{}:{} {}", d.span.line, d.span.column, d.code))
        .collect();
    (lexed, messages)
}

fn lines(text: &str) -> Vec<String> {
    lexed(text).0.lines.into_iter().map(|l| l.text).collect()
}

#[test]
fn physical_lines_become_logical_ones() {
    for (text, want) in [
        ("FROM a\nRUN b", vec!["FROM a", "RUN b"]),
        ("\u{feff}FROM a\r\nRUN b\r\n", vec!["FROM a", "RUN b"]),
        (
            "  FROM a  \n\n# comment\n\tRUN b",
            vec!["FROM a  ", "RUN b"],
        ),
        ("RUN a \\\n  b \\ \t\n c", vec!["RUN a   b  c"]),
        (
            "RUN a \\\n# comment\n  # indented comment\n b",
            vec!["RUN a  b"],
        ),
        ("RUN a \\\n\n\n b", vec!["RUN a  b"]),
        ("RUN a \\\\\nRUN b", vec!["RUN a \\\\", "RUN b"]),
        ("RUN a \\", vec!["RUN a "]),
        ("\\\nRUN a", vec!["RUN a"]),
        ("\\\n\\\n", vec![]),
        (
            "# escape=`\nRUN a `\n b \\\nRUN c",
            vec!["RUN a  b \\", "RUN c"],
        ),
        ("# ESCAPE = ` \nRUN a `\n b", vec!["RUN a  b"]),
        ("# comment\n# escape=`\nRUN a \\\n b", vec!["RUN a  b"]),
        ("RUN a \\\r\n b\r\n", vec!["RUN a  b"]),
        ("RUN a # no comment", vec!["RUN a # no comment"]),
        ("", vec![]),
        ("\n\n# only\n", vec![]),
    ] {
        assert_eq!(lines(text), want, "{text:?}");
    }
}

#[test]
fn directives_end_with_the_first_other_line() {
    let (found, messages) = lexed(
        "# syntax=docker/dockerfile:1\n# escape = `\n# check=skip=JSONArgsRecommended, StageNameCasing;error=true\nFROM a",
    );
    assert_eq!(
        found.directives.syntax,
        Some(("docker/dockerfile:1".into(), 0))
    );
    let checks = Checks::parse(&found.directives.check.unwrap().0).unwrap();
    assert_eq!(
        (found.directives.escape, found.directives.lines, checks),
        (
            '`',
            3,
            Checks {
                skip: vec!["JSONArgsRecommended".to_owned(), "StageNameCasing".into()],
                experimental: Vec::new(),
                error: true,
            }
        )
    );
    assert!(messages.is_empty());
    for (text, want) in [
        ("# escape=x\nFROM a", vec!["1:1 InvalidDirective"]),
        (
            "# escape=`\n# escape=`\nFROM a",
            vec!["2:1 InvalidDirective"],
        ),
        ("# sytax=x\nFROM a", vec!["1:1 MisspeltDirective"]),
        ("# version=1\n# escape=x\nFROM a", vec![]),
        ("\n# escape=x\nFROM a", vec![]),
        (
            "#!/usr/bin/env build\n# escape=x\nFROM a",
            vec!["2:1 MisspeltDirective"],
        ),
    ] {
        assert_eq!(lexed(text).1, want, "{text:?}");
    }
}

#[test]
fn heredocs_are_read_with_their_line() {
    for (text, want) in [
        (
            "RUN <<EOF\na\n b\nEOF\nRUN c",
            vec![("EOF", true, false, "a\n b\n")],
        ),
        (
            "RUN cat <<A <<B\n1\nA\n2\nB\n",
            vec![("A", true, false, "1\n"), ("B", true, false, "2\n")],
        ),
        (
            "COPY <<-\"E F\" /x\n\ta\n\tE F\n",
            vec![("E F", false, true, "\ta\n")],
        ),
        (
            "COPY <<'EOF' /x\n$a\nEOF",
            vec![("EOF", false, false, "$a\n")],
        ),
        (
            "ONBUILD RUN <<EOF\na\nEOF\n",
            vec![("EOF", true, false, "a\n")],
        ),
        ("RUN 3<<EOF\nEOF\n", vec![("EOF", true, false, "")]),
        (
            "RUN <<EOF \\\n more\nx\nEOF\n",
            vec![("EOF", true, false, "x\n")],
        ),
        (
            "RUN <<EOF\r\na\r\nEOF\r\n",
            vec![("EOF", true, false, "a\r\n")],
        ),
        (
            "RUN <<EOF\n# kept\n\nx \\\nEOF\n",
            vec![("EOF", true, false, "# kept\n\nx \\\n")],
        ),
        (
            "run --network=none <<EOF\nEOF\n",
            vec![("EOF", true, false, "")],
        ),
        ("RUN [\"cat\", \"<<EOF\"]\n", vec![]),
        ("RUN echo \"<<EOF\" a<<EOF $((1<<2))\n", vec![]),
        ("RUN echo it's <<EOF\n", vec![]),
        ("ENV a=<<EOF\n", vec![]),
        ("CMD <<EOF\n", vec![]),
        ("RUN <<< x\n", vec![]),
        ("RUN <<$X\na\n$X\n", vec![("$X", true, false, "a\n")]),
    ] {
        let (found, messages) = lexed(text);
        assert!(messages.is_empty(), "{text:?}: {messages:?}");
        let docs: Vec<_> = found.lines[0]
            .heredocs
            .iter()
            .map(|h| (h.name.as_str(), h.expand, h.strip_tabs, h.content.as_str()))
            .collect();
        assert_eq!(docs, want, "{text:?}");
    }
    assert_eq!(
        lexed("FROM a\nRUN <<EOF\nx\nEOF \n").1,
        ["2:5 UnterminatedHeredoc"]
    );
}

#[test]
fn comments_above_an_instruction_stay_with_it() {
    let (found, _) = lexed("# far\n\n# one\n#two\nFROM a\nRUN b");
    assert_eq!(found.lines[0].comments, ["one", "two"]);
    assert!(found.lines[1].comments.is_empty());
}

#[test]
fn places_are_those_of_the_file() {
    let text = "FROM a\n  RUN one \\\n # x\n    twö three \\\n  four\n";
    let source = Source::new("Dockerfile", text.as_bytes()).unwrap();
    let lexed = lex(&source, &mut Diagnostics::default());
    let line = &lexed.lines[1];
    let place = |word: &str| {
        let start = line.text.find(word).unwrap();
        let span = line.span(&source, At::new(start, start + word.len()));
        (span.line, span.column, span.end_line, span.end_column)
    };
    assert_eq!(place("RUN"), (2, 3, 2, 6));
    assert_eq!(place("three"), (4, 9, 4, 14));
    assert_eq!(place("four"), (5, 3, 5, 7));
    let all = line.span(&source, At::default());
    assert_eq!(
        (all.line, all.column, all.end_line, all.end_column),
        (2, 3, 5, 7)
    );
    assert_eq!((line.first, line.last), (1, 4));
}

#[test]
fn options_of_checks() {
    for (text, want) in [
        ("", Checks::default()),
        (
            "error=T",
            Checks {
                error: true,
                ..Checks::default()
            },
        ),
        (
            "skip=all ; error=0",
            Checks {
                skip: vec!["all".into()],
                ..Checks::default()
            },
        ),
        (
            "experimental=A,B",
            Checks {
                experimental: vec!["A".into(), "B".into()],
                ..Checks::default()
            },
        ),
    ] {
        assert_eq!(Checks::parse(text), Ok(want), "{text}");
    }
    for (text, want) in [
        (
            "skp=a",
            "`skp` is not an option of checks: did you mean `skip`?",
        ),
        (
            "all",
            "`all` is not an option of checks: there are `skip=`, `error=` and `experimental=`",
        ),
        ("error=yes", "`error=yes`: there are `true` and `false`"),
        (
            "skip",
            "`skip` is not an option of checks: did you mean `skip`?",
        ),
    ] {
        assert_eq!(Checks::parse(text), Err(want.to_owned()), "{text}");
    }
    assert_eq!(
        Checks::parse("skip=StageNameCase,fromascasing,all")
            .unwrap()
            .unknown(),
        [
            ("StageNameCase".to_owned(), String::new()),
            (
                "fromascasing".to_owned(),
                "did you mean `FromAsCasing`?".to_owned()
            )
        ]
    );
    assert_eq!(
        Checks::parse("experimental=UndefinedVra")
            .unwrap()
            .unknown()[0]
            .1,
        "did you mean `UndefinedVar`?"
    );
}
