//! Carries out what the scheduler (`stepwell-solve`) asks for: look-ups at once, work on threads, at most `jobs` at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;
use std::time::Instant;

use stepwell_model::event::{Event, StepOutcome};
use stepwell_model::{Digest, Op, VertexId};
use stepwell_solve::{Action, Decision, KeyContext, Solver};
use stepwell_store::{Record, chain_id};

use crate::error::{BuildError, StepError};
use crate::execute;
use crate::names;
use crate::selections;
use crate::session::{Layers, Session, now, step_id};

/// What a thread tells.
enum Answer {
    Inspected {
        vertex: VertexId,
        selected: Result<Vec<(u32, Digest)>, BuildError>,
    },
    Executed {
        vertex: VertexId,
        began: Instant,
        result: Result<execute::Done, BuildError>,
    },
}

/// Work for a thread.
enum Work {
    Inspect {
        vertex: VertexId,
        inputs: Vec<Option<Layers>>,
    },
    Execute {
        vertex: VertexId,
        inputs: Vec<Option<Layers>>,
    },
}

/// Solves `target` and returns its layers.
pub fn drive(
    session: &Session<'_>,
    target: VertexId,
    context: &KeyContext,
    decisions: &[Decision],
) -> Result<Layers, BuildError> {
    let needed = session.graph.needed_by(target);
    for &vertex in &needed {
        let v = session.graph.vertex(vertex);
        if !matches!(v.op, Op::Context(_)) {
            session.events.event(Event::Step {
                step: step_id(vertex),
                name: names::of(v),
                digest: Some(session.graph.digest(vertex)),
                origin: v.origin.clone(),
            });
        }
    }
    let solver = solver(session, &needed, target, context, decisions)?;
    let mut driver = Driver {
        session,
        target,
        solver,
        decisions,
        queue: VecDeque::new(),
        running: 0,
        told: Vec::new(),
        failed: None,
    };
    std::thread::scope(|scope| driver.run(scope))?;
    driver.tell_untouched(&needed);
    let solved = driver.solver.solved(target).map(|s| s.result.clone());
    solved.ok_or(BuildError::Interrupted)
}

/// Finds out what the vertices `needed` take from contexts and from elsewhere, and with that their keys.
pub fn solver<'s>(
    session: &Session<'s>,
    needed: &[VertexId],
    target: VertexId,
    context: &'s KeyContext,
    decisions: &'s [Decision],
) -> Result<Solver<'s, Layers>, BuildError> {
    let selected = session.select_all(needed)?;
    let fetched = session.identify_all(needed)?;
    Ok(Solver::new(
        session.graph,
        target,
        context,
        decisions,
        &selected,
        &fetched,
    ))
}

struct Driver<'s, 'a> {
    session: &'s Session<'a>,
    target: VertexId,
    solver: Solver<'s, Layers>,
    decisions: &'s [Decision],
    queue: VecDeque<Work>,
    running: usize,
    /// Vertices whose end was told.
    told: Vec<VertexId>,
    /// The first failure; nothing new is started after it.
    failed: Option<BuildError>,
}

