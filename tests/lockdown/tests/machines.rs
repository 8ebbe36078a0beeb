//! Builds under Debian's own kernels with AppArmor (`cargo xtask lockdown`): the image has to be the one that is made outside.

use stepwell_lockdown_tests::site::{Site, Workload};
use stepwell_lockdown_tests::vm::packages::{KERNELS, kernel};
use stepwell_lockdown_tests::vm::{CASES, boot, disk, initramfs};

#[test]
#[ignore = "slow: `cargo xtask lockdown`"]
fn apparmor_under_the_release_s_kernel() {
    apparmor(KERNELS[0]);
}

#[test]
#[ignore = "slow: `cargo xtask lockdown`"]
fn apparmor_under_the_newer_kernel() {
    apparmor(KERNELS[1]);
}

fn apparmor(series: &str) {
    let kernel = kernel(series).expect("a kernel of Debian's");
    let sites = [Workload::Busybox, Workload::Debian].map(|w| (w, Site::new(w)));
    let wanted = sites
        .each_ref()
        .map(|(w, site)| (*w, site.built_outside().digest()));
    let dir = tempfile::tempdir_in("/var/tmp").expect("a work directory");
    let program = sites[0].1.path("bin/stepwell");
    let initramfs = initramfs::make(dir.path(), &kernel, &program).expect("an initramfs");
    let image = disk::make(dir.path(), &sites.each_ref().map(|(w, site)| (*w, site)));
    let console = boot(&kernel.image, &initramfs, &image).expect("qemu");
    println!("{console}");
    assert!(
        console.contains("machine: done") && console.contains("apparmor"),
        "{} did not come to its end:\n{console}",
        kernel.release
    );
    for case in CASES {
        let outcome = disk::outcome(&image, case.name, dir.path());
        let name = format!("{}, {}", kernel.release, case.name);
        let built = &outcome.built;
        assert_eq!(
            outcome.profile,
            format!("{} (enforce)", case.profile.0),
            "{name}:\n{console}"
        );
        let (told, status) = &outcome.control;
        assert!(
            status != "0" && case.control.1.split('|').any(|part| told.contains(part)),
            "{name}: `{}` has to say `{}`: {status} {told}",
            case.control.0,
            case.control.1
        );
        assert_eq!(built.code, Some(0), "{name}:\n{}", built.told);
        assert_eq!(built.tier(), case.tier, "{name}:\n{}", built.told);
        assert!(
            built.reasons().contains(case.reason),
            "{name}: {}",
            built.reasons()
        );
        let wanted = wanted
            .iter()
            .find(|(w, _)| *w == case.workload)
            .map(|(_, d)| d.as_str());
        assert_eq!(
            Some(built.digest().as_str()),
            wanted,
            "{name}:\n{}",
            built.told
        );
    }
}
