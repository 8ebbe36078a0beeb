//! `diagnostics`: messages about what the user wrote.

use stepwell_model::{Diagnostic, Severity};
use wasmtime::Result;

use super::span_from;
use crate::frontend::bindings::stepwell::frontend::diagnostics as wit;
use crate::frontend::state::{State, size};
use crate::plain::plain;

impl wit::Host for State {
    fn report(&mut self, d: wit::Diagnostic) -> Result<()> {
        self.meter.call()?;
        let texts = [&d.code, &d.message, &d.file, &d.source, &d.hint];
        self.meter.output(size(texts))?;
        self.diagnostics.push(Diagnostic {
            severity: match d.severity {
                wit::Severity::Note => Severity::Note,
                wit::Severity::Warning => Severity::Warning,
                wit::Severity::Error => Severity::Error,
            },
            code: plain(d.code),
            message: plain(d.message),
            file: plain(d.file),
            span: span_from(d.span),
            source: plain(d.source),
            hint: plain(d.hint),
        });
        Ok(())
    }
}
