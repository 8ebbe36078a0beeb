use super::*;
use crate::diagnostic::Diagnostics;
use crate::lexer::lex;
use crate::source::Source;

fn parsed(text: &str) -> (File, Vec<crate::diagnostic::Diagnostic>) {
    let source = Source::new("Dockerfile", text.as_bytes()).unwrap();
    let mut diagnostics = Diagnostics::default();
    let lexed = lex(&source, &mut diagnostics);
    let file = parse(lexed, &source, &mut diagnostics);
    (file, diagnostics.into_list())
}

/// One instruction, and how it is written back.
const FORMS: &[(&str, &str)] = &[
    ("FROM debian", "FROM debian"),
    ("from  debian:12   as\tBase", "from debian:12 as Base"),
    (
        "FROM --platform=linux/amd64 a",
        "FROM --platform=linux/amd64 a",
    ),
    ("ARG a", "ARG a"),
    ("ARG a=1 b c=\"x y\"", "ARG a=1 b c=\"x y\""),
    ("RUN echo  a", "RUN echo  a"),
    ("RUN [\"a\", \"b c\"]", "RUN [\"a\", \"b c\"]"),
    ("RUN ['a']", "RUN ['a']"),
    ("RUN [ -f x ] && y", "RUN [ -f x ] && y"),
    ("RUN --network=none  x --y", "RUN --network=none x --y"),
    ("RUN -- --x", "RUN -- --x"),
    ("CMD", "CMD"),
    ("RUN", "RUN"),
    ("ARG --x a=1", "ARG a=1"),
    ("HEALTHCHECK --x NONE", "HEALTHCHECK NONE"),
    ("VOLUME [\" /a \"]", "VOLUME /a"),
    ("CMD []", "CMD []"),
    ("ENTRYPOINT [\"/x\"]", "ENTRYPOINT [\"/x\"]"),
    (
        "SHELL [\"/bin/bash\",\"-c\"]",
        "SHELL [\"/bin/bash\", \"-c\"]",
    ),
    ("COPY a b /c/", "COPY a b /c/"),
    ("COPY [\"a b\", \"/c\"]", "COPY [\"a b\", \"/c\"]"),
    ("COPY [\"a\",\"b\"]", "COPY a b"),
    (
        "COPY --from=x --chown=\"a:b\" --link a /",
        "COPY --from=x --chown=a:b --link a /",
    ),
    ("COPY --link=false a /", "COPY --link=false a /"),
    (
        "COPY --exclude=*.md --exclude=x a /",
        "COPY --exclude=*.md --exclude=x a /",
    ),
    ("ENV a=1 b=2", "ENV a=1 b=2"),
    ("ENV a=\"b c\" d=e\\ f", "ENV a=\"b c\" d=e\\ f"),
    ("ENV a  b c", "ENV a b c"),
    ("ENV a=", "ENV a="),
    ("LABEL a=b \"c d\"=e", "LABEL a=b \"c d\"=e"),
    ("EXPOSE 80 443/tcp", "EXPOSE 80 443/tcp"),
    ("VOLUME /a /b", "VOLUME /a /b"),
    ("VOLUME [\"/a b\"]", "VOLUME [\"/a b\"]"),
    ("USER a:b", "USER a:b"),
    ("WORKDIR /a b", "WORKDIR /a b"),
    ("STOPSIGNAL 9", "STOPSIGNAL 9"),
    ("MAINTAINER me <a@b>", "MAINTAINER me <a@b>"),
    ("HEALTHCHECK NONE", "HEALTHCHECK NONE"),
    (
        "HEALTHCHECK --interval=5s cmd [\"a\"]",
        "HEALTHCHECK --interval=5s CMD [\"a\"]",
    ),
    ("HEALTHCHECK CMD curl x", "HEALTHCHECK CMD curl x"),
    (
        "ONBUILD RUN --network=none x",
        "ONBUILD RUN --network=none x",
    ),
    ("RUN <<EOF\nx\nEOF", "RUN <<EOF\nx\nEOF"),
    (
        "COPY <<a <<-\"b\" c /d/\n1\na\n\t2\n\tb",
        "COPY <<a <<-\"b\" c /d/\n1\na\n\t2\nb",
    ),
    (
        "ONBUILD COPY <<EOF /x\n1\nEOF",
        "ONBUILD COPY <<EOF /x\n1\nEOF",
    ),
    (
        "COPY --exclude='a \"b' x /",
        "COPY --exclude=\"a \\\"b\" x /",
    ),
];

#[test]
fn every_form_is_understood_and_written_back() {
    for (text, want) in FORMS {
        let (file, messages) = parsed(text);
        assert!(messages.is_empty(), "{text}: {messages:?}");
        assert_eq!(file.to_string().trim_end_matches('\n'), *want, "{text}");
        let (again, messages) = parsed(&file.to_string());
        assert!(messages.is_empty(), "{text}: {messages:?}");
        assert_eq!(
            again.instructions[0].node, file.instructions[0].node,
            "{text}"
        );
    }
}

