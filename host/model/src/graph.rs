//! The build graph: immutable, topologically ordered, content-addressed.
//!
//! The digest of a vertex is the SHA-256 over `stepwell.vertex.v1\0` and the compact JSON text of
//! `{"op":…,"inputs":[digest of each input],"platform":…}`, with the fields in the order of their declaration in
//! [`crate::op`].  Where a vertex came from ([`Origin`]) does not count, so that equal work collapses
//! into one vertex while the graph is built.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Origin;
use crate::op::{FileAction, GitOp, HttpOp};
use crate::remote::{self, Remote};
use crate::{Digest, Hasher, Op, Platform};

/// Index of a vertex in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VertexId(pub u32);

impl VertexId {
    /// Returns the index as a `usize`.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operation, what it works on, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vertex {
    /// What is done.
    pub op: Op,
    /// What it works on; each is earlier in the graph.
    pub inputs: Vec<VertexId>,
    /// For what platform.
    pub platform: Platform,
    /// Where it was written, for messages; does not count in the digest.
    pub origin: Option<Origin>,
}

/// A finished graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Graph {
    vertices: Vec<Vertex>,
    digests: Vec<Digest>,
}

/// Why a vertex cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// An input is not in the graph.
    #[error("input {0} is not in the graph")]
    UnknownInput(u32),
    /// The operation refers to an input that the vertex does not have.
    #[error("the operation uses input {index}, but the vertex has {count}")]
    InputIndex {
        /// The index used.
        index: u32,
        /// How many inputs there are.
        count: usize,
    },
    /// The graph is as large as it may become.
    #[error("the graph has reached its limit of {0} vertices")]
    TooLarge(usize),
    /// A mount is made of a context itself, and not of the files that an operation takes from it.
    #[error("input {0} is a context, which has no layers")]
    NoLayers(u32),
    /// A path of a run or file operation is not absolute.
    #[error("`{0}` is not an absolute path")]
    RelativePath(String),
    /// An address cannot be fetched from; the texts are the address without what may be confidential, and why not.
    #[error("`{0}` cannot be fetched: {1}")]
    Address(String, &'static str),
}

/// Builds a [`Graph`]; equal vertices collapse into one.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: Graph,
    known: HashMap<Digest, VertexId>,
    limit: usize,
}

#[derive(Serialize)]
struct Canonical<'a> {
    op: &'a Op,
    inputs: Vec<Digest>,
    platform: &'a Platform,
}

impl GraphBuilder {
    /// Starts an empty graph that may have at most `limit` vertices.
    pub fn new(limit: usize) -> Self {
        Self {
            graph: Graph {
                vertices: Vec::new(),
                digests: Vec::new(),
            },
            known: HashMap::new(),
            limit,
        }
    }

    /// Adds a vertex, or finds the equal one that is already there.
    pub fn add(&mut self, vertex: Vertex) -> Result<VertexId, GraphError> {
        self.check(&vertex)?;
        let digest = self.graph.digest_of(&vertex);
        if let Some(known) = self.known.get(&digest) {
            return Ok(*known);
        }
        if self.graph.vertices.len() >= self.limit {
            return Err(GraphError::TooLarge(self.limit));
        }
        let id = VertexId(self.graph.vertices.len() as u32);
        self.graph.vertices.push(vertex);
        self.graph.digests.push(digest);
        self.known.insert(digest, id);
        Ok(id)
    }

    /// Ends the building.
    pub fn finish(self) -> Graph {
        self.graph
    }