impl<'s> Driver<'s, '_> {
    fn run<'scope>(&mut self, scope: &'scope Scope<'scope, 's>) -> Result<(), BuildError> {
        let (sender, answers): (Sender<Answer>, Receiver<Answer>) = channel();
        loop {
            self.take_actions()?;
            while self.goes_on() && self.running < self.session.request.jobs.max(1) {
                let Some(work) = self.queue.pop_front() else {
                    break;
                };
                self.running += 1;
                let (session, sender) = (self.session, sender.clone());
                // Nobody listens any more when the build has failed.
                scope.spawn(move || drop(sender.send(work.carry_out(session))));
            }
            if self.running == 0 {
                let given_up = self.session.cancel.is_cancelled();
                let failed = self.failed.take();
                return failed
                    .or(given_up.then_some(BuildError::Interrupted))
                    .map_or(Ok(()), Err);
            }
            let Ok(answer) = answers.recv() else {
                return Err(BuildError::Interrupted);
            };
            self.running -= 1;
            self.take_answer(answer);
        }
    }

    /// Says whether anything new is to be started.
    fn goes_on(&self) -> bool {
        self.failed.is_none() && !self.session.cancel.is_cancelled()
    }

    /// Answers look-ups until only work for threads is left.
    fn take_actions(&mut self) -> Result<(), BuildError> {
        loop {
            let actions = self.solver.actions();
            if actions.is_empty() {
                return Ok(());
            }
            for action in actions {
                match action {
                    Action::Lookup { vertex, key } | Action::LookupContent { vertex, key } => {
                        self.look_up(vertex, &key)?
                    }
                    Action::Inspect { vertex } => self.queue.push_back(Work::Inspect {
                        vertex,
                        inputs: self.inputs(vertex),
                    }),
                    Action::Execute { vertex } => self.queue.push_back(Work::Execute {
                        vertex,
                        inputs: self.inputs(vertex),
                    }),
                }
            }
        }
    }

    fn inputs(&self, vertex: VertexId) -> Vec<Option<Layers>> {
        self.session
            .graph
            .vertex(vertex)
            .inputs
            .iter()
            .map(|i| self.solver.solved(*i).map(|s| s.result.clone()))
            .collect()
    }

    fn look_up(&mut self, vertex: VertexId, key: &Digest) -> Result<(), BuildError> {
        let records = self.session.store.records();
        let record = records.get(key).filter(|r| self.is_usable(vertex, r));
        let Some(record) = record else {
            self.solver.missing(vertex);
            return Ok(());
        };
        // Found under its content: from now on the definition leads there, too.
        let definition = self.solver.preimage(vertex).key();
        if *key != definition {
            let record = Record {
                preimage: self.preimage(vertex),
                slot: self.slot(vertex),
                ..record.clone()
            };
            records.put(&definition, &record)?;
        } else if let Some(slot) = self.slot(vertex) {
            records.point(&slot, key)?;
        }
        self.made(vertex, record.created);
        let chain = chain_id(&record.layers);
        self.solver.found(vertex, Arc::new(record.layers), chain);
        self.tell(vertex, None, StepOutcome::Cached);
        Ok(())
    }

    /// A record is of use while it is young enough and its layers can still be had.
    fn is_usable(&self, vertex: VertexId, record: &Record) -> bool {
        let young = self.decisions[vertex.index()]
            .ttl
            .is_none_or(|ttl| now().saturating_sub(record.created) < ttl);
        young && self.session.has(record)
    }

    fn take_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Inspected {
                vertex,
                selected: Ok(selected),
            } => self.solver.content(vertex, &selected),
            Answer::Executed {
                vertex,
                began,
                result: Ok(done),
            } => {
                if let Err(error) = self.keep(vertex, began, &done.layers) {
                    return self.fail(vertex, Some(began), error);
                }
                let outcome = if done.reused {
                    StepOutcome::Cached
                } else {
                    StepOutcome::Done
                };
                self.tell(vertex, Some(began), outcome);
                self.session
                    .uploads
                    .begin(self.session, vertex, &done.layers);
                let chain = chain_id(&done.layers);
                self.solver.executed(vertex, done.layers, chain);
                for input in &self.session.graph.vertex(vertex).inputs {
                    if self.solver.waiting_for(*input) == 0 {
                        self.session.stages.release(*input);
                    }
                }
            }
            Answer::Inspected {
                vertex,
                selected: Err(error),
            } => self.fail(vertex, None, error),
            Answer::Executed {
                vertex,
                began,
                result: Err(error),
            } => self.fail(vertex, Some(began), error),
        }
    }

    /// Keeps the result under its keys.
    fn keep(&self, vertex: VertexId, began: Instant, layers: &Layers) -> Result<(), BuildError> {
        let v = self.session.graph.vertex(vertex);
        if matches!(v.op, Op::Image(_) | Op::Context(_)) {
            return Ok(());
        }
        let record = Record {
            layers: layers.to_vec(),
            created: now(),
            summary: names::of(v),
            slot: self.slot(vertex),
            preimage: self.preimage(vertex),
            millis: began.elapsed().as_millis() as u64,
            ..Record::default()
        };
        self.made(vertex, record.created);
        selections::keep(self.session, vertex)?;
        self.session
            .store
            .records()
            .put(&self.solver.preimage(vertex).key(), &record)?;
        if let Some(key) = self.solver.content_key(vertex) {
            self.session.store.records().put(
                &key,
                &Record {
                    slot: None,
                    ..record
                },
            )?;
        }
        Ok(())
    }

    fn made(&self, vertex: VertexId, created: u64) {
        if vertex == self.target {
            let _ = self.session.created.set(created);
        }
    }

    fn preimage(&self, vertex: VertexId) -> Vec<(String, String)> {
        self.solver
            .preimage(vertex)
            .0
            .iter()
            .map(|p| (p.label.clone(), p.value.clone()))
            .collect()
    }

    fn slot(&self, vertex: VertexId) -> Option<String> {
        names::slot(&self.session.definition, self.session.graph.vertex(vertex))
    }

    fn fail(&mut self, vertex: VertexId, began: Option<Instant>, error: BuildError) {
        // Given up before anything failed: the user did it, and whatever ends now ends for that.
        let interrupted = self.failed.is_none() && self.session.cancel.is_cancelled();
        let error = if interrupted {
            BuildError::Interrupted
        } else {
            error
        };
        let outcome = if interrupted || self.failed.is_some() {
            StepOutcome::Cancelled
        } else {
            StepOutcome::Failed {
                message: error.to_string(),
            }
        };
        self.tell(vertex, began, outcome);
        if self.failed.is_none() {
            self.failed = Some(error);
            // Steps that still run are of no use to anybody.
            self.session.cancel.cancel();
        }
    }

    fn tell(&mut self, vertex: VertexId, began: Option<Instant>, outcome: StepOutcome) {
        self.told.push(vertex);
        self.session.end(vertex, began, outcome);
    }

    /// Steps that nobody had to look at are in what was reused.
    fn tell_untouched(&mut self, needed: &[VertexId]) {
        for vertex in needed {
            if !self.told.contains(vertex)
                && !matches!(self.session.graph.vertex(*vertex).op, Op::Context(_))
            {
                self.session.end(*vertex, None, StepOutcome::Cached);
            }
        }
    }
}

impl Work {
    fn carry_out(self, session: &Session<'_>) -> Answer {
        match self {
            Self::Inspect { vertex, inputs } => Answer::Inspected {
                vertex,
                selected: inspect(session, vertex, &inputs),
            },
            Self::Execute { vertex, inputs } => {
                let began = session.begin(vertex);
                Answer::Executed {
                    vertex,
                    began,
                    result: execute::execute(session, vertex, &inputs),
                }
            }
        }
    }
}

/// Finds out which files a vertex takes from other stages.
fn inspect(
    session: &Session<'_>,
    vertex: VertexId,
    inputs: &[Option<Layers>],
) -> Result<Vec<(u32, Digest)>, BuildError> {
    let v = session.graph.vertex(vertex);
    let mut selected = Vec::new();
    for input in session.selecting(vertex) {
        let Some(layers) = &inputs[input as usize] else {
            continue;
        };
        let open = || -> Result<_, StepError> {
            let stage = session
                .stages
                .open(v.inputs[input as usize], layers, session)?;
            Ok((stage.tree()?, stage))
        };
        let (tree, _stage) = open().map_err(|e| session.step_error(vertex, e))?;
        selected.push((input, session.selection(vertex, input, &tree)?));
    }
    Ok(selected)
}
