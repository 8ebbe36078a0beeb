//! The scheduler: a state machine over the vertices that the target needs.
//!
//! Demand starts at the target.  A vertex whose definition key is known is done, and nothing below it is looked
//! at.  One that is not demands its inputs; when they are there its content key is tried; when that misses too
//! it is executed.  Everything that can go on goes on at once; how much of it really runs at a time is the
//! caller's business.

use std::collections::HashMap;

use stepwell_model::{Digest, Graph, Op, VertexId};

use crate::keys::{
    Decision, FETCHED, KeyContext, Preimage, chain_label, content_label, input_label,
};

/// What the caller has to do; each is answered once with the method named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Look for a result stored under `key`: [`Solver::found`] or [`Solver::missing`].
    Lookup {
        /// The vertex.
        vertex: VertexId,
        /// Its definition key.
        key: Digest,
    },
    /// Find out what the inputs are: [`Solver::content`], with one `(input, digest)` for each input that is known by more
    /// than its chain id (files selected from it).
    Inspect {
        /// The vertex.
        vertex: VertexId,
    },
    /// Look for a result stored under the content key: [`Solver::found`] or [`Solver::missing`].
    LookupContent {
        /// The vertex.
        vertex: VertexId,
        /// Its content key.
        key: Digest,
    },
    /// Carry out the operation: [`Solver::executed`].
    Execute {
        /// The vertex.
        vertex: VertexId,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Lookup,
    Inputs,
    Inspect,
    LookupContent,
    Execute,
    Done,
}

/// What a finished vertex is, as far as the scheduler cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solved<R> {
    /// The caller's result.
    pub result: R,
    /// Identifies the content: chain id of the layers.
    pub chain: Digest,
    /// Whether it was taken from the cache.
    pub reused: bool,
}

/// The scheduler for one target.
pub struct Solver<'a, R> {
    graph: &'a Graph,
    context: &'a KeyContext,
    decisions: &'a [Decision],
    preimages: HashMap<VertexId, Preimage>,
    content: HashMap<VertexId, Preimage>,
    states: Vec<State>,
    solved: HashMap<VertexId, Solved<R>>,
    users: HashMap<VertexId, Vec<VertexId>>,
    ready: Vec<Action>,
    target: VertexId,
}

impl<'a, R> Solver<'a, R> {
    /// Prepares the scheduling of `target`.
    ///
    /// `decisions` has one entry for each vertex of the graph; `selected` the digest of the files that a vertex selects
    /// from a context, by vertex and input, for all vertices that the target needs; `fetched` what each vertex that is
    /// fetched from elsewhere turned out to be: its key has to change when that does.
    pub fn new(
        graph: &'a Graph,
        target: VertexId,
        context: &'a KeyContext,
        decisions: &'a [Decision],
        selected: &HashMap<(VertexId, u32), Digest>,
        fetched: &HashMap<VertexId, Digest>,
    ) -> Self {
        let needed = graph.needed_by(target);
        let mut users: HashMap<_, Vec<_>> = HashMap::new();
        let mut preimages: HashMap<VertexId, Preimage> = HashMap::new();
        for &id in &needed {
            let vertex = graph.vertex(id);
            let mut preimage = Preimage::new(
                "definition",
                context,
                &decisions[id.index()],
                &vertex.platform,
            );
            for (index, input) in vertex.inputs.iter().enumerate() {
                users.entry(*input).or_default().push(id);
                match selected.get(&(id, index as u32)) {
                    Some(digest) => preimage.push(content_label(index as u32), *digest),
                    None => preimage.push(input_label(index as u32), preimages[input].key()),
                }
            }
            if let Some(digest) = fetched.get(&id) {
                preimage.push(FETCHED.to_owned(), *digest);
            }
            preimages.insert(id, preimage);
        }
        let mut solver = Self {
            graph,
            context,
            decisions,
            preimages,
            content: HashMap::new(),
            states: vec![State::Idle; graph.len()],
            solved: HashMap::new(),
            users,
            ready: Vec::new(),
            target,
        };
        solver.demand(target);
        solver
    }