    fn check(&self, vertex: &Vertex) -> Result<(), GraphError> {
        if let Some(bad) = vertex
            .inputs
            .iter()
            .find(|i| i.index() >= self.graph.vertices.len())
        {
            return Err(GraphError::UnknownInput(bad.0));
        }
        let count = vertex.inputs.len();
        let index = |index: u32| {
            if (index as usize) < count {
                Ok(())
            } else {
                Err(GraphError::InputIndex { index, count })
            }
        };
        let absolute = |path: &str| {
            if path.starts_with('/') {
                Ok(())
            } else {
                Err(GraphError::RelativePath(path.to_owned()))
            }
        };
        match &vertex.op {
            Op::Image(_) | Op::Context(_) => Ok(()),
            Op::Http(http) => check_http(http),
            Op::Git(git) => check_git(git),
            Op::Merge(_) => index(0),
            Op::Run(run) => {
                index(0)?;
                run.files.iter().try_for_each(|f| absolute(&f.path))?;
                run.mounts.iter().try_for_each(|mount| {
                    mount.target().map_or(Ok(()), absolute)?;
                    let Some((from, source)) = mount.source() else {
                        return Ok(());
                    };
                    index(from)?;
                    absolute(source)?;
                    self.has_layers(vertex.inputs[from as usize])
                })?;
                absolute(&run.cwd)
            }
            Op::Files(files) => {
                files.base.map_or(Ok(()), index)?;
                files.actions.iter().try_for_each(|action| match action {
                    FileAction::Copy(copy) => index(copy.from).and_then(|()| absolute(&copy.dest)),
                    FileAction::Mkdir { path, .. }
                    | FileAction::Mkfile { path, .. }
                    | FileAction::Rm { path, .. }
                    | FileAction::Symlink { path, .. } => absolute(path),
                })
            }
        }
    }
}

impl GraphBuilder {
    /// Returns a vertex that was added.
    ///
    /// # Panics
    /// Where `id` is of another graph.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        self.graph.vertex(id)
    }

    /// Refuses a context where layers are needed.
    fn has_layers(&self, id: VertexId) -> Result<(), GraphError> {
        match self.graph.vertex(id).op {
            Op::Context(_) => Err(GraphError::NoLayers(id.0)),
            _ => Ok(()),
        }
    }
}

fn check_http(op: &HttpOp) -> Result<(), GraphError> {
    let is_file = matches!(remote::parse(&op.url), Some(Ok(Remote::File(_))));
    let bad = |why| Err(GraphError::Address(remote::redact(&op.url), why));
    if !is_file {
        return bad("it is not the http address of a file");
    }
    match op.name.as_str() {
        "" | "." | ".." => bad("its file has no name"),
        name if name.contains(['/', '\0']) => bad("the name of its file is no name"),
        _ => Ok(()),
    }
}

/// Whatever a guest says, a repository is on another machine, and nothing of it looks like an option of a program.
fn check_git(op: &GitOp) -> Result<(), GraphError> {
    let bad = |why| Err(GraphError::Address(remote::redact(&op.url), why));
    let plain = |text: &str| !text.starts_with('-') && !text.contains(|c: char| c.is_control());
    match remote::parse(&op.url) {
        Some(Ok(Remote::Git(source))) if source.url == op.url => {}
        _ => return bad("it is not the address of a repository alone"),
    }
    if !plain(&op.url) || !plain(&op.reference) || !plain(&op.subdir) {
        return bad("ref or directory are none");
    }
    if !op.checksum.is_empty() && !remote::is_commit(&op.checksum) {
        return bad("its checksum is not the id of a commit");
    }
    Ok(())
}

