//! What a step prints, and what a Dockerfile is made of, must not control the terminal of who builds.

use stepwell_escape_tests::careless;
use stepwell_escape_tests::outside::Outside;
use stepwell_integration_tests::way::Way;
use stepwell_integration_tests::{World, ran, under};

/// Titles, answers that are typed back, the clipboard, other screens, C1 controls, overwritten lines.
const HOSTILE: &str = "\\033]0;owned\\007 \\033[6n \\033[c \\033]52;c;aGk=\\007 \\033[?1049h \\033P+q544e\\033\\\\\\\\ \\033c \\302\\2332J \\233 \\010\\010";

#[test]
fn nothing_that_is_printed_controls_the_terminal() {
    let world = World::new();
    let _outside = Outside::new(&world, Way::USERNS);
    let raw = "\u{1b}]0;owned\u{7}\u{9b}2J";
    for (dockerfile, code) in [
        (
            format!(
                "FROM @BUSYBOX@\nRUN printf '{HOSTILE}\\n'; printf '{HOSTILE}\\n' >&2; exit 9\n"
            ),
            9,
        ),
        (format!("FROM @BUSYBOX@\nRUN echo '{raw}'; exit 9\n"), 9),
        (format!("FROM @BUSYBOX@\nCOPY \"no{raw}such\" /\n"), 65),
        (
            format!("FROM @BUSYBOX@ AS x\nRUN [\"/no{raw}such\"]\n"),
            127,
        ),
        (format!("FROM @BUSYBOX@\nUSER no{raw}such\nRUN true\n"), 0),
        (format!("FROM @BUSYBOX@\nFETCH{raw} x\n"), 65),
    ] {
        world.dockerfile(&dockerfile);
        for progress in ["--progress=plain", "--progress=tty"] {
            let build = world.build_command(&[progress]);
            let ran = ran(&mut under(&careless(&world), &build));
            assert!(
                ran.code == Some(code) || (code == 0 && ran.code != Some(0)),
                "{ran:?}"
            );
            for (what, text) in [
                ("a title", "\u{1b}]"),
                ("a question", "\u{1b}[6n"),
                ("a question", "\u{1b}[c"),
                ("another screen", "\u{1b}[?1049h"),
                ("a device's string", "\u{1b}P"),
                ("a reset", "\u{1b}c"),
                ("a control in one character", "\u{9b}"),
                ("a bell", "\u{7}"),
                ("a step back", "\u{8}"),
            ] {
                assert!(
                    !ran.out.contains(text),
                    "{progress} {dockerfile:?}: {what}:\n{:?}",
                    ran.out
                );
            }
        }
    }
}
