//! What guests say is shown to people: it must not move the cursor, change colours, or turn the order of the text.

/// Replaces control characters but line breaks and tabs, and marks that change the direction of text, by `U+FFFD`.
pub fn plain(text: String) -> String {
    if text.chars().all(is_plain) {
        return text;
    }
    let replace = |c| {
        if is_plain(c) {
            c
        } else {
            char::REPLACEMENT_CHARACTER
        }
    };
    text.chars().map(replace).collect()
}

fn is_plain(c: char) -> bool {
    match c {
        '\n' | '\t' => true,
        // Bidirectional embeddings, overrides and isolates (Unicode Standard Annex 9).
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        c => !c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn escapes_and_overrides_are_replaced_and_text_is_not() {
        for (text, want) in [
            ("a\tb\nc é 漢", "a\tb\nc é 漢"),
            ("\u{1b}[31mred", "\u{fffd}[31mred"),
            ("a\rb\u{7}\u{9b}", "a\u{fffd}b\u{fffd}\u{fffd}"),
            ("x\u{202e}y", "x\u{fffd}y"),
        ] {
            assert_eq!(plain(text.into()), want);
        }
    }
}
