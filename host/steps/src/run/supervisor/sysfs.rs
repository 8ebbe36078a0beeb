//! The graft `/sys`: what of the machine's `/sys` programs look at, to be read only.

use super::nodes::{self, Node, Within};
use super::step::Step;

/// Directories that are shown.  Left out are those that drive the machine or lay its kernel open: debug,
/// tracing, security, firmware, power.
const TOP: &[&str] = &[
    "block",
    "bus",
    "class",
    "dev",
    "devices",
    "fs",
    "hypervisor",
    "kernel",
    "module",
];

/// What is shown of two of them.
const FS: &[&str] = &["cgroup", "btrfs", "ext4", "xfs", "f2fs"];
const KERNEL: &[&str] = &["mm", "cpu_byteorder", "address_bits", "notes", "fscaps"];

/// Says what a path beneath `/sys` stands for.
pub fn lookup(step: &Step, names: &[&str]) -> Node {
    match names {
        [] => Node::Directory,
        _ if names.contains(&"..") => Node::Missing,
        names if shown(names) => nodes::mirror(step, Within::Sys, &names.join("/")),
        _ => Node::Missing,
    }
}

/// Says whether a path is on the lists.
pub fn shown(names: &[&str]) -> bool {
    match names {
        ["fs", second, ..] => FS.contains(second),
        ["kernel", second, ..] => KERNEL.contains(second),
        [top, ..] => TOP.contains(top),
        [] => true,
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_drives_the_machine_is_not_shown() {
        assert!(
            shown(&["devices", "system", "cpu", "online"])
                && shown(&["fs"])
                && shown(&["kernel", "mm"])
        );
        for path in [
            &["kernel", "debug"][..],
            &["firmware"],
            &["power", "state"],
            &["kernel", "security", "x"],
        ] {
            assert!(!shown(path), "{path:?}");
        }
    }
}
