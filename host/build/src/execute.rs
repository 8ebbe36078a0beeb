//! Carries out one vertex.

use std::collections::HashSet;
use std::sync::Arc;

use stepwell_image::{Entry, Kind};
use stepwell_model::event::Event;
use stepwell_model::op::{FilesOp, ImageOp, RunOp};
use stepwell_model::{Op, VertexId};
use stepwell_steps::files;
use stepwell_steps::run::{
    self, Exit, Ids, InitProgram, Names, RunError, RunResult, RunSpec, strangers,
};
use stepwell_store::{CaptureOptions, Checkout, Compression, Layer, LayerOptions};

use crate::clip::Clip;
use crate::error::{BuildError, StepError};
use crate::mounts::{Supplies, SupplyError};
use crate::names;
use crate::remote::{Here, RemoteError};
use crate::session::{Layers, Session, step_id};
use crate::tier;

/// What carrying out a vertex gave.
pub struct Done {
    /// Its layers.
    pub layers: Layers,
    /// Whether all of it was there already.
    pub reused: bool,
}

/// Carries out `vertex` on the layers of its inputs (none for contexts).
pub fn execute(
    session: &Session<'_>,
    vertex: VertexId,
    inputs: &[Option<Layers>],
) -> Result<Done, BuildError> {
    let done = |layers| Done {
        layers: Arc::new(layers),
        reused: false,
    };
    match &session.graph.vertex(vertex).op {
        Op::Image(op) => image(session, op).map_err(|e| session.step_error(vertex, e)),
        Op::Context(_) => Ok(done(Vec::new())),
        Op::Http(op) => {
            let tell = session.fetching(step_id(vertex));
            let here = session.remotes.file(op, &tell);
            fetched(here).map_err(|e| session.step_error(vertex, e))
        }
        Op::Git(op) => {
            fetched(session.remotes.repository(op)).map_err(|e| session.step_error(vertex, e))
        }
        Op::Merge(_) => Ok(done(
            inputs
                .iter()
                .flatten()
                .flat_map(|l| l.iter().copied())
                .collect(),
        )),
        Op::Files(op) => files(session, vertex, op, inputs)
            .map(done)
            .map_err(|e| session.step_error(vertex, e)),
        Op::Run(op) => run(session, vertex, op, inputs).map(done),
    }
}

fn fetched(here: Result<Here, RemoteError>) -> Result<Done, StepError> {
    let here = here?;
    Ok(Done {
        layers: Arc::new(vec![here.layer]),
        reused: here.reused,
    })
}

fn image(session: &Session<'_>, op: &ImageOp) -> Result<Done, StepError> {
    let layers = session.images.layers(op)?;
    let reused = session.store.has_layers(&layers);
    Ok(Done {
        layers: Arc::new(layers),
        reused,
    })
}

fn base(inputs: &[Option<Layers>], index: Option<u32>) -> Layers {
    index
        .and_then(|i| inputs.get(i as usize)?.clone())
        .unwrap_or_default()
}

/// Makes the layer of a file operation, without touching a tree.
fn files(
    session: &Session<'_>,
    vertex: VertexId,
    op: &FilesOp,
    inputs: &[Option<Layers>],
) -> Result<Vec<Layer>, StepError> {
    let v = session.graph.vertex(vertex);
    let base = base(inputs, op.base);
    if op.actions.is_empty() {
        return Ok(base.to_vec());
    }
    session.images.fetch(&base, session, step_id(vertex))?;
    let mut trees = vec![None; v.inputs.len()];
    let mut open = Vec::new();
    for index in session.selecting(vertex) {
        let input = v.inputs[index as usize];
        trees[index as usize] = Some(
            match (&session.graph.vertex(input).op, &inputs[index as usize]) {
                (Op::Context(context), _) => session.contexts.tree(context, session.remotes)?,
                (_, layers) => {
                    let stage =
                        session
                            .stages
                            .open(input, &layers.clone().unwrap_or_default(), session)?;
                    let tree = stage.tree()?;
                    open.push(stage);
                    tree
                }
            },
        );
    }
    let view = session.store.chain_view(&base)?;
    let mut sink = session.store.layer_sink(layer_options(session, vertex))?;
    let notes = files::apply(
        op,
        &view,
        &trees,
        session.store,
        &mut sink,
        &files::Options::default(),
    )?;
    for note in notes {
        session.events.event(Event::Note {
            text: format!("{}: {note}", names::of(v)),
        });
    }
    session.check_unchanged(vertex, &trees)?;
    let layer = sink.finish()?;
    Ok(base.iter().copied().chain([layer]).collect())
}

/// How the layer of a file operation is written: what is only there to be mounted goes nowhere, so that compressing it would
/// be in vain.
fn layer_options(session: &Session<'_>, vertex: VertexId) -> LayerOptions {
    let mut mounted = false;
    for (_, user) in session.graph.iter() {
        for (index, _) in user
            .inputs
            .iter()
            .enumerate()
            .filter(|(_, i)| **i == vertex)
        {
            if index == 0 || !matches!(user.op, Op::Run(_)) {
                return session.layer_options();
            }
            mounted = true;
        }
    }
    let options = session.layer_options();
    if mounted {
        LayerOptions {
            compression: Compression::Uncompressed,
            level: None,
            ..options
        }
    } else {
        options
    }
}

