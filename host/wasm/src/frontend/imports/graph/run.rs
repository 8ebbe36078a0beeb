//! The run operation in the making.

use stepwell_model::op::{EnvVar, HostEntry, InlineFile, RunOp};
use stepwell_model::{Op, VertexId};
use wasmtime::Result;
use wasmtime::component::Resource;

use super::{Answer, wit};
use crate::frontend::bindings::stepwell::frontend::types::{self, Origin, Platform};
use crate::frontend::imports::{limit_from, network_from};
use crate::frontend::state::{Mount, Run, State, size};

type This = Resource<Run>;

impl State {
    /// Counts a call that keeps `bytes` for the operation, and returns the operation.
    fn run(&mut self, this: &This, bytes: usize) -> Result<&mut RunOp> {
        self.meter.call()?;
        self.meter.graph(bytes)?;
        Ok(&mut self.table.get_mut(this)?.op)
    }
}

/// Sets a variable; names are unique, a later value wins.
fn set(env: &mut Vec<EnvVar>, name: String, value: String) {
    match env.iter_mut().find(|v| v.name == name) {
        Some(known) => known.value = value,
        None => env.push(EnvVar { name, value }),
    }
}

impl wit::HostRun for State {
    fn new(&mut self, root: Resource<VertexId>, args: Vec<String>) -> Result<This> {
        self.meter.call()?;
        self.meter.graph(size(&args) + size_of::<Run>())?;
        let root = *self.table.get(&root)?;
        let run = Run {
            root,
            op: RunOp::new(args),
            mounts: Vec::new(),
        };
        Ok(self.table.push(run)?)
    }

    fn add_env(&mut self, this: This, name: String, value: String) -> Result<()> {
        let op = self.run(&this, size([&name, &value]))?;
        set(&mut op.env, name, value);
        Ok(())
    }

    fn add_uncounted_env(&mut self, this: This, name: String, value: String) -> Result<()> {
        let op = self.run(&this, size([&name, &value]))?;
        set(&mut op.uncounted_env, name, value);
        Ok(())
    }

    fn set_cwd(&mut self, this: This, path: String) -> Result<()> {
        let bytes = size([&path]);
        self.run(&this, bytes)?.cwd = path;
        Ok(())
    }

    fn set_user(&mut self, this: This, user: String) -> Result<()> {
        let bytes = size([&user]);
        self.run(&this, bytes)?.user = user;
        Ok(())
    }

    fn set_network(&mut self, this: This, network: types::Network) -> Result<()> {
        self.run(&this, 0)?.network = network_from(network);
        Ok(())
    }

    fn add_file(&mut self, this: This, path: String, content: Vec<u8>, mode: u32) -> Result<()> {
        let bytes = size([path.as_bytes(), &content]);
        self.run(&this, bytes)?.files.push(InlineFile {
            path,
            content,
            mode,
        });
        Ok(())
    }

    fn add_host(&mut self, this: This, host: String, address: String) -> Result<()> {
        let bytes = size([&host, &address]);
        let entry = HostEntry { host, address };
        self.run(&this, bytes)?.extra_hosts.push(entry);
        Ok(())
    }

    fn set_hostname(&mut self, this: This, name: String) -> Result<()> {
        let bytes = size([&name]);
        self.run(&this, bytes)?.hostname = name;
        Ok(())
    }

    fn add_mount(&mut self, this: This, mount: Resource<Mount>) -> Result<()> {
        let mount = self.table.delete(mount)?;
        self.run(&this, size_of::<Mount>())?;
        self.table.get_mut(&this)?.mounts.push(mount);
        Ok(())
    }

    fn set_shm_size(&mut self, this: This, size: u64) -> Result<()> {
        self.run(&this, 0)?.shm_size = Some(size);
        Ok(())
    }

    fn add_limit(&mut self, this: This, limit: types::Limit) -> Result<()> {
        let bytes = size([&limit.name]) + size_of::<types::Limit>();
        self.run(&this, bytes)?.limits.push(limit_from(limit));
        Ok(())
    }

    fn finish(&mut self, this: This, platform: Platform, origin: Option<Origin>) -> Answer {
        self.meter.call()?;
        let Run {
            root,
            mut op,
            mounts,
        } = self.table.delete(this)?;
        let mut inputs = vec![root];
        for mount in mounts {
            match self.mounted(mount, &mut inputs, &platform, origin.as_ref())? {
                Ok(mount) => op.mounts.push(mount),
                Err(error) => return Ok(Err(error)),
            }
        }
        self.add(Op::Run(Box::new(op)), inputs, platform, origin)
    }

    fn drop(&mut self, this: This) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