/// One instruction, and what is wrong with it: place, rule, message, hint.
const FAULTS: &[(&str, &str)] = &[
    (
        "RNU x",
        "1:1 UnknownInstruction: `RNU` is not an instruction (did you mean `RUN`?)",
    ),
    (
        "FORM x",
        "1:1 UnknownInstruction: `FORM` is not an instruction (did you mean `FROM`?)",
    ),
    (
        "apt-get install",
        "1:1 UnknownInstruction: `apt-get` is not an instruction (a line begins with an instruction; to go on from the line above, end that with `\\`)",
    ),
    (
        "FROM",
        "1:1 MissingArgument: FROM needs an image, a stage, or `scratch`",
    ),
    (
        "FROM a b",
        "1:8 TooManyArguments: FROM takes an image, or an image, `AS` and a name (write `FROM image AS name`)",
    ),
    (
        "FROM a as",
        "1:8 TooManyArguments: FROM takes an image, or an image, `AS` and a name (one word has to follow `AS`)",
    ),
    (
        "FROM a as 1x",
        "1:11 InvalidStageName: `1x` cannot be the name of a stage (a name begins with a letter and goes on with letters, digits, `-`, `_` and `.`)",
    ),
    (
        "FROM --plattform=x a",
        "1:6 UnknownFlag: FROM has no flag `--plattform` (did you mean `--platform`?)",
    ),
    ("RUN []", "1:1 MissingArgument: RUN needs a command"),
    (
        "RUN [1]",
        "1:5 InvalidJson: the JSON array of RUN holds something other than strings (put every element into double quotes)",
    ),
    (
        "RUN --from=x y",
        "1:5 UnknownFlag: RUN has no flag `--from` (`--from` is a flag of COPY)",
    ),
    (
        "CMD --version",
        "1:5 UnknownFlag: CMD has no flag `--version` (CMD has no flags; a leading `--` ends them: `CMD -- --version`)",
    ),
    (
        "COPY",
        "1:1 MissingArgument: COPY needs a source and a destination (write `COPY source destination`)",
    ),
    (
        "COPY a",
        "1:1 MissingArgument: COPY needs a source and a destination (write `COPY source destination`)",
    ),
    (
        "COPY --from a b",
        "1:6 InvalidFlag: the flag `--from` lacks its value (write `--from=…`)",
    ),
    (
        "COPY --form=a b c",
        "1:6 UnknownFlag: COPY has no flag `--form` (did you mean `--from`?)",
    ),
    (
        "COPY --zzz a b",
        "1:6 UnknownFlag: COPY has no flag `--zzz` (COPY has: `--from`, `--chown`, `--chmod`, `--link`, `--parents`, `--exclude`)",
    ),
    (
        "COPY --link=maybe a b",
        "1:6 InvalidFlag: `--link` is `true` or `false`, not `maybe`",
    ),
    (
        "COPY --from=a --from=b c d",
        "1:15 InvalidFlag: the flag `--from` is given twice (the first one says `a`: remove one of the two)",
    ),
    (
        "COPY a <<EOF\nEOF",
        "1:8 InvalidArgument: a here-document cannot be the destination of COPY (the destination comes last)",
    ),
    (
        "ENV",
        "1:1 MissingArgument: ENV needs a name and a value (write `ENV name=value`)",
    ),
    (
        "ENV a",
        "1:5 MissingArgument: ENV needs a value for `a` (write `ENV a=value`)",
    ),
    (
        "ENV a=b c",
        "1:9 InvalidArgument: `c` has no `=` (write `name=value`; put a value with spaces into quotes)",
    ),
    (
        "ENV =b",
        "1:5 InvalidArgument: a name has to stand before `=` in ENV",
    ),
    (
        "ARG",
        "1:1 MissingArgument: ARG needs the name of an argument",
    ),
    (
        "ARG =x",
        "1:5 InvalidArgument: the name of an argument is empty",
    ),
    (
        "SHELL bash -c",
        "1:7 InvalidArgument: SHELL takes a JSON array of strings only (write `SHELL [\"/bin/bash\", \"-c\"]`)",
    ),
    (
        "SHELL",
        "1:1 MissingArgument: SHELL needs a JSON array of strings (write `SHELL [\"/bin/bash\", \"-c\"]`)",
    ),
    (
        "EXPOSE",
        "1:1 MissingArgument: EXPOSE needs a port, for example `80` or `53/udp`",
    ),
    (
        "VOLUME []",
        "1:1 MissingArgument: VOLUME needs a mount point",
    ),
    (
        "VOLUME [\"\"]",
        "1:8 InvalidArgument: an argument of VOLUME is empty",
    ),
    ("WORKDIR", "1:1 MissingArgument: WORKDIR needs a directory"),
    (
        "HEALTHCHECK",
        "1:1 MissingArgument: HEALTHCHECK needs `NONE`, or `CMD` and a command",
    ),
    (
        "HEALTHCHECK CMD",
        "1:1 MissingArgument: HEALTHCHECK needs a command behind `CMD`",
    ),
    (
        "HEALTHCHECK NONE x",
        "1:18 TooManyArguments: HEALTHCHECK NONE takes no arguments",
    ),
    (
        "HEALTHCHECK CDM x",
        "1:13 InvalidArgument: HEALTHCHECK takes `CMD` or `NONE`, not `CDM` (did you mean `CMD`?)",
    ),
    (
        "HEALTHCHECK --interval=5 CMD x",
        "1:13 InvalidFlag: `--interval=5` is not a duration (write for example `30s` or `1m30s`)",
    ),
    (
        "HEALTHCHECK --timeout=1us CMD x",
        "1:13 InvalidFlag: `--timeout=1us` is shorter than `1ms`",
    ),
    (
        "HEALTHCHECK --retries=-1 CMD x",
        "1:13 InvalidFlag: `--retries=-1` is not a number of retries (write a whole number such as `3`)",
    ),
    (
        "ONBUILD",
        "1:1 MissingArgument: ONBUILD needs an instruction",
    ),
    (
        "ONBUILD FROM x",
        "1:9 InvalidArgument: FROM cannot be a trigger of ONBUILD",
    ),
    (
        "ONBUILD ONBUILD RUN x",
        "1:9 InvalidArgument: ONBUILD cannot be a trigger of ONBUILD",
    ),
    (
        "ONBUILD ENV A",
        "1:13 MissingArgument: ENV needs a value for `A` (write `ENV A=value`)",
    ),
];

