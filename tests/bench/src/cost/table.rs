//! The result as a Markdown table: a row for each piece of work, a column for each way, with the ratio to real mounts; what
//! PRoot does is compared with the tier that does the same.

use std::fmt;

use super::Times;
use super::way::{MEDIATED, PROOT, REAL};
use crate::measure::Measured;

/// What was measured, in the order in which it was.
#[derive(Default)]
pub struct Table(Vec<(&'static str, Measured, Times)>);

impl Table {
    /// Adds what a way took, in all and by piece of work.
    pub fn add(&mut self, way: &'static str, all: Measured, times: Times) {
        self.0.push((way, all, times));
    }

    fn time(&self, way: &str, work: &str) -> Option<f64> {
        let (_, _, times) = self.0.iter().find(|(name, ..)| *name == way)?;
        times.get(work).map(|us| *us as f64 / 1e3)
    }

    fn ratio(&self, work: &str, way: &str, to: &str) -> Option<f64> {
        Some(self.time(way, work)? / self.time(to, work)?)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ways: Vec<_> = self.0.iter().map(|(way, ..)| *way).collect();
        let Some((.., first)) = self.0.first() else {
            return writeln!(f, "nothing was measured");
        };
        writeln!(
            f,
            "| ms (times real mounts) | {} | {MEDIATED} / {PROOT} |",
            ways.join(" | ")
        )?;
        writeln!(f, "| --- |{} --- |", " --- |".repeat(ways.len()))?;
        for work in first.keys() {
            write!(f, "| {} |", work.replace('_', " "))?;
            for way in &ways {
                match (self.time(way, work), self.ratio(work, way, REAL)) {
                    (Some(ms), Some(ratio)) if *way != REAL => {
                        write!(f, " {ms:.0} ({ratio:.2}) |")?
                    }
                    (Some(ms), _) => write!(f, " {ms:.0} |")?,
                    (None, _) => write!(f, " |")?,
                }
            }
            match self.ratio(work, MEDIATED, PROOT) {
                Some(ratio) => writeln!(f, " {ratio:.2} |")?,
                None => writeln!(f, " |")?,
            }
        }
        write!(f, "| processor time of everything, s |")?;
        for (_, all, _) in &self.0 {
            write!(f, " {:.1} |", all.cpu)?;
        }
        let cpu = |way| Some(self.0.iter().find(|(name, ..)| *name == way)?.1.cpu);
        match (cpu(MEDIATED), cpu(PROOT)) {
            (Some(ours), Some(theirs)) => writeln!(f, " {:.2} |", ours / theirs)?,
            _ => writeln!(f, " |")?,
        }
        Ok(())
    }
}
