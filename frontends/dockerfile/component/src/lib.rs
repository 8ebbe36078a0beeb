//! The Dockerfile frontend as a component: [`dockerfile_core`] on the imports of `stepwell:frontend`.
//!
//! Nothing is decided here; data is handed from one side to the other.  What a Dockerfile means is in the core.

mod convert;
mod host;

use dockerfile_core::diagnostic::Diagnostic;
use dockerfile_core::inspect;
use dockerfile_core::lower::host::{Call, Request};
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
        match sdk::call().as_str() {
            "build" => image(&convert::request(options, Call::Build)),
            "check" => image(&convert::request(options, Call::Check)),
            "targets" => targets(&convert::request(options, Call::Build)),
            "outline" => outline(&convert::request(options, Call::Build)),
            other => Err(Failure::Broken(format!("it cannot answer `{other}`"))),
        }
    }
}

/// Answers `build` and `check`.
fn image(request: &Request) -> Result<Image, Failure> {
    let mut host = host::Imports::default();
    let outcome = dockerfile_core::build(request, &mut host).map_err(refused)?;
    report(outcome.diagnostics);
    Ok(Image {
        root: outcome.root.and_then(|id| host.take(id)),
        config: convert::config_to_sdk(outcome.config),
        history: outcome.history.into_iter().map(convert::history).collect(),
        source_date_epoch: outcome.source_date_epoch,
    })
}

/// Answers `targets`.
fn targets(request: &Request) -> Result<Image, Failure> {
    let targets = inspect::targets(request).map_err(refused)?;
    targets.iter().for_each(tell);
    Ok(nothing())
}

/// Answers `outline`: the target, and what can be given to its build.
fn outline(request: &Request) -> Result<Image, Failure> {
    let outline = inspect::outline(request).map_err(refused)?;
    tell(&outline.target);
    for argument in outline.arguments {
        let span = convert::span(argument.span);
        sdk::report_argument(
            &argument.name,
            argument.value.as_deref(),
            &argument.description,
            span,
        );
    }
    for (kind, list) in [
        (sdk::Supply::Secret, outline.secrets),
        (sdk::Supply::SshAgent, outline.agents),
    ] {
        for supply in list {
            let span = convert::span(supply.span);
            sdk::report_supply(kind, &supply.id, supply.required, span);
        }
    }
    Ok(nothing())
}

fn tell(target: &inspect::Target) {
    sdk::report_target(
        &target.name,
        &target.base,
        &target.platform,
        &target.description,
        target.is_default,
        convert::span(target.span),
    );
}

fn refused(diagnostics: Vec<Diagnostic>) -> Failure {
    report(diagnostics);
    Failure::Refused
}

fn nothing() -> Image {
    Image::default()
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