    /// Takes the actions that became possible since the last call.
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.ready)
    }

    /// Tells that a lookup found `result`.
    pub fn found(&mut self, vertex: VertexId, result: R, chain: Digest) {
        self.expect(vertex, &[State::Lookup, State::LookupContent]);
        self.finish(
            vertex,
            Solved {
                result,
                chain,
                reused: true,
            },
        );
    }

    /// Tells that a lookup found nothing.
    pub fn missing(&mut self, vertex: VertexId) {
        match self.states[vertex.index()] {
            State::Lookup if is_fetched(&self.graph.vertex(vertex).op) => {
                self.act(vertex, State::Execute, Action::Execute { vertex });
            }
            State::Lookup => self.want_inputs(vertex),
            _ => {
                self.expect(vertex, &[State::LookupContent]);
                self.act(vertex, State::Execute, Action::Execute { vertex });
            }
        }
    }

    /// Tells the digests of the files that `vertex` selects from inputs that are not contexts.
    pub fn content(&mut self, vertex: VertexId, selected: &[(u32, Digest)]) {
        self.expect(vertex, &[State::Inspect]);
        let v = self.graph.vertex(vertex);
        let mut preimage = Preimage::new(
            "content",
            self.context,
            &self.decisions[vertex.index()],
            &v.platform,
        );
        for (index, input) in v.inputs.iter().enumerate() {
            let index = index as u32;
            let known = selected
                .iter()
                .find(|(i, _)| *i == index)
                .map(|(_, d)| d.to_string());
            let from_context = self.preimages[&vertex]
                .get(&content_label(index))
                .map(str::to_owned);
            match known.or(from_context) {
                Some(digest) => preimage.0.push(crate::Part {
                    label: content_label(index),
                    value: digest,
                }),
                None => preimage.push(chain_label(index), self.solved[input].chain),
            }
        }
        let key = preimage.key();
        self.content.insert(vertex, preimage);
        self.act(
            vertex,
            State::LookupContent,
            Action::LookupContent { vertex, key },
        );
    }

    /// Tells that the operation was carried out.
    pub fn executed(&mut self, vertex: VertexId, result: R, chain: Digest) {
        self.expect(vertex, &[State::Execute]);
        self.finish(
            vertex,
            Solved {
                result,
                chain,
                reused: false,
            },
        );
    }

    /// Returns what a finished vertex turned out to be.
    pub fn solved(&self, vertex: VertexId) -> Option<&Solved<R>> {
        self.solved.get(&vertex)
    }

    /// Says whether the target is done.
    pub fn is_done(&self) -> bool {
        self.states[self.target.index()] == State::Done
    }

    /// Returns what the definition key of `vertex` is made of.
    ///
    /// # Panics
    /// Where the target does not need `vertex`.
    pub fn preimage(&self, vertex: VertexId) -> &Preimage {
        &self.preimages[&vertex]
    }

    /// Returns the content key of `vertex`, where it was computed.
    pub fn content_key(&self, vertex: VertexId) -> Option<Digest> {
        self.content.get(&vertex).map(Preimage::key)
    }

    /// Says how many demanded vertices still need the result of `vertex` as an input.
    pub fn waiting_for(&self, vertex: VertexId) -> usize {
        let waits = |user: &&VertexId| {
            matches!(
                self.states[user.index()],
                State::Inputs | State::Inspect | State::LookupContent | State::Execute
            )
        };
        self.users
            .get(&vertex)
            .map_or(0, |users| users.iter().filter(waits).count())
    }

    fn demand(&mut self, vertex: VertexId) {
        if self.states[vertex.index()] != State::Idle {
            return;
        }
        match self.graph.vertex(vertex).op {
            // A context is not a result: whoever selects files from it reads it.
            Op::Context(_) => self.states[vertex.index()] = State::Done,
            // An image is known by its digest; getting it is carrying it out, which is cheap when it is there.
            Op::Image(_) => self.act(vertex, State::Execute, Action::Execute { vertex }),
            Op::Http(_) | Op::Git(_) | Op::Run(_) | Op::Files(_) | Op::Merge(_)
                if self.decisions[vertex.index()].by_definition() =>
            {
                let key = self.preimages[&vertex].key();
                self.act(vertex, State::Lookup, Action::Lookup { vertex, key });
            }
            // What it is is known already, and the content of its inputs would say nothing: there are none.
            Op::Http(_) | Op::Git(_) => {
                self.act(vertex, State::Execute, Action::Execute { vertex });
            }
            Op::Run(_) | Op::Files(_) | Op::Merge(_) => self.want_inputs(vertex),
        }
    }

    fn want_inputs(&mut self, vertex: VertexId) {
        self.states[vertex.index()] = State::Inputs;
        for input in self.graph.vertex(vertex).inputs.clone() {
            self.demand(input);
        }
        self.go_on(vertex);
    }

    fn go_on(&mut self, vertex: VertexId) {
        let v = self.graph.vertex(vertex);
        if self.states[vertex.index()] != State::Inputs
            || v.inputs
                .iter()
                .any(|i| self.states[i.index()] != State::Done)
        {
            return;
        }
        let decision = &self.decisions[vertex.index()];
        if decision.reuse && decision.content_key {
            self.act(vertex, State::Inspect, Action::Inspect { vertex });
        } else {
            self.act(vertex, State::Execute, Action::Execute { vertex });
        }
    }

    fn act(&mut self, vertex: VertexId, state: State, action: Action) {
        self.states[vertex.index()] = state;
        self.ready.push(action);
    }

    fn finish(&mut self, vertex: VertexId, solved: Solved<R>) {
        self.states[vertex.index()] = State::Done;
        self.solved.insert(vertex, solved);
        for user in self.users.get(&vertex).cloned().unwrap_or_default() {
            self.go_on(user);
        }
    }

    fn expect(&self, vertex: VertexId, states: &[State]) {
        let state = self.states[vertex.index()];
        assert!(
            states.contains(&state),
            "vertex {} was answered in state {state:?}",
            vertex.0
        );
    }
}

fn is_fetched(op: &Op) -> bool {
    matches!(op, Op::Http(_) | Op::Git(_))
}

#[cfg(test)]
mod tests;
