//! The files operation and its copies in the making.

use stepwell_model::op::{CopyAction, FileAction, FilesOp};
use stepwell_model::{Op, VertexId};
use wasmtime::Result;
use wasmtime::component::Resource;

use super::{Answer, wit};
use crate::frontend::bindings::stepwell::frontend::types::{Origin, Owner, Platform};
use crate::frontend::imports::owner_from;
use crate::frontend::state::{Copy, Files, State, size};

impl State {
    /// Counts a call that keeps `bytes` for the copy, and returns the copy.
    fn copying(&mut self, this: &Resource<Copy>, bytes: usize) -> Result<&mut CopyAction> {
        self.meter.call()?;
        self.meter.graph(bytes)?;
        Ok(&mut self.table.get_mut(this)?.action)
    }

    /// Counts a call that keeps `bytes`, and adds an action.
    fn act(&mut self, this: &Resource<Files>, bytes: usize, action: FileAction) -> Result<()> {
        self.meter.call()?;
        self.meter.graph(bytes + size_of::<FileAction>())?;
        self.table.get_mut(this)?.op.actions.push(action);
        Ok(())
    }
}

fn size_of_owner(owner: Option<&Owner>) -> usize {
    owner.map_or(0, |o| size([&o.user]) + size(&o.group))
}

impl wit::HostFileCopy for State {
    fn new(
        &mut self,
        from: Resource<VertexId>,
        sources: Vec<String>,
        dest: String,
    ) -> Result<Resource<Copy>> {
        self.meter.call()?;
        self.meter
            .graph(size(&sources) + size([&dest]) + size_of::<Copy>())?;
        let from = *self.table.get(&from)?;
        let action = CopyAction {
            // Known once the copy joins a files operation.
            from: 0,
            sources,
            dest,
            owner: None,
            mode: String::new(),
            extract: false,
            exclude: Vec::new(),
            parents: false,
        };
        Ok(self.table.push(Copy { from, action })?)
    }

    fn set_owner(&mut self, this: Resource<Copy>, owner: Owner) -> Result<()> {
        let bytes = size_of_owner(Some(&owner));
        self.copying(&this, bytes)?.owner = Some(owner_from(owner));
        Ok(())
    }

    fn set_mode(&mut self, this: Resource<Copy>, mode: String) -> Result<()> {
        let bytes = size([&mode]);
        self.copying(&this, bytes)?.mode = mode;
        Ok(())
    }

    fn set_extract(&mut self, this: Resource<Copy>, extract: bool) -> Result<()> {
        self.copying(&this, 0)?.extract = extract;
        Ok(())
    }

    fn add_exclude(&mut self, this: Resource<Copy>, pattern: String) -> Result<()> {
        let bytes = size([&pattern]);
        self.copying(&this, bytes)?.exclude.push(pattern);
        Ok(())
    }

    fn set_parents(&mut self, this: Resource<Copy>, parents: bool) -> Result<()> {
        self.copying(&this, 0)?.parents = parents;
        Ok(())
    }

    fn drop(&mut self, this: Resource<Copy>) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl Files {
    /// Returns the index of `vertex` among the inputs, adding it where it is new.
    fn input(&mut self, vertex: VertexId) -> u32 {
        let known = self.inputs.iter().position(|i| *i == vertex);
        let index = known.unwrap_or(self.inputs.len());
        if known.is_none() {
            self.inputs.push(vertex);
        }
        index as u32
    }
}

impl wit::HostFiles for State {
    fn new(&mut self, base: Option<Resource<VertexId>>) -> Result<Resource<Files>> {
        self.meter.call()?;
        self.meter.graph(size_of::<Files>())?;
        let base = base.map(|b| self.table.get(&b).copied()).transpose()?;
        let mut files = Files {
            inputs: Vec::new(),
            op: FilesOp {
                base: None,
                actions: Vec::new(),
            },
        };
        files.op.base = base.map(|b| files.input(b));
        Ok(self.table.push(files)?)
    }

    fn copy(&mut self, this: Resource<Files>, copy: Resource<Copy>) -> Result<()> {
        let Copy { from, mut action } = self.table.delete(copy)?;
        action.from = self.table.get_mut(&this)?.input(from);
        self.act(&this, 0, FileAction::Copy(action))
    }

    fn mkdir(
        &mut self,
        this: Resource<Files>,
        path: String,
        mode: u32,
        owner: Option<Owner>,
    ) -> Result<()> {
        let bytes = size([&path]) + size_of_owner(owner.as_ref());
        let owner = owner.map(owner_from);
        self.act(&this, bytes, FileAction::Mkdir { path, mode, owner })
    }

    fn mkfile(
        &mut self,
        this: Resource<Files>,
        path: String,
        content: Vec<u8>,
        mode: u32,
        owner: Option<Owner>,
    ) -> Result<()> {
        let bytes = size([path.as_bytes(), &content]) + size_of_owner(owner.as_ref());
        let action = FileAction::Mkfile {
            path,
            content,
            mode,
            owner: owner.map(owner_from),
        };
        self.act(&this, bytes, action)
    }

    fn rm(&mut self, this: Resource<Files>, path: String, allow_missing: bool) -> Result<()> {
        let bytes = size([&path]);
        let action = FileAction::Rm {
            path,
            allow_missing,
        };
        self.act(&this, bytes, action)
    }

    fn symlink(&mut self, this: Resource<Files>, target: String, path: String) -> Result<()> {
        let bytes = size([&target, &path]);
        self.act(&this, bytes, FileAction::Symlink { target, path })
    }

    fn finish(
        &mut self,
        this: Resource<Files>,
        platform: Platform,
        origin: Option<Origin>,
    ) -> Answer {
        self.meter.call()?;
        let files = self.table.delete(this)?;
        self.add(Op::Files(files.op), files.inputs, platform, origin)
    }

    fn drop(&mut self, this: Resource<Files>) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
