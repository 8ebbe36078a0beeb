//! Mounts of a run operation in the making, and what they are made of when it is finished.

use stepwell_model::mount::{
    BindMount, CacheBase, CacheMount, Mount, SecretMount, Sharing, SshMount, TmpfsMount,
};
use stepwell_model::op::{CopyAction, FileAction, FilesOp};
use stepwell_model::{GraphError, Op, Vertex, VertexId, ignore};
use wasmtime::Result;
use wasmtime::component::Resource;

use super::wit;
use crate::frontend::bindings::stepwell::frontend::types::{self, Origin, Platform};
use crate::frontend::imports::{origin_from, platform_from, sharing_from};
use crate::frontend::state::{self, State, size};
use crate::limits::LimitReached;

type This = Resource<state::Mount>;

/// Where the files that are taken for a mount lie in the layer made of them.
const TAKEN: &str = "/mount";

impl State {
    fn new_mount(&mut self, mount: Mount, from: Option<VertexId>, bytes: usize) -> Result<This> {
        self.meter.call()?;
        self.meter.graph(bytes + size_of::<state::Mount>())?;
        Ok(self.table.push(state::Mount { mount, from })?)
    }

    /// Counts a call that keeps `bytes` for the mount, and returns it.
    fn mount(&mut self, this: &This, bytes: usize) -> Result<&mut state::Mount> {
        self.meter.call()?;
        self.meter.graph(bytes)?;
        Ok(self.table.get_mut(this)?)
    }

    /// Turns a mount into part of the operation, and adds what it needs to the inputs.
    pub(super) fn mounted(
        &mut self,
        made: state::Mount,
        inputs: &mut Vec<VertexId>,
        platform: &Platform,
        origin: Option<&Origin>,
    ) -> Result<std::result::Result<Mount, wit::GraphError>> {
        let state::Mount { mut mount, from } = made;
        let (Some(from), Some((_, source))) = (from, mount.source()) else {
            return Ok(Ok(mount));
        };
        if !source.starts_with('/') {
            return Ok(Err(wit::GraphError::RelativePath(source.to_owned())));
        }
        let (vertex, path) = match self.taken(from, source, platform, origin)? {
            Ok(taken) => taken,
            Err(error) => return Ok(Err(error)),
        };
        let index = inputs.len() as u32;
        inputs.push(vertex);
        match &mut mount {
            Mount::Bind(bind) => (bind.from, bind.source) = (index, path),
            Mount::Cache(cache) => {
                cache.base = Some(CacheBase {
                    from: index,
                    source: path,
                });
            }
            Mount::Tmpfs(_) | Mount::Secret(_) | Mount::Ssh(_) => {}
        }
        Ok(Ok(mount))
    }

    /// Returns the vertex that holds the source of a mount, and where.
    ///
    /// What is taken from a context or from a part of a stage becomes an operation of its own, a copy into nothing: so only
    /// the files that are mounted count for reuse, and they are kept as any other layer.  An image is what
    /// its digest says, and a whole stage needs no copy.
    fn taken(
        &mut self,
        from: VertexId,
        source: &str,
        platform: &Platform,
        origin: Option<&Origin>,
    ) -> Result<std::result::Result<(VertexId, String), wit::GraphError>> {
        let as_it_is = match &self.graph.vertex(from).op {
            Op::Image(_) => true,
            Op::Context(_) => false,
            _ => source == "/",
        };
        if as_it_is {
            return Ok(Ok((from, source.to_owned())));
        }
        self.meter.graph(size([source]) + size_of::<Vertex>())?;
        let copy = CopyAction {
            from: 0,
            sources: vec![ignore::literal(source)],
            dest: TAKEN.to_owned(),
            owner: None,
            mode: String::new(),
            extract: false,
            exclude: Vec::new(),
            parents: false,
        };
        let vertex = Vertex {
            op: Op::Files(FilesOp {
                base: None,
                actions: vec![FileAction::Copy(copy)],
            }),
            inputs: vec![from],
            platform: platform_from(platform.clone()),
            origin: origin.cloned().map(|o| {
                let mut origin = origin_from(o);
                origin.text = format!("take `{source}` for a mount");
                origin
            }),
        };
        match self.graph.add(vertex) {
            Ok(id) => Ok(Ok((id, TAKEN.to_owned()))),
            Err(GraphError::TooLarge(limit)) => Err(LimitReached::Vertices(limit).into()),
            Err(error) => Err(error.into()),
        }
    }
}

impl wit::HostMount for State {
    fn bind(&mut self, target: String, from: Resource<VertexId>, source: String) -> Result<This> {
        let bytes = size([&target, &source]);
        let from = *self.table.get(&from)?;
        let mount = Mount::Bind(BindMount {
            target,
            from: 0,
            source,
            writable: false,
        });
        self.new_mount(mount, Some(from), bytes)
    }

