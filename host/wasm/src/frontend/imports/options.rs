//! `options`: what the user asks for.

use wasmtime::Result;

use super::{host_entry_to, limit_to, network_to, platform_to};
use crate::frontend::ContextKind;
use crate::frontend::bindings::stepwell::frontend::options as wit;
use crate::frontend::bindings::stepwell::frontend::types;
use crate::frontend::state::State;

impl wit::Host for State {
    fn get_definition(&mut self) -> Result<wit::Definition> {
        self.meter.call()?;
        Ok(wit::Definition {
            name: self.input.definition.name.clone(),
            content: self.input.definition.content.clone(),
        })
    }

    fn ignore_file(&mut self) -> Result<Option<wit::Definition>> {
        self.meter.call()?;
        let file = self.input.ignore_file.as_ref();
        Ok(file.map(|file| wit::Definition {
            name: file.name.clone(),
            content: file.content.clone(),
        }))
    }

    fn target(&mut self) -> Result<Option<String>> {
        self.meter.call()?;
        Ok(self.input.target.clone())
    }

    fn build_args(&mut self) -> Result<Vec<(String, String)>> {
        self.meter.call()?;
        Ok(self.input.build_args.clone())
    }

    fn labels(&mut self) -> Result<Vec<(String, String)>> {
        self.meter.call()?;
        Ok(self.input.labels.clone())
    }

    fn custom(&mut self) -> Result<Vec<(String, String)>> {
        self.meter.call()?;
        Ok(self.input.options.clone())
    }

    fn target_platform(&mut self) -> Result<types::Platform> {
        self.meter.call()?;
        Ok(platform_to(&self.input.target_platform))
    }

    fn build_platform(&mut self) -> Result<types::Platform> {
        self.meter.call()?;
        Ok(platform_to(&self.input.build_platform))
    }

    fn named_contexts(&mut self) -> Result<Vec<wit::NamedContext>> {
        self.meter.call()?;
        let contexts = self.input.named_contexts.iter();
        Ok(contexts
            .map(|(name, kind)| wit::NamedContext {
                name: name.clone(),
                kind: match kind {
                    ContextKind::Directory => wit::ContextKind::Directory,
                    ContextKind::Image(reference) => wit::ContextKind::Image(reference.clone()),
                },
            })
            .collect())
    }

    fn extra_hosts(&mut self) -> Result<Vec<types::HostEntry>> {
        self.meter.call()?;
        Ok(self.input.extra_hosts.iter().map(host_entry_to).collect())
    }

    fn shm_size(&mut self) -> Result<Option<u64>> {
        self.meter.call()?;
        Ok(self.input.shm_size)
    }

    fn limits(&mut self) -> Result<Vec<types::Limit>> {
        self.meter.call()?;
        Ok(self.input.limits.iter().map(limit_to).collect())
    }

    fn default_network(&mut self) -> Result<types::Network> {
        self.meter.call()?;
        Ok(network_to(self.input.network))
    }
}
