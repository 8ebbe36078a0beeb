//! `--progress=plain`: a line for each thing that happens, with the number of its step, as docker writes them.

use std::io::Write;
use std::sync::Mutex;

use stepwell_model::event::{Event, EventSink, StepId, StepOutcome};

use super::Progress;
use super::state::State;
use super::text::{bytes, harmless, time};

pub struct Plain {
    color: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: State,
    /// Step that the last line was about: another one is set apart by an empty line.
    last: Option<StepId>,
}

impl Plain {
    pub fn new(color: bool) -> Self {
        Self {
            color,
            inner: Mutex::default(),
        }
    }
}

impl Inner {
    fn lines(&mut self, event: &Event, color: bool) -> Vec<String> {
        let output = self.state.apply(event);
        let (step, mut lines) = match event {
            Event::Started { step } => (*step, vec![self.name(*step)]),
            Event::Output { step, .. } => (*step, vec![]),
            Event::Finished {
                step,
                outcome,
                millis,
            } => (*step, self.end(*step, outcome, *millis)),
            Event::Transfer {
                step,
                id,
                verb,
                done,
                total: Some(total),
            } if done == total => (*step, vec![format!("{verb} {id} {} done", bytes(*total))]),
            Event::Note { text } => return vec![format!("note: {}", harmless(text, false))],
            Event::Diagnostic(d) => return crate::report::diagnostic(d, color),
            _ => return vec![],
        };
        lines.splice(0..0, output.iter().map(|l| harmless(l, color)));
        let lines: Vec<_> = lines
            .into_iter()
            .map(|l| format!("#{} {l}", step.0))
            .collect();
        let gap = !lines.is_empty() && self.last.replace(step).is_some_and(|last| last != step);
        gap.then(String::new).into_iter().chain(lines).collect()
    }

    fn name(&self, step: StepId) -> String {
        self.state
            .steps
            .get(&step)
            .map(|s| harmless(&s.name, false))
            .unwrap_or_default()
    }

    fn end(&self, step: StepId, outcome: &StepOutcome, millis: u64) -> Vec<String> {
        let never_started = self
            .state
            .steps
            .get(&step)
            .is_none_or(|s| s.started.is_none());
        let word = match outcome {
            StepOutcome::Done => format!("DONE {}", time(millis)),
            StepOutcome::Cached => "CACHED".to_owned(),
            StepOutcome::Failed { message } => {
                format!("ERROR {}: {}", time(millis), harmless(message, false))
            }
            StepOutcome::Cancelled => "CANCELLED".to_owned(),
        };
        never_started
            .then(|| self.name(step))
            .into_iter()
            .chain([word])
            .collect()
    }
}

impl EventSink for Plain {
    fn event(&self, event: Event) {
        let Ok(mut inner) = self.inner.lock() else {
            return;
        };
        let mut text = String::new();
        for line in inner.lines(&event, self.color) {
            text.push_str(&line);
            text.push('\n');
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

impl Progress for Plain {
    fn finish(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_build() {
        let mut inner = Inner::default();
        let (a, b) = (StepId(1), StepId(2));
        let events = [
            Event::Step {
                step: a,
                name: "[1/2] FROM debian".into(),
                digest: None,
                origin: None,
            },
            Event::Step {
                step: b,
                name: "[2/2] RUN make".into(),
                digest: None,
                origin: None,
            },
            Event::Finished {
                step: a,
                outcome: StepOutcome::Cached,
                millis: 0,
            },
            Event::Started { step: b },
            Event::Output {
                step: b,
                stream: stepwell_model::event::Stream::Stdout,
                text: "cc -c a.c\nlast".into(),
            },
            Event::Finished {
                step: b,
                outcome: StepOutcome::Failed {
                    message: "exit status 2".into(),
                },
                millis: 1500,
            },
        ];
        let lines: Vec<_> = events.iter().flat_map(|e| inner.lines(e, false)).collect();
        assert_eq!(
            lines,
            [
                "#1 [1/2] FROM debian",
                "#1 CACHED",
                "",
                "#2 [2/2] RUN make",
                "#2 cc -c a.c",
                "#2 last",
                "#2 ERROR 1.5s: exit status 2"
            ]
        );
    }
}
