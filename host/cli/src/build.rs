//! `stepwell build` and `stepwell explain`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use stepwell_build::{BuildError, Builder, BuilderOptions, CancelToken, Exported, Outcome};
use stepwell_model::event::EventSink;
use stepwell_model::request::{Call, Request};
use stepwell_sys::namespace::Entered;

use crate::args::{BuildArgs, PrintWhat, ProgressMode};
use crate::progress::{self, Progress};
use crate::{environment, exit, inspect, report, request, signals};

/// `stepwell build`.
pub fn build(args: &BuildArgs) -> ExitCode {
    let request = match request::from_args(args) {
        Ok(request) => request,
        Err(message) => return exit::usage(&message),
    };
    let asked = match args.check {
        true => Some(inspect::Asked::of(Call::Check)),
        false => args.call,
    };
    if let Some(asked) = asked.filter(|a| a.call != Call::Build) {
        return inspect::run(args, &request, asked);
    }
    run(args, |builder, cancel, progress| match args.print {
        Some(PrintWhat::Graph) => print_graph(builder, &request, progress),
        None => {
            let outcome =
                builder.build(&request, &(progress.clone() as Arc<dyn EventSink>), cancel)?;
            progress.finish();
            write_results(args, &outcome)
        }
    })
}

/// `stepwell explain`.
pub fn explain(args: &BuildArgs) -> ExitCode {
    let request = match request::from_args(args) {
        Ok(request) => request,
        Err(message) => return exit::usage(&message),
    };
    run(args, |builder, _, progress| {
        let explanations = builder.explain(&request, &(progress.clone() as Arc<dyn EventSink>))?;
        progress.finish();
        for explanation in explanations {
            if explanation.reasons.is_empty() {
                println!("reused      {}", report::plain(&explanation.step));
            } else {
                println!("carried out {}", report::plain(&explanation.step));
                for reason in explanation.reasons {
                    println!("              {}", report::plain(&reason.to_string()));
                }
            }
        }
        Ok(())
    })
}

/// Prepares the process and a builder, works, and turns the result into an exit code.
pub fn run(
    args: &BuildArgs,
    work: impl FnOnce(&Builder, &CancelToken, &Arc<dyn Progress>) -> Result<(), BuildError>,
) -> ExitCode {
    let entered = environment::enter_user_namespace();
    let cancel = match CancelToken::new() {
        Ok(cancel) => cancel,
        Err(error) => {
            report::error(&error.to_string(), &[], None);
            return ExitCode::from(exit::FAILED);
        }
    };
    signals::cancel_on_signal(&cancel);
    let mode = if args.quiet {
        ProgressMode::Quiet
    } else {
        args.progress
    };
    let progress = progress::start(mode);
    let options = BuilderOptions {
        root: environment::store_root(args.store.root.as_ref(), entered == Entered::AlreadyRoot),
        registry: environment::registry(&args.insecure_registries),
        isolation: request::isolation(args.isolation),
    };
    let result = Builder::new(options).and_then(|builder| work(&builder, &cancel, &progress));
    progress.finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let quiet = matches!(mode, ProgressMode::Quiet);
            if let (
                true,
                BuildError::Refused(diagnostics) | BuildError::Unresolved { diagnostics, .. },
            ) = (quiet, &error)
            {
                for line in diagnostics
                    .iter()
                    .flat_map(|d| report::diagnostic(d, false))
                {
                    eprintln!("{line}");
                }
            }
            if matches!(mode, ProgressMode::Rawjson) {
                progress.event(exit::failed_event(&error));
                return ExitCode::from(exit::code(&error));
            }
            exit::failed(&error)
        }
    }
}

fn print_graph(
    builder: &Builder,
    request: &Request,
    progress: &Arc<dyn Progress>,
) -> Result<(), BuildError> {
    let (graph, result) = builder.graph(request, &(progress.clone() as Arc<dyn EventSink>))?;
    let vertices: Vec<_> = graph
        .iter()
        .map(|(id, v)| json!({"id": id.0, "digest": graph.digest(id), "op": v.op, "inputs": v.inputs, "platform": v.platform.to_string(), "origin": v.origin}))
        .collect();
    let text =
        serde_json::to_string_pretty(&json!({"format": 1, "result": result, "vertices": vertices}))
            .unwrap_or_default();
    println!("{text}");
    Ok(())
}

/// `--iidfile`, `--metadata-file`, and the digest for `--quiet`; the keys are buildx's.
fn write_results(args: &BuildArgs, outcome: &Outcome) -> Result<(), BuildError> {
    let image = outcome.exported.iter().find_map(|e| match e {
        Exported::Image {
            manifest,
            media_type,
            size,
            config,
            names,
        } => Some((manifest, media_type, size, config, names)),
        Exported::Files => None,
    });
    let mut metadata = serde_json::Map::new();
    if let Some((manifest, media_type, size, config, names)) = image {
        metadata.insert("containerimage.digest".into(), json!(manifest));
        metadata.insert("containerimage.config.digest".into(), json!(config));
        metadata.insert(
            "containerimage.descriptor".into(),
            json!({"mediaType": media_type, "digest": manifest, "size": size}),
        );
        metadata.insert("image.name".into(), json!(names.join(",")));
        if let Some(file) = &args.iidfile {
            write(file, config.to_string().as_bytes())?;
        }
        if args.quiet || args.progress == ProgressMode::Quiet {
            println!("{manifest}");
        }
    }
    metadata.insert("stepwell.isolation".into(), outcome.isolation());
    if let Some(provenance) = &outcome.provenance {
        metadata.insert("buildx.build.provenance".into(), provenance.clone());
    }
    match &args.metadata_file {
        Some(file) => write(
            file,
            serde_json::to_string_pretty(&metadata)
                .unwrap_or_default()
                .as_bytes(),
        ),
        None => Ok(()),
    }
}

/// Writes a file whole or not at all.
fn write(file: &Path, content: &[u8]) -> Result<(), BuildError> {
    let fail = |source| BuildError::Output {
        dest: file.display().to_string(),
        source,
    };
    let part = file.with_extension(format!("part-{}", std::process::id()));
    std::fs::write(&part, content)
        .and_then(|()| std::fs::rename(&part, file))
        .map_err(|e| {
            let _ = std::fs::remove_file(&part);
            fail(e)
        })
}
