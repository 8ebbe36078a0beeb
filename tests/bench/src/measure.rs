//! Wall time, processor time and peak memory of commands, by GNU time.

use std::fmt;
use std::process::Command;
use std::time::Instant;

use stepwell_test_support::cmd::output;

/// What a build took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// Seconds on the clock.
    pub wall: f64,
    /// Seconds of processor time, user and system, of all processes (the steps' own included).
    pub cpu: f64,
    /// Peak resident memory of the largest process, in bytes.
    pub memory: u64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7.2} s {:7.2} s cpu {:6.0} MB",
            self.wall,
            self.cpu,
            self.memory as f64 / 1e6
        )
    }
}

/// Runs commands one after the other and adds up what they took.
pub fn all(commands: &[Command]) -> Result<Measured, String> {
    let mut sum = Measured::default();
    for command in commands {
        let (one, _) = one(command)?;
        sum.wall += one.wall;
        sum.cpu += one.cpu;
        sum.memory = sum.memory.max(one.memory);
    }
    Ok(sum)
}

/// Runs a command; returns what it took and what it printed.
pub fn one(command: &Command) -> Result<(Measured, String), String> {
    const MARK: &str = "stepwell-bench-measured";
    let mut timed = Command::new("/usr/bin/time");
    timed
        .args(["--quiet", "-f", &format!("{MARK} %U %S %M")])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    let start = Instant::now();
    let output = output(&mut timed)?;
    let wall = start.elapsed().as_secs_f64();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!(
            "`{command:?}` ended with {}:\n{}{errors}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        ));
    }
    let line = errors
        .lines()
        .rev()
        .find_map(|l| l.strip_prefix(MARK))
        .ok_or("GNU time printed nothing")?;
    let numbers: Vec<f64> = line
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    match numbers[..] {
        [user, system, kib] => Ok((
            Measured {
                wall,
                cpu: user + system,
                memory: kib as u64 * 1024,
            },
            String::from_utf8_lossy(&output.stdout).into_owned() + &errors,
        )),
        _ => Err(format!("GNU time printed `{line}`")),
    }
}
