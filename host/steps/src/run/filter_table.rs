//! `host/docs/filter.md`: the rules of the seccomp filter of each tier, with their reasons.  A test writes it from the data
//! that is installed, and fails where the file says something else.

use std::collections::BTreeMap;
use std::path::Path;

use stepwell_model::request::Isolation;
use stepwell_sys::probe::Facts;
use stepwell_sys::seccomp::{Action, Condition, Filter, OtherAbi, Rule};

use super::plan::{self, SetupStep, StepProcess};
use super::supervisor::{self, Guarded};
use super::tier::choose_tier;
use super::tier::tests::{docker_default, ordinary_user, restricted, root_with_user_namespaces};
use super::types::{Credentials, FilterNeeds, Tier};
use super::wants_names;

const HEAD: &str = "\
# The filter of RUN steps

Written by a test from the rules as they are installed (`host/steps/src/run/filter_table.rs`; after a change: run the test with
`STEPWELL_WRITE_DOCS=1`). The first rule that applies counts; a call that is not here is the kernel's affair, which confines the step by
chroot, namespaces, capabilities and Landlock. `ask` means that the supervisor answers, `trace` that the tracer does.

Columns: `U` an ordinary user in a user namespace (ids emulated), `R` root of the machine in a user namespace (real ids), `C` the tier `chroot`
in a container (real owners, emulated ids), `M` the tier `mediated`. Steps with mounts, without network, or on kernels without Landlock 6 have more rules
(`supervisor/guard.rs`, `walls.rs`).
";

fn filter_of(facts: &Facts) -> Filter {
    let choice = choose_tier(Isolation::Auto, facts).unwrap();
    let needs = FilterNeeds {
        ids: choice.ids,
        real_devices: false,
        pid_namespace: plan::has_pid_namespace(&choice, facts),
        mediated: choice.tier == Tier::Mediated,
        kernel_world: false,
        names: wants_names(&choice),
        mounts: Guarded::default(),
    };
    let process = StepProcess {
        program: "/bin/sh".to_owned(),
        args: Vec::new(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        credentials: Credentials {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        },
        hostname: String::new(),
        network: stepwell_model::op::Network::Default,
        limits: Vec::new(),
        protected: vec![1],
        world: None,
    };
    let plan = plan::plan(&process, &choice, facts, &supervisor::filter(&needs));
    let supervise = plan.steps.into_iter().find_map(|step| match step {
        SetupStep::Supervise { filter } => Some(filter),
        _ => None,
    });
    supervise.unwrap()
}

fn answer(action: Action) -> String {
    match action {
        Action::Notify => "ask".to_owned(),
        Action::Trace => "trace".to_owned(),
        Action::Allow => "allow".to_owned(),
        Action::Errno(0) => "nothing is done".to_owned(),
        Action::Errno(number) => match i32::from(number) {
            libc::EPERM => "EPERM".to_owned(),
            libc::ENOSYS => "ENOSYS".to_owned(),
            libc::EOPNOTSUPP => "EOPNOTSUPP".to_owned(),
            libc::EPROTONOSUPPORT => "EPROTONOSUPPORT".to_owned(),
            libc::EAFNOSUPPORT => "EAFNOSUPPORT".to_owned(),
            other => format!("errno {other}"),
        },
    }
}

fn condition(condition: &Condition) -> String {
    let Condition {
        argument,
        mask,
        value,
        negate,
    } = *condition;
    let masked = if mask == u64::MAX || mask == u64::from(u32::MAX) {
        format!("arg{argument}")
    } else {
        format!("arg{argument} & {mask:#x}")
    };
    let sign = if negate { "≠" } else { "=" };
    format!("{masked} {sign} {value:#x}")
}

fn line(rule: &Rule) -> String {
    let when: Vec<String> = rule.when.iter().map(condition).collect();
    let narrow = if rule.narrow.is_empty() {
        " (not in 32-bit programs)"
    } else {
        ""
    };
    format!(
        "| `{}` | {} | {} | {}{narrow} |",
        rule.name,
        when.join(", "),
        answer(rule.action),
        rule.reason
    )
}

fn table() -> String {
    let columns = [
        ('U', ordinary_user()),
        ('R', root_with_user_namespaces()),
        ('C', docker_default()),
        ('M', restricted()),
    ];
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    let mut narrow = String::new();
    for (column, facts) in columns {
        let filter = filter_of(&facts);
        for rule in &filter.rules {
            assert!(!rule.reason.is_empty(), "`{}` has no reason", rule.name);
            let tiers = lines.entry(line(rule)).or_default();
            if !tiers.contains(column) {
                tiers.push(column);
            }
        }
        let other = match filter.other_abi {
            OtherAbi::Allow => "have the same rules, but for the rows that say so",
            OtherAbi::Deny => "answer ENOSYS",
        };
        narrow.push_str(&format!(
            "- `{column}`: calls of 32-bit programs {other}; those of x32 programs answer ENOSYS.\n"
        ));
    }
    let rows: String = lines
        .iter()
        .map(|(line, tiers)| format!("{line} {tiers} |\n"))
        .collect();
    format!(
        "{HEAD}\n{narrow}\n| call | when | answer | reason | where |\n| --- | --- | --- | --- | --- |\n{rows}"
    )
}

/// x86-64 has more calls than others.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_filter_is_documented_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/filter.md");
    let table = table();
    if std::env::var_os("STEPWELL_WRITE_DOCS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == table,
        "host/docs/filter.md is not what is installed: run this test with STEPWELL_WRITE_DOCS=1"
    );
}
