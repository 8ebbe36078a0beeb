//! The normal form of a step: a line per attribute, which people read when a step was not reused.

use stepwell_guest::cache_policy::{Operation, Step};

/// Attributes that do not matter for the result.  Of variables like `HTTP_PROXY` a step's result is meant not to
/// depend; an image is what its digest says, under whatever name; how large a temporary directory, or what of memory is shared,
/// may become decides whether a step succeeds, not what it results in.
const NOT_COUNTED: [(Operation, &str); 4] = [
    (Operation::Run, "uncounted-env"),
    (Operation::Image, "reference"),
    (Operation::Run, "mount-size"),
    (Operation::Run, "shm-size"),
];

/// Writes `operation`, then `name: value` for each attribute that counts, one a line.
pub fn of(step: &Step) -> Vec<u8> {
    let mut text = String::from(name_of(step.operation));
    for attribute in &step.attributes {
        if counts(step.operation, &attribute.name) {
            text.push('\n');
            escape(&attribute.name, &mut text);
            text.push_str(": ");
            escape(&attribute.value, &mut text);
        }
    }
    text.into_bytes()
}

fn counts(operation: Operation, name: &str) -> bool {
    !NOT_COUNTED.contains(&(operation, name))
}

fn name_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Image => "image",
        Operation::Context => "context",
        Operation::Run => "run",
        Operation::Files => "files",
        Operation::Merge => "merge",
        Operation::Other => "other",
    }
}

/// Keeps a value on its line, so that two different steps never have the same text.
fn escape(value: &str, text: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use stepwell_guest::cache_policy::Attribute;

    use super::*;

    fn text(operation: Operation, attributes: &[(&str, &str)]) -> String {
        let attributes = attributes
            .iter()
            .map(|(name, value)| Attribute {
                name: (*name).into(),
                value: (*value).into(),
            })
            .collect();
        let step = Step {
            operation,
            attributes,
            platform: String::new(),
            inputs: vec![],
        };
        String::from_utf8(of(&step)).unwrap()
    }

    #[test]
    fn proxies_and_the_names_of_images_do_not_count() {
        let run = text(
            Operation::Run,
            &[
                ("arg", "make"),
                ("uncounted-env", "HTTP_PROXY=http://a"),
                ("env", "A=1"),
            ],
        );
        assert_eq!(run, "run\narg: make\nenv: A=1");
        let image = text(
            Operation::Image,
            &[("reference", "debian"), ("digest", "sha256:0")],
        );
        assert_eq!(image, "image\ndigest: sha256:0");
    }

    #[test]
    fn an_attribute_from_the_future_counts() {
        assert_ne!(
            text(Operation::Run, &[("arg", "x"), ("new", "y")]),
            text(Operation::Run, &[("arg", "x")])
        );
    }

    #[test]
    fn line_breaks_cannot_forge_an_attribute() {
        assert_ne!(
            text(Operation::Run, &[("arg", "a\narg: b")]),
            text(Operation::Run, &[("arg", "a"), ("arg", "b")])
        );
        assert_ne!(
            text(Operation::Run, &[("arg", "a\\n")]),
            text(Operation::Run, &[("arg", "a\n")])
        );
    }
}
