//! Input that is made to hurt: it ends in an error or a graph, soon, and in bounded memory.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::super::build;
use super::super::host::*;
use super::support::*;

/// Generous for a busy machine in a debug build; what is not linear takes far longer.
const SOON: Duration = Duration::from_secs(60);

fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    assert!(start.elapsed() < SOON, "{what} took {:?}", start.elapsed());
    done
}

fn errors(text: &str) -> Vec<&'static str> {
    match build(&request(text), &mut memory()) {
        Ok(_) => Vec::new(),
        Err(list) => list
            .iter()
            .filter(|d| d.severity == crate::diagnostic::Severity::Error)
            .map(|d| d.code)
            .collect(),
    }
}

#[test]
fn long_lines() {
    let words = "word ".repeat(12_000);
    soon("a run line of 60 KB", || {
        built(&format!("FROM debian\nRUN {words}"))
    });
    soon("a copy line of 60 KB", || {
        built(&format!("FROM debian\nCOPY {words} /d/"))
    });
    soon("an env line of 60 KB", || {
        built(&format!("FROM debian\nENV {}", "a=b ".repeat(15_000)))
    });
    soon("a label line of 1 MB", || {
        built(&format!(
            "FROM debian\nLABEL a=\"{}\"",
            "x".repeat(1_000_000)
        ))
    });
    soon("200,000 undefined variables", || {
        built(&format!("FROM debian\nENV A={}", "$B".repeat(200_000)))
    });
    let list = soon("an unknown instruction of 1 MB", || {
        build(&request(&"x".repeat(1_000_000)), &mut memory()).unwrap_err()
    });
    assert!(
        list[0].message.len() < 200 && list[0].source.len() < 2_000 && list[0].hint.len() < 200
    );
}

#[test]
fn many_lines() {
    soon("100,000 continuation lines", || {
        built(&format!("FROM debian\nRUN a{}", " \\\n b".repeat(100_000)))
    });
    soon("100,000 comments", || {
        built(&format!(
            "FROM debian\nRUN a \\\n{} b",
            "# c\n".repeat(100_000)
        ))
    });
    let list = soon("100,000 faulty lines", || {
        build(&request(&"RNU x\n".repeat(100_000)), &mut memory()).unwrap_err()
    });
    assert_eq!(list.len(), 100, "no more messages than anybody reads");
    soon("10,000 here-documents on a line", || {
        errors(&format!(
            "FROM debian\nRUN {}\n{}",
            "<<E ".repeat(10_000),
            "E\n".repeat(10_000)
        ))
    });
    assert_eq!(
        soon("unterminated here-documents", || errors(&format!(
            "FROM debian\n{}",
            "RUN <<A\n".repeat(50_000)
        ))),
        ["UnterminatedHeredoc"]
    );
}

#[test]
fn many_stages() {
    let chain: String = (0..10_000).fold(String::from("FROM debian AS s0\n"), |mut text, i| {
        let _ = writeln!(text, "FROM s{i} AS s{}\nENV A{i}=1", i + 1);
        text.truncate(if i > 500 {
            text.rfind("ENV").unwrap()
        } else {
            text.len()
        });
        text
    });
    soon("10,000 stages on each other", || built(&chain));
    let wide: String = (0..10_000)
        .map(|i| {
            format!(
                "FROM debian AS s{i}\nCOPY --from=s{} a /\n",
                if i == 0 { 0 } else { i - 1 }
            )
        })
        .collect();
    let wide = wide.replacen("COPY --from=s0 a /\n", "", 1);
    soon("10,000 stages that copy from each other", || built(&wide));
}

#[test]
fn checks_and_their_options() {
    let check = |text: &str| {
        let asked = Request {
            call: Call::Check,
            ..request(text)
        };
        match build(
            &asked,
            &mut Memory {
                offline: true,
                ..memory()
            },
        ) {
            Ok(outcome) => outcome.diagnostics.len(),
            Err(list) => list.len(),
        }
    };
    let names = "StageNameCasing,x,".repeat(50_000);
    let stages: String = (0..10_000)
        .map(|i| format!("FROM s{i} AS S{}\nENV A=$B\n", i + 1))
        .collect();
    let skipped = soon(
        "10,000 stages that are checked with a long list of checks",
        || {
            check(&format!(
                "# check=skip={names}\nFROM scratch AS s0\n{stages}"
            ))
        },
    );
    assert_eq!(skipped, 100, "no more messages than anybody reads");
    let comments = "# check=skip=ExposeProtoCasing\n".repeat(100_000);
    let ports = "80/TCP ".repeat(10_000);
    let found = soon("100,000 comments above 10,000 findings", || {
        check(&format!("FROM debian\n{comments}EXPOSE {ports}"))
    });
    assert_eq!(found, 0);
    let ignored = "a*b*c*d*".repeat(100_000) + "\n" + &"x/*\n".repeat(10_000);
    let mut patterns = memory();
    patterns
        .files
        .insert((String::new(), ".dockerignore".into()), ignored);
    soon("1,000 sources and 10,000 ignore patterns", || {
        lowered(
            &request(&format!(
                "FROM scratch\nCOPY {} /d/",
                "abcd/efgh ".repeat(1_000)
            )),
            &mut patterns,
        )
    });
    let outline = soon("an outline of 10,000 stages", || {
        let mut asked = request(&format!(
            "ARG A0=1\n{}FROM scratch AS s0\n{stages}",
            "ARG A=1 B=$A\n".repeat(2_000)
        ));
        asked.target = Some("s10000".into());
        crate::inspect::outline(&asked).expect("it is a good Dockerfile")
    });
    assert!(outline.arguments.is_empty());
    soon("many names that are slips for none", || {
        check(&format!(
            "FROM debian\n{}",
            "ENV A=$UNDEFINED\n".repeat(20_000)
        ))
    });
}

