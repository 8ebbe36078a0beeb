//! `--progress=rawjson`: each event of `stepwell_model::event` as one line, with the time in `at` (RFC 3339).

use std::io::Write;
use std::sync::Mutex;

use serde::Serialize;
use stepwell_model::event::{Event, EventSink};

use super::Progress;

pub struct Json(Mutex<()>);

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    #[serde(flatten)]
    event: &'a Event,
}

impl Json {
    pub fn new() -> Self {
        Self(Mutex::new(()))
    }
}

impl EventSink for Json {
    fn event(&self, event: Event) {
        let line = Line {
            at: jiff::Timestamp::now().to_string(),
            event: &event,
        };
        let Ok(mut text) = serde_json::to_vec(&line) else {
            return;
        };
        text.push(b'\n');
        let _guard = self.0.lock();
        let _ = std::io::stderr().write_all(&text);
    }
}

impl Progress for Json {
    fn finish(&self) {}
}
