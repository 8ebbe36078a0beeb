//! Whether a text may be the name of an image at all: `[host[:port]/]path[:tag][@digest]`.
//!
//! Only says yes or no, for a check that no image is asked for; the host parses what is resolved.

/// Longest name, as registries take it.
const LONGEST: usize = 255;

/// Says whether a text has the form of an image's name.
pub(crate) fn is_valid(text: &str) -> bool {
    let (name, digest) = text
        .split_once('@')
        .map_or((text, None), |(n, d)| (n, Some(d)));
    // A colon behind the last slash begins the tag; one before it belongs to a port.
    let last = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match name[last..].split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    let is_id =
        |t: &str| t.len() == 64 && t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    path.len() <= LONGEST
        && !is_id(text)
        && is_path(path)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

fn is_path(path: &str) -> bool {
    let rest = match path.split_once('/') {
        Some((host, rest)) if is_host(host) => rest,
        _ => path,
    };
    rest.split('/').all(is_component)
}

/// What stands before the first slash is a host where it has a dot, a port or a capital, or is `localhost`.
fn is_host(text: &str) -> bool {
    let says_so = text == "localhost"
        || text.contains(['.', ':'])
        || text.contains(|c: char| c.is_ascii_uppercase());
    let (name, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((address, port)) => {
            return address.contains(':') && (port.is_empty() || is_port(port));
        }
        None => text
            .split_once(':')
            .map_or((text, ""), |(n, _)| (n, &text[n.len()..])),
    };
    let is_label = |l: &str| {
        l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    says_so && name.split('.').all(is_label) && (port.is_empty() || is_port(port))
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower case letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = text
        .split(|c: char| c.is_ascii() && is_word(c as u8))
        .filter(|s| !s.is_empty());
    let ends_well = |b: Option<u8>| b.is_some_and(is_word);
    ends_well(text.bytes().next())
        && ends_well(text.bytes().last())
        && separators
            .into_iter()
            .all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && is_word(text.as_bytes()[0])
        && text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

/// `algorithm:hexadecimal`, of the length that the known algorithms have.
pub(crate) fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    is_hex && hex.len() == length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let digest = format!("a@sha256:{}", "0f".repeat(32));
        for good in [
            "debian",
            "debian:12",
            "a/b/c",
            "ghcr.io/a/b:v1.2-x",
            "localhost:5000/a",
            "localhost/a",
            "Host.example/a:b",
            "[::1]:80/a",
            "a__b",
            "a--b.c_d",
            "127.0.0.1:5000/x:1",
            "a:B_1",
            &digest,
        ] {
            assert!(is_valid(good), "{good}");
        }
        let id = "0".repeat(64);
        for bad in [
            "",
            "Debian",
            "a:",
            ":a",
            "a//b",
            "a/",
            "/a",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:b:c",
            "a b",
            "a@sha256:0",
            "a@b",
            "a.b:x/c",
            "$a",
            "ä",
            &id,
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