    fn cache(&mut self, target: String, id: String) -> Result<This> {
        let bytes = size([&target, &id]);
        let mount = Mount::Cache(CacheMount {
            target,
            id,
            sharing: Sharing::Shared,
            read_only: false,
            base: None,
            mode: 0o755,
            uid: 0,
            gid: 0,
        });
        self.new_mount(mount, None, bytes)
    }

    fn tmpfs(&mut self, target: String) -> Result<This> {
        let bytes = size([&target]);
        self.new_mount(Mount::Tmpfs(TmpfsMount { target, size: None }), None, bytes)
    }

    fn secret(&mut self, id: String) -> Result<This> {
        let bytes = size([&id]);
        let mount = Mount::Secret(SecretMount {
            id,
            target: None,
            env: None,
            required: false,
            mode: 0o400,
            uid: 0,
            gid: 0,
        });
        self.new_mount(mount, None, bytes)
    }

    fn ssh(&mut self, id: String, target: String) -> Result<This> {
        let bytes = size([&id, &target]);
        let mount = Mount::Ssh(SshMount {
            id,
            target,
            required: false,
            mode: 0o600,
            uid: 0,
            gid: 0,
        });
        self.new_mount(mount, None, bytes)
    }

    fn set_target(&mut self, this: This, target: String) -> Result<()> {
        let bytes = size([&target]);
        if let Mount::Secret(secret) = &mut self.mount(&this, bytes)?.mount {
            secret.target = Some(target);
        }
        Ok(())
    }

    fn set_env(&mut self, this: This, name: String) -> Result<()> {
        let bytes = size([&name]);
        if let Mount::Secret(secret) = &mut self.mount(&this, bytes)?.mount {
            secret.env = Some(name);
        }
        Ok(())
    }

    fn set_writable(&mut self, this: This, writable: bool) -> Result<()> {
        match &mut self.mount(&this, 0)?.mount {
            Mount::Bind(bind) => bind.writable = writable,
            Mount::Cache(cache) => cache.read_only = !writable,
            Mount::Tmpfs(_) | Mount::Secret(_) | Mount::Ssh(_) => {}
        }
        Ok(())
    }

    fn set_sharing(&mut self, this: This, sharing: types::Sharing) -> Result<()> {
        if let Mount::Cache(cache) = &mut self.mount(&this, 0)?.mount {
            cache.sharing = sharing_from(sharing);
        }
        Ok(())
    }

    fn set_base(&mut self, this: This, from: Resource<VertexId>, source: String) -> Result<()> {
        let bytes = size([&source]);
        let from = *self.table.get(&from)?;
        let made = self.mount(&this, bytes)?;
        if let Mount::Cache(cache) = &mut made.mount {
            cache.base = Some(CacheBase { from: 0, source });
            made.from = Some(from);
        }
        Ok(())
    }

    fn set_mode(&mut self, this: This, mode: u32) -> Result<()> {
        let mode = mode & 0o7777;
        match &mut self.mount(&this, 0)?.mount {
            Mount::Cache(cache) => cache.mode = mode,
            Mount::Secret(secret) => secret.mode = mode,
            Mount::Ssh(ssh) => ssh.mode = mode,
            Mount::Bind(_) | Mount::Tmpfs(_) => {}
        }
        Ok(())
    }

    fn set_owner(&mut self, this: This, uid: u32, gid: u32) -> Result<()> {
        match &mut self.mount(&this, 0)?.mount {
            Mount::Cache(cache) => (cache.uid, cache.gid) = (uid, gid),
            Mount::Secret(secret) => (secret.uid, secret.gid) = (uid, gid),
            Mount::Ssh(ssh) => (ssh.uid, ssh.gid) = (uid, gid),
            Mount::Bind(_) | Mount::Tmpfs(_) => {}
        }
        Ok(())
    }

    fn set_size(&mut self, this: This, size: u64) -> Result<()> {
        if let Mount::Tmpfs(tmpfs) = &mut self.mount(&this, 0)?.mount {
            tmpfs.size = Some(size);
        }
        Ok(())
    }

    fn set_required(&mut self, this: This, required: bool) -> Result<()> {
        match &mut self.mount(&this, 0)?.mount {
            Mount::Secret(secret) => secret.required = required,
            Mount::Ssh(ssh) => ssh.required = required,
            Mount::Bind(_) | Mount::Cache(_) | Mount::Tmpfs(_) => {}
        }
        Ok(())
    }

    fn drop(&mut self, this: This) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
