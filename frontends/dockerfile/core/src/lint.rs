//! Warnings about the style of a whole file: casing, instructions that undo each other, what is deprecated.
//!
//! Warnings about single words (undefined variables, secrets, …) come from where the words are expanded.

use crate::ast::{Body, Command, Fault, File, Instruction, Keyword, ignores_flags, trigger_faults};
use crate::diagnostic::rules;
use crate::lexer::{At, check_of, split};
use crate::stages::StageFault;

/// Looks over a file.
pub fn check<'a>(file: &'a File, faults: &mut Vec<StageFault<'a>>) {
    let first = file
        .instructions
        .iter()
        .position(|i| i.node.keyword == Keyword::From);
    // docker does not count what stands before the first stage.
    casing(&file.instructions[first.unwrap_or_default()..], faults);
    for instruction in &file.instructions {
        one(instruction, faults);
        flags(instruction, faults);
        trigger(instruction, faults);
        described(instruction, faults);
    }
}

fn is_lower(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase())
}

fn is_upper(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_uppercase())
}

/// Keywords should have the case that most of them have.
fn casing<'a>(instructions: &'a [Instruction], faults: &mut Vec<StageFault<'a>>) {
    let lower = instructions
        .iter()
        .filter(|i| is_lower(&i.node.written.text))
        .count();
    let upper = instructions
        .iter()
        .filter(|i| is_upper(&i.node.written.text))
        .count();
    let wants_lower = lower > upper;
    for instruction in instructions {
        let word = &instruction.node.written;
        if if wants_lower {
            is_lower(&word.text)
        } else {
            is_upper(&word.text)
        } {
            continue;
        }
        let case = if wants_lower { "lower" } else { "upper" };
        let message = format!(
            "`{}` should be {case} case like the other instructions",
            word.text
        );
        faults.push((
            Fault::new(&rules::CONSISTENT_CASING, word.at, message),
            instruction,
        ));
    }
}

fn one<'a>(instruction: &'a Instruction, faults: &mut Vec<StageFault<'a>>) {
    let node = &instruction.node;
    let mut warn = |rule, at: At, message: String, hint: &str| {
        faults.push((Fault::new(rule, at, message).hint(hint), instruction))
    };
    match &node.body {
        Body::From {
            name: Some((word, name)),
            ..
        } => {
            if !name.text.chars().all(|c| !c.is_ascii_uppercase()) {
                warn(
                    &rules::STAGE_NAME_CASING,
                    name.at,
                    format!("the stage name `{}` should be lower case", name.text),
                    "",
                );
            }
            let (from, text) = (&node.written.text, &word.text);
            // A mixed FROM is found fault with already.
            if is_lower(from) && !is_lower(text) || is_upper(from) && !is_upper(text) {
                warn(
                    &rules::FROM_AS_CASING,
                    word.at,
                    format!(
                        "`{}` should have the case of `{}`",
                        word.text, node.written.text
                    ),
                    "",
                );
            }
        }
        Body::Command(Command::Shell(text))
            if node.keyword == Keyword::Run && text.text.is_empty() =>
        {
            warn(
                &rules::EMPTY_COMMAND,
                node.written.at,
                "RUN without a command runs a shell that does nothing".into(),
                "remove it, or write the command behind it",
            );
        }
        Body::Text(_) if node.keyword == Keyword::Maintainer => {
            warn(
                &rules::MAINTAINER,
                node.written.at,
                "MAINTAINER is deprecated".into(),
                "write `LABEL org.opencontainers.image.authors=…`",
            );
        }
        _ => {}
    }
}

/// Flags that docker takes away and never looks at.
fn flags<'a>(instruction: &'a Instruction, faults: &mut Vec<StageFault<'a>>) {
    let (keyword, line) = (instruction.node.keyword, &instruction.line);
    let split = split::split(&line.text, '\\');
    if !ignores_flags(line, keyword, &split) {
        return;
    }
    for flag in &split.flags {
        let message = format!(
            "`{}` counts for nothing: {} here has no flags",
            flag.text,
            keyword.text()
        );
        faults.push((
            Fault::new(&rules::IGNORED_FLAG, flag.at, message).hint("remove it"),
            instruction,
        ));
    }
}

/// docker looks at a trigger when it is carried out: an image with one that fails can be built, and nothing on it.
fn trigger<'a>(instruction: &'a Instruction, faults: &mut Vec<StageFault<'a>>) {
    if instruction.node.keyword != Keyword::Onbuild {
        return;
    }
    let line = &instruction.line;
    // As it will be read: the file's directives do not go with it.
    let from = split::split(&line.text, '\\').keyword.end;
    for fault in trigger_faults(line, from, '\\') {
        let message = format!("every build on this image will fail: {}", fault.message);
        faults.push((
            Fault::new(&rules::BROKEN_TRIGGER, fault.at, message).hint(fault.hint),
            instruction,
        ));
    }
}

/// The comment directly above FROM or ARG is shown as its description, so it should be one.
fn described<'a>(instruction: &'a Instruction, faults: &mut Vec<StageFault<'a>>) {
    let names: Vec<String> = match &instruction.node.body {
        Body::From {
            name: Some((_, name)),
            ..
        } => vec![name.text.to_ascii_lowercase()],
        Body::Arg(list) => list.iter().map(|d| d.name.text.clone()).collect(),
        _ => return,
    };
    let Some(comment) = instruction.line.comments.last() else {
        return;
    };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.iter().any(|n| n == first) || check_of(comment).is_some() {
        return;
    }
    let keyword = instruction.node.keyword.text();
    let message =
        format!("the comment above {keyword} does not begin with the name that it describes");
    let hint = format!(
        "write `# {} what it is`, or put an empty line below the comment",
        names.first().map_or("name", String::as_str)
    );
    let fault = Fault::new(
        &rules::DEFINITION_DESCRIPTION,
        instruction.node.written.at,
        message,
    );
    faults.push((fault.hint(hint), instruction));
}
