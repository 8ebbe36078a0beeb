//! Source patterns of COPY and ADD: Go's `filepath.Match`, element by element, and `**` for `--parents`.
//!
//! Pure text.  What a pattern finds in a tree is [`super::tree`]'s business.  Ignore patterns follow other rules and
//! are in `stepwell_model::ignore`.

use super::error::SourceError;
use super::path;

/// A pattern for one path element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// Exactly this name.
    Literal(Vec<u8>),
    /// A name that fits.
    Wild(Vec<Token>),
    /// `**`: any number of elements, also none.
    Deep,
}

/// Part of a pattern for one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// This character.
    Char(char),
    /// `?`: any character.
    One,
    /// `*`: any characters.
    Star,
    /// `[…]`, `[^…]`: a character within, or outside of, the ranges.
    Class {
        /// Whether the ranges are what does not fit.
        negated: bool,
        /// First and last character of each.
        ranges: Vec<(char, char)>,
    },
}

/// Says whether `text` has a wildcard in it; `\` takes away the meaning of the character behind it.
pub fn has_wildcards(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

/// Compiles the cleaned path `text` into one pattern for each element; `**` has its meaning only where `deep`.
pub fn compile(text: &[u8], deep: bool) -> Result<Vec<Element>, SourceError> {
    path::elements_of(text)
        .map(|element| Element::compile(element, deep))
        .collect()
}

impl Element {
    fn compile(text: &[u8], deep: bool) -> Result<Self, SourceError> {
        if deep && text == b"**" {
            return Ok(Self::Deep);
        }
        if !has_wildcards(text) && !text.contains(&b'\\') {
            return Ok(Self::Literal(text.to_vec()));
        }
        let bad = |reason| SourceError::BadPattern {
            pattern: path::show(text),
            reason,
        };
        Parser {
            text: decode(text),
            at: 0,
        }
        .run()
        .map(Self::Wild)
        .map_err(bad)
    }

    /// Says whether the whole of `name` fits.
    pub fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Literal(literal) => literal == name,
            Self::Wild(tokens) => match_tokens(tokens, &decode(name)),
            Self::Deep => true,
        }
    }
}

/// How a path relates to a pattern of several elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It or a directory above it matches.
    Yes,
    /// It does not match, but something below it may.
    Below,
    /// Neither it nor anything below it matches.
    No,
}

/// Matches `path` against the elements of a pattern; what is below a match matches as well.
pub fn fit(pattern: &[Element], path: &[u8]) -> Fit {
    // States of the automaton: how many elements of the pattern have been used up.
    let mut states = close(pattern, vec![0]);
    for name in path::elements_of(path) {
        if states.contains(&pattern.len()) {
            return Fit::Yes;
        }
        let mut next = Vec::new();
        for state in states {
            match &pattern[state] {
                Element::Deep => next.push(state),
                element if element.matches(name) => next.push(state + 1),
                _ => {}
            }
        }
        states = close(pattern, next);
    }
    match states {
        states if states.contains(&pattern.len()) => Fit::Yes,
        states if states.is_empty() => Fit::No,
        _ => Fit::Below,
    }
}

/// Adds the states that are reached by letting `**` stand for nothing.
fn close(pattern: &[Element], mut states: Vec<usize>) -> Vec<usize> {
    let mut at = 0;
    while let Some(&state) = states.get(at) {
        if pattern.get(state) == Some(&Element::Deep) && !states.contains(&(state + 1)) {
            states.push(state + 1);
        }
        at += 1;
    }
    states.sort_unstable();
    states.dedup();
    states
}

/// Backtracks to the latest `*` only, so that the time is at most pattern times name.
fn match_tokens(tokens: &[Token], name: &[char]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match tokens.get(token) {
            Some(Token::Star) => {
                star = Some((token, at));
                token += 1;
            }
            Some(other) if other.takes(name[at]) => {
                token += 1;
                at += 1;
            }
            _ => match star {
                Some((star_token, star_at)) => {
                    star = Some((star_token, star_at + 1));
                    (token, at) = (star_token + 1, star_at + 1);
                }
                None => return false,
            },
        }
    }
    tokens[token..].iter().all(|t| *t == Token::Star)
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::One => true,
            Self::Star => false,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(lo, hi)| (*lo..=*hi).contains(&c)) != *negated
            }
        }
    }
}

struct Parser {
    text: Vec<char>,
    at: usize,
}

