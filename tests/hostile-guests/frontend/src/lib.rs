//! A frontend that misbehaves, in the way that its definition names.  `describe` lists all the ways, as names of
//! definitions; the test that runs it (`host/wasm/tests/hostile.rs`) fails when one has no expectation.

mod ways;

use stepwell_guest::frontend::{
    About, Diagnostic, Failure, Frontend, Image, Options, Severity, Span, report,
};

struct Hostile;

stepwell_guest::export_frontend!(Hostile);

impl Frontend for Hostile {
    fn about() -> About {
        About {
            name: "hostile",
            version: "0",
            definition_names: &ways::NAMES,
        }
    }

    fn build(options: Options) -> Result<Image, Failure> {
        let name = String::from_utf8_lossy(&options.definition.content).into_owned();
        match ways::ALL.iter().find(|(known, _)| *known == name) {
            Some((_, way)) => way(&options),
            None => Err(Failure::Broken(format!("no way is called `{name}`"))),
        }
    }
}

/// Says something to the user.
fn say(severity: Severity, code: &str, message: &str) {
    report(&Diagnostic {
        severity,
        code: code.into(),
        message: message.into(),
        file: String::new(),
        span: Span {
            line: 0,
            column: 0,
            end_line: 0,
            end_column: 0,
        },
        source: String::new(),
        hint: String::new(),
    });
}

/// An image without files.
fn nothing() -> Image {
    Image {
        root: None,
        config: Default::default(),
        history: Vec::new(),
        source_date_epoch: None,
    }
}
