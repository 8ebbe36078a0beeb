//! JSON arrays of strings, as the exec forms of instructions use them.
//!
//! Not a JSON library: it tells arrays of strings from other JSON and from what is no JSON at all.  Nesting is
//! followed without recursion.

/// What a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An array of strings.
    Strings(Vec<String>),
    /// An array that holds something else.
    OtherArray,
    /// Not a JSON array: the text is in shell form.
    NotJson,
}

/// Reads a text that may be an array of strings.
pub fn strings(text: &str) -> Outcome {
    let mut reader = Reader {
        text: text.trim_start(),
        at: 0,
    };
    if !reader.take('[') {
        return Outcome::NotJson;
    }
    match reader.array() {
        Some(list) if reader.at_end() => list.map_or(Outcome::OtherArray, Outcome::Strings),
        _ => Outcome::NotJson,
    }
}

/// Returns the text that a member of an object has, where the whole text is one object and that member is a text.
pub(crate) fn member(text: &str, name: &str) -> Option<String> {
    let mut reader = Reader {
        text: text.trim_start().trim_start_matches('\u{feff}'),
        at: 0,
    };
    if !reader.take('{') {
        return None;
    }
    let mut found = None;
    while !reader.take('}') {
        reader.blanks();
        let key = reader.string()?;
        reader.take(':').then_some(())?;
        reader.blanks();
        let value = match reader.peek() {
            Some('"') => Some(reader.string()?),
            _ => {
                reader.other_value()?;
                None
            }
        };
        if key == name {
            found = value;
        }
        if !reader.take(',') {
            reader.take('}').then_some(())?;
            break;
        }
    }
    found.filter(|_| reader.at_end())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    /// Reads behind the opening bracket: the strings, or none within where something else is among them.
    fn array(&mut self) -> Option<Option<Vec<String>>> {
        let (mut list, mut only_strings) = (Vec::new(), true);
        if self.take(']') {
            return Some(Some(list));
        }
        loop {
            self.blanks();
            if self.peek() == Some('"') {
                list.push(self.string()?);
            } else {
                only_strings = false;
                self.other_value()?;
            }
            if self.take(']') {
                return Some(only_strings.then_some(list));
            }
            self.take(',').then_some(())?;
        }
    }

    /// Skips one value that is not a string.
    fn other_value(&mut self) -> Option<()> {
        let mut open: Vec<char> = Vec::new();
        loop {
            self.blanks();
            match self.peek()? {
                c @ ('[' | '{') => {
                    self.at += 1;
                    let end = if c == '[' { ']' } else { '}' };
                    if !self.take(end) {
                        open.push(end);
                        if c == '{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                '"' => drop(self.string()?),
                _ => self.scalar()?,
            }
            // A value is complete: go on within, or close, what is open.
            loop {
                let Some(end) = open.last().copied() else {
                    return Some(());
                };
                if self.take(end) {
                    open.pop();
                    continue;
                }
                self.take(',').then_some(())?;
                if end == '}' {
                    self.key()?;
                }
                break;
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        self.blanks();
        self.string()?;
        self.take(':').then_some(())
    }

    /// Skips a number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        let len = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)))
            .unwrap_or(rest.len());
        let word = &rest[..len];
        let number = word.starts_with(|c: char| c.is_ascii_digit() || c == '-')
            && word.parse::<f64>().is_ok();
        self.at += len;
        (number || matches!(word, "true" | "false" | "null")).then_some(())
    }

    fn string(&mut self) -> Option<String> {
        if self.peek() != Some('"') {
            return None;
        }
        self.at += 1;
        let mut out = String::new();
        loop {
            let c = self.next()?;
            match c {
                '"' => return Some(out),
                '\\' => out.push(self.escaped()?),
                c if c < ' ' => return None,
                c => out.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.next()? {
            c @ ('"' | '\\' | '/') => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.unicode()?,
            _ => return None,
        })
    }

    fn unicode(&mut self) -> Option<char> {
        let high = self.hex()?;
        if (0xd800..0xdc00).contains(&high) && self.text[self.at..].starts_with("\\u") {
            let before = self.at;
            self.at += 2;
            let low = self.hex()?;
            if (0xdc00..0xe000).contains(&low) {
                return char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
            }
            self.at = before;
        }
        Some(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then(|| u32::from_str_radix(digits, 16).ok())?
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\r' | '\n')) {
            self.at += 1;
        }
    }

    /// Takes `wanted` if it comes next, spaces aside.
    fn take(&mut self, wanted: char) -> bool {
        self.blanks();
        let found = self.peek() == Some(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn at_end(&mut self) -> bool {
        self.blanks();
        self.at == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_strings_other_arrays_and_no_json() {
        let list = |items: &[&str]| Outcome::Strings(items.iter().map(|s| s.to_string()).collect());
        for (text, want) in [
            ("[]", list(&[])),
            (" [ ] ", list(&[])),
            ("[\"a\", \"b c\"]", list(&["a", "b c"])),
            (
                "[\"a\\n\\t\\\"\\\\\\/\\b\\f\\r\"]",
                list(&["a\n\t\"\\/\u{8}\u{c}\r"]),
            ),
            (
                "[\"\\u00e4\\ud83d\\ude00\\ud800x\"]",
                list(&["ä😀\u{fffd}x"]),
            ),
            ("[1]", Outcome::OtherArray),
            ("[\"a\", {\"b\": [1, {}, []]}, null]", Outcome::OtherArray),
            ("[[[[]]]]", Outcome::OtherArray),
            ("[true, -1.5e3]", Outcome::OtherArray),
            ("['a']", Outcome::NotJson),
            ("[\"a\"] && b", Outcome::NotJson),
            ("[\"a\",]", Outcome::NotJson),
            ("[\"a\" \"b\"]", Outcome::NotJson),
            ("[ -f x ]", Outcome::NotJson),
            ("[\"a", Outcome::NotJson),
            ("[\"\\x\"]", Outcome::NotJson),
            ("[\"a\tb\"]", Outcome::NotJson),
            ("a", Outcome::NotJson),
            ("", Outcome::NotJson),
            ("[{]", Outcome::NotJson),
            ("[\"\\u00\"]", Outcome::NotJson),
        ] {
            assert_eq!(strings(text), want, "{text}");
        }
    }

    #[test]
    fn members_of_objects() {
        for (text, want) in [
            (r#"{"syntax": "a/b"}"#, Some("a/b")),
            (r#" { "x": [1, {}], "syntax" : "a" } "#, Some("a")),
            (r#"{"syntax": 1}"#, None),
            (r#"{"syntax": "a"} FROM b"#, None),
            (r#"{"syntax": "a""#, None),
            ("{}", None),
            ("FROM a", None),
        ] {
            assert_eq!(member(text, "syntax").as_deref(), want, "{text}");
        }
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        assert_eq!(strings(&"[".repeat(200_000)), Outcome::NotJson);
        assert_eq!(
            strings(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
            Outcome::OtherArray
        );
    }
}
