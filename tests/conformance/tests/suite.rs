//! All cases, with Stepwell; and with Buildah too where `STEPWELL_CONFORMANCE_BUILDAH` is set.

use std::collections::BTreeSet;
use std::path::Path;

use stepwell_conformance::case::{self, Case};
use stepwell_conformance::{compare, run};
use stepwell_integration_tests::World;

/// Asks for a comparison with Buildah.
const BUILDAH: &str = "STEPWELL_CONFORMANCE_BUILDAH";
/// Only cases whose name contains this are run.
const ONLY: &str = "STEPWELL_CONFORMANCE_ONLY";

fn cases() -> Vec<Case> {
    case::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"))
}

#[test]
fn every_case_has_a_name_of_its_own_a_rule_and_a_source() {
    let mut names = BTreeSet::new();
    for case in cases() {
        assert!(
            names.insert(case.name.clone()),
            "`{}` is there twice",
            case.name
        );
        assert!(
            !case.rule.is_empty() && !case.source.is_empty(),
            "`{}` says no rule",
            case.name
        );
        let says_something = case.tree.is_some()
            || case.history.is_some()
            || case.warnings.is_some()
            || !case.succeeds()
            || !(case.config.is_empty() && case.absent.is_empty() && case.output.is_empty());
        assert!(says_something, "`{}` expects nothing", case.name);
    }
    assert!(names.len() >= 250, "{} cases", names.len());
}

#[test]
fn dockerfiles_become_what_the_reference_says() {
    let mut cases = cases();
    if let Ok(only) = std::env::var(ONLY) {
        cases.retain(|c| c.name.contains(&only));
    }
    let world = World::new();
    let built = run::all(&world, &cases, run::stepwell);
    let mut failed = 0;
    for (case, built) in cases.iter().zip(&built) {
        let found = compare::differences(case, built);
        if !found.is_empty() {
            failed += 1;
            println!("FAILED {} ({}; {})", case.name, case.rule, case.source);
            found.iter().for_each(|line| println!("    {line}"));
        }
    }
    println!("{} cases, {failed} failed", cases.len());
    if std::env::var_os(BUILDAH).is_some() {
        beside_buildah(&world, &cases);
    }
    assert_eq!(failed, 0, "see above");
}

/// Builds what succeeds with Buildah too, and lists where it does not do what the case says.
fn beside_buildah(world: &World, cases: &[Case]) {
    let comparable: Vec<Case> = cases
        .iter()
        .filter(|c| c.succeeds() && c.warnings.is_none())
        .filter(|c| !c.args.iter().any(|a| a.starts_with("--call")))
        .cloned()
        .collect();
    let built = run::all(world, &comparable, run::buildah);
    let mut unexplained = 0;
    for (case, built) in comparable.iter().zip(&built) {
        let mut plain = case.clone();
        plain.history = None;
        let found = match &built.image {
            Some(Ok(image)) => compare::image_differences(&plain, image),
            Some(Err(why)) => vec![why.clone()],
            None => vec![format!(
                "it does not build: {}",
                built.stderr.lines().last().unwrap_or_default()
            )],
        };
        if found.is_empty() {
            continue;
        }
        unexplained += usize::from(case.buildah.is_none());
        println!(
            "BUILDAH {}: {}",
            case.name,
            case.buildah.as_deref().unwrap_or("not explained")
        );
        found.iter().for_each(|line| println!("    {line}"));
    }
    println!(
        "{} cases with Buildah, {unexplained} differences that are not explained",
        comparable.len()
    );
}
