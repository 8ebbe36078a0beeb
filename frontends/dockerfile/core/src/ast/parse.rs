//! From logical lines to instructions.  A line that is wrong becomes messages, and the next line is read all
//! the same, so that one run shows everything.

use super::arguments::Rest;
use super::{File, Instruction, Keyword, Node, duration, flags};
use crate::diagnostic::{Diagnostics, Rule, Severity, did_you_mean, rules};
use crate::lexer::split::{self, Word};
use crate::lexer::{At, Lexed, Line};
use crate::source::Source;

/// Something wrong within a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub rule: &'static Rule,
    /// Where.
    pub at: At,
    /// What is wrong.
    pub message: String,
    /// How to mend it, or empty.
    pub hint: String,
}

impl Fault {
    /// Makes a fault without a hint.
    pub fn new(rule: &'static Rule, at: At, message: String) -> Self {
        Self {
            rule,
            at,
            message,
            hint: String::new(),
        }
    }

    /// Adds a hint.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: hint.into(),
            ..self
        }
    }
}

/// Adds faults of a line to the messages.
pub fn report(faults: Vec<Fault>, line: &Line, source: &Source, diagnostics: &mut Diagnostics) {
    for fault in faults {
        let is_experimental = rules::EXPERIMENTAL.contains(&fault.rule);
        if fault.rule.severity != Severity::Error && !is_experimental && line.skips(fault.rule.code)
        {
            continue;
        }
        let span = line.span(source, fault.at);
        let (rule, message, hint) = (fault.rule, fault.message, fault.hint);
        if is_experimental && line.asks_for(rule.code) {
            diagnostics.add_admitted(rule, source, span, message, hint);
        } else {
            diagnostics.add(rule, source, span, message, hint);
        }
    }
}

/// Understands every line of a file.
pub fn parse(lexed: Lexed, source: &Source, diagnostics: &mut Diagnostics) -> File {
    let escape = lexed.directives.escape;
    let (mut instructions, mut broken_from) = (Vec::new(), None);
    for line in lexed.lines.into_iter().filter(|l| !l.broken) {
        if diagnostics.full() {
            break;
        }
        match parse_line(&line, escape) {
            Ok(node) => instructions.push(Instruction { node, line }),
            Err(mut faults) => {
                faults.iter_mut().for_each(goes_on);
                let is_from = line.text.trim_start().get(..4);
                if is_from.is_some_and(|k| k.eq_ignore_ascii_case("FROM")) {
                    broken_from.get_or_insert(line.first);
                }
                report(faults, &line, source, diagnostics);
            }
        }
    }
    File {
        directives: lexed.directives,
        instructions,
        broken_from,
    }
}

/// Understands one line.
pub fn parse_line(line: &Line, escape: char) -> Result<Node, Vec<Fault>> {
    let split = split::split(&line.text, escape);
    let written = Word {
        text: split.keyword_text(&line.text).to_owned(),
        at: split.keyword,
    };
    let keyword =
        Keyword::parse(&written.text).ok_or_else(|| vec![unknown_instruction(&written)])?;
    let mut faults = Vec::new();
    let flags = match keyword {
        Keyword::Onbuild => Vec::new(),
        _ if ignores_flags(line, keyword, &split) => Vec::new(),
        _ => flags::parse(keyword, &split.flags, &mut faults),
    };
    let rest = Rest {
        line,
        at: split.rest,
        keyword,
        escape,
    };
    let body = match keyword {
        Keyword::Onbuild => rest.onbuild(split.keyword.end),
        _ => rest.body(),
    };
    if keyword == Keyword::Healthcheck {
        faults.extend(flags.iter().filter_map(healthcheck_flag));
    }
    match body {
        Ok(body) if faults.is_empty() => Ok(Node {
            keyword,
            written,
            flags,
            body,
            heredocs: line.heredocs.clone(),
        }),
        Ok(_) => Err(faults),
        // What was taken for a flag may be the argument that is missing.
        Err(fault) if !faults.is_empty() && fault.rule == &rules::MISSING_ARGUMENT => Err(faults),
        Err(fault) => {
            faults.push(fault);
            Err(faults)
        }
    }
}

/// Says whether docker takes flags away from an instruction and then looks at none of them.
pub fn ignores_flags(line: &Line, keyword: Keyword, split: &split::Split) -> bool {
    let rest = &line.text[split.rest.start..split.rest.end];
    match keyword {
        Keyword::Arg | Keyword::Stopsignal => true,
        Keyword::Healthcheck => rest.eq_ignore_ascii_case("NONE"),
        _ => false,
    }
}

/// A first word that is near no instruction is likely the rest of the line above.
fn goes_on(fault: &mut Fault) {
    if fault.rule == &rules::UNKNOWN_INSTRUCTION && fault.hint.is_empty() {
        fault.hint =
            "a line begins with an instruction; to go on from the line above, end that with `\\`"
                .into();
    }
}

fn unknown_instruction(word: &Word) -> Fault {
    let shown: String = word.text.chars().take(40).collect();
    Fault::new(
        &rules::UNKNOWN_INSTRUCTION,
        word.at,
        format!("`{shown}` is not an instruction"),
    )
    .hint(did_you_mean(
        &word.text,
        Keyword::ALL.iter().map(|k| k.text()),
    ))
}

fn healthcheck_flag(flag: &flags::Flag) -> Option<Fault> {
    let value = &flag.value;
    let bad = |message: String| Some(Fault::new(&rules::INVALID_FLAG, value.at, message));
    if flag.row.name == "retries" {
        let fine = value.text.is_empty() || value.text.parse::<i32>().is_ok_and(|n| n >= 0);
        return if fine {
            None
        } else {
            bad(format!(
                "`--retries={}` is not a number of retries",
                value.text
            ))
            .map(|f| f.hint("write a whole number such as `3`"))
        };
    }
    match duration::parse(&value.text) {
        _ if value.text.is_empty() => None,
        Some(0) | Some(1_000_000..) => None,
        Some(_) => bad(format!(
            "`--{}={}` is shorter than `1ms`",
            flag.row.name, value.text
        )),
        None => bad(format!(
            "`--{}={}` is not a duration",
            flag.row.name, value.text
        ))
        .map(|f| f.hint("write for example `30s` or `1m30s`")),
    }
}

/// Returns what is wrong with the instruction that an ONBUILD leaves: `from` is where the line goes on behind the keyword.
pub fn trigger_faults(line: &Line, from: usize, escape: char) -> Vec<Fault> {
    let whole = &line.text[from..];
    let offset = from + whole.len() - whole.trim_start().len();
    let mut inner = Line::alone(whole.trim());
    inner.heredocs.clone_from(&line.heredocs);
    // No recursion beyond this one level: a trigger is never ONBUILD itself.
    let faults = parse_line(&inner, escape).err().unwrap_or_default();
    let moved = |fault: Fault| Fault {
        at: shift(fault.at, offset),
        ..fault
    };
    faults.into_iter().map(moved).collect()
}

/// Moves a place; the one that stands for a whole instruction stays.
pub(super) fn shift(at: At, offset: usize) -> At {
    if at.end == 0 {
        At::default()
    } else {
        At::new(at.start + offset, at.end + offset)
    }
}
