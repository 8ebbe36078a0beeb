//! `inspection`: what is asked about a definition, and the answers.

use stepwell_model::inspection::{Argument, Supply, SupplyKind, Target};
use wasmtime::Result;

use super::span_from;
use crate::frontend::bindings::stepwell::frontend::inspection as wit;
use crate::frontend::state::{State, size};
use crate::plain::plain;

impl wit::Host for State {
    fn call(&mut self) -> Result<String> {
        self.meter.call()?;
        Ok(self.input.call.name().to_owned())
    }

    fn report_target(
        &mut self,
        name: String,
        base: String,
        platform: String,
        description: String,
        is_default: bool,
        place: wit::Span,
    ) -> Result<()> {
        self.meter.call()?;
        self.meter
            .output(size([&name, &base, &platform, &description]))?;
        self.targets.push(Target {
            name: plain(name),
            base: plain(base),
            platform: plain(platform),
            description: plain(description),
            default: is_default,
            span: span_from(place),
        });
        Ok(())
    }

    fn report_argument(
        &mut self,
        name: String,
        value: Option<String>,
        description: String,
        place: wit::Span,
    ) -> Result<()> {
        self.meter.call()?;
        self.meter
            .output(size([&name, &description]) + value.as_ref().map_or(0, String::len))?;
        self.arguments.push(Argument {
            name: plain(name),
            value: value.map(plain),
            description: plain(description),
            span: span_from(place),
        });
        Ok(())
    }

    fn report_supply(
        &mut self,
        kind: wit::Supply,
        id: String,
        required: bool,
        place: wit::Span,
    ) -> Result<()> {
        self.meter.call()?;
        self.meter.output(size([&id]) + size_of::<Supply>())?;
        self.supplies.push(Supply {
            kind: match kind {
                wit::Supply::Secret => SupplyKind::Secret,
                wit::Supply::SshAgent => SupplyKind::Ssh,
            },
            id: plain(id),
            required,
            span: span_from(place),
        });
        Ok(())
    }
}
