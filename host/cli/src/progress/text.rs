//! Text for people: sizes, times, output of steps made harmless, lines cut to a width.

use unicode_width::UnicodeWidthChar;

/// Writes a number of bytes with a unit (powers of 1000).
pub fn bytes(n: u64) -> String {
    const UNITS: &[&str] = &["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Writes milliseconds as seconds, or minutes and seconds.
pub fn time(millis: u64) -> String {
    if millis < 60_000 {
        format!("{}.{}s", millis / 1000, millis % 1000 / 100)
    } else {
        format!("{}m{:02}s", millis / 60_000, millis / 1000 % 60)
    }
}

/// Takes control characters and escape sequences out of a line that a step wrote, so that it cannot move the cursor or
/// talk to the terminal; colours stay where `color`.
pub fn harmless(line: &str, color: bool) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    let mut colored = false;
    while let Some(c) = chars.next() {
        match c {
            '\x1b' if chars.peek() == Some(&'[') => {
                chars.next();
                let mut sequence = String::new();
                let end = loop {
                    match chars.next() {
                        Some(c @ '\x40'..='\x7e') => break Some(c),
                        Some(c) if sequence.len() < 64 => sequence.push(c),
                        _ => break None,
                    }
                };
                if end == Some('m')
                    && color
                    && sequence.bytes().all(|b| b.is_ascii_digit() || b == b';')
                {
                    out.push_str("\x1b[");
                    out.push_str(&sequence);
                    out.push('m');
                    colored = true;
                }
            }
            '\x1b' if chars.peek() == Some(&']') => {
                // An operating system command: up to BEL or ESC.
                while let Some(c) = chars.next() {
                    if c == '\x07' || c == '\x1b' && chars.next_if_eq(&'\\').is_some() {
                        break;
                    }
                }
            }
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    if colored {
        out.push_str("\x1b[0m");
    }
    out
}

/// Cuts a line without escape sequences to `width` columns.
pub fn cut(line: &str, width: usize) -> String {
    let columns = |c: char| c.width().unwrap_or(0);
    if line.chars().map(columns).sum::<usize>() <= width {
        return line.to_owned();
    }
    let mut used = 0;
    let mut out: String = line
        .chars()
        .take_while(|c| {
            used += columns(*c);
            used < width
        })
        .collect();
    if width > 0 {
        out.push('…');
    }
    out
}

/// Number of columns of a text without escape sequences.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_cannot_talk_to_the_terminal() {
        assert_eq!(
            harmless("a\x1b[2Jb\x1b]0;title\x07c\rd\x08e\x07", true),
            "abcde"
        );
        assert_eq!(harmless("\x1b[31mred", true), "\x1b[31mred\x1b[0m");
        assert_eq!(harmless("\x1b[31mred\x1b[0m", false), "red");
        assert_eq!(harmless("\x1b]8;;http://x\x1b\\link", true), "link");
        assert_eq!(harmless("\x1b[9999", true), "");
    }

    #[test]
    fn lines_are_cut_by_columns() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("x", 0), "");
    }

    #[test]
    fn numbers() {
        assert_eq!(
            (bytes(5), bytes(1_500), bytes(999_999)),
            ("5 B".into(), "1.5 kB".into(), "1.0 MB".into())
        );
        assert_eq!((time(1_234), time(61_000)), ("1.2s".into(), "1m01s".into()));
    }
}
