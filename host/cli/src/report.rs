//! Errors and diagnostics, as people read them.

use std::io::{IsTerminal, Write as _};

use stepwell_model::{Diagnostic, Origin, Severity};

use crate::progress::harmless;

/// Writes an error to standard error: what, where, and what to do about it.
pub fn error(message: &str, place: &[String], hint: Option<&str>) {
    let color = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let mut text = format!(
        "{} {}\n",
        paint("error:", "1;31", color),
        plain(message).replace('\n', "\n  ")
    );
    for line in place {
        text += &format!("{}\n", plain(line));
    }
    if let Some(hint) = hint {
        text += &format!("  {} {}\n", paint("hint:", "1;36", color), plain(hint));
    }
    // Where the terminal is lost there is nobody to tell, and `eprintln!` would panic.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Takes out of a text what would control a terminal: names in it may come from a Dockerfile, an image, a registry.
pub fn plain(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| harmless(line, false)).collect();
    lines.join("\n")
}

/// Where a step was written, as lines.
pub fn place(origin: Option<&Origin>) -> Vec<String> {
    let Some(origin) = origin.filter(|o| o.span.line > 0) else {
        return Vec::new();
    };
    let margin = origin.span.line.to_string().len();
    let first = origin.text.lines().next().unwrap_or_default();
    vec![
        format!(
            "  --> {}:{}:{}",
            origin.file, origin.span.line, origin.span.column
        ),
        format!(" {:margin$} | {first}", origin.span.line),
    ]
}

/// Writes a diagnostic as lines: what, where, the source with the place underlined, the hint.
pub fn diagnostic(d: &Diagnostic, color: bool) -> Vec<String> {
    let (word, style) = match d.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
        Severity::Note => ("note", "1;36"),
    };
    let code = if d.code.is_empty() {
        String::new()
    } else {
        format!("[{}]", d.code)
    };
    let mut lines = vec![format!(
        "{}: {}",
        paint(&format!("{word}{code}"), style, color),
        plain(&d.message)
    )];
    if d.span.line > 0 {
        lines.push(format!(
            "  --> {}:{}:{}",
            plain(&d.file),
            d.span.line,
            d.span.column
        ));
        lines.extend(source(d).iter().map(|line| plain(line)));
    } else if !d.file.is_empty() {
        lines.push(format!("  --> {}", plain(&d.file)));
    }
    if !d.hint.is_empty() {
        let hint = paint("hint:", "1;36", color);
        lines.push(format!("  {hint} {}", plain(&d.hint)));
    }
    // Whatever lines a message has are one here, as before.
    lines.iter().map(|line| line.replace('\n', "")).collect()
}

/// The source lines with numbers; in the first one the place is underlined.
fn source(d: &Diagnostic) -> Vec<String> {
    let margin = (d.span.line as usize + d.source.lines().count().saturating_sub(1))
        .to_string()
        .len();
    let mut lines = Vec::new();
    for (n, text) in d.source.lines().take(8).enumerate() {
        let number = d.span.line as usize + n;
        lines.push(format!(" {number:>margin$} | {}", text.replace('\t', " ")));
        if n == 0 && d.span.column > 0 {
            let start = d.span.column as usize - 1;
            let end = if d.span.end_line > d.span.line {
                text.chars().count()
            } else {
                d.span.end_column.saturating_sub(1) as usize
            };
            lines.push(format!(
                " {:margin$} | {:start$}{}",
                "",
                "",
                "^".repeat(end.saturating_sub(start).max(1))
            ));
        }
    }
    lines
}

fn paint(text: &str, style: &str, color: bool) -> String {
    if color {
        format!("\x1b[{style}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_model::Span;

    #[test]
    fn the_place_is_underlined() {
        let d = Diagnostic {
            severity: Severity::Error,
            code: "UnknownInstruction".into(),
            message: "unknown instruction `RUM`".into(),
            file: "Dockerfile".into(),
            span: Span {
                line: 9,
                column: 1,
                end_line: 9,
                end_column: 4,
            },
            source: "RUM make".into(),
            hint: "did you mean `RUN`?".into(),
        };
        let want = [
            "error[UnknownInstruction]: unknown instruction `RUM`",
            "  --> Dockerfile:9:1",
            " 9 | RUM make",
            "   | ^^^",
            "  hint: did you mean `RUN`?",
        ];
        assert_eq!(diagnostic(&d, false), want);
    }
}
