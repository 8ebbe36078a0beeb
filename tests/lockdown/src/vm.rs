//! Runs builds under another kernel, with another security module than this machine's: Debian's own kernels with AppArmor, in
//! qemu, which emulates the processor where there is no KVM.
//!
//! A machine boots from an initramfs ([`initramfs`]) with a disk ([`disk`]) that holds what is built, carries out the rows of
//! [`CASES`], writes what they came to onto the disk and goes off. Nothing needs root or a network, but for fetching packages.

pub mod disk;
pub mod initramfs;
pub mod packages;

use std::path::Path;
use std::process::Command;

use stepwell_test_support::cmd::{output, tool, which};

use crate::site::Workload;

/// One build in a machine.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Where users meet it.
    pub met: &'static str,
    /// Name of the AppArmor profile, and what it says.
    pub profile: (&'static str, &'static str),
    /// What is changed beforehand, by root.
    pub before: &'static str,
    /// What is built.
    pub workload: Workload,
    /// A command that shows the denial, and what it has to say.
    pub control: (&'static str, &'static str),
    /// The tier that has to be chosen.
    pub tier: &'static str,
    /// What has to be said of why it is no better one.
    pub reason: &'static str,
}

/// What `docker-default` comes to for a builder: everything but mounts.
const DENY_MOUNT: &str =
    "file, network, capability, umount, signal, ptrace, deny mount, deny pivot_root,";

/// What Ubuntu's `unprivileged_userns` comes to: a user namespace may be made, and nothing be done in it.
const DENY_CAPABILITIES: &str =
    "file, network, umount, signal, ptrace, deny capability, deny mount,";

/// All of them, in the order in which a machine carries them out.
pub const CASES: &[Case] = &[
    Case {
        name: "apparmor_denies_mount",
        met: "AppArmor, the rules of `docker-default`",
        profile: ("stepwell-denies-mount", DENY_MOUNT),
        before: "echo 1 > /proc/sys/kernel/unprivileged_userns_clone",
        workload: Workload::Debian,
        control: (
            "unshare -Urm mount -t tmpfs none /tmp",
            "Permission denied|permission denied",
        ),
        tier: "userns",
        reason: "[]",
    },
    Case {
        name: "apparmor_denies_capabilities",
        met: "AppArmor, as Ubuntu restricts user namespaces",
        profile: ("stepwell-denies-capabilities", DENY_CAPABILITIES),
        before: "true",
        workload: Workload::Busybox,
        control: (
            "unshare -Ur chroot / true",
            "Operation not permitted|Permission denied",
        ),
        tier: "mediated",
        reason: "the security profile of this process",
    },
    Case {
        name: "userns_clone_0",
        met: "Debian, `kernel.unprivileged_userns_clone=0`, AppArmor as above",
        profile: ("stepwell-denies-mount", DENY_MOUNT),
        before: "echo 0 > /proc/sys/kernel/unprivileged_userns_clone",
        workload: Workload::Busybox,
        control: ("unshare -U true", "Operation not permitted"),
        tier: "mediated",
        reason: "kernel.unprivileged_userns_clone",
    },
];

/// Longest time that a machine may take: an emulated processor is some tens of times slower.
const SECONDS: &str = "3000";

/// Boots a kernel with an initramfs and a disk, waits until it goes off, and returns what it wrote to its console.
pub fn boot(kernel: &Path, initramfs: &Path, disk: &Path) -> Result<String, String> {
    let qemu = which("qemu-system-x86_64").ok_or("`qemu-system-x86_64` is not installed")?;
    let mut machine = tool("timeout");
    machine
        .args([SECONDS])
        .arg(qemu)
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1536"]);
    machine
        .args(["-nographic", "-no-reboot", "-net", "none", "-kernel"])
        .arg(kernel);
    machine.arg("-initrd").arg(initramfs);
    let drive = format!("file={},format=raw,if=virtio,cache=unsafe", disk.display());
    machine.args(["-drive", &drive, "-append"]);
    machine.arg(
        "console=ttyS0 quiet loglevel=3 panic=-1 apparmor=1 security=apparmor mitigations=off",
    );
    let console = output(&mut machine)?;
    Ok(String::from_utf8_lossy(&console.stdout).replace('\r', ""))
}

/// Runs a program of the machine's, with its output as an error where it fails.
fn quietly(command: &mut Command) {
    stepwell_test_support::cmd::run(command).unwrap_or_else(|e| panic!("{e}"));
}