#[test]
fn faults_have_place_rule_message_and_hint() {
    for (text, want) in FAULTS {
        let (_, messages) = parsed(text);
        let shown: Vec<_> = messages
            .iter()
            .map(|d| {
                format!(
                    "{}:{} {}: {}{}",
                    d.span.line,
                    d.span.column,
                    d.code,
                    d.message,
                    if d.hint.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", d.hint)
                    }
                )
            })
            .collect();
        assert_eq!(shown, [*want], "{text}");
    }
}

#[test]
fn one_run_shows_every_faulty_line() {
    let (file, messages) = parsed("FORM a\nRUN x\nCOPY --zz=1 --from\nENV a=b c\nRNU y\n");
    assert_eq!(
        messages.iter().map(|d| d.span.line).collect::<Vec<_>>(),
        // That COPY lacks its arguments is no message of its own: the unknown flag may have been meant as one.
        [1, 3, 3, 4, 5]
    );
    assert_eq!(messages[0].source, "FORM a");
    assert_eq!(file.instructions.len(), 1);
}

/// A small deterministic generator: the same cases in every run, no dependency.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % limit
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const PIECES: &[&str] = &[
    " ",
    " ",
    "  ",
    "\t",
    "a",
    "b",
    "=",
    "\"",
    "'",
    "\\",
    "`",
    "$x",
    "${x:-y}",
    "--from=a",
    "--",
    "--link",
    "[",
    "]",
    "\"q\"",
    ",",
    "<<EOF",
    "<<-E",
    "/dir/",
    ":",
    "#",
    "ä",
    "\\\n",
    "\\\n# c\n",
    "\u{a0}",
    "{",
    "1",
    "\r",
];

fn random_line(random: &mut Random) -> String {
    let keywords: Vec<&str> = Keyword::ALL.iter().map(|k| k.text()).collect();
    let mut line = random.pick(&keywords).to_owned();
    line.push(' ');
    for _ in 0..random.below(12) {
        line.push_str(random.pick(PIECES));
    }
    line.push_str("\nx \\\n\ty\nEOF\n\tE\nEOF\nE\n");
    line
}

#[test]
fn whatever_is_understood_can_be_written_and_read_back() {
    let mut random = Random(7);
    let mut understood = 0;
    for _ in 0..12_000 {
        let text = random_line(&mut random);
        let (file, _) = parsed(&text);
        let Some(first) = file.instructions.first() else {
            continue;
        };
        understood += 1;
        let one = File {
            instructions: vec![first.clone()],
            ..File::default()
        };
        let printed = one.to_string();
        let (again, messages) = parsed(&printed);
        assert!(
            messages
                .iter()
                .all(|m| m.severity < crate::diagnostic::Severity::Error),
            "{text:?}\n{printed:?}\n{messages:?}"
        );
        assert_eq!(again.instructions.len(), 1, "{text:?}\n{printed:?}");
        assert_eq!(
            again.instructions[0].node, first.node,
            "{text:?}\n{printed:?}"
        );
    }
    assert!(understood > 4_000, "{understood}");
}

#[test]
fn no_input_makes_the_parser_panic() {
    let mut random = Random(11);
    for _ in 0..8_000 {
        let mut text = String::new();
        for _ in 0..random.below(20) {
            text.push_str(random.pick(PIECES));
            if random.below(4) == 0 {
                text.push('\n');
                text.push_str(random.pick(&[
                    "RUN",
                    "COPY",
                    "ENV",
                    "FROM",
                    "ONBUILD",
                    "LABEL",
                    "HEALTHCHECK CMD",
                    "# escape=`",
                    "#",
                ]));
            }
        }
        text.push('\n');
        drop(parsed(&text));
    }
}
