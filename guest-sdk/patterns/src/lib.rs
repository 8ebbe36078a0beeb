//! What both sides have to read alike: addresses of files elsewhere ([`remote`]), and
//! the patterns of a `.dockerignore` file (and of `--exclude`), matched as moby's patternmatcher matches them.
//!
//! Pure text in, yes or no out: nothing here reads a file or a directory, and nothing depends on the host or on a
//! guest, because both use it: the host to walk a context (`stepwell-steps`), the Dockerfile frontend to say that an
//! instruction copies what is left out.
//!
//! The rules: a pattern is cleaned (`.`, `..`, doubled and trailing slashes, one leading slash go); `*` and `?`
//! match within one path element, `[…]` is a class, `\` takes the next character as it is, `**` matches any
//! number of elements; a pattern that matches a directory matches everything below it; the last pattern that
//! matches decides; `!` in front takes back what earlier patterns left out.

#![forbid(unsafe_code)]

pub mod remote;

/// A pattern that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// `!` with nothing behind it.
    #[error("ignore pattern `!`: a pattern has to follow the `!`")]
    EmptyException,
    /// A class without an end, a backwards range, or a backslash at the end.
    #[error("ignore pattern `{0}`: malformed `[…]` or `\\`")]
    Syntax(String),
}

/// Writes a path as a pattern that matches it alone, in ignore files as in the sources of COPY.
pub fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// Patterns in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreSet {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    exception: bool,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This character.
    Char(char),
    /// `?`: any character but a slash.
    One,
    /// `*`: any characters but slashes.
    Star,
    /// `**` before something else: matches nothing, or enters the [`Token::DeepLoop`] that follows it.
    Deep,
    /// Second half of `**`: anything that ends in a slash.
    DeepLoop,
    /// `**` at the end: anything.
    All,
    /// `[…]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl IgnoreSet {
    /// Splits the text of an ignore file into patterns: comments and blank lines go, order stays.
    pub fn parse(text: &str) -> Vec<String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|l| !l.starts_with('#')).map(str::trim);
        lines.filter(|l| !l.is_empty()).map(str::to_owned).collect()
    }

    /// Compiles patterns; blank ones are left out.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, IgnoreError> {
        let mut set = Self::default();
        for pattern in patterns {
            set.patterns.extend(Pattern::new(pattern.as_ref())?);
        }
        Ok(set)
    }

    /// Says whether a pattern takes back what others left out.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|p| p.exception)
    }

    /// Says whether there is no pattern, so that nothing ever matches.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Says whether `path` is left out: relative to the root, with slashes, without `.` and `..`; it need not
    /// be UTF-8.  The root itself (an empty path) never is.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let path = decode(path.as_ref());
        if path.is_empty() {
            return false;
        }
        let mut matched = false;
        for pattern in &self.patterns {
            if pattern.exception == matched && pattern.run(&path).accepted {
                matched = !pattern.exception;
            }
        }
        matched
    }

    /// Says whether something below the left-out directory `dir` may have been taken back by an exception, so
    /// that a walk has to look.
    pub fn may_have_included_below(&self, dir: impl AsRef<[u8]>) -> bool {
        let mut below = decode(dir.as_ref());
        if !below.is_empty() {
            below.push('/');
        }
        self.patterns.iter().filter(|p| p.exception).any(|p| {
            let end = p.run(&below);
            end.accepted || end.alive
        })
    }
}

/// What is left after a pattern saw a whole path.
struct End {
    /// The path or one of its parents matched.
    accepted: bool,
    /// A longer path could still match.
    alive: bool,
}

impl Pattern {
    fn new(text: &str) -> Result<Option<Self>, IgnoreError> {
        let text = text.trim();
        let (exception, body) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        if body.is_empty() {
            return if exception {
                Err(IgnoreError::EmptyException)
            } else {
                Ok(None)
            };
        }
        let cleaned = clean(body);
        let tokens = tokens(&cleaned).ok_or_else(|| IgnoreError::Syntax(text.to_owned()))?;
        Ok(Some(Self { exception, tokens }))
    }

