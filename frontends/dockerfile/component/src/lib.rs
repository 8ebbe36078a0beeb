//! The Dockerfile frontend as a component: [`dockerfile_core`] on the imports of `stepwell:frontend`.
//!
//! Nothing is decided here; data is handed from one side to the other.  What a Dockerfile means is in the core.

mod convert;
mod host;

use dockerfile_core::diagnostic::Diagnostic;
use stepwell_guest::frontend::{self as sdk, About, Failure, Frontend, Image, Options};

struct Dockerfile;

impl Frontend for Dockerfile {
    fn about() -> About {
        About {
            name: "dockerfile",
            version: env!("CARGO_PKG_VERSION"),
            definition_names: &["Dockerfile", "dockerfile"],
        }
    }

    fn build(options: Options) -> Result<Image, Failure> {
        let request = convert::request(options);
        let mut host = host::Imports::default();
        match dockerfile_core::build(&request, &mut host) {
            Ok(outcome) => {
                report(outcome.diagnostics);
                Ok(Image {
                    root: outcome.root.and_then(|id| host.take(id)),
                    config: convert::config_to_sdk(outcome.config),
                    history: outcome.history.into_iter().map(convert::history).collect(),
                })
            }
            Err(diagnostics) => {
                report(diagnostics);
                Err(Failure::Refused)
            }
        }
    }
}

fn report(diagnostics: Vec<Diagnostic>) {
    for diagnostic in diagnostics {
        sdk::report(&convert::diagnostic(diagnostic));
    }
}

#[allow(unsafe_code, reason = "the exports that the macro generates")]
mod export {
    use super::Dockerfile;

    stepwell_guest::export_frontend!(Dockerfile);
}
