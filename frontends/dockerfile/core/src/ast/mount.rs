//! `RUN --mount`: the table of its keys, and a flag's text taken apart into them.
//!
//! Says what is written and where; what it means is said in the lowering.  A new key is a row here.

use super::parse::Fault;
use crate::diagnostic::{nearest, rules};
use crate::lexer::At;
use crate::lexer::split::Word;

/// What kind of thing is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Files of a context, a stage or an image.
    Bind,
    /// A directory that is kept from step to step.
    Cache,
    /// An empty directory.
    Tmpfs,
    /// A file or variable with something confidential.
    Secret,
    /// The socket of an SSH agent.
    Ssh,
}

use Kind::{Bind, Cache, Secret, Ssh, Tmpfs};

/// All kinds with their names.
pub const KINDS: [(&str, Kind); 5] = [
    ("bind", Bind),
    ("cache", Cache),
    ("tmpfs", Tmpfs),
    ("secret", Secret),
    ("ssh", Ssh),
];

/// What a key's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Anything.
    Text,
    /// Nothing, or a truth value.
    Bool,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// The kinds that may have it.  Where docker ignores a key, all may.
    pub on: &'static [Kind],
    /// What its value looks like.
    pub takes: Takes,
}

const ALL: &[Kind] = &[Bind, Cache, Tmpfs, Secret, Ssh];

const fn key(name: &'static str, aliases: &'static [&'static str], on: &'static [Kind]) -> Key {
    let takes = Takes::Text;
    Key {
        name,
        aliases,
        on,
        takes,
    }
}

const fn flag(name: &'static str, aliases: &'static [&'static str], on: &'static [Kind]) -> Key {
    let takes = Takes::Bool;
    Key {
        name,
        aliases,
        on,
        takes,
    }
}

/// All keys.
pub static KEYS: &[Key] = &[
    key("type", &[], ALL),
    key("target", &["dst", "destination"], ALL),
    key("source", &["src"], &[Bind, Cache, Tmpfs, Secret]),
    key("from", &[], &[Bind, Cache, Tmpfs]),
    flag("readonly", &["ro"], ALL),
    flag("readwrite", &["rw"], ALL),
    key("id", &[], ALL),
    key("sharing", &[], &[Cache]),
    key("size", &[], &[Tmpfs]),
    key("mode", &[], &[Cache, Secret, Ssh]),
    key("uid", &[], &[Cache, Secret, Ssh]),
    key("gid", &[], &[Cache, Secret, Ssh]),
    flag("required", &[], &[Secret, Ssh]),
    key("env", &[], ALL),
];

/// One `key=value` of a flag.
#[derive(Debug, Clone)]
pub struct Field {
    /// The key.
    pub key: &'static Key,
    /// The value as written; none where there is no `=`.
    pub value: Option<Word>,
    /// Where all of it stands.
    pub at: At,
}

impl Kind {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

/// Takes the value of a `--mount` apart.
pub fn fields(flag: &Word) -> Result<Vec<Field>, Fault> {
    if flag.text.is_empty() {
        let fault = Fault::new(
            &rules::INVALID_FLAG,
            flag.at,
            "`--mount` says nothing".into(),
        );
        return Err(
            fault.hint("say what is mounted, for example `--mount=type=cache,target=/directory`")
        );
    }
    let pieces = pieces(&flag.text).map_err(|()| {
        Fault::new(
            &rules::INVALID_FLAG,
            flag.at,
            format!("`{}` has a quote that is not closed", flag.text),
        )
    })?;
    let place = Place::of(flag);
    pieces
        .into_iter()
        .map(|piece| field(&place, &piece))
        .collect()
}

/// Returns what a `--mount` says behind `from=`, where it says something.
pub fn source_of(flag: &Word) -> Option<Word> {
    let fields = fields(flag).ok()?;
    let from = fields.into_iter().rfind(|f| f.key.name == "from")?;
    from.value
}

/// A piece between two commas.
struct Piece {
    text: String,
    start: usize,
    end: usize,
}

/// Splits at commas as CSV has it: a field in double quotes may hold commas, and a doubled quote is one.
fn pieces(text: &str) -> Result<Vec<Piece>, ()> {
    let mut pieces = Vec::new();
    let (mut piece, mut start, mut quoted) = (String::new(), 0, false);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if quoted && chars.next_if(|(_, next)| *next == '"').is_some() => piece.push('"'),
            '"' if quoted || at == start => quoted = !quoted,
            ',' if !quoted => {
                pieces.push(Piece {
                    text: std::mem::take(&mut piece),
                    start,
                    end: at,
                });
                start = at + 1;
            }
            c => piece.push(c),
        }
    }
    if quoted {
        return Err(());
    }
    pieces.push(Piece {
        text: piece,
        start,
        end: text.len(),
    });
    Ok(pieces)
}

/// Translates offsets of a flag's value into places of the line.
struct Place {
    flag: At,
    /// Where the value begins, unless quotes or escapes were taken out of the flag.
    value: Option<usize>,
}

impl Place {
    fn of(flag: &Word) -> Self {
        let prefix = "--mount=".len();
        let exact = flag.at.end - flag.at.start == prefix + flag.text.len();
        Self {
            flag: flag.at,
            value: exact.then_some(flag.at.start + prefix),
        }
    }

    fn at(&self, start: usize, end: usize) -> At {
        match self.value {
            Some(begin) if end > start => At::new(begin + start, begin + end),
            _ => self.flag,
        }
    }
}

fn field(place: &Place, piece: &Piece) -> Result<Field, Fault> {
    let at = place.at(piece.start, piece.end);
    let (name, value) = match piece.text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (piece.text.as_str(), None),
    };
    let lower = name.to_ascii_lowercase();
    let key = KEYS
        .iter()
        .find(|k| k.name == lower || k.aliases.contains(&lower.as_str()))
        .ok_or_else(|| unknown(&piece.text, name, at))?;
    if value.is_none() && key.takes == Takes::Text {
        let message = format!("the key `{name}` of `--mount` lacks its value");
        return Err(Fault::new(&rules::INVALID_FLAG, at, message).hint(format!("write `{name}=…`")));
    }
    let start = piece.end - value.map_or(0, str::len);
    let value = value.map(|text| Word {
        text: text.to_owned(),
        at: if text.is_empty() {
            at
        } else {
            place.at(start, piece.end)
        },
    });
    Ok(Field { key, value, at })
}

