//! Reads names of images: `[registry/]path[:tag][@digest]`, normalised as docker has it (the grammar of
//! distribution/reference, with docker.io and `library/` filled in).
//!
//! oci-spec's own parser matches one large regular expression; compiling it took nine tenths of the processor time of
//! a build that changes nothing.  It stays as the oracle of the tests here.

use oci_spec::distribution::Reference;

/// Longest path of a repository, in bytes (distribution/reference).
const LONGEST_PATH: usize = 255;
/// Longest tag, in bytes (OCI distribution-spec).
const LONGEST_TAG: usize = 128;

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is no path.
    #[error("the name is empty")]
    Empty,
    /// An element of the path breaks the rules.
    #[error(
        "`{0}` must consist of lower-case letters and digits, with `.`, `_`, `__` or `-` between them"
    )]
    Path(String),
    /// The path holds upper-case letters, and nothing else is wrong with it.
    #[error("`{0}` must be in lower case")]
    UpperCase(String),
    /// The path is too long.
    #[error("the name is longer than {LONGEST_PATH} characters")]
    TooLong,
    /// The registry is no host name with an optional port.
    #[error("`{0}` is not the name of a registry")]
    Registry(String),
    /// The tag breaks the rules.
    #[error(
        "the tag `{0}` must have 1 to {LONGEST_TAG} letters, digits, `_`, `.` or `-`, and start with neither `.` nor `-`"
    )]
    Tag(String),
    /// The digest breaks the rules.
    #[error("the digest `{0}` must be `sha256:` and 64 hexadecimal digits (or sha384, sha512)")]
    Digest(String),
}

/// Reads the name of an image; where it has neither tag nor digest, its tag is `latest`.
pub fn parse_reference(text: &str) -> Result<Reference, ReferenceError> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
        None => (text, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(check_tag(tag)?)),
        _ => (rest, None),
    };
    let (registry, path) = split_registry(name)?;
    check_path(&path)?;
    Ok(match (tag, digest) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(registry, path, tag, digest),
        (None, Some(digest)) => Reference::with_digest(registry, path, digest),
        (Some(tag), None) => Reference::with_tag(registry, path, tag),
        (None, None) => Reference::with_tag(registry, path, "latest".to_owned()),
    })
}

/// Splits the registry off, and fills in what docker leaves out.
fn split_registry(name: &str) -> Result<(String, String), ReferenceError> {
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
            check_registry(first)?;
            (first, path)
        }
        _ => ("docker.io", name),
    };
    let registry = match registry {
        "index.docker.io" => "docker.io",
        other => other,
    };
    let path = match path {
        path if registry == "docker.io" && !path.is_empty() && !path.contains('/') => {
            format!("library/{path}")
        }
        path => path.to_owned(),
    };
    Ok((registry.to_owned(), path))
}

fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let (host, port) = match registry.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let number = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if host.split('.').all(label) && port.is_none_or(number) {
        Ok(())
    } else {
        Err(ReferenceError::Registry(registry.to_owned()))
    }
}

fn check_path(path: &str) -> Result<(), ReferenceError> {
    if path.is_empty() {
        return Err(ReferenceError::Empty);
    }
    if path.len() > LONGEST_PATH {
        return Err(ReferenceError::TooLong);
    }
    match path.split('/').find(|element| !is_element(element)) {
        None => Ok(()),
        Some(element) if is_element(&element.to_ascii_lowercase()) => {
            Err(ReferenceError::UpperCase(element.to_owned()))
        }
        Some(element) => Err(ReferenceError::Path(element.to_owned())),
    }
}

/// Lower-case letters and digits, with one separator at a time between them.
fn is_element(element: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (element.bytes().next(), element.bytes().last()) else {
        return false;
    };
    let separators = element.split(|c: char| c.is_ascii() && is_word(c as u8));
    is_word(first)
        && is_word(last)
        && separators
            .into_iter()
            .all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<String, ReferenceError> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let well_formed = tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'));
    if well_formed {
        Ok(tag.to_owned())
    } else {
        Err(ReferenceError::Tag(tag.to_owned()))
    }
}

fn check_digest(digest: &str) -> Result<String, ReferenceError> {
    let length = match digest.split_once(':') {
        Some(("sha256", hex)) => (hex, 64),
        Some(("sha384", hex)) => (hex, 96),
        Some(("sha512", hex)) => (hex, 128),
        _ => ("", 1),
    };
    let (hex, length) = length;
    if hex.len() == length && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(digest.to_owned())
    } else {
        Err(ReferenceError::Digest(digest.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Same answer as oci-spec's parser, errors by their presence only; it is wrong in that it takes letters beyond ASCII in
    /// tags, and upper case in the first element of a path.
    fn agrees(text: &str) {
        let wrong =
            |r: &Reference| !text.is_ascii() || r.repository() != r.repository().to_lowercase();
        let theirs = text.parse::<Reference>().ok().filter(|r| !wrong(r));
        assert_eq!(parse_reference(text).ok(), theirs, "`{text}`");
    }

    #[test]
    fn agrees_with_the_grammar_on_what_people_write() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        for name in [
            "busybox",
            "test.com",
            "test.com/repo",
            "test:5000/repo",
            "localhost/a",
            "a/b/c",
            "local/a",
            "index.docker.io/a",
            "docker.io/a/b",
            "a__b",
            "a___b",
            "a--b",
            "a-",
            "-a",
            "a..b",
            "A/b",
            "a/B",
            "EXAMPLE.com/a",
            "ex-.com/a",
            "ex.com:/a",
            "ex.com:8a/a",
            "a//b",
            "/a",
            "a/",
            "",
            "a b",
            "ü",
            "127.0.0.1:5000/a",
            "[::1]:5000/a",
            "x.y:1/",
            "a._b",
            "a_.b",
            "localhost",
            "a.b-c/d",
        ] {
            for rest in [
                "",
                ":1",
                ":",
                ":-a",
                ":.a",
                ":_a",
                ":A-b.c",
                ":a/b",
                ":a:b",
                ":ü",
                "@",
                "@sha256:ab",
                "@md5:ab",
            ] {
                agrees(&format!("{name}{rest}"));
                agrees(&format!("{name}{rest}@{digest}"));
            }
        }
        agrees(&format!("a:{}", "t".repeat(128)));
        agrees(&format!("a:{}", "t".repeat(129)));
        agrees(&format!("x.io/{}", "p".repeat(255)));
        agrees(&format!("x.io/{}", "p".repeat(256)));
    }

    #[test]
    fn agrees_with_the_grammar_on_noise() {
        let alphabet = [
            "a",
            "b",
            "0",
            "A",
            ".",
            "_",
            "-",
            "/",
            ":",
            "@",
            "localhost",
            "é",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mut rest = state;
            for _ in 0..(state >> 60) {
                text.push_str(alphabet[(rest % 12) as usize]);
                rest /= 12;
            }
            agrees(&text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let why = |text: &str| parse_reference(text).unwrap_err().to_string();
        assert_eq!(why("Debian"), "`Debian` must be in lower case");
        assert_eq!(why(":1"), "the name is empty");
        assert_eq!(
            why("a/b:"),
            "the tag `` must have 1 to 128 letters, digits, `_`, `.` or `-`, and start with neither `.` nor `-`"
        );
        assert_eq!(
            why("a@sha256:1"),
            "the digest `sha256:1` must be `sha256:` and 64 hexadecimal digits (or sha384, sha512)"
        );
        assert_eq!(why("-x.io/a"), "`-x.io` is not the name of a registry");
    }
}
