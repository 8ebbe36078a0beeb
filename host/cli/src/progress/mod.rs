//! Shows a build while it runs.  [`state`] is the picture; [`tty`] draws it, [`plain`] writes lines, [`json`] writes events.
//! Everything goes to standard error, so that standard output is free for results.

mod json;
mod plain;
mod state;
mod text;
mod tty;

pub use text::{bytes, harmless};

use std::io::IsTerminal;
use std::sync::Arc;

use stepwell_model::event::{Event, EventSink};

use crate::args::ProgressMode;

/// A way to show progress; dropping it writes what is left.
pub trait Progress: EventSink {
    /// Ends the showing; nothing is written afterwards.
    fn finish(&self);
}

/// Chooses the way: `auto` is a live picture on a terminal and lines elsewhere.
pub fn start(mode: ProgressMode) -> Arc<dyn Progress> {
    let terminal =
        std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    match mode {
        ProgressMode::Quiet => Arc::new(Silent),
        ProgressMode::Rawjson => Arc::new(json::Json::new()),
        ProgressMode::Plain => Arc::new(plain::Plain::new(color)),
        ProgressMode::Auto if !terminal => Arc::new(plain::Plain::new(color)),
        ProgressMode::Auto | ProgressMode::Tty => Arc::new(tty::Tty::start(color)),
    }
}

struct Silent;

impl EventSink for Silent {
    fn event(&self, _: Event) {}
}

impl Progress for Silent {
    fn finish(&self) {}
}