fn unknown(text: &str, name: &str, at: At) -> Fault {
    let names = || {
        KEYS.iter()
            .flat_map(|k| std::iter::once(&k.name).chain(k.aliases))
            .copied()
    };
    let hint = if text.is_empty() {
        "remove the comma: keys are parted by one, without spaces".to_owned()
    } else {
        match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "the keys are {}",
                KEYS.iter()
                    .map(|k| format!("`{}`", k.name))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    };
    Fault::new(
        &rules::INVALID_FLAG,
        at,
        format!("`--mount` has no key `{name}`"),
    )
    .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_parted_as_csv_has_it() {
        let texts = |text: &str| -> Vec<String> {
            pieces(text)
                .expect("closed quotes")
                .into_iter()
                .map(|p| p.text)
                .collect()
        };
        assert_eq!(texts("a=1,b"), ["a=1", "b"]);
        assert_eq!(
            texts(r#""a=1,2",b="x""#),
            ["a=1,2", r#"b="x""#],
            "a quote within a field stands for itself"
        );
        assert_eq!(texts(r#""a=""1""""#), [r#"a="1""#]);
        assert!(pieces(r#""a"#).is_err());
    }

    #[test]
    fn no_name_has_two_meanings() {
        let mut names: Vec<_> = KEYS
            .iter()
            .flat_map(|k| std::iter::once(&k.name).chain(k.aliases))
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