    /// Simulates the pattern over `path`, in time proportional to both; every slash ends a parent directory,
    /// which may match too.
    fn run(&self, path: &[char]) -> End {
        let last = self.tokens.len();
        let (mut now, mut next) = (vec![false; last + 1], vec![false; last + 1]);
        now[0] = true;
        self.skip_empty(&mut now);
        for (i, c) in path.iter().enumerate() {
            if *c == '/' && i > 0 && now[last] {
                return End {
                    accepted: true,
                    alive: true,
                };
            }
            next.fill(false);
            let mut any = false;
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| now[*at]) {
                let (stay, step) = token.eats(*c);
                next[at] |= stay;
                next[at + 1] |= step;
                any |= stay | step;
            }
            if !any {
                return End {
                    accepted: false,
                    alive: false,
                };
            }
            std::mem::swap(&mut now, &mut next);
            self.skip_empty(&mut now);
        }
        End {
            accepted: now[last] && path.last() != Some(&'/'),
            alive: now.contains(&true),
        }
    }

    /// Follows the tokens that may match nothing.
    fn skip_empty(&self, states: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            match token {
                Token::Star | Token::All if states[at] => states[at + 1] = true,
                Token::Deep if states[at] => {
                    states[at + 1] = true;
                    states[at + 2] = true;
                }
                _ => {}
            }
        }
    }
}

impl Token {
    /// Says whether the token takes `c` and stays, and whether it takes `c` and is done.
    fn eats(&self, c: char) -> (bool, bool) {
        match self {
            Self::Char(wanted) => (false, *wanted == c),
            Self::One => (false, c != '/'),
            Self::Star => (c != '/', false),
            Self::Deep => (false, false),
            Self::DeepLoop => (true, c == '/'),
            Self::All => (true, false),
            Self::Class { negated, ranges } => (
                false,
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
            ),
        }
    }
}

/// Cleans a path as Go's `path.Clean` does, and drops one leading slash.
fn clean(text: &str) -> String {
    let rooted = text.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    }
}

/// Turns a cleaned pattern into tokens; none where it is malformed.
fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut chars = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                let slash = chars.next_if_eq(&'/').is_some();
                // moby: a leading `**` directly followed by plain text is a plain suffix match.
                let suffix =
                    tokens.is_empty() && !slash && !chars.clone().any(|c| "*?[]\\".contains(c));
                match chars.peek() {
                    Some(_) if !suffix => tokens.extend([Token::Deep, Token::DeepLoop]),
                    _ => tokens.push(Token::All),
                }
            }
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::One),
            '\\' => tokens.push(Token::Char(chars.next()?)),
            '[' => tokens.push(class(&mut chars)?),
            other => tokens.push(Token::Char(other)),
        }
    }
    Some(tokens)
}

/// Reads a class behind its `[`, by the grammar of Go's `filepath.Match`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() {
            class_char(chars)?
        } else {
            low
        };
        if high < low {
            return None;
        }
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '\\' => chars.next(),
        '-' | ']' => None,
        other => Some(other),
    }
}