#[test]
fn expansion_bombs() {
    let doubling: String = (0..64)
        .map(|i| format!("ENV A{}=$A{i}$A{i}\n", i + 1))
        .collect();
    assert!(
        soon("doubling variables", || errors(&format!(
            "FROM debian\nENV A0=0123456789\n{doubling}"
        )))
        .contains(&"InvalidExpansion")
    );
    let copies: String = (0..2_000).map(|i| format!("LABEL l{i}=$A\n")).collect();
    assert!(
        soon("many copies of a large variable", || errors(&format!(
            "FROM debian\nENV A={}\n{copies}",
            "x".repeat(100_000)
        )))
        .contains(&"TooLarge")
    );
    let runs = "RUN x\n".repeat(5_000);
    assert!(
        soon("a large environment in many steps", || errors(&format!(
            "FROM debian\nENV A={}\n{runs}",
            "x".repeat(100_000)
        )))
        .contains(&"TooLarge")
    );
    assert!(
        soon("all ports, again and again", || errors(&format!(
            "FROM debian\n{}",
            "EXPOSE 1-65535\n".repeat(3_000)
        )))
        .contains(&"TooLarge")
    );
    assert_eq!(
        soon("nested braces", || errors(&format!(
            "FROM debian\nENV A={}",
            "${a:-".repeat(100_000)
        ))),
        ["InvalidExpansion"]
    );
    assert_eq!(
        soon("nested braces in FROM", || errors(&format!(
            "FROM {}",
            "${a:-".repeat(100_000)
        ))),
        ["InvalidExpansion"]
    );
}

#[test]
fn nesting() {
    assert_eq!(
        soon("nested triggers", || errors(&format!(
            "FROM debian\n{}RUN x",
            "ONBUILD ".repeat(100_000)
        ))),
        ["InvalidArgument"]
    );
    soon("nested arrays", || {
        built(&format!("FROM debian\nRUN {}", "[".repeat(100_000)))
    });
    assert_eq!(
        soon("nested arrays that end", || errors(&format!(
            "FROM debian\nRUN {}{}",
            "[".repeat(50_000),
            "]".repeat(50_000)
        ))),
        ["InvalidJson"]
    );
    let mut circle = memory();
    let trigger = |text: &str| ImageConfig {
        on_build: vec![text.into()],
        ..ImageConfig::default()
    };
    for i in 0..200 {
        circle.images.insert(
            format!("i{i}"),
            trigger(&format!("COPY --from=s{} a /", i + 1)),
        );
    }
    let stages: String = (0..200)
        .rev()
        .map(|i| format!("FROM i{i} AS s{i}\n"))
        .collect();
    let list = build(
        &request(&format!("FROM debian AS s200\n{stages}")),
        &mut circle,
    )
    .unwrap_err();
    assert!(
        shown(&list).contains("nested too deeply"),
        "{}",
        shown(&list)
    );
}

#[test]
fn random_bytes_never_panic() {
    let mut state = 99_u64;
    let mut next = move |limit: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % limit
    };
    let parts: &[&[u8]] = &[
        b"FROM debian\n",
        b"FROM s AS s\n",
        b"RUN ",
        b"COPY ",
        b"ENV ",
        b"ARG ",
        b"ONBUILD ",
        b"--from=",
        b"<<E ",
        b"\nE\n",
        b"$",
        b"${",
        b"}",
        b"\"",
        b"'",
        b"\\",
        b"\n",
        b" ",
        b"=",
        b"[",
        b"]",
        b"\xff",
        b"\0",
        b"\r",
        b"a",
        b"/",
        b":",
        b"80-90",
        b"# escape=`\n",
        b"\xc3\xa4",
    ];
    for _ in 0..6_000 {
        let mut content = b"FROM debian\n".to_vec();
        for _ in 0..next(16) {
            content.extend_from_slice(parts[next(parts.len() as u64) as usize]);
        }
        drop(build(
            &Request {
                content,
                ..request("")
            },
            &mut memory(),
        ));
    }
}
