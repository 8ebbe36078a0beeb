//! The table of flags.  A new flag is a row here; what it does is said where the lowering asks for it by name.

use super::keyword::Keyword;
use super::parse::Fault;
use crate::diagnostic::{nearest, rules};
use crate::lexer::split::Word;

/// What values a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// None, or `true` or `false`.
    Bool,
    /// One.
    Text,
    /// One, and the flag may be repeated.
    List,
}

/// One flag.
#[derive(Debug, PartialEq, Eq)]
pub struct FlagRow {
    /// Name without the dashes.
    pub name: &'static str,
    /// What values it takes.
    pub takes: Takes,
    /// The instructions that have it.
    pub on: &'static [Keyword],
    /// What it does, in a sentence.
    pub docs: &'static str,
}

use Keyword::{Add, Copy, From, Healthcheck, Run};

const fn row(
    name: &'static str,
    takes: Takes,
    on: &'static [Keyword],
    docs: &'static str,
) -> FlagRow {
    FlagRow {
        name,
        takes,
        on,
        docs,
    }
}

/// All flags.
pub static FLAGS: &[FlagRow] = &[
    row(
        "platform",
        Takes::Text,
        &[From],
        "Platform of the base image.",
    ),
    row(
        "mount",
        Takes::List,
        &[Run],
        "Something that the command sees and that is in no layer.",
    ),
    row(
        "network",
        Takes::Text,
        &[Run],
        "What of the network the command may reach: default, none or host.",
    ),
    row(
        "security",
        Takes::Text,
        &[Run],
        "How far the command is confined: sandbox.",
    ),
    row("device", Takes::List, &[Run], "A device for the command."),
    row(
        "from",
        Takes::Text,
        &[Copy],
        "Stage, image or named context that is copied from.",
    ),
    row(
        "chown",
        Takes::Text,
        &[Add, Copy],
        "Owner of everything copied.",
    ),
    row(
        "chmod",
        Takes::Text,
        &[Add, Copy],
        "Permissions of everything copied: octal, or as chmod(1) takes them.",
    ),
    row(
        "link",
        Takes::Bool,
        &[Add, Copy],
        "Puts the files into a layer that does not depend on what is below.",
    ),
    row(
        "parents",
        Takes::Bool,
        &[Copy],
        "Keeps the directories of the sources.",
    ),
    row(
        "exclude",
        Takes::List,
        &[Add, Copy],
        "Patterns of files that are left out.",
    ),
    row(
        "keep-git-dir",
        Takes::Bool,
        &[Add],
        "Keeps `.git` of a repository.",
    ),
    row(
        "checksum",
        Takes::Text,
        &[Add],
        "Digest that a download has to have.",
    ),
    row(
        "unpack",
        Takes::Bool,
        &[Add],
        "Whether archives are unpacked.",
    ),
    row(
        "interval",
        Takes::Text,
        &[Healthcheck],
        "Time between two checks.",
    ),
    row(
        "timeout",
        Takes::Text,
        &[Healthcheck],
        "Time a check may take.",
    ),
    row(
        "start-period",
        Takes::Text,
        &[Healthcheck],
        "Time in which failures do not count.",
    ),
    row(
        "start-interval",
        Takes::Text,
        &[Healthcheck],
        "Time between two checks in the start period.",
    ),
    row(
        "retries",
        Takes::Text,
        &[Healthcheck],
        "Failures in a row that make a container unhealthy.",
    ),
];

/// A flag as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Which.
    pub row: &'static FlagRow,
    /// Its value; `true` or `false` for [`Takes::Bool`].
    pub value: Word,
}

/// Understands the flags of an instruction; faults are collected, so that all are seen at once.
pub fn parse(keyword: Keyword, words: &[Word], faults: &mut Vec<Fault>) -> Vec<Flag> {
    let mut flags: Vec<Flag> = Vec::new();
    for word in words {
        match parse_one(keyword, word) {
            Ok(flag) => match flags
                .iter()
                .find(|f| f.row == flag.row && f.row.takes != Takes::List)
            {
                Some(first) => {
                    let message = format!("the flag `--{}` is given twice", flag.row.name);
                    let hint = format!(
                        "the first one says `{}`: remove one of the two",
                        first.value.text
                    );
                    faults.push(Fault::new(&rules::INVALID_FLAG, word.at, message).hint(hint));
                }
                None => flags.push(flag),
            },
            Err(fault) => faults.push(fault),
        }
    }
    flags
}

fn parse_one(keyword: Keyword, word: &Word) -> Result<Flag, Fault> {
    let text = word.text.strip_prefix("--").unwrap_or(&word.text);
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let row = find(keyword, name).ok_or_else(|| unknown(keyword, name, word))?;
    let bad = |message: String| Fault::new(&rules::INVALID_FLAG, word.at, message);
    let value = match (row.takes, value) {
        (Takes::Bool, None) => "true".to_owned(),
        (_, None) => {
            return Err(bad(format!("the flag `--{name}` lacks its value"))
                .hint(format!("write `--{name}=…`")));
        }
        (Takes::Bool, Some(value)) => match value.to_ascii_lowercase() {
            lower if lower == "true" || lower == "false" => lower,
            _ => {
                return Err(bad(format!(
                    "`--{name}` is `true` or `false`, not `{value}`"
                )));
            }
        },
        (_, Some(value)) => value.to_owned(),
    };
    Ok(Flag {
        row,
        value: Word {
            text: value,
            at: word.at,
        },
    })
}

fn find(keyword: Keyword, name: &str) -> Option<&'static FlagRow> {
    FLAGS
        .iter()
        .find(|r| r.name == name && r.on.contains(&keyword))
}

fn unknown(keyword: Keyword, name: &str, word: &Word) -> Fault {
    let own: Vec<&str> = FLAGS
        .iter()
        .filter(|r| r.on.contains(&keyword))
        .map(|r| r.name)
        .collect();
    let elsewhere = FLAGS.iter().find(|r| r.name == name).map(|r| r.on);
    let hint = match (nearest(name, own.iter().copied()), elsewhere) {
        (Some(near), _) => format!("did you mean `--{near}`?"),
        (_, Some(on)) => format!(
            "`--{name}` is a flag of {}",
            on.iter()
                .map(|k| k.text())
                .collect::<Vec<_>>()
                .join(" and ")
        ),
        _ if own.is_empty() => format!(
            "{} has no flags; a leading `--` ends them: `{} -- {}`",
            keyword.text(),
            keyword.text(),
            word.text
        ),
        _ => format!(
            "{} has: {}",
            keyword.text(),
            own.iter()
                .map(|f| format!("`--{f}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    Fault::new(
        &rules::UNKNOWN_FLAG,
        word.at,
        format!("{} has no flag `--{name}`", keyword.text()),
    )
    .hint(hint)
}
