//! `outcome`: what a frontend hands back.

use stepwell_model::{History, ImageConfig, VertexId};
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::frontend::Description;
use crate::frontend::bindings::stepwell::frontend::outcome as wit;
use crate::frontend::state::{Image, State, size};

impl wit::Host for State {}

impl wit::HostDescription for State {
    fn new(&mut self, name: String, version: String) -> Result<Resource<Description>> {
        self.meter.call()?;
        self.meter.output(size([&name, &version]))?;
        Ok(self.table.push(Description {
            name,
            version,
            definition_names: Vec::new(),
        })?)
    }

    fn add_definition_name(&mut self, this: Resource<Description>, name: String) -> Result<()> {
        self.meter.call()?;
        self.meter.output(size([&name]))?;
        self.table.get_mut(&this)?.definition_names.push(name);
        Ok(())
    }

    fn drop(&mut self, this: Resource<Description>) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wit::HostImage for State {
    fn new(&mut self, root: Option<Resource<VertexId>>) -> Result<Resource<Image>> {
        self.meter.call()?;
        let root = root.map(|r| self.table.get(&r).copied()).transpose()?;
        Ok(self.table.push(Image {
            root,
            config: ImageConfig::default(),
            history: Vec::new(),
            source_date_epoch: None,
        })?)
    }

    fn set_config(&mut self, this: Resource<Image>, config: Resource<ImageConfig>) -> Result<()> {
        self.meter.call()?;
        let config = self.table.get(&config)?.clone();
        self.table.get_mut(&this)?.config = config;
        Ok(())
    }

    fn add_history(
        &mut self,
        this: Resource<Image>,
        created_by: String,
        comment: String,
        empty_layer: bool,
    ) -> Result<()> {
        self.meter.call()?;
        self.meter.output(size([&created_by, &comment]))?;
        self.table.get_mut(&this)?.history.push(History {
            created_by,
            comment,
            empty_layer,
        });
        Ok(())
    }

    fn set_source_date_epoch(&mut self, this: Resource<Image>, seconds: i64) -> Result<()> {
        self.meter.call()?;
        self.table.get_mut(&this)?.source_date_epoch = Some(seconds);
        Ok(())
    }

    fn drop(&mut self, this: Resource<Image>) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
