//! The scheduler against a store that is a map.

use std::collections::{HashMap, HashSet};

use stepwell_model::op::{ContextOp, CopyAction, FileAction, FilesOp, HttpOp, ImageOp, RunOp};
use stepwell_model::{Digest, Graph, GraphBuilder, Op, Vertex, VertexId};

use super::{Action, Solver};
use crate::keys::{Decision, KeyContext};

fn vertex(op: Op, inputs: &[VertexId]) -> Vertex {
    Vertex {
        op,
        inputs: inputs.to_vec(),
        platform: "linux/amd64".parse().unwrap(),
        origin: None,
    }
}

fn image() -> Vertex {
    vertex(
        Op::Image(ImageOp {
            reference: "debian".into(),
            digest: Digest::of(b"debian"),
        }),
        &[],
    )
}

fn run(command: &str, base: VertexId) -> Vertex {
    let op = RunOp::new(vec![command.into()]);
    vertex(Op::Run(Box::new(op)), &[base])
}

fn copy(base: VertexId, from: VertexId) -> Vertex {
    let copy = CopyAction {
        from: 1,
        sources: vec!["a".into()],
        dest: "/".into(),
        owner: None,
        mode: String::new(),
        extract: false,
        exclude: vec![],
        parents: false,
    };
    vertex(
        Op::Files(FilesOp {
            base: Some(0),
            actions: vec![FileAction::Copy(copy)],
        }),
        &[base, from],
    )
}

/// FROM debian AS build; RUN make; FROM debian; COPY . /; RUN install; COPY --from=build
struct World {
    graph: Graph,
    make: VertexId,
    add: VertexId,
    install: VertexId,
    last: VertexId,
}

fn world() -> World {
    let mut b = GraphBuilder::new(100);
    let base = b.add(image()).unwrap();
    let make = b.add(run("make", base)).unwrap();
    let context = b
        .add(vertex(
            Op::Context(ContextOp {
                name: String::new(),
                exclude: vec![],
            }),
            &[],
        ))
        .unwrap();
    let add = b.add(copy(base, context)).unwrap();
    let install = b.add(run("install", add)).unwrap();
    let last = b.add(copy(install, make)).unwrap();
    b.add(run("not needed", base)).unwrap();
    World {
        graph: b.finish(),
        make,
        add,
        install,
        last,
    }
}

/// Results by key, and what each vertex's result is when it is carried out.
#[derive(Default)]
struct Store {
    records: HashMap<Digest, &'static str>,
    outcome: HashMap<VertexId, &'static str>,
    /// What is behind the address of a vertex.
    fetched: HashMap<VertexId, Digest>,
    reuse: bool,
}

impl Store {
    /// Solves, and returns the vertices carried out in order.
    fn solve(&mut self, world: &World, files: &str) -> Vec<VertexId> {
        let decisions: Vec<_> = world
            .graph
            .iter()
            .map(|(id, v)| Decision {
                normal_form: format!("{:?}", (&v.op, matches!(v.op, Op::Image(_)).then_some(id)))
                    .into_bytes(),
                reuse: self.reuse,
                definition_key: true,
                content_key: true,
                ttl: None,
            })
            .collect();
        let context = KeyContext {
            namespace: String::new(),
            policy: Digest::of(b"policy"),
            settings: String::new(),
        };
        let selected = HashMap::from([((world.add, 1), Digest::of(files.as_bytes()))]);
        let mut solver: Solver<'_, &'static str> = Solver::new(
            &world.graph,
            world.last,
            &context,
            &decisions,
            &selected,
            &self.fetched,
        );
        let mut done = Vec::new();
        let mut answered = HashSet::new();
        while !solver.is_done() {
            let actions = solver.actions();
            assert!(!actions.is_empty(), "nothing to do and not done");
            for action in actions {
                assert!(
                    answered.insert(format!("{action:?}")),
                    "{action:?} came twice"
                );
                match action {
                    Action::Lookup { vertex, key } | Action::LookupContent { vertex, key } => {
                        match self.records.get(&key) {
                            Some(result) => {
                                solver.found(vertex, result, Digest::of(result.as_bytes()))
                            }
                            None => solver.missing(vertex),
                        }
                    }
                    Action::Inspect { vertex } => {
                        let selected: Vec<_> = if vertex == world.last {
                            vec![(
                                1,
                                Digest::of(solver.solved(world.make).unwrap().result.as_bytes()),
                            )]
                        } else {
                            vec![]
                        };
                        solver.content(vertex, &selected);
                    }
                    Action::Execute { vertex } => {
                        let result = self.outcome.get(&vertex).copied().unwrap_or("same");
                        if !matches!(world.graph.vertex(vertex).op, Op::Image(_)) {
                            done.push(vertex);
                            self.records.insert(solver.preimage(vertex).key(), result);
                            if let Some(key) = solver.content_key(vertex) {
                                self.records.insert(key, result);
                            }
                        }
                        solver.executed(vertex, result, Digest::of(result.as_bytes()));
                    }
                }
            }
        }
        done
    }
}

