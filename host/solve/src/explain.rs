//! Says why a step was not reused, by comparing what its key is made of now with what the key of the latest result
//! in the same place of the definition was made of.

use crate::keys::{OPERATION, Preimage};

/// One difference between two preimages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The operation itself was written differently.
    Operation {
        /// Its normal form then.
        before: String,
        /// Its normal form now.
        now: String,
    },
    /// The files that it takes from input `input` are other ones.
    Files {
        /// Index of the input.
        input: u32,
        /// Digest of the files then.
        before: String,
        /// Digest of the files now.
        now: String,
    },
    /// A step that it builds on was not reused either.
    Input {
        /// Index of the input.
        input: u32,
    },
    /// Something that holds for the whole build: namespace, policy, platform, settings.
    Setting {
        /// What.
        name: String,
        /// Its value then.
        before: String,
        /// Its value now.
        now: String,
    },
}

/// Lists what changed from `before` to `now`, the causes before the consequences.
pub fn explain(before: &Preimage, now: &Preimage) -> Vec<Change> {
    let mut causes = Vec::new();
    let mut consequences = Vec::new();
    let labels = now.0.iter().map(|p| &p.label).chain(
        before
            .0
            .iter()
            .map(|p| &p.label)
            .filter(|l| now.get(l).is_none()),
    );
    for label in labels {
        let (was, is) = (
            before.get(label).unwrap_or_default(),
            now.get(label).unwrap_or_default(),
        );
        if was == is {
            continue;
        }
        let (was, is) = (was.to_owned(), is.to_owned());
        if label == OPERATION {
            causes.push(Change::Operation {
                before: was,
                now: is,
            });
        } else if let Some(input) = index_after(label, "files of input ") {
            causes.push(Change::Files {
                input,
                before: was,
                now: is,
            });
        } else if let Some(input) =
            index_after(label, "input ").or_else(|| index_after(label, "layers of input "))
        {
            consequences.push(Change::Input { input });
        } else {
            causes.push(Change::Setting {
                name: label.clone(),
                before: was,
                now: is,
            });
        }
    }
    causes.extend(consequences);
    causes
}

fn index_after(label: &str, prefix: &str) -> Option<u32> {
    label.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Part;

    fn preimage(parts: &[(&str, &str)]) -> Preimage {
        Preimage(
            parts
                .iter()
                .map(|(l, v)| Part {
                    label: (*l).into(),
                    value: (*v).into(),
                })
                .collect(),
        )
    }

    #[test]
    fn equal_preimages_have_no_change() {
        let p = preimage(&[("operation", "x"), ("input 0", "k")]);
        assert!(explain(&p, &p).is_empty());
    }

    #[test]
    fn causes_come_before_consequences() {
        let before = preimage(&[
            ("platform", "a"),
            ("input 0", "k"),
            ("operation", "x"),
            ("files of input 1", "d"),
        ]);
        let now = preimage(&[
            ("platform", "b"),
            ("input 0", "l"),
            ("operation", "y"),
            ("files of input 1", "e"),
        ]);
        let kinds: Vec<_> = explain(&before, &now)
            .iter()
            .map(|c| match c {
                Change::Setting { .. } => "setting",
                Change::Operation { .. } => "operation",
                Change::Files { input: 1, .. } => "files",
                Change::Input { input: 0 } => "input",
                _ => "?",
            })
            .collect();
        assert_eq!(kinds, ["setting", "operation", "files", "input"]);
    }

    #[test]
    fn an_input_that_is_gone_is_a_change() {
        assert_eq!(
            explain(&preimage(&[("input 1", "k")]), &preimage(&[])),
            [Change::Input { input: 1 }]
        );
    }
}