/// Runs a command in a tree of its own and makes a layer of what it changed.
fn run(
    session: &Session<'_>,
    vertex: VertexId,
    op: &RunOp,
    inputs: &[Option<Layers>],
) -> Result<Vec<Layer>, BuildError> {
    let v = session.graph.vertex(vertex);
    let base = base(inputs, Some(0));
    let ended = |exit, failure| BuildError::Step {
        step: names::of(v),
        origin: v.origin.clone().map(Box::new),
        exit,
        failure,
    };
    let (result, mut checkout) = match run_in_tree(session, vertex, op, &base, inputs) {
        Ok(ran) => ran,
        Err(StepError::Supply(SupplyError::Interrupted)) => {
            return Err(ended(Exit::Cancelled, None));
        }
        Err(error) => return Err(session.step_error(vertex, error)),
    };
    if result.exit != Exit::Code(0) {
        // What a failed step left is of no use; that it cannot be removed now is the next process's business.
        let _ = checkout.abandon();
        return Err(ended(result.exit, result.failure));
    }
    let options = CaptureOptions {
        layer: session.layer_options(),
        side: Some(result.side),
        ignore: Vec::new(),
    };
    let captured = checkout
        .capture(options)
        .map_err(|e| session.step_error(vertex, e.into()))?;
    for (path, why) in captured.left_out {
        session.events.event(Event::Note {
            text: format!("{}: `{path}` is not in the layer: {why}", names::of(v)),
        });
    }
    Ok(base.iter().copied().chain([captured.layer]).collect())
}

/// Finds the names by which a step's paths lead to what its supervisor answers.
fn special_names(checkout: &Checkout<'_>, ids: Ids, taken_over: &[&Entry]) -> Names {
    let taken_over: HashSet<&[u8]> = taken_over.iter().map(|entry| &entry.path[..]).collect();
    let mut names = Names::default();
    for (entry, inode) in checkout.entries() {
        let is_device = matches!(entry.kind, Kind::Char { .. } | Kind::Block { .. });
        let is_kept = match ids {
            Ids::Real => false,
            Ids::RealOwners => is_device || taken_over.contains(&entry.path[..]),
            Ids::Emulated => {
                is_device || (entry.uid, entry.gid) != (0, 0) || !entry.xattrs.is_empty()
            }
        };
        let target = match &entry.kind {
            Kind::Symlink { target } => Some(&target[..]),
            _ => None,
        };
        names.add(&entry.path, inode, is_kept, target);
    }
    names
}

fn run_in_tree<'a>(
    session: &Session<'a>,
    vertex: VertexId,
    op: &RunOp,
    base: &Layers,
    inputs: &[Option<Layers>],
) -> Result<(RunResult, Checkout<'a>), StepError> {
    let step = step_id(vertex);
    let choice = tier::choose(session)?;
    session.images.fetch(base, session, step)?;
    let supplies = Supplies::get(session, vertex, op, inputs)?;
    let mut checkout = session.store.checkout(base, &session.unpacking(step))?;
    checkout.begin()?;
    let scratch = session.store.scratch()?;
    let root = checkout.root_path().to_owned();
    let (mounts, secret_env) = supplies.mounts(session, op, &checkout)?;
    let mut side = checkout.side_table();
    side.extend(&supplies.side());
    let taken_over = match choice.ids {
        Ids::RealOwners => strangers::find(checkout.entries().map(|(entry, _)| entry)),
        Ids::Real | Ids::Emulated => Vec::new(),
    };
    strangers::take_over(checkout.root_dir(), &taken_over, &mut side).map_err(RunError::from)?;
    let spec = RunSpec {
        root: &root,
        scratch: &scratch,
        op,
        mounts,
        secret_env,
        resolv_conf: run::etc::resolv_conf(op),
        hosts: run::etc::hosts(op),
        choice: &choice,
        facts: session.machine.facts()?,
        limits: session.request.step_limits,
        side,
        names: run::wants_names(&choice).then(|| special_names(&checkout, choice.ids, &taken_over)),
        init: &InitProgram::Myself,
    };
    let mut show = |stream, bytes: &[u8]| {
        session.events.event(Event::Output {
            step,
            stream,
            text: String::from_utf8_lossy(bytes).into_owned(),
        })
    };
    let mut clip = Clip::new(session.request.step_limits.output);
    let mut output = |stream, bytes: &[u8]| clip.pass(stream, bytes, &mut show);
    let result = run::run(spec, &mut output, session.cancel);
    clip.end(&mut show);
    let _ = std::fs::remove_dir_all(&scratch);
    let result = result?;
    supplies.give_back()?;
    Ok((result, checkout))
}
