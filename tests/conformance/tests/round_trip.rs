//! Every Dockerfile of the cases that can be read can be written back and read again, and says the same.

use std::path::Path;

use dockerfile_core::ast::{self, File, Node};
use dockerfile_core::diagnostic::Diagnostics;
use dockerfile_core::lexer::lex;
use dockerfile_core::source::Source;
use stepwell_conformance::case;

/// Reads a text; none where there are errors.
fn read(text: &str) -> Option<File> {
    let source = Source::new("Dockerfile", text.as_bytes()).ok()?;
    let mut diagnostics = Diagnostics::default();
    let file = ast::parse(lex(&source, &mut diagnostics), &source, &mut diagnostics);
    (!diagnostics.failed()).then_some(file)
}

#[test]
fn what_is_written_back_says_the_same() {
    let cases = case::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"));
    let mut compared = 0;
    for case in cases {
        let Some(first) = read(&case.dockerfile) else {
            continue;
        };
        let printed = first.to_string();
        let second =
            read(&printed).unwrap_or_else(|| panic!("{}: not readable:\n{printed}", case.name));
        let nodes = |file: &File| -> Vec<Node> {
            file.instructions.iter().map(|i| i.node.clone()).collect()
        };
        assert_eq!(nodes(&second), nodes(&first), "{}:\n{printed}", case.name);
        assert_eq!(
            second.to_string(),
            printed,
            "{}: printing is stable",
            case.name
        );
        assert_eq!(
            second.directives.escape, first.directives.escape,
            "{}",
            case.name
        );
        compared += 1;
    }
    assert!(compared > 300, "{compared}");
}
