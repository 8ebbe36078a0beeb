//! Names that look like a mistyped one, for hints.

/// How many names are offered.
const OFFERED: usize = 3;

/// Longest name that is compared, in bytes: the comparison takes the product of the lengths.
const LONGEST: usize = 64;

/// Returns the names that are nearest to `wanted`, the nearest first; nothing that is too different.
pub fn nearest<'a>(wanted: &[u8], names: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let most = 1 + wanted.len() / 4;
    let mut near: Vec<_> = names
        .filter(|name| name.len() <= LONGEST && wanted.len() <= LONGEST)
        .map(|name| (distance(wanted, name), name))
        .filter(|(distance, _)| *distance <= most)
        .collect();
    near.sort_unstable();
    near.into_iter()
        .take(OFFERED)
        .map(|(_, name)| name)
        .collect()
}

/// Levenshtein's distance without regard to upper and lower case.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(!x.eq_ignore_ascii_case(y));
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_comes_first_and_the_far_are_left_out() {
        let names: [&[u8]; 4] = [
            b"package.json",
            b"package-lock.json",
            b"Package.jsn",
            b"src",
        ];
        assert_eq!(
            nearest(b"pakage.json", names.into_iter()),
            [b"package.json".as_slice(), b"Package.jsn"]
        );
        assert!(nearest(b"zzz", names.into_iter()).is_empty());
    }

    #[test]
    fn distances() {
        for (a, b, want) in [("", "abc", 3), ("kitten", "sitting", 3), ("Abc", "aBC", 0)] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), want);
        }
    }
}