impl Parser {
    fn run(mut self) -> Result<Vec<Token>, &'static str> {
        let mut tokens = Vec::new();
        while let Some(c) = self.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::One,
                '[' => self.class()?,
                '\\' => Token::Char(self.next().ok_or("nothing follows the `\\`")?),
                c => Token::Char(c),
            });
        }
        Ok(tokens)
    }

    fn class(&mut self) -> Result<Token, &'static str> {
        let negated = self.text.get(self.at) == Some(&'^');
        self.at += usize::from(negated);
        let mut ranges = Vec::new();
        loop {
            if self.text.get(self.at) == Some(&']') && !ranges.is_empty() {
                self.at += 1;
                return Ok(Token::Class { negated, ranges });
            }
            let lo = self.class_char()?;
            let hi = if self.text.get(self.at) == Some(&'-') {
                self.at += 1;
                self.class_char()?
            } else {
                lo
            };
            ranges.push((lo, hi));
        }
    }

    fn class_char(&mut self) -> Result<char, &'static str> {
        const UNCLOSED: &str = "the `[` is not closed; to mean the character itself, write `[[]`";
        match self.next().ok_or(UNCLOSED)? {
            '-' | ']' => Err("`-` and `]` need a `\\` in front of them within `[…]`"),
            '\\' => self.next().ok_or(UNCLOSED),
            c => Ok(c),
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.text.get(self.at).copied();
        self.at += usize::from(c.is_some());
        c
    }
}

/// Decodes UTF-8; a byte that is none becomes a character of its own from a private plane, so that names of any
/// bytes can be matched and two different names stay different.
fn decode(bytes: &[u8]) -> Vec<char> {
    let mut chars = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        chars.extend(chunk.valid().chars());
        chars.extend(
            chunk
                .invalid()
                .iter()
                .filter_map(|b| char::from_u32(0x0010_FF00 + u32::from(*b))),
        );
    }
    chars
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &[u8]) -> Option<bool> {
        let elements = compile(pattern.as_bytes(), false).ok()?;
        assert_eq!(elements.len(), 1, "{pattern}");
        Some(elements[0].matches(name))
    }

    /// The rules of Go's filepath.Match (its documentation), for one element; none means malformed.
    #[test]
    fn elements_match_as_in_go() {
        let table: &[(&str, &str, Option<bool>)] = &[
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*b*c*d", "axbxcxxxxd", Some(true)),
            ("a*b*c*d", "axbxcxxxxde", Some(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("[!a]", "!", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("a???b", "a☺b", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-x]", "-", Some(true)),
            ("arr[[]0].txt", "arr[0].txt", Some(true)),
            (".*", ".hidden", Some(true)),
            ("*", ".hidden", Some(true)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[a", "a", None),
            ("a[", "a", None),
            ("*\\", "a", None),
        ];
        for (pattern, name, want) in table {
            assert_eq!(
                matches(pattern, name.as_bytes()),
                *want,
                "{pattern} against {name}"
            );
        }
    }

    #[test]
    fn names_need_not_be_utf8() {
        assert_eq!(matches("a?b", b"a\xffb"), Some(true));
        assert_eq!(matches("a??b", b"a\xffb"), Some(false));
        assert_eq!(matches("*\u{fffd}*", b"a\xffb"), Some(false));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(60) + "b";
        assert_eq!(matches(&pattern, "a".repeat(4000).as_bytes()), Some(false));
    }

    #[test]
    fn deep_patterns_tell_where_to_look() {
        let table = [
            ("src/**/*.txt", "src", Fit::Below),
            ("src/**/*.txt", "src/a.txt", Fit::Yes),
            ("src/**/*.txt", "src/x/y/c.txt", Fit::Yes),
            ("src/**/*.txt", "src/x/y/c.md", Fit::Below),
            ("src/**/*.txt", "lib", Fit::No),
            ("a/b", "a", Fit::Below),
            ("a/b", "a/b", Fit::Yes),
            ("a/b", "a/b/c/d", Fit::Yes),
            ("a/b", "a/c", Fit::No),
            ("a/*/c", "a/x/c", Fit::Yes),
            ("**", "", Fit::Yes),
            ("**", "x/y", Fit::Yes),
        ];
        for (pattern, path, want) in table {
            let pattern_of = compile(pattern.as_bytes(), true).unwrap();
            assert_eq!(
                fit(&pattern_of, path.as_bytes()),
                want,
                "{pattern} against {path}"
            );
        }
    }

    #[test]
    fn two_stars_are_one_without_parents() {
        assert_eq!(
            compile(b"a/**", false).unwrap()[1],
            Element::Wild(vec![Token::Star, Token::Star])
        );
    }
}
