//! `cargo xtask bench cost`: what a RUN step costs in each tier, beside the same work in real mounts and below PRoot.
//!
//! The time is taken inside the step ([`way`] says how it is run), so that neither the unpacking of the base nor the layer counts.
//! The best of some rounds is shown: other work on the machine only ever makes a round slower.  The last row is the processor time
//! of all rounds and all processes, for Stepwell with unpacking and layer: other work moves it least.

mod table;
mod tools;
mod way;

pub use tools::layout;

use std::collections::BTreeMap;

use stepwell_test_support::registry::Registry;
use stepwell_test_support::{base, user};

use self::table::Table;
use self::tools::Prepared;
use self::way::{WAYS, Way};

/// What is run; see there.
const SCRIPT: &str = include_str!("work.sh");

/// Rounds, where nothing is said.
const ROUNDS: u32 = 3;

/// Best time of each piece of work, in microseconds.
type Times = BTreeMap<String, u64>;

/// What the command line asks for.
struct Asked {
    rounds: u32,
    /// Measure the program of profile `dev`.
    debug: bool,
    ways: Vec<String>,
}

/// Measures the ways named in `args`, or all; `--rounds=N` says how often, `--debug` takes the unoptimised program.
pub fn main(args: &[String]) -> Result<(), String> {
    let asked = asked(args)?;
    let work = tempfile::Builder::new()
        .prefix("stepwell-cost-")
        .tempdir_in("/var/tmp")
        .map_err(|e| format!("a work directory: {e}"))?;
    let layout = tools::layout(asked.debug)?;
    let registry = Registry::start(&work.path().join("registry"))?;
    let prepared = Prepared {
        image: base::push(&layout, &registry.host(), "cost:1")?,
        layout,
        work: work.path().to_path_buf(),
        debug: asked.debug,
        rounds: asked.rounds,
    };
    user::give(work.path())?;
    let mut table = Table::default();
    for way in WAYS.iter().filter(|w| asked.wants(w)) {
        eprintln!("bench: cost: {}: {}", way.name, way.what);
        match way
            .run(&prepared)
            .and_then(|(all, text)| Ok((all, times(&text)?)))
        {
            Ok((all, times)) => {
                for (work, us) in &times {
                    eprintln!(
                        "bench: cost: {:<14} {work:<14} {:8.0} ms",
                        way.name,
                        *us as f64 / 1e3
                    );
                }
                eprintln!("bench: cost: {:<14} all of it: {all}", way.name);
                table.add(way.name, all, times);
            }
            Err(why) => eprintln!("bench: cost: {}: not measured: {why}", way.name),
        }
    }
    if asked.debug {
        println!("Not an optimised program (`--debug`).\n");
    }
    print!("{table}");
    Ok(())
}

impl Asked {
    fn wants(&self, way: &Way) -> bool {
        self.ways.is_empty() || self.ways.iter().any(|w| w == way.name)
    }
}

fn asked(args: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        rounds: ROUNDS,
        debug: false,
        ways: Vec::new(),
    };
    for arg in args {
        if arg == "--debug" {
            asked.debug = true;
        } else if let Some(rounds) = arg.strip_prefix("--rounds=") {
            asked.rounds = rounds.parse().map_err(|e| format!("`{arg}`: {e}"))?;
        } else if WAYS.iter().any(|w| w.name == arg) {
            asked.ways.push(arg.clone());
        } else {
            let names: Vec<_> = WAYS.iter().map(|w| w.name).collect();
            return Err(format!("`{arg}` is none of {}", names.join(", ")));
        }
    }
    Ok(asked)
}

/// Finds what the script printed, the best of all rounds; a piece of work that failed is an error.
fn times(text: &str) -> Result<Times, String> {
    let mut times = Times::new();
    for line in text.lines() {
        if let Some((_, work)) = line.split_once("cost-failed ") {
            return Err(format!("`{work}` failed:\n{text}"));
        }
        let Some((_, found)) = line.split_once("cost-of ") else {
            continue;
        };
        let mut words = found.split_whitespace();
        if let (Some(work), Some(Ok(us)), Some("us")) = (
            words.next(),
            words.next().map(str::parse::<u64>),
            words.next(),
        ) {
            let best = times.entry(work.to_owned()).or_insert(us);
            *best = us.min(*best);
        }
    }
    if times.is_empty() {
        return Err(format!("it printed no times:\n{text}"));
    }
    Ok(times)
}