/// Decodes UTF-8; each byte that is not part of any becomes one replacement character, as in Go.
fn decode(path: &[u8]) -> Vec<char> {
    let mut out = Vec::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        out.extend(chunk.valid().chars());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> IgnoreSet {
        IgnoreSet::new(IgnoreSet::parse(text)).unwrap()
    }

    #[test]
    fn a_literal_matches_itself_alone() {
        for path in ["a*b", "[x]", "a?", "a\\\\b", "plain"] {
            let pattern = set(&literal(path));
            assert!(pattern.matches(path), "{path}");
        }
        assert!(!set(&literal("a*b")).matches("axb"));
    }

    /// Pattern, path, whether it matches (moby/patternmatcher's documented behaviour).
    const SINGLE: &[(&str, &str, bool)] = &[
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("dir/**", "dirx/file", false),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "xfile", true),
        ("**/file", "xfile", false),
        ("**/file", "dir/dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("abc?def", "abc/def", false),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc", false),
        ("abc/**", "abc/def", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", ".foo", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        (
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        (
            "dist/*.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        ("/foo", "foo", true),
        ("foo/", "foo", true),
        ("foo/", "foo/bar/baz", true),
        ("./foo", "foo", true),
        ("foo/../bar", "bar", true),
        ("*", "a/b", true),
        ("*/b", "a/b", true),
        ("*/b", "b", false),
        ("docs/*/README.md", "docs/a/README.md", true),
        ("docs/*/README.md", "docs/a/b/README.md", false),
        ("\\*", "*", true),
        ("\\*", "x", false),
        ("ä?", "äö", true),
    ];

    #[test]
    fn single_patterns() {
        for (pattern, path, want) in SINGLE {
            let set = IgnoreSet::new([pattern]).unwrap();
            assert_eq!(set.matches(path), *want, "`{pattern}` on `{path}`");
        }
    }

    #[test]
    fn the_last_match_decides() {
        let text = "\u{feff}# comment\n\n*.md\n!README*.md\nREADME-secret.md\n  # not a comment\n";
        assert_eq!(
            IgnoreSet::parse(text),
            ["*.md", "!README*.md", "README-secret.md", "# not a comment"]
        );
        let ignore = set(text);
        for (path, want) in [
            ("a.md", true),
            ("README.md", false),
            ("README-secret.md", true),
            ("a.rs", false),
            ("d/a.md", false),
        ] {
            assert_eq!(ignore.matches(path), want, "{path}");
        }
        let all_but = set("**\n!src/**\n!Cargo.toml\nsrc/target");
        for (path, want) in [
            ("x", true),
            ("src", true),
            ("src/main.rs", false),
            ("Cargo.toml", false),
            ("src/target/x", true),
            ("lib/src/a", true),
        ] {
            assert_eq!(all_but.matches(path), want, "{path}");
        }
    }

    #[test]
    fn a_walk_looks_below_only_where_something_may_come_back() {
        let ignore = set("*\n!src/lib/*.rs\n!docs\nnode_modules");
        for (dir, want) in [
            ("src", true),
            ("src/lib", true),
            ("src/bin", false),
            ("docs", true),
            ("docs/a", true),
            ("node_modules", false),
            ("target", false),
        ] {
            assert_eq!(ignore.may_have_included_below(dir), want, "{dir}");
        }
        assert!(set("*\n!**/keep").may_have_included_below("any/dir"));
        assert!(!set("*").may_have_included_below("any"));
    }

    #[test]
    fn the_root_never_matches_and_names_need_not_be_utf8() {
        assert!(!set("*").matches(""));
        assert!(!set(".").matches("a"));
        assert!(set("a?").matches(b"a\xff"));
        assert!(!set("a?").matches(b"a\xff\xfe"));
    }

    #[test]
    fn malformed_patterns_are_named() {
        for bad in ["[", "[]", "[a", "[b-a]", "a\\", "[-a]", "!["] {
            assert_eq!(
                IgnoreSet::new([bad]),
                Err(IgnoreError::Syntax(bad.into())),
                "{bad}"
            );
        }
        assert_eq!(IgnoreSet::new(["!"]), Err(IgnoreError::EmptyException));
        assert_eq!(IgnoreSet::new(["", "  "]), Ok(IgnoreSet::default()));
    }

    #[test]
    fn many_stars_take_linear_time() {
        let pattern = "*a".repeat(2_000);
        let path = "a".repeat(3_000) + "b";
        assert!(!IgnoreSet::new([pattern]).unwrap().matches(path));
    }
}
