//! The result as a Markdown table: a row for each case and mode, with the ratio to Buildah.

use std::fmt;

use crate::measure::Measured;

/// What was measured, in the order in which it was.
#[derive(Default)]
pub struct Table(Vec<(&'static str, &'static str, &'static str, Measured)>);

impl Table {
    /// Adds one measurement.
    pub fn add(
        &mut self,
        case: &'static str,
        mode: &'static str,
        builder: &'static str,
        measured: Measured,
    ) {
        self.0.push((case, mode, builder, measured));
    }

    fn get(&self, case: &str, mode: &str, builder: &str) -> Option<Measured> {
        self.0
            .iter()
            .find(|(c, m, b, _)| (*c, *m, *b) == (case, mode, builder))
            .map(|(.., measured)| *measured)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| case | mode | Stepwell: wall s / cpu s / peak MB | Buildah | wall ratio | cpu ratio | memory ratio |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for (case, mode, _, ours) in self.0.iter().filter(|(_, _, b, _)| *b == "stepwell") {
            let Some(theirs) = self.get(case, mode, "buildah") else {
                continue;
            };
            let cell = |m: &Measured| {
                format!(
                    "{:.2} / {:.2} / {:.0}",
                    m.wall,
                    m.cpu,
                    m.memory as f64 / 1e6
                )
            };
            let memory = ours.memory as f64 / theirs.memory as f64;
            writeln!(
                f,
                "| {case} | {mode} | {} | {} | {:.2} | {:.2} | {memory:.2} |",
                cell(ours),
                cell(&theirs),
                ours.wall / theirs.wall,
                ours.cpu / theirs.cpu
            )?;
        }
        Ok(())
    }
}
