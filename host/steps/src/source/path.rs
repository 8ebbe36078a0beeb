//! Paths inside a source tree or an image: bytes, relative to the root, without `.`, `..`, doubled or outer slashes.
//!
//! Pure text: nothing here looks at a file system.  Symbolic links are the business of [`super::root`].

/// Longest path that is accepted, in bytes: the kernel's PATH_MAX, so that no look-up grows without bound.
pub const MAX_PATH: usize = 4096;

/// Cleans `path` as if it were rooted: `..` never climbs above the root (as Go's `path.Clean("/" + path)`).
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut elements: Vec<&[u8]> = Vec::new();
    for element in elements_of(path) {
        if element == b".." {
            elements.pop();
        } else {
            elements.push(element);
        }
    }
    elements.join(&b'/')
}

/// Iterates over the elements of `path`, without empty ones and `.`.
pub fn elements_of(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/')
        .filter(|e| !e.is_empty() && *e != b".")
}

/// Puts `name` below `dir`; either may be empty.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir, name) {
        ([], other) | (other, []) => other.to_vec(),
        _ => [dir, name].join(&b'/'),
    }
}

/// Splits off the last element: `a/b/c` becomes (`a/b`, `c`), `c` becomes (``, `c`).
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Returns the last element.
pub fn base(path: &[u8]) -> &[u8] {
    split(path).1
}

/// Returns the text for messages; what is not UTF-8 is replaced, and the root is `/`.
pub fn show(path: &[u8]) -> String {
    if path.is_empty() {
        "/".into()
    } else {
        String::from_utf8_lossy(path).into_owned()
    }
}

/// Returns the text for messages of a path in the image, with the slash in front.
pub fn show_absolute(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_never_climbs_above_the_root() {
        for (path, want) in [
            ("", ""),
            ("/", ""),
            (".", ""),
            ("./a//b/", "a/b"),
            ("/a/../..", ""),
            ("../../etc/passwd", "etc/passwd"),
            ("a/./b/../c", "a/c"),
            ("a/..b/...", "a/..b/..."),
        ] {
            assert_eq!(clean(path.as_bytes()), want.as_bytes(), "{path}");
        }
    }

    #[test]
    fn join_and_split_are_inverse() {
        for (dir, name, joined) in [("", "c", "c"), ("a/b", "c", "a/b/c")] {
            assert_eq!(join(dir.as_bytes(), name.as_bytes()), joined.as_bytes());
            assert_eq!(split(joined.as_bytes()), (dir.as_bytes(), name.as_bytes()));
        }
        assert_eq!(join(b"a", b""), b"a");
        assert_eq!(base(b"a/b"), b"b");
    }
}
