//! `stepwell doctor`: what this machine permits, which isolation a build gets, why not a better one, and what to change.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use stepwell_model::request::Isolation;
use stepwell_steps::run::{self, InitProgram, Refusal, TierChoice, World, choose_tier, rungs};
use stepwell_sys::namespace::Entered;
use stepwell_sys::probe::doctor::DoctorFacts;
use stepwell_sys::probe::{Attempt, Facts};

use crate::args::{DoctorArgs, DoctorFormat};
use crate::{environment, exit, report};

/// One line of the table: what it is called, what it is for, how it went.
type Row = (&'static str, &'static str, fn(&DoctorFacts) -> Finding);

/// How something stands.
struct Finding {
    good: bool,
    text: String,
}

/// Ids of a machine.
const ALL_IDS: u64 = u32::MAX as u64;

/// What no tier depends on: the rungs themselves are `stepwell_steps::run::rungs`.
const ROWS: &[Row] = &[
    ("network namespace", "RUN --network=none", |f| {
        attempt(&f.build.user_namespace_network)
    }),
    ("subordinate ids", "not needed: ids are emulated", |f| {
        let mut finding = attempt(&f.subordinate_ids);
        if finding.text.starts_with("newuidmap") && f.build.no_new_privs {
            finding.text += " (no_new_privs takes setuid helpers their rights)";
        }
        finding
    }),
    ("changing owners", "real ids", |f| attempt(&f.build.chown)),
    ("device nodes", "not needed: emulated", |f| {
        attempt(&f.build.device_nodes)
    }),
    ("user attributes in the store", "emulated ids", |f| {
        attempt(&f.build.user_xattr)
    }),
    ("Landlock", "defence in depth", |f| Finding {
        good: f.build.landlock.is_some(),
        text: f
            .build
            .landlock
            .map_or("not there".to_owned(), |abi| format!("version {abi}")),
    }),
    ("limits of steps", "--step-memory, --step-processes", |f| {
        Finding {
            good: true,
            text: match f.build.uid {
                0 => "by looking: rlimits do not bind root",
                _ => "by looking, with rlimits behind it",
            }
            .to_owned(),
        }
    }),
    ("mount", "never used", |f| attempt(&f.mount)),
    (
        "a fresh /proc",
        "speed with real ids, else made without",
        |f| {
            let mut finding = attempt(&f.fresh_proc);
            if !finding.good && f.build.proc_masked {
                finding.text += " (parts of /proc are masked)";
            }
            finding
        },
    ),
    (
        "detached file systems",
        "sizes of tmpfs, with real ids",
        |f| attempt(&f.detached_tmpfs),
    ),
    ("open_tree", "speed with real ids", |f| {
        attempt(&f.open_tree)
    }),
    ("overlayfs", "never used", |f| attempt(&f.overlay)),
];

/// Prints the findings.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let users = environment::users();
    let root = environment::store_root(
        args.store.root.as_ref(),
        users.last().is_some_and(|uid| uid == "0"),
    );
    // What can be done on the file system of the store: the nearest directory that is there.
    let dir = root
        .ancestors()
        .find(|d| d.is_dir())
        .map_or_else(|| PathBuf::from("/"), PathBuf::from);
    // From outside of the builder's user namespace, as only there the helpers for subordinate ids can be tried; the tier is
    // chosen inside.
    let path = environment::program_path();
    let mut entered = Entered::AlreadyRoot;
    let found = run::probe_doctor(&InitProgram::Myself, &dir, &users, &path).and_then(|facts| {
        entered = environment::enter_user_namespace();
        Ok((facts, run::probe(&InitProgram::Myself, &dir)?))
    });
    let (facts, inside) = match found {
        Ok(found) => found,
        Err(error) => {
            report::error(&error.to_string(), &[], None);
            return ExitCode::from(exit::FAILED);
        }
    };
    let choice = choose_tier(Isolation::Auto, &inside);
    let rungs = rungs(&inside);
    match args.format {
        DoctorFormat::Json => {
            let text = json!({
                "facts": facts,
                "entered": format!("{entered:?}"),
                "isolation": choice.as_ref().ok(),
                "refusal": choice.as_ref().err(),
                "rungs": rungs,
            });
            println!("{text:#}");
        }
        DoctorFormat::Text => {
            println!("{}", machine(&facts.build));
            println!("this process   {}\n", process(&entered));
            println!("{}\n", verdict(&choice));
            rungs.iter().for_each(|rung| println!("{rung}"));
            println!("\nwhat no tier depends on:");
            table(&facts);
        }
    }
    if choice.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::FAILED)
    }
}

fn verdict(choice: &Result<TierChoice, Refusal>) -> String {
    match choice {
        Ok(choice) => format!(
            "RUN steps get the isolation tier `{}` with {}{}; COPY and the like need none",
            choice.tier,
            choice.ids,
            match choice.world {
                World::Kernel => " and file systems of the kernel's",
                World::Supervisor => "",
            }
        ),
        Err(_) => "RUN steps cannot be carried out here; builds without them can".to_owned(),
    }
}

fn machine(facts: &Facts) -> String {
    let mut traits = vec![format!("user {}", facts.uid)];
    traits.extend(facts.no_new_privs.then(|| "no_new_privs".to_owned()));
    let map = facts
        .users
        .iter()
        .map(|range| u64::from(range.count))
        .sum::<u64>();
    traits.extend((map < ALL_IDS).then(|| format!("{map} ids mapped")));
    traits.extend((facts.chrooted == Some(true)).then(|| "in a chroot".to_owned()));
    traits.push(match &facts.capabilities[..] {
        [] => "no capability".to_owned(),
        held => format!("{} capabilities", held.len()),
    });
    traits.extend(
        facts
            .seccomp_filtered
            .then(|| "under a seccomp filter".to_owned()),
    );
    traits.extend(facts.proc_masked.then(|| "/proc is masked".to_owned()));
    traits.extend(facts.profile.as_ref().map(|p| format!("profile `{p}`")));
    traits.extend(
        (facts.apparmor_restricts_userns == Some(true))
            .then(|| "AppArmor restricts user namespaces".to_owned()),
    );
    format!(
        "kernel         {}\nmachine        {}",
        facts.kernel,
        traits.join(", ")
    )
}

fn process(entered: &Entered) -> String {
    match entered {
        Entered::Entered {
            uid,
            gid,
            subordinate,
        } => {
            let ids = if *subordinate {
                "with subordinate ids"
            } else {
                "with one id"
            };
            format!("is user 0 of a user namespace of its own {ids}, {uid}:{gid} outside")
        }
        Entered::AlreadyRoot => "is root already".to_owned(),
        Entered::Refused(error) => format!("cannot enter a user namespace: {error}"),
    }
}

fn table(facts: &DoctorFacts) {
    for (name, purpose, finding) in ROWS {
        let finding = finding(facts);
        println!(
            "{} {name:<28} {:<44} {purpose}",
            if finding.good { "✔" } else { "✘" },
            finding.text
        );
    }
}

fn attempt(attempt: &Attempt) -> Finding {
    Finding {
        good: attempt.works(),
        text: attempt.text(),
    }
}