#[test]
fn everything_runs_once_and_what_is_not_needed_never() {
    let world = world();
    let mut store = Store {
        reuse: true,
        ..Store::default()
    };
    let mut done = store.solve(&world, "v1");
    assert_eq!(done.last(), Some(&world.last));
    done.sort();
    assert_eq!(done, [world.make, world.add, world.install, world.last]);
}

#[test]
fn the_second_build_carries_out_nothing() {
    let world = world();
    let mut store = Store {
        reuse: true,
        ..Store::default()
    };
    store.solve(&world, "v1");
    assert!(store.solve(&world, "v1").is_empty());
}

#[test]
fn a_changed_file_reruns_what_depends_on_it() {
    let world = world();
    let mut store = Store {
        reuse: true,
        ..Store::default()
    };
    store.solve(&world, "v1");
    store.outcome = HashMap::from([
        (world.add, "other files"),
        (world.install, "other install"),
        (world.last, "other last"),
    ]);
    assert_eq!(
        store.solve(&world, "v2"),
        [world.add, world.install, world.last]
    );
}

#[test]
fn an_equal_outcome_stops_the_rerun() {
    let world = world();
    let mut store = Store {
        reuse: true,
        ..Store::default()
    };
    store.solve(&world, "v1");
    // The changed file makes the same layer (say, only its name in the context changed): nothing after it runs.
    assert_eq!(store.solve(&world, "v2"), [world.add]);
}

#[test]
fn without_reuse_everything_runs_again() {
    let world = world();
    let mut store = Store::default();
    assert_eq!(store.solve(&world, "v1").len(), 4);
    assert_eq!(store.solve(&world, "v1").len(), 4);
}

#[test]
fn namespaces_policies_and_settings_do_not_share_keys() {
    let world = world();
    let decisions: Vec<_> = world
        .graph
        .iter()
        .map(|_| Decision {
            normal_form: vec![1, 255],
            reuse: true,
            definition_key: true,
            content_key: true,
            ttl: None,
        })
        .collect();
    let base = KeyContext {
        namespace: "a".into(),
        policy: Digest::of(b"p"),
        settings: "s".into(),
    };
    let others = [
        KeyContext {
            namespace: "b".into(),
            ..base.clone()
        },
        KeyContext {
            policy: Digest::of(b"q"),
            ..base.clone()
        },
        KeyContext {
            settings: "t".into(),
            ..base.clone()
        },
    ];
    let key = |context: &KeyContext| {
        let selected = HashMap::from([((world.add, 1), Digest::of(b"files"))]);
        let fetched = HashMap::new();
        let (graph, last) = (&world.graph, world.last);
        Solver::<()>::new(graph, last, context, &decisions, &selected, &fetched)
            .preimage(last)
            .key()
    };
    for other in &others {
        assert_ne!(key(&base), key(other));
    }
    assert_eq!(key(&base), key(&base));
}

/// FROM debian; ADD https://h/a /; RUN install
fn fetching() -> (World, VertexId) {
    let mut b = GraphBuilder::new(100);
    let base = b.add(image()).unwrap();
    let http = HttpOp {
        url: "https://h/a".into(),
        name: "a".into(),
        checksum: None,
    };
    let make = b.add(vertex(Op::Http(http), &[])).unwrap();
    let add = b.add(copy(base, make)).unwrap();
    let install = b.add(run("install", add)).unwrap();
    let world = World {
        graph: b.finish(),
        make,
        // No files of a context are selected.
        add: install,
        install,
        last: install,
    };
    (world, add)
}

#[test]
fn what_is_behind_an_address_is_part_of_the_keys_above_it() {
    let (world, add) = fetching();
    let mut store = Store {
        reuse: true,
        ..Store::default()
    };
    let mut solve = |content: &'static str| {
        store.fetched = HashMap::from([(world.make, Digest::of(content.as_bytes()))]);
        // What comes makes another layer of what it is added to.
        store
            .outcome
            .extend([(world.make, content), (add, content)]);
        store.solve(&world, "")
    };
    assert!(solve("one").ends_with(&[world.make, add, world.install]));
    assert_eq!(solve("one"), []);
    assert!(solve("two").ends_with(&[world.make, add, world.install]));
    assert_eq!(solve("one"), []);
}