impl Graph {
    /// Returns the number of vertices.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Says whether there is no vertex.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// Returns the vertex `id`.
    ///
    /// # Panics
    /// Where `id` is of another graph.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.index()]
    }

    /// Returns the digest of the vertex `id`.
    ///
    /// # Panics
    /// Where `id` is of another graph.
    pub fn digest(&self, id: VertexId) -> Digest {
        self.digests[id.index()]
    }

    /// Iterates over all vertices; inputs come before what uses them.
    pub fn iter(&self) -> impl Iterator<Item = (VertexId, &Vertex)> {
        self.vertices
            .iter()
            .enumerate()
            .map(|(i, v)| (VertexId(i as u32), v))
    }

    /// Returns the vertices that `target` needs, itself included, in the graph's order.
    pub fn needed_by(&self, target: VertexId) -> Vec<VertexId> {
        let mut needed = vec![false; self.len()];
        let mut todo = vec![target];
        while let Some(id) = todo.pop() {
            if !std::mem::replace(&mut needed[id.index()], true) {
                todo.extend(&self.vertex(id).inputs);
            }
        }
        (0..self.len() as u32)
            .map(VertexId)
            .filter(|id| needed[id.index()])
            .collect()
    }

    fn digest_of(&self, vertex: &Vertex) -> Digest {
        let canonical = Canonical {
            op: &vertex.op,
            inputs: vertex.inputs.iter().map(|i| self.digest(*i)).collect(),
            platform: &vertex.platform,
        };
        let mut hasher = Hasher::new();
        hasher.update(b"stepwell.vertex.v1\0");
        serde_json::to_writer(&mut hasher, &canonical).expect("plain data is always JSON");
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::{BindMount, CacheMount, Mount, SecretMount, Sharing, SshMount, TmpfsMount};
    use crate::op::{ContextOp, CopyAction, FilesOp, RunOp};

    fn context(name: &str) -> Vertex {
        Vertex {
            op: Op::Context(ContextOp {
                name: name.into(),
                exclude: vec![],
            }),
            inputs: vec![],
            platform: "linux/amd64".parse().unwrap(),
            origin: None,
        }
    }

    fn copy(from: u32, dest: &str, inputs: Vec<VertexId>) -> Vertex {
        let action = CopyAction {
            from,
            sources: vec!["a".into()],
            dest: dest.into(),
            owner: None,
            mode: String::new(),
            extract: false,
            exclude: vec![],
            parents: false,
        };
        Vertex {
            op: Op::Files(FilesOp {
                base: None,
                actions: vec![FileAction::Copy(action)],
            }),
            inputs,
            platform: "linux/amd64".parse().unwrap(),
            origin: None,
        }
    }

    #[test]
    fn equal_vertices_collapse_and_origin_does_not_count() {
        let mut builder = GraphBuilder::new(10);
        let a = builder.add(context("")).unwrap();
        let b = builder
            .add(Vertex {
                origin: Some(Origin::default()),
                ..context("")
            })
            .unwrap();
        let c = builder.add(context("other")).unwrap();
        assert_eq!(a, b);
        assert_ne!(a, c);
        assert_eq!(builder.finish().len(), 2);
    }

    #[test]
    fn digests_are_pinned() {
        let mut builder = GraphBuilder::new(10);
        let a = builder.add(context("")).unwrap();
        let c = builder.add(copy(0, "/x", vec![a])).unwrap();
        let graph = builder.finish();
        assert_eq!(
            graph.digest(a).short(),
            "2ce5c6060a42",
            "the encoding changed: raise the version in the prefix"
        );
        assert_eq!(
            graph.digest(c).short(),
            "24958829a9ea",
            "the encoding changed: raise the version in the prefix"
        );
    }

    fn source(op: Op) -> Vertex {
        Vertex { op, ..context("") }
    }

    fn http(url: &str, name: &str) -> Vertex {
        source(Op::Http(HttpOp {
            url: url.into(),
            name: name.into(),
            checksum: None,
        }))
    }

    fn git(url: &str, reference: &str, checksum: &str) -> Vertex {
        source(Op::Git(GitOp {
            url: url.into(),
            reference: reference.into(),
            checksum: checksum.into(),
            ..GitOp::default()
        }))
    }

    #[test]
    fn digests_of_what_is_fetched_are_pinned() {
        let mut builder = GraphBuilder::new(10);
        let file = builder.add(http("https://h/a", "a")).unwrap();
        let repository = builder.add(git("https://h/a.git", "v1", "")).unwrap();
        let graph = builder.finish();
        assert_eq!(graph.digest(file).short(), "fc126122cb3d");
        assert_eq!(graph.digest(repository).short(), "0927124dd915");
    }

    #[test]
    fn only_addresses_on_other_machines_are_fetched_from() {
        let mut builder = GraphBuilder::new(100);
        for (url, name) in [
            ("file:///etc/passwd", "a"),
            ("/etc/passwd", "a"),
            ("https://h/a.git", "a"),
            ("https://h/a", ".."),
            ("https://h/a", "a/b"),
            ("https://h/a", ""),
        ] {
            let refused = builder.add(http(url, name));
            assert!(
                matches!(refused, Err(GraphError::Address(..))),
                "{url} {name}"
            );
        }
        for (url, reference, checksum) in [
            ("file:///srv/a.git", "", ""),
            ("/srv/a.git", "", ""),
            ("ext::sh -c id", "", ""),
            ("--upload-pack=id@h:x", "", ""),
            ("ssh://-oProxyCommand=id/x", "", ""),
            ("https://h/a.git#main", "", ""),
            ("https://h/a.git", "--upload-pack=id", ""),
            ("https://h/a.git", "a\nb", ""),
            ("https://h/a.git", "", "main"),
        ] {
            let refused = builder.add(git(url, reference, checksum));
            assert!(
                matches!(refused, Err(GraphError::Address(..))),
                "{url} {reference} {checksum}"
            );
        }
    }

    fn run(mounts: Vec<Mount>, inputs: Vec<VertexId>) -> Vertex {
        let op = RunOp {
            mounts,
            ..RunOp::new(vec!["make".into()])
        };
        Vertex {
            op: Op::Run(Box::new(op)),
            inputs,
            platform: "linux/amd64".parse().unwrap(),
            origin: None,
        }
    }

    fn bind(from: u32) -> Mount {
        Mount::Bind(BindMount {
            target: "/src".into(),
            from,
            source: "/".into(),
            writable: false,
        })
    }

    #[test]
    fn digests_of_steps_with_and_without_mounts_are_pinned() {
        let mut builder = GraphBuilder::new(10);
        let context = builder.add(context("")).unwrap();
        let files = builder.add(copy(0, "/x", vec![context])).unwrap();
        let plain = builder.add(run(vec![], vec![files])).unwrap();
        let mounts = vec![
            bind(0),
            Mount::Cache(CacheMount {
                target: "/c".into(),
                id: "c".into(),
                sharing: Sharing::Locked,
                read_only: false,
                base: None,
                mode: 0o755,
                uid: 0,
                gid: 0,
            }),
            Mount::Tmpfs(TmpfsMount {
                target: "/t".into(),
                size: Some(1),
            }),
            Mount::Secret(SecretMount {
                id: "s".into(),
                target: None,
                env: Some("S".into()),
                required: true,
                mode: 0o400,
                uid: 0,
                gid: 0,
            }),
            Mount::Ssh(SshMount {
                id: "default".into(),
                target: "/a".into(),
                required: false,
                mode: 0o600,
                uid: 0,
                gid: 0,
            }),
        ];
        let mounted = builder.add(run(mounts, vec![files])).unwrap();
        let graph = builder.finish();
        let changed = "the encoding changed: raise the version in the prefix";
        assert_eq!(graph.digest(plain).short(), "4b4b1a46023c", "{changed}");
        assert_eq!(graph.digest(mounted).short(), "e69aa1c05320", "{changed}");
    }

    #[test]
    fn mounts_of_contexts_and_of_inputs_that_are_not_there_are_refused() {
        let mut builder = GraphBuilder::new(10);
        let context = builder.add(context("")).unwrap();
        let files = builder.add(copy(0, "/x", vec![context])).unwrap();
        let both = vec![files, context];
        assert_eq!(
            builder.add(run(vec![bind(1)], both.clone())),
            Err(GraphError::NoLayers(0))
        );
        assert_eq!(
            builder.add(run(vec![bind(2)], both)),
            Err(GraphError::InputIndex { index: 2, count: 2 })
        );
        assert!(builder.add(run(vec![bind(0)], vec![files])).is_ok());
    }

    #[test]
    fn bad_vertices_are_refused() {
        let mut builder = GraphBuilder::new(1);
        assert_eq!(
            builder.add(copy(0, "/x", vec![VertexId(3)])),
            Err(GraphError::UnknownInput(3))
        );
        let a = builder.add(context("")).unwrap();
        assert_eq!(
            builder.add(copy(1, "/x", vec![a])),
            Err(GraphError::InputIndex { index: 1, count: 1 })
        );
        assert_eq!(
            builder.add(copy(0, "x", vec![a])),
            Err(GraphError::RelativePath("x".into()))
        );
        assert_eq!(
            builder.add(copy(0, "/x", vec![a])),
            Err(GraphError::TooLarge(1))
        );
    }

    #[test]
    fn what_is_not_needed_is_not_listed() {
        let mut builder = GraphBuilder::new(10);
        let a = builder.add(context("a")).unwrap();
        let b = builder.add(context("b")).unwrap();
        let x = builder.add(copy(0, "/x", vec![b])).unwrap();
        let graph = builder.finish();
        assert_eq!(graph.needed_by(x), [b, x]);
        assert_eq!(graph.needed_by(a), [a]);
    }
}
