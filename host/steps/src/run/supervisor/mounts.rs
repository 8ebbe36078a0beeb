//! The made-up mount tables of a step: nothing is mounted, and programs expect a root and the usual grafts.

use super::step::Step;

/// What is shown as mounted besides the root: where, type, options.
const GRAFTS: [(&str, &str, &str); 5] = [
    ("/proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
    ("/dev", "tmpfs", "rw,nosuid"),
    ("/dev/pts", "devpts", "rw,nosuid,noexec,relatime"),
    ("/dev/shm", "tmpfs", "rw,nosuid,nodev"),
    ("/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime"),
];

/// Type of the root's file system, as it is shown.
const ROOT_TYPE: &str = "ext4";

/// Returns the content of `/proc/PID/mounts`.
pub fn mounts() -> Vec<u8> {
    let mut text = format!("rootfs / {ROOT_TYPE} rw,relatime 0 0\n");
    for (path, kind, options) in GRAFTS {
        text.push_str(&format!("{kind} {path} {kind} {options} 0 0\n"));
    }
    text.into()
}

/// Returns the content of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
pub fn mount_info(step: &Step) -> Vec<u8> {
    let (major, minor) = step.device;
    let mut text = format!("20 1 {major}:{minor} / / rw,relatime - {ROOT_TYPE} rootfs rw\n");
    for (index, (path, kind, options)) in GRAFTS.iter().enumerate() {
        let id = index + 21;
        text.push_str(&format!(
            "{id} 20 0:{id} / {path} {options} - {kind} {kind} rw\n"
        ));
    }
    text.into()
}
