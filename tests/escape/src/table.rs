//! The attacks: one row each.

/// An attack, which is a function of the program in `helpers/attacks`.
pub struct Attack {
    /// Name of the function.
    pub name: &'static str,
    /// The promise of `host/docs/security.md` that it is about, by words that are there.
    pub promise: &'static str,
}

const fn row(name: &'static str, promise: &'static str) -> Attack {
    Attack { name, promise }
}

const TREE: &str = "cannot leave its tree";
const OTHERS: &str = "reaches no process but its own";
const DESCRIPTORS: &str = "has no descriptor and no variable of the builder's";
const MACHINE: &str = "changes nothing of the machine's `/proc`, `/sys` and `/dev`";
const KERNEL: &str = "gets no part of the kernel that no build needs";

/// All attacks, in the order in which they are tried.
pub const ATTACKS: &[Attack] = &[
    row("paths", TREE),
    row("grafts", TREE),
    row("nested_chroot", TREE),
    row("descriptors", DESCRIPTORS),
    row("passed_descriptors", TREE),
    row("proc_files", OTHERS),
    row("machine_files", MACHINE),
    row("environments", DESCRIPTORS),
    row("processes", OTHERS),
    row("all_processes", OTHERS),
    row("taken_descriptors", OTHERS),
    row("devices", MACHINE),
    row("terminals", "the builder's terminal"),
    row("namespaces", TREE),
    row("mounts", "makes no mount"),
    row("surface", KERNEL),
    row("narrow_calls", KERNEL),
    row("controls", "nothing else is in the tree of the next"),
    row("keys", "no key of the builder's"),
    row("own_filter", KERNEL),
    row("sockets", "no socket of the machine's"),
    row("programs", TREE),
    row("races", TREE),
    row("core", TREE),
];
