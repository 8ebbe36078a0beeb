//! Texts that tools and people know from docker: how instructions are shown and how Go prints values.

use super::Step;

/// Longest text of an instruction in messages.
const LONGEST: usize = 500;

/// Returns an instruction on one line, as written.
pub(super) fn shown(step: Step<'_>) -> String {
    let mut text = if step.trigger {
        format!("ONBUILD {}", first_line(step))
    } else {
        step.line
            .text
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    if let [heredoc] = step.node.heredocs.as_slice() {
        let content = heredoc.content.trim();
        let first = content.lines().next().unwrap_or("").trim();
        text.push_str(&format!(
            " ({first}{})",
            if content.lines().nth(1).is_some() {
                "..."
            } else {
                ""
            }
        ));
    }
    let keyword = step.node.keyword.text();
    if !step.trigger && text.len() >= keyword.len() && text.is_char_boundary(keyword.len()) {
        text.replace_range(..keyword.len(), keyword);
    }
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// Returns a trigger's own text, from its parts.
fn first_line(step: Step<'_>) -> String {
    let printed = step.node.to_string();
    printed.lines().next().unwrap_or("").trim().to_owned()
}

/// Writes a list as Go's `%q` does: `["a" "b"]`.
pub(super) fn quoted_list(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(" "))
}

/// Writes a text as Go's `strconv.Quote` does.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() || c != ' ' && c.is_whitespace() => {
                out.push_str(&format!("\\u{:04x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Cleans a path as Go's `path.Join(base, path)` does: the result is absolute, without `.`, `..` or a last slash.
pub(super) fn joined(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_look_as_go_prints_them() {
        assert_eq!(
            quoted_list(&["/bin/sh".into(), "-c".into(), "a \"b\"\n\u{1}ä".into()]),
            "[\"/bin/sh\" \"-c\" \"a \\\"b\\\"\\n\\x01ä\"]"
        );
        assert_eq!(quoted_list(&[]), "[]");
    }

    #[test]
    fn paths_are_joined_and_cleaned() {
        for (base, path, want) in [
            ("/a", "b", "/a/b"),
            ("/a", "/b", "/b"),
            ("/a", "../../b/.", "/b"),
            ("", "x//y/", "/x/y"),
            ("/", ".", "/"),
            ("/a/", "", "/a"),
        ] {
            assert_eq!(joined(base, path), want, "{base} {path}");
        }
    }
}
