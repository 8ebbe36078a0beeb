//! `--chmod`: octal, or symbolic as chmod(1) writes it.
//!
//! Symbolic modes follow BSD's setmode(3), as docker's parser does, with an umask of 0: `+w` is `a+w`.

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// As in the source.
    Keep,
    /// These bits.
    Set(u32),
    /// Changes to the bits of the source, in order.
    Change(Vec<Clause>),
}

/// One change: `u+rwX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clause {
    who: u32,
    action: Action,
    bits: Bits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Add,
    Remove,
    Assign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bits {
    /// Permission bits for everybody (`rwxst`), and whether `X` was among them.
    Named { bits: u32, execute_if_any: bool },
    /// The bits that this class has: shift of `u`, `g` or `o`.
    Of(u32),
}

/// The text is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a mode: expected octal digits up to 7777, or changes such as `u=rwX,go=rX`")]
pub struct ModeError(String);

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;

impl Chmod {
    /// Parses the text; an empty one keeps the mode.
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        let bad = || ModeError(text.to_owned());
        if text.is_empty() {
            return Ok(Self::Keep);
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Set).ok_or_else(bad);
        }
        let clauses = text
            .split(',')
            .map(parse_clauses)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(bad)?;
        Ok(Self::Change(clauses.concat()))
    }

    /// Applies it to the bits of a file or directory.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Keep => mode,
            Self::Set(mode) => *mode,
            Self::Change(clauses) => clauses
                .iter()
                .fold(mode, |mode, clause| clause.apply(mode, directory)),
        }
    }
}

impl Clause {
    fn apply(self, mode: u32, directory: bool) -> u32 {
        let bits = match self.bits {
            Bits::Named {
                bits,
                execute_if_any,
            } => {
                let execute = execute_if_any && (directory || mode & 0o111 != 0);
                bits | if execute { 0o111 } else { 0 }
            }
            Bits::Of(shift) => ((mode >> shift) & 7) * 0o111,
        } & self.who;
        match self.action {
            Action::Add => mode | bits,
            Action::Remove => mode & !bits,
            Action::Assign => (mode & !self.who) | bits,
        }
    }
}

/// Parses `ugo+rw-x`: one class list, then one or more actions.
fn parse_clauses(text: &str) -> Option<Vec<Clause>> {
    let actions = text.find(['+', '-', '='])?;
    let (who_text, mut rest) = text.split_at(actions);
    let mut who = if who_text.is_empty() {
        USER | GROUP | OTHERS
    } else {
        0
    };
    for class in who_text.chars() {
        who |= match class {
            'u' => USER,
            'g' => GROUP,
            'o' => OTHERS,
            'a' => USER | GROUP | OTHERS,
            _ => return None,
        };
    }
    let mut clauses = Vec::new();
    while let Some(action) = rest.chars().next() {
        let end = rest[1..]
            .find(['+', '-', '='])
            .map_or(rest.len(), |at| at + 1);
        let action = match action {
            '+' => Action::Add,
            '-' => Action::Remove,
            _ => Action::Assign,
        };
        clauses.push(Clause {
            who,
            action,
            bits: parse_bits(&rest[1..end])?,
        });
        rest = &rest[end..];
    }
    Some(clauses)
}

fn parse_bits(text: &str) -> Option<Bits> {
    let copied = match text {
        "u" => Some(6),
        "g" => Some(3),
        "o" => Some(0),
        _ => None,
    };
    if let Some(shift) = copied {
        return Some(Bits::Of(shift));
    }
    let (mut bits, mut execute_if_any) = (0, false);
    for letter in text.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            'X' => execute_if_any = true,
            _ => return None,
        }
    }
    Some(Bits::Named {
        bits,
        execute_if_any,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// chmod(1) of FreeBSD, and the examples of the Dockerfile reference (COPY --chmod).
    #[test]
    fn modes_are_applied_as_chmod_does() {
        let table = [
            ("", 0o4751, false, 0o4751),
            ("755", 0o644, false, 0o755),
            ("0755", 0o644, true, 0o755),
            ("4755", 0o644, false, 0o4755),
            ("0", 0o644, false, 0),
            ("+x", 0o644, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("g=u", 0o640, false, 0o660),
            ("go-rwx", 0o777, false, 0o700),
            ("a-w", 0o666, false, 0o444),
            ("ug+s", 0o755, false, 0o6755),
            ("o+s", 0o755, false, 0o755),
            ("+t", 0o777, true, 0o1777),
            ("u+x-w", 0o644, false, 0o544),
            ("u=", 0o4755, false, 0o055),
            ("o=g", 0o750, false, 0o755),
            ("=r", 0o777, false, 0o444),
        ];
        for (text, mode, directory, want) in table {
            let got = Chmod::parse(text).unwrap().apply(mode, directory);
            assert_eq!(got, want, "{text} on {mode:o}: {got:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in [
            "8",
            "10000",
            "x",
            "u",
            "z+x",
            "u+q",
            "u+x,",
            ",",
            "u+rwx go",
            "0x1",
            "-1",
            "99999999999999999999",
        ] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
