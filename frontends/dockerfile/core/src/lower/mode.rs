//! The permissions that `--chmod` gives: octal, or symbolic as chmod(1) writes them.
//!
//! Copied files get theirs from the host; only here-documents, which are made here, need the number.

/// Says whether a text is a mode: octal up to 07777, or symbolic.
pub(super) fn is_mode(text: &str) -> bool {
    if !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
        return u32::from_str_radix(text, 8).is_ok_and(|m| m <= 0o7777);
    }
    text.split(',').all(|clause| {
        let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let mut parts = rest.split_inclusive(['+', '-', '=']);
        // Each operator is followed by permissions, or by one class to copy from.
        let permissions =
            |p: &str| p.chars().all(|c| "rwxXst".contains(c)) || matches!(p, "u" | "g" | "o");
        let first_is_operator = parts
            .next()
            .is_some_and(|p| p.len() == 1 && "+-=".contains(p));
        let tail = rest.get(1..).unwrap_or("");
        first_is_operator && tail.split(['+', '-', '=']).all(permissions)
    })
}

/// Returns the permissions of a here-document: 0644, changed by `--chmod`.
pub(super) fn document_mode(text: &str) -> u32 {
    if let Ok(mode) = u32::from_str_radix(text, 8) {
        return mode & 0o7777;
    }
    text.split(',').fold(0o644, symbolic)
}

/// Applies one clause of a symbolic mode to a plain file.
fn symbolic(mut mode: u32, clause: &str) -> u32 {
    let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    let who = match &clause[..clause.len() - rest.len()] {
        "" => "ugo".to_owned(),
        who => who.replace('a', "ugo"),
    };
    let mask: u32 = [('u', 0o700), ('g', 0o070), ('o', 0o007)]
        .iter()
        .filter(|(c, _)| who.contains(*c))
        .map(|(_, m)| m)
        .sum();
    let mut operator = '=';
    for part in rest
        .split_inclusive(['+', '-', '='])
        .flat_map(split_operator)
    {
        match part {
            "+" | "-" | "=" => {
                operator = part.chars().next().unwrap_or('=');
                mode = if operator == '=' {
                    mode & !special(mask)
                } else {
                    mode
                };
            }
            permissions => {
                let bits = bits(permissions, mode, &who) & (mask | 0o7000);
                mode = if operator == '-' {
                    mode & !bits
                } else {
                    mode | bits
                };
            }
        }
    }
    mode
}

/// Returns what `=` clears besides the permissions of a class: set-id bits of user and group, sticky of all.
fn special(mask: u32) -> u32 {
    mask | if mask & 0o700 != 0 { 0o4000 } else { 0 }
        | if mask & 0o070 != 0 { 0o2000 } else { 0 }
        | if mask & 0o007 != 0 { 0o1000 } else { 0 }
}

/// Parts permissions from the operator behind them.
fn split_operator(part: &str) -> impl Iterator<Item = &str> {
    let (permissions, operator) =
        part.split_at(part.len() - usize::from(part.ends_with(['+', '-', '='])));
    [permissions, operator]
        .into_iter()
        .filter(|p| !p.is_empty())
}

fn bits(permissions: &str, mode: u32, who: &str) -> u32 {
    let copied = |shift: u32| ((mode >> shift) & 7) * 0o111;
    permissions
        .chars()
        .map(|c| match c {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            'X' if mode & 0o111 != 0 => 0o111,
            's' => u32::from(who.contains('u')) * 0o4000 + u32::from(who.contains('g')) * 0o2000,
            't' if who.contains('o') => 0o1000,
            'u' => copied(6),
            'g' => copied(3),
            'o' => copied(0),
            _ => 0,
        })
        .fold(0, |all, bit| all | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, want) in [
            ("0755", 0o755),
            ("4711", 0o4711),
            ("0000755", 0o755),
            ("u+x", 0o744),
            ("a+x", 0o755),
            ("+x", 0o755),
            ("go-r", 0o600),
            ("u=rwx,go=rx", 0o755),
            ("u=rwx,go=u", 0o777),
            ("a=", 0),
            ("u+s", 0o4644),
            ("+X", 0o644),
            ("u+x,+X", 0o755),
            ("u=rw+x", 0o744),
            ("o+t", 0o1644),
        ] {
            assert!(is_mode(text), "{text}");
            assert_eq!(document_mode(text), want, "{text}");
        }
        for bad in [
            "8", "77777", "07778", "u", "u+q", "z+x", "0x1f", "u+x,", "10000", ",u+x",
        ] {
            assert!(!is_mode(bad), "{bad}");
        }
    }
}
