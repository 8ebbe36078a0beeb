//! `--progress=tty`: a picture that is drawn again a few times a second.  Each frame is one write, overwrites the one before
//! line by line, and is lower and narrower than the terminal, so that nothing flickers or scrolls away: at the last column
//! terminals do not agree where the cursor is, and some take the last character away again.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stepwell_model::event::{Event, EventSink, StepOutcome};

use super::Progress;
use super::state::{State, Step};
use super::text::{bytes, cut, harmless, time, width};

const FRAME: Duration = Duration::from_millis(80);
/// Lines of output shown of each running step.
const TAIL: usize = 4;
const SPINNER: &[char] = &['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

pub struct Tty {
    shared: Arc<Shared>,
    painter: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    color: bool,
    began: Instant,
    state: Mutex<(State, bool)>,
    wake: Condvar,
}

impl Tty {
    pub fn start(color: bool) -> Self {
        let shared = Arc::new(Shared {
            color,
            began: Instant::now(),
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let painter = std::thread::spawn({
            let shared = shared.clone();
            move || shared.paint()
        });
        Self {
            shared,
            painter: Mutex::new(Some(painter)),
        }
    }
}

impl EventSink for Tty {
    fn event(&self, event: Event) {
        let Ok(mut state) = self.shared.state.lock() else {
            return;
        };
        if let Event::Diagnostic(d) = &event {
            state
                .0
                .notes
                .extend(crate::report::diagnostic(d, self.shared.color));
        }
        state.0.apply(&event);
    }
}

impl Progress for Tty {
    fn finish(&self) {
        if let Ok(mut state) = self.shared.state.lock() {
            state.1 = true;
        }
        self.shared.wake.notify_all();
        if let Some(painter) = self.painter.lock().ok().and_then(|mut p| p.take()) {
            let _ = painter.join();
        }
    }
}

impl Shared {
    fn paint(&self) {
        let mut before = Vec::new();
        let Ok(mut state) = self.state.lock() else {
            return;
        };
        loop {
            let last = state.1;
            let (columns, rows) = terminal_size::terminal_size()
                .map_or((80, 24), |(w, h)| (w.0 as usize, h.0 as usize));
            let notes = std::mem::take(&mut state.0.notes);
            let height = if last {
                usize::MAX
            } else {
                rows.saturating_sub(1)
            };
            let (elapsed, width) = (self.began.elapsed(), columns.saturating_sub(1));
            let mut lines = frame(&state.0, elapsed, width, height, self.color);
            if last && state.0.steps.is_empty() {
                // Refused before there was a step: the reason says all.
                lines.clear();
            }
            let failed = if last {
                failures(&state.0, self.color)
            } else {
                Vec::new()
            };
            drop(state);
            let up = rows_of(&before, columns);
            let _ =
                std::io::stderr().write_all(draw(up, columns, &notes, &lines, &failed).as_bytes());
            if last {
                return;
            }
            before = lines.iter().map(|l| width_of(l)).collect();
            let Ok(guard) = self.state.lock() else { return };
            let Ok((guard, _)) = self.wake.wait_timeout_while(guard, FRAME, |s| !s.1) else {
                return;
            };
            state = guard;
        }
    }
}

/// How many rows lines of these widths fill now: a terminal that became narrower has wrapped them.
fn rows_of(widths: &[usize], columns: usize) -> usize {
    widths
        .iter()
        .map(|w| w.div_ceil(columns.max(1)).max(1))
        .sum()
}

/// Columns of a line of a frame, whose only escape sequences are colours.
fn width_of(line: &str) -> usize {
    width(&harmless(line, false))
}

/// What overwrites the `up` rows of the last frame; notes go above and stay, what failed goes below.
fn draw(
    up: usize,
    columns: usize,
    notes: &[String],
    lines: &[String],
    failed: &[String],
) -> String {
    // Between these two a terminal that knows them (mode 2026) shows nothing half-drawn.
    let mut out = String::from("\x1b[?2026h");
    if up > 0 {
        let _ = write!(out, "\x1b[{up}A");
    }
    // Longer than a row perhaps.  Where they end with one there is nothing behind them to take away.
    for line in notes {
        let is_full = width_of(line) > 0 && width_of(line).is_multiple_of(columns);
        let rest = if is_full { "" } else { "\x1b[K" };
        let _ = writeln!(out, "\r{line}{rest}");
    }
    for line in lines {
        let _ = writeln!(out, "\r{line}\x1b[K");
    }
    out.push_str("\x1b[J\x1b[?2026l");
    for line in failed {
        let _ = writeln!(out, "{line}");
    }
    out
}

/// What failed steps wrote last, whole lines: this is where the reason is.
fn failures(state: &State, color: bool) -> Vec<String> {
    let failed = |s: &&Step| matches!(s.ended, Some((StepOutcome::Failed { .. }, _)));
    let mut lines = Vec::new();
    for step in state
        .steps
        .values()
        .filter(failed)
        .filter(|s| !s.lines.is_empty())
    {
        lines.push(paint(
            &format!("--- {}", harmless(&step.name, false)),
            "31",
            color,
        ));
        lines.extend(step.lines.iter().map(|l| harmless(l, color)));
        lines.push(paint("---", "31", color));
    }
    lines
}

/// Draws the picture: at most `rows` lines of `columns` columns.
fn frame(
    state: &State,
    elapsed: Duration,
    columns: usize,
    rows: usize,
    color: bool,
) -> Vec<String> {
    let done = state.steps.values().filter(|s| s.ended.is_some()).count();
    let total = state.steps.len();
    let mut lines = vec![paint(
        &cut(
            &format!(
                "[+] building {} ({done}/{total})",
                time(elapsed.as_millis() as u64)
            ),
            columns,
        ),
        "1",
        color,
    )];
    let spinner = SPINNER[(elapsed.as_millis() / FRAME.as_millis()) as usize % SPINNER.len()];
    // What is running matters most: where the terminal is too low, finished steps are left out first, oldest first.
    let running: Vec<_> = state
        .steps
        .values()
        .filter(|s| s.started.is_some() && s.ended.is_none())
        .collect();
    let needed = running
        .iter()
        .map(|s| 1 + s.transfers.len().min(TAIL) + s.lines.len().min(TAIL))
        .sum::<usize>();
    let room = rows.saturating_sub(1 + needed);
    let ended = state.steps.values().filter(|s| s.ended.is_some()).count();
    let mut skip = ended.saturating_sub(room);
    for step in state.steps.values() {
        if step.ended.is_some() {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            lines.push(ended_line(step, columns, color));
        } else if step.started.is_some() {
            lines.extend(running_lines(step, spinner, columns, color));
        }
    }
    lines.truncate(rows.max(1));
    lines
}

fn ended_line(step: &Step, columns: usize, color: bool) -> String {
    let (mark, style, right) = match &step.ended {
        Some((StepOutcome::Done, millis)) => ("✔ ", "32", time(*millis)),
        Some((StepOutcome::Cached, _)) => ("✔ CACHED ", "32", String::new()),
        Some((StepOutcome::Failed { .. }, millis)) => ("✘ ", "31", time(*millis)),
        _ => ("- CANCELLED ", "33", String::new()),
    };
    columns_line(
        &format!("{mark}{}", harmless(&step.name, false)),
        &right,
        columns,
        style,
        color,
    )
}

fn running_lines(step: &Step, spinner: char, columns: usize, color: bool) -> Vec<String> {
    let elapsed = step.started.map_or(0, |s| s.elapsed().as_millis() as u64);
    let mut lines = vec![columns_line(
        &format!("{spinner} {}", harmless(&step.name, false)),
        &time(elapsed),
        columns,
        "36",
        color,
    )];
    for (id, transfer) in step
        .transfers
        .iter()
        .filter(|(_, t)| t.total != Some(t.done))
        .take(TAIL)
    {
        let total = transfer
            .total
            .map(|t| format!(" / {}", bytes(t)))
            .unwrap_or_default();
        lines.push(columns_line(
            &format!("  {} {id}", transfer.verb),
            &format!("{}{total}", bytes(transfer.done)),
            columns,
            "2",
            color,
        ));
    }
    let skip = step.lines.len().saturating_sub(TAIL);
    lines.extend(step.lines.iter().skip(skip).map(|l| {
        paint(
            &cut(&format!("  │ {}", harmless(l, false)), columns),
            "2",
            color,
        )
    }));
    lines
}

/// A line with something at its right end, cut on the left where both do not fit.
fn columns_line(left: &str, right: &str, columns: usize, style: &str, color: bool) -> String {
    let right_width = width(right);
    if right_width == 0 || columns < right_width + 12 {
        return paint(&cut(left, columns), style, color);
    }
    let left = cut(left, columns - right_width - 1);
    let gap = columns - right_width - width(&left);
    format!("{}{:gap$}{right}", paint(&left, style, color), "")
}

fn paint(text: &str, style: &str, color: bool) -> String {
    if color {
        format!("\x1b[{style}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_model::event::{StepId, Stream};

    fn state() -> State {
        let mut state = State::default();
        for n in 0..6 {
            let step = StepId(n);
            state.apply(&Event::Step {
                step,
                name: format!("[{}/6] RUN a rather long command number {n}", n + 1),
                digest: None,
                origin: None,
            });
            state.apply(&Event::Started { step });
            if n < 4 {
                state.apply(&Event::Finished {
                    step,
                    outcome: if n == 0 {
                        StepOutcome::Cached
                    } else {
                        StepOutcome::Done
                    },
                    millis: 1200,
                });
            }
        }
        state.apply(&Event::Output {
            step: StepId(4),
            stream: Stream::Stdout,
            text: "one\ntwo\x1b[2J\n".into(),
        });
        state.apply(&Event::Transfer {
            step: StepId(5),
            id: "abc".into(),
            verb: "push".into(),
            done: 5_000_000,
            total: Some(10_000_000),
        });
        state
    }

    #[test]
    fn fits_the_terminal() {
        for (columns, rows) in [(80, 24), (40, 10), (20, 5), (5, 3), (1, 1)] {
            let lines = frame(&state(), Duration::from_secs(3), columns, rows, false);
            assert!(lines.len() <= rows, "{columns}x{rows}: {lines:#?}");
            assert!(
                lines.iter().all(|l| width(l) <= columns),
                "{columns}x{rows}: {lines:#?}"
            );
        }
    }

    #[test]
    fn what_a_failed_step_wrote_is_shown_at_the_end() {
        let mut state = state();
        assert!(failures(&state, false).is_empty());
        state.apply(&Event::Finished {
            step: StepId(4),
            outcome: StepOutcome::Failed {
                message: "exit status 1".into(),
            },
            millis: 10,
        });
        let name = "--- [5/6] RUN a rather long command number 4";
        assert_eq!(failures(&state, false), [name, "one", "two", "---"]);
    }

    #[test]
    fn a_terminal_that_became_narrower_has_wrapped_what_was_drawn() {
        assert_eq!(rows_of(&[79, 10, 0], 80), 3);
        assert_eq!(rows_of(&[79, 40, 41, 0], 40), 6);
        assert_eq!(width_of("\x1b[32mgreen\x1b[0m 日本"), 10);
        let text = |columns| draw(3, columns, &["note".into()], &["line".into()], &[]);
        let rest = "\rline\x1b[K\n\x1b[J\x1b[?2026l";
        assert_eq!(text(80), format!("\x1b[?2026h\x1b[3A\rnote\x1b[K\n{rest}"));
        assert_eq!(text(4), format!("\x1b[?2026h\x1b[3A\rnote\n{rest}"));
    }

    #[test]
    fn shows_what_runs_and_its_last_lines() {
        let lines = frame(&state(), Duration::from_secs(3), 60, 24, false).join("\n");
        for part in [
            "[+] building 3.0s (4/6)",
            "✔ CACHED [1/6] RUN",
            "│ two",
            "push abc",
            "5.0 MB / 10.0 MB",
        ] {
            assert!(lines.contains(part), "{part} in:\n{lines}");
        }
        assert!(!lines.contains('\x1b'));
    }

    #[test]
    fn a_low_terminal_leaves_out_finished_steps_first() {
        let lines = frame(&state(), Duration::from_secs(3), 60, 7, false).join("\n");
        assert!(
            lines.contains("number 4") && lines.contains("number 5") && !lines.contains("number 0"),
            "{lines}"
        );
    }
}
