//! What is fetched from elsewhere: files and repositories.  Nothing is fetched here; the graph itself checks addresses.

use stepwell_model::op::{GitOp, HttpOp};
use stepwell_model::{Digest, GraphError, Op, Vertex, VertexId};
use wasmtime::Result;
use wasmtime::component::Resource;

use super::wit;
use crate::frontend::bindings::stepwell::frontend::types::{Origin, Platform};
use crate::frontend::imports::{origin_from, platform_from};
use crate::frontend::state::{State, size, size_of_origin};
use crate::limits::LimitReached;

type This = Resource<GitOp>;

/// The outer error traps the guest, the inner one is the guest's to deal with.
pub(super) type Answer = Result<std::result::Result<Resource<VertexId>, wit::SourceError>>;

impl State {
    pub(super) fn http_source(
        &mut self,
        url: String,
        name: String,
        checksum: Option<String>,
        platform: Platform,
        origin: Option<Origin>,
    ) -> Answer {
        self.meter.call()?;
        self.meter
            .graph(size([&url, &name]) + size_of::<HttpOp>())?;
        let parsed = checksum.map(|text| text.parse::<Digest>().map_err(|_| text));
        let checksum = match parsed.transpose() {
            Ok(checksum) => checksum,
            Err(text) => return Ok(Err(wit::SourceError::BadChecksum(text))),
        };
        let op = HttpOp {
            url,
            name,
            checksum,
        };
        self.add_source(Op::Http(op), platform, origin)
    }

    fn add_source(&mut self, op: Op, platform: Platform, origin: Option<Origin>) -> Answer {
        let origin = origin.map(origin_from);
        self.meter.graph(size_of_origin(origin.as_ref()))?;
        let vertex = Vertex {
            op,
            inputs: Vec::new(),
            platform: platform_from(platform),
            origin,
        };
        match self.graph.add(vertex) {
            Ok(id) => Ok(Ok(self.table.push(id)?)),
            Err(GraphError::TooLarge(limit)) => Err(LimitReached::Vertices(limit).into()),
            Err(error @ GraphError::Address(..)) => {
                Ok(Err(wit::SourceError::BadAddress(error.to_string())))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts a call that keeps `bytes` for the source, and returns it.
    fn git(&mut self, this: &This, bytes: usize) -> Result<&mut GitOp> {
        self.meter.call()?;
        self.meter.graph(bytes)?;
        Ok(self.table.get_mut(this)?)
    }
}

impl wit::HostGitSource for State {
    fn new(&mut self, url: String) -> Result<This> {
        self.meter.call()?;
        self.meter.graph(size([&url]) + size_of::<GitOp>())?;
        let op = GitOp {
            url,
            submodules: true,
            ..GitOp::default()
        };
        Ok(self.table.push(op)?)
    }

    fn set_reference(&mut self, this: This, reference: String) -> Result<()> {
        let bytes = reference.len();
        self.git(&this, bytes)?.reference = reference;
        Ok(())
    }

    fn set_subdir(&mut self, this: This, path: String) -> Result<()> {
        let bytes = path.len();
        self.git(&this, bytes)?.subdir = path;
        Ok(())
    }

    fn set_checksum(&mut self, this: This, commit: String) -> Result<()> {
        let bytes = commit.len();
        self.git(&this, bytes)?.checksum = commit;
        Ok(())
    }

    fn set_keep_git_dir(&mut self, this: This, keep: bool) -> Result<()> {
        self.git(&this, 0)?.keep_git_dir = keep;
        Ok(())
    }

    fn set_submodules(&mut self, this: This, submodules: bool) -> Result<()> {
        self.git(&this, 0)?.submodules = submodules;
        Ok(())
    }

    fn set_commit_times(&mut self, this: This, commit_times: bool) -> Result<()> {
        self.git(&this, 0)?.commit_times = commit_times;
        Ok(())
    }

    fn finish(&mut self, this: This, platform: Platform, origin: Option<Origin>) -> Answer {
        self.meter.call()?;
        let op = self.table.delete(this)?;
        self.add_source(Op::Git(op), platform, origin)
    }

    fn drop(&mut self, this: This) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
