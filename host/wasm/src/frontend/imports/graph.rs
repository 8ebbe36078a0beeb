//! `graph`: making vertices.  The run and files operations have files of their own below.

mod files;
mod mounts;
mod run;
mod sources;

use std::time::Instant;

use stepwell_model::op::{ContextOp, ImageOp, MergeOp};
use stepwell_model::{Digest, GraphError, Op, Vertex, VertexId};
use wasmtime::Result;
use wasmtime::component::Resource;

use super::contexts::error_to;
use super::{origin_from, platform_from};
use crate::frontend::bindings::stepwell::frontend::contexts::AccessError;
use crate::frontend::bindings::stepwell::frontend::graph as wit;
use crate::frontend::bindings::stepwell::frontend::types::{Origin, Platform};
use crate::frontend::state::{State, size, size_of_origin};
use crate::limits::LimitReached;

/// What making a vertex answers: the outer error traps the guest, the inner one is the guest's to deal with.
type Answer = Result<std::result::Result<Resource<VertexId>, wit::GraphError>>;

impl State {
    /// Adds a vertex.  The graph's limit traps: a guest that was told would only try again.
    fn add(
        &mut self,
        op: Op,
        inputs: Vec<VertexId>,
        platform: Platform,
        origin: Option<Origin>,
    ) -> Answer {
        let origin = origin.map(origin_from);
        self.meter.graph(size_of_origin(origin.as_ref()))?;
        let vertex = Vertex {
            op,
            inputs,
            platform: platform_from(platform),
            origin,
        };
        match self.graph.add(vertex) {
            Ok(id) => Ok(Ok(self.table.push(id)?)),
            Err(GraphError::RelativePath(path)) => Ok(Err(wit::GraphError::RelativePath(path))),
            Err(GraphError::TooLarge(limit)) => Err(LimitReached::Vertices(limit).into()),
            // The inputs are handles of vertices of this graph and the indices are made here.
            Err(
                error @ (GraphError::UnknownInput(_)
                | GraphError::InputIndex { .. }
                | GraphError::NoLayers(_)
                | GraphError::Address(..)),
            ) => Err(error.into()),
        }
    }
}

impl wit::Host for State {
    fn image(
        &mut self,
        reference: String,
        digest: String,
        platform: Platform,
        origin: Option<Origin>,
    ) -> Answer {
        self.meter.call()?;
        self.meter.graph(size([&reference, &digest]))?;
        let known = digest.parse::<Digest>().ok().map(|d| (reference, d));
        let Some((reference, digest)) = known.filter(|k| self.resolved.contains(k)) else {
            return Ok(Err(wit::GraphError::UnresolvedImage(digest)));
        };
        let op = Op::Image(ImageOp { reference, digest });
        self.add(op, Vec::new(), platform, origin)
    }

    fn context(
        &mut self,
        name: String,
        exclude: Vec<String>,
        platform: Platform,
        origin: Option<Origin>,
    ) -> Answer {
        self.meter.call()?;
        self.meter.graph(size(&exclude) + size([&name]))?;
        if !self.is_directory(&name) {
            return Ok(Err(wit::GraphError::UnknownContext(name)));
        }
        let op = Op::Context(ContextOp { name, exclude });
        self.add(op, Vec::new(), platform, origin)
    }

    fn http(
        &mut self,
        url: String,
        name: String,
        checksum: Option<String>,
        platform: Platform,
        origin: Option<Origin>,
    ) -> sources::Answer {
        self.http_source(url, name, checksum, platform, origin)
    }

    fn fetched_time(
        &mut self,
        source: Resource<VertexId>,
    ) -> Result<std::result::Result<Option<i64>, AccessError>> {
        self.meter.call()?;
        self.meter.resolve()?;
        let op = self.graph.vertex(*self.table.get(&source)?).op.clone();
        // The server's time is not the guest's.
        let started = Instant::now();
        let answer = self.host.fetched_time(&op);
        self.meter.exclude(started.elapsed());
        Ok(answer.map_err(error_to))
    }

    fn merge(
        &mut self,
        inputs: Vec<Resource<VertexId>>,
        platform: Platform,
        origin: Option<Origin>,
    ) -> Answer {
        self.meter.call()?;
        self.meter.graph(inputs.len() * size_of::<VertexId>())?;
        if inputs.is_empty() {
            return Ok(Err(wit::GraphError::NoInput));
        }
        let inputs = inputs
            .iter()
            .map(|i| self.table.get(i).copied())
            .collect::<std::result::Result<_, _>>()?;
        self.add(Op::Merge(MergeOp {}), inputs, platform, origin)
    }
}

impl wit::HostVertex for State {
    fn drop(&mut self, this: Resource<VertexId>) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
