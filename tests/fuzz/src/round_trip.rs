//! What can be read can be written back and read again, and says the same.
#![no_main]

use dockerfile_core::ast::{self, File, Node};
use dockerfile_core::diagnostic::Diagnostics;
use dockerfile_core::lexer::lex;
use dockerfile_core::source::Source;
use libfuzzer_sys::fuzz_target;

fn read(text: &[u8]) -> Option<File> {
    let source = Source::new("Dockerfile", text).ok()?;
    let mut diagnostics = Diagnostics::default();
    let file = ast::parse(lex(&source, &mut diagnostics), &source, &mut diagnostics);
    (!diagnostics.failed()).then_some(file)
}

fuzz_target!(|data: &[u8]| {
    let Some(first) = read(data) else { return };
    let printed = first.to_string();
    let second = read(printed.as_bytes()).expect("what is written can be read");
    let nodes = |file: &File| -> Vec<Node> { file.instructions.iter().map(|i| i.node.clone()).collect() };
    assert_eq!(nodes(&second), nodes(&first), "{printed}");
});
