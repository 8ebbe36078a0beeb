//! What a build shows while it runs, as a terminal, a pipe and a program get it.

use std::process::Command;

use serde_json::Value;
use stepwell_integration_tests::{Ran, World, ran, under};

/// A step that writes much, in many ways, and one that fails.
const DOCKERFILE: &str = "\
FROM @BUSYBOX@ AS other
RUN sleep 1; echo a line of output that is a good deal longer than a narrow terminal is wide; printf '\\033[2J\\033[31mred\\033[0m\\a\\n'
FROM @BUSYBOX@
RUN for n in 1 2 3 4 5 6 7 8 9; do echo line $n; sleep 0.1; done
COPY --from=other /etc/passwd /passwd
RUN echo the reason; echo why >&2; exit 3
";

#[test]
fn raw_events_are_json_to_the_last_line() {
    let world = World::new();
    world.dockerfile(DOCKERFILE);
    let events = |args: &[&str]| -> (Ran, Vec<Value>) {
        let ran = world.build(args);
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let events = ran.err.lines().map(parse).collect();
        (ran, events)
    };
    let raw = "--progress=rawjson";
    let (ran, all) = events(&[raw]);
    assert_eq!(ran.code, Some(3));
    let last = all.last().expect("an event");
    assert_eq!(
        (&last["event"], &last["code"]),
        (&"failed".into(), &3.into()),
        "{last}"
    );
    assert_eq!(last["origin"]["span"]["line"], 6, "{last}");
    let texts: String = all.iter().filter_map(|e| e["text"].as_str()).collect();
    assert!(
        texts.contains("the reason\n") && texts.contains("line 9\n"),
        "{texts}"
    );
    let (ran, all) = events(&[raw, "--target", "other"]);
    assert_eq!(ran.code, Some(0));
    assert!(
        all.iter()
            .all(|e| e["at"].is_string() && e["event"] != "failed"),
        "{all:?}"
    );
    world.dockerfile("FROM 127.0.0.1:1/nobody:1\n");
    let (ran, all) = events(&[raw]);
    assert_eq!(ran.code, Some(71));
    assert!(all.last().expect("an event")["hint"].is_string(), "{all:?}");
}

#[test]
fn a_pipe_gets_lines_and_no_escape_sequence() {
    let world = World::new();
    world.dockerfile(DOCKERFILE);
    let ran = world.build(&["--progress=auto"]);
    ran.failed_with(3, &["#", "red", "the reason", "why"]);
    assert!(!ran.err.contains(['\x1b', '\r', '\x07']), "{:?}", ran.err);
}

/// A build on a terminal of this size; what the terminal gets.
fn on_a_terminal(world: &World, columns: usize, rows: usize, color: bool) -> String {
    let build = world.build_command(&["--progress=auto", "--no-cache"]);
    let mut sized = Command::new("sh");
    sized.args([
        "-c",
        &format!("stty cols {columns} rows {rows} && exec \"$@\""),
        "sh",
    ]);
    sized
        .env("TERM", "xterm")
        .env("NO_COLOR", if color { "" } else { "1" });
    let inner = under(&sized, &build);
    // script(1) takes a shell's command line; none of these words has a quote in it.
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy());
    let line: Vec<_> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(quoted)
        .collect();
    let mut script = Command::new("script");
    script.args([
        "--quiet",
        "--return",
        "--command",
        &line.join(" "),
        "/dev/null",
    ]);
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let ran = ran(&mut script);
    assert_eq!(ran.code, Some(3), "{}", ran.out);
    ran.out
}

#[test]
fn a_terminal_gets_frames_that_fit_it() {
    let world = World::new();
    world.dockerfile(DOCKERFILE);
    for (columns, rows) in [(80, 24), (40, 10), (20, 6)] {
        let shown = on_a_terminal(&world, columns, rows, false);
        let (frames, end) = shown.rsplit_once("\x1b[?2026l").expect("frames");
        let frames: Vec<_> = frames.split("\x1b[?2026h").skip(1).collect();
        assert!(frames.len() > 5, "{shown:?}");
        for frame in &frames[..frames.len() - 1] {
            let up = frame
                .strip_prefix("\x1b[")
                .and_then(|f| f.split_once('A')?.0.parse::<usize>().ok());
            assert!(up.unwrap_or(0) < rows, "{frame:?}");
            // Notes stay, and may be longer than a row.
            let drawn = frame.lines().filter(|l| !l.contains("RUN steps:"));
            for line in drawn {
                let text = line
                    .trim_start_matches('\r')
                    .split('\x1b')
                    .next()
                    .unwrap_or_default();
                assert!(text.chars().count() < columns, "{columns}: {line:?}");
            }
        }
        assert!(
            !shown.contains("\x1b[2J") && !shown.contains('\x07'),
            "{shown:?}"
        );
        assert!(
            !shown.contains("\x1b[31m") && !shown.contains("\x1b[1m"),
            "{shown:?}"
        );
        // What the failed step wrote, and the error, are whole.
        for part in [
            "the reason",
            "why",
            "failed with exit status 3",
            "Dockerfile:6:1",
        ] {
            assert!(end.contains(part), "{part}: {end}");
        }
    }
    assert!(on_a_terminal(&world, 80, 24, true).contains("\x1b[31m"));
}
