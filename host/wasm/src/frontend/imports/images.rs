//! `images`: resolving references, and image configurations as resources.

use std::time::Instant;

use stepwell_model::{Healthcheck, ImageConfig};
use wasmtime::Result;
use wasmtime::component::Resource;

use super::{platform_from, platform_to};
use crate::frontend::bindings::stepwell::frontend::images as wit;
use crate::frontend::bindings::stepwell::frontend::types;
use crate::frontend::state::{State, size};
use crate::frontend::{ResolveError, ResolvedImage};

type Config = Resource<ImageConfig>;
type Resolved = Resource<ResolvedImage>;

impl wit::Host for State {
    fn resolve(
        &mut self,
        reference: String,
        platform: types::Platform,
    ) -> Result<std::result::Result<Resolved, wit::ResolveError>> {
        self.meter.call()?;
        self.meter.resolve()?;
        // The registry's time is not the guest's.
        let started = Instant::now();
        let answer = self
            .host
            .resolve_image(&reference, &platform_from(platform));
        self.meter.exclude(started.elapsed());
        match answer {
            Ok(image) => {
                let known = (image.reference.clone(), image.digest);
                self.resolved.insert(known);
                Ok(Ok(self.table.push(image)?))
            }
            Err(error) => Ok(Err(error_to(error))),
        }
    }
}

fn error_to(error: ResolveError) -> wit::ResolveError {
    match error {
        ResolveError::InvalidReference(text) => wit::ResolveError::InvalidReference(text),
        ResolveError::NotFound(text) => wit::ResolveError::NotFound(text),
        ResolveError::NoSuchPlatform(text) => wit::ResolveError::NoSuchPlatform(text),
        ResolveError::Denied(text) => wit::ResolveError::Denied(text),
        ResolveError::Unavailable(text) => wit::ResolveError::Unavailable(text),
    }
}

impl wit::HostResolvedImage for State {
    fn reference(&mut self, this: Resolved) -> Result<String> {
        self.meter.call()?;
        Ok(self.table.get(&this)?.reference.clone())
    }

    fn digest(&mut self, this: Resolved) -> Result<String> {
        self.meter.call()?;
        Ok(self.table.get(&this)?.digest.to_string())
    }

    fn platform(&mut self, this: Resolved) -> Result<types::Platform> {
        self.meter.call()?;
        Ok(platform_to(&self.table.get(&this)?.platform))
    }

    fn config(&mut self, this: Resolved) -> Result<Config> {
        self.meter.call()?;
        let config = self.table.get(&this)?.config.clone();
        self.meter.output(size_of_config(&config))?;
        Ok(self.table.push(config)?)
    }

    fn drop(&mut self, this: Resolved) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// Bytes that a configuration takes in the host's memory, about.
fn size_of_config(c: &ImageConfig) -> usize {
    size(&c.env)
        + size(c.cmd.iter().flatten())
        + size(c.entrypoint.iter().flatten())
        + size(c.shell.iter().flatten())
        + size(c.labels.keys())
        + size(c.labels.values())
        + size(&c.exposed_ports)
        + size(&c.volumes)
        + size(&c.on_build)
        + size([&c.working_dir, &c.user, &c.stop_signal, &c.author])
}

/// A getter and a setter for a field that is the same on both sides.
macro_rules! fields {
    ($($field:ident, $set:ident: $type:ty, $size:expr;)*) => {
        $(
            fn $field(&mut self, this: Config) -> Result<$type> {
                self.meter.call()?;
                Ok(self.table.get(&this)?.$field.clone())
            }

            fn $set(&mut self, this: Config, value: $type) -> Result<()> {
                self.meter.call()?;
                let size: fn(&$type) -> usize = $size;
                self.meter.output(size(&value))?;
                self.table.get_mut(&this)?.$field = value;
                Ok(())
            }
        )*
    };
}

impl wit::HostImageConfig for State {
    fn new(&mut self) -> Result<Config> {
        self.meter.call()?;
        Ok(self.table.push(ImageConfig::default())?)
    }

    fields! {
        env, set_env: Vec<String>, |v| size(v);
        cmd, set_cmd: Option<Vec<String>>, |v| size(v.iter().flatten());
        entrypoint, set_entrypoint: Option<Vec<String>>, |v| size(v.iter().flatten());
        working_dir, set_working_dir: String, |v| size([v]);
        user, set_user: String, |v| size([v]);
        stop_signal, set_stop_signal: String, |v| size([v]);
        shell, set_shell: Option<Vec<String>>, |v| size(v.iter().flatten());
        on_build, set_on_build: Vec<String>, |v| size(v);
        author, set_author: String, |v| size([v]);
    }

    fn labels(&mut self, this: Config) -> Result<Vec<(String, String)>> {
        self.meter.call()?;
        let labels = &self.table.get(&this)?.labels;
        Ok(labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn set_labels(&mut self, this: Config, labels: Vec<(String, String)>) -> Result<()> {
        self.meter.call()?;
        let bytes = labels.iter().map(|(k, v)| size([k, v])).sum();
        self.meter.output(bytes)?;
        self.table.get_mut(&this)?.labels = labels.into_iter().collect();
        Ok(())
    }

    fn exposed_ports(&mut self, this: Config) -> Result<Vec<String>> {
        self.meter.call()?;
        let ports = &self.table.get(&this)?.exposed_ports;
        Ok(ports.iter().cloned().collect())
    }

    fn set_exposed_ports(&mut self, this: Config, ports: Vec<String>) -> Result<()> {
        self.meter.call()?;
        self.meter.output(size(&ports))?;
        self.table.get_mut(&this)?.exposed_ports = ports.into_iter().collect();
        Ok(())
    }

    fn volumes(&mut self, this: Config) -> Result<Vec<String>> {
        self.meter.call()?;
        Ok(self.table.get(&this)?.volumes.iter().cloned().collect())
    }

    fn set_volumes(&mut self, this: Config, paths: Vec<String>) -> Result<()> {
        self.meter.call()?;
        self.meter.output(size(&paths))?;
        self.table.get_mut(&this)?.volumes = paths.into_iter().collect();
        Ok(())
    }

    fn get_healthcheck(&mut self, this: Config) -> Result<Option<wit::Healthcheck>> {
        self.meter.call()?;
        let check = self.table.get(&this)?.healthcheck.clone();
        Ok(check.map(|h| wit::Healthcheck {
            test: h.test,
            interval: h.interval,
            timeout: h.timeout,
            start_period: h.start_period,
            start_interval: h.start_interval,
            retries: h.retries,
        }))
    }

    fn set_healthcheck(&mut self, this: Config, check: Option<wit::Healthcheck>) -> Result<()> {
        self.meter.call()?;
        self.meter
            .output(size(check.iter().flat_map(|h| &h.test)))?;
        self.table.get_mut(&this)?.healthcheck = check.map(|h| Healthcheck {
            test: h.test,
            interval: h.interval,
            timeout: h.timeout,
            start_period: h.start_period,
            start_interval: h.start_interval,
            retries: h.retries,
        });
        Ok(())
    }

    fn drop(&mut self, this: Config) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
