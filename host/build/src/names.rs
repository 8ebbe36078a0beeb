//! What steps are called, for people.

use stepwell_model::op::FileAction;
use stepwell_model::{Op, Vertex, remote};

/// Longest name, in characters.
const LONGEST: usize = 160;

/// Names a vertex: `[build 2/5] RUN make`, from where it was written, else from what it does.
pub fn of(vertex: &Vertex) -> String {
    let name = match &vertex.origin {
        Some(origin) if !origin.text.is_empty() => {
            let text = origin.text.split_whitespace().collect::<Vec<_>>().join(" ");
            if origin.stage.is_empty() {
                text
            } else {
                format!("[{}] {text}", origin.stage)
            }
        }
        _ => bare(&vertex.op),
    };
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

/// Names an operation from what it does.
pub fn bare(op: &Op) -> String {
    match op {
        Op::Image(image) => format!("FROM {}", image.reference),
        Op::Context(context) if context.name.is_empty() => "context".to_owned(),
        Op::Context(context) => format!("context {}", context.name),
        Op::Http(http) => format!("fetch {}", remote::redact(&http.url)),
        Op::Git(git) => format!("fetch {}", remote::redact(&git.url)),
        Op::Run(run) => format!("RUN {}", run.args.join(" ")),
        Op::Files(files) => files
            .actions
            .iter()
            .map(action)
            .collect::<Vec<_>>()
            .join(", "),
        Op::Merge(_) => "merge".to_owned(),
    }
}

fn action(action: &FileAction) -> String {
    match action {
        FileAction::Copy(copy) => format!("copy {} to {}", copy.sources.join(" "), copy.dest),
        FileAction::Mkdir { path, .. } => format!("mkdir {path}"),
        FileAction::Mkfile { path, .. } => format!("mkfile {path}"),
        FileAction::Rm { path, .. } => format!("rm {path}"),
        FileAction::Symlink { path, .. } => format!("symlink {path}"),
    }
}

/// Says whether an operation takes something from elsewhere.
pub fn is_remote(op: &Op) -> bool {
    matches!(op, Op::Http(_) | Op::Git(_))
}

/// Names the place of a vertex in the definition, so that later builds find what was there before (`explain`).
pub fn slot(definition: &str, vertex: &Vertex) -> Option<String> {
    let origin = vertex.origin.as_ref()?;
    Some(format!(
        "{definition}\n{}\n{}\n{}",
        origin.stage,
        origin.file,
        kind(&vertex.op)
    ))
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Image(_) => "image",
        Op::Context(_) => "context",
        Op::Http(_) => "http",
        Op::Git(_) => "git",
        Op::Run(_) => "run",
        Op::Files(_) => "files",
        Op::Merge(_) => "merge",
    }
}
