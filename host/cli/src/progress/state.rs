//! The picture of a running build: what is known of each step.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use stepwell_model::event::{Event, StepId, StepOutcome, Stream};

/// Lines of output kept for each step: shown again when it fails.
const KEPT_LINES: usize = 200;
/// Longest line kept, in bytes: stops a step that writes no line ends.
const LONGEST_LINE: usize = 16 << 10;

#[derive(Default)]
pub struct State {
    pub steps: BTreeMap<StepId, Step>,
    pub notes: Vec<String>,
}

pub struct Step {
    pub name: String,
    pub started: Option<Instant>,
    pub ended: Option<(StepOutcome, u64)>,
    pub lines: VecDeque<String>,
    partial: BTreeMap<u8, String>,
    pub transfers: BTreeMap<String, Transfer>,
}

pub struct Transfer {
    pub verb: String,
    pub done: u64,
    pub total: Option<u64>,
}

impl State {
    /// Takes an event; returns the lines of output that it completed.
    pub fn apply(&mut self, event: &Event) -> Vec<String> {
        match event {
            Event::Step { step, name, .. } => {
                self.steps.insert(
                    *step,
                    Step {
                        name: name.clone(),
                        started: None,
                        ended: None,
                        lines: VecDeque::new(),
                        partial: BTreeMap::new(),
                        transfers: BTreeMap::new(),
                    },
                );
            }
            Event::Started { step } => {
                if let Some(step) = self.steps.get_mut(step) {
                    step.started = Some(Instant::now());
                }
            }
            Event::Output { step, stream, text } => {
                return self
                    .steps
                    .get_mut(step)
                    .map(|s| s.output(*stream, text))
                    .unwrap_or_default();
            }
            Event::Transfer {
                step,
                id,
                verb,
                done,
                total,
            } => {
                if let Some(step) = self.steps.get_mut(step) {
                    step.transfers.insert(
                        id.clone(),
                        Transfer {
                            verb: verb.clone(),
                            done: *done,
                            total: *total,
                        },
                    );
                }
            }
            Event::Finished {
                step,
                outcome,
                millis,
            } => {
                if let Some(step) = self.steps.get_mut(step) {
                    step.ended = Some((outcome.clone(), *millis));
                    return step.flush();
                }
            }
            Event::Note { text } => self.notes.push(text.clone()),
            // Told at the very end, or by those who show it.
            Event::Diagnostic(_) | Event::Failed { .. } => {}
        }
        Vec::new()
    }
}

impl Step {
    fn output(&mut self, stream: Stream, text: &str) -> Vec<String> {
        let partial = self.partial.entry(stream as u8).or_default();
        let mut complete = Vec::new();
        for piece in text.split_inclusive('\n') {
            partial.push_str(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') || partial.len() > LONGEST_LINE {
                complete.push(last_overprint(&std::mem::take(partial)));
            }
        }
        self.keep(&complete);
        complete
    }

    fn flush(&mut self) -> Vec<String> {
        let rest: Vec<_> = std::mem::take(&mut self.partial)
            .into_values()
            .filter(|l| !l.is_empty())
            .map(|l| last_overprint(&l))
            .collect();
        self.keep(&rest);
        rest
    }

    fn keep(&mut self, lines: &[String]) {
        self.lines.extend(lines.iter().cloned());
        while self.lines.len() > KEPT_LINES {
            self.lines.pop_front();
        }
    }
}

/// What stays visible of a line that is overwritten after carriage returns (progress bars).
fn last_overprint(line: &str) -> String {
    line.trim_end_matches('\r')
        .rsplit('\r')
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_per_stream() {
        let mut state = State::default();
        let step = StepId(1);
        state.apply(&Event::Step {
            step,
            name: "x".into(),
            digest: None,
            origin: None,
        });
        let mut out = |stream, text: &str| {
            state.apply(&Event::Output {
                step,
                stream,
                text: text.into(),
            })
        };
        assert!(out(Stream::Stdout, "a").is_empty());
        assert_eq!(out(Stream::Stderr, "err\n"), ["err"]);
        assert_eq!(out(Stream::Stdout, "b\n10%\r20%\r\nrest"), ["ab", "20%"]);
        assert_eq!(
            state.apply(&Event::Finished {
                step,
                outcome: StepOutcome::Done,
                millis: 0
            }),
            ["rest"]
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut state = State::default();
        let step = StepId(1);
        state.apply(&Event::Step {
            step,
            name: "x".into(),
            digest: None,
            origin: None,
        });
        for _ in 0..1000 {
            state.apply(&Event::Output {
                step,
                stream: Stream::Stdout,
                text: "no line end ".repeat(1000),
            });
        }
        let kept = &state.steps[&step];
        assert!(kept.lines.len() <= KEPT_LINES);
        assert!(
            kept.lines.iter().map(String::len).sum::<usize>()
                < KEPT_LINES * (LONGEST_LINE + 13_000)
        );
    }
}
