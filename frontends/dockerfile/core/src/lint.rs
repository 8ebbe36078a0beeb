//! Warnings about the style of a whole file: casing, instructions that undo each other, what is deprecated.
//!
//! Warnings about single words (undefined variables, secrets, …) come from where the words are expanded.

use crate::ast::{Body, Fault, File, Instruction, Keyword};
use crate::diagnostic::rules;
use crate::lexer::At;
use crate::stages::StageFault;

/// Looks over a file.
pub fn check<'a>(file: &'a File, faults: &mut Vec<StageFault<'a>>) {
    casing(&file.instructions, faults);
    for instruction in &file.instructions {
        one(instruction, faults);
        described(instruction, faults);
    }
    repeated(&file.instructions, faults);
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
            if is_lower(&node.written.text) != is_lower(&word.text) {
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
        Body::Pairs(pairs) => {
            for pair in pairs.iter().filter(|p| p.legacy) {
                let hint = format!("write `{} {}=…`", node.keyword.text(), pair.key.text);
                warn(
                    &rules::LEGACY_KEY_VALUE,
                    pair.key.at,
                    format!(
                        "`{0} {1} …` is the old form of `{0} {1}=…`",
                        node.keyword.text(),
                        pair.key.text
                    ),
                    &hint,
                );
            }
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
    if names.iter().any(|n| n == first) || comment.starts_with("check=") {
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

/// Within a stage only the last of these counts.
fn repeated<'a>(instructions: &'a [Instruction], faults: &mut Vec<StageFault<'a>>) {
    let mut last: [Option<&'a Instruction>; 3] = [None; 3];
    for instruction in instructions {
        let slot = match instruction.node.keyword {
            Keyword::From => {
                last = [None; 3];
                continue;
            }
            Keyword::Cmd => 0,
            Keyword::Entrypoint => 1,
            Keyword::Healthcheck => 2,
            _ => continue,
        };
        if let Some(earlier) = last[slot].replace(instruction) {
            let message = format!(
                "the {} on line {} takes the place of this one",
                instruction.node.keyword.text(),
                instruction.line.first + 1
            );
            faults.push((
                Fault::new(
                    &rules::MULTIPLE_INSTRUCTIONS,
                    earlier.node.written.at,
                    message,
                ),
                earlier,
            ));
        }
    }
}
