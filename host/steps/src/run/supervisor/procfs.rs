//! The graft `/proc`: the step's own processes, and what programs read of the machine.
//!
//! Everything is on a list here; what is not does not exist.  Nothing of the machine's can be written.

use super::mediated::Link;
use super::nodes::{HostFile, Magic, Node, Text, Within, mirror};
use super::pids::Status;
use super::step::Step;
use stepwell_sys::resolve;

/// Files of the machine's that are shown as they are.
pub const TOP_FILES: &[&str] = &[
    "buddyinfo",
    "cgroups",
    "cmdline",
    "consoles",
    "cpuinfo",
    "crypto",
    "devices",
    "diskstats",
    "filesystems",
    "interrupts",
    "loadavg",
    "locks",
    "meminfo",
    "misc",
    "modules",
    "partitions",
    "softirqs",
    "stat",
    "swaps",
    "uptime",
    "version",
    "vmstat",
    "zoneinfo",
];

/// Links at the top.
pub const TOP_LINKS: &[(&str, &str)] = &[("mounts", "self/mounts"), ("net", "self/net")];

/// Directories at the top, beside those of processes.
pub const TOP_DIRECTORIES: &[&str] = &["pressure", "sys"];

/// Links at the top that lead elsewhere for each process, and how much of the path to its thread they say.
pub const OWN_LINKS: &[(&str, usize)] = &[("self", 1), ("thread-self", 3)];

/// Files of a process that are shown as they are.
pub const PID_FILES: &[&str] = &[
    "autogroup",
    "auxv",
    "cgroup",
    "cmdline",
    "comm",
    "coredump_filter",
    "cpuset",
    "environ",
    "io",
    "loginuid",
    "mem",
    "oom_adj",
    "oom_score",
    "oom_score_adj",
    "pagemap",
    "personality",
    "sched",
    "schedstat",
    "sessionid",
    "statm",
    "syscall",
    "timerslack_ns",
    "wchan",
];

/// Those of them that a process may write.
const PID_WRITABLE: &[&str] = &[
    "comm",
    "coredump_filter",
    "mem",
    "oom_adj",
    "oom_score_adj",
    "timerslack_ns",
];

/// Files of a process whose content is made up or translated.
pub const PID_TEXTS: &[&str] = &[
    "gid_map",
    "limits",
    "maps",
    "mountinfo",
    "mounts",
    "mountstats",
    "numa_maps",
    "projid_map",
    "setgroups",
    "smaps",
    "smaps_rollup",
    "stat",
    "status",
    "uid_map",
];

/// Links of a process.
pub const PID_LINKS: &[&str] = &["cwd", "exe", "root"];

/// Directories of a process.
pub const PID_DIRECTORIES: &[&str] = &["fd", "fdinfo", "net", "ns", "task"];

/// What a step sees of the process that holds it, number 1 of its namespace: to be read, and nothing that tells of the
/// builder or leads to it.  That process has neither root directory nor filter of the step: whoever writes its memory is out.
pub const HOLDER_FILES: &[&str] = &[
    "cgroup",
    "cmdline",
    "comm",
    "cpuset",
    "loginuid",
    "oom_score",
    "oom_score_adj",
    "schedstat",
    "sessionid",
    "statm",
];

/// The same of what is made up.
pub const HOLDER_TEXTS: &[&str] = &[
    "gid_map",
    "limits",
    "mountinfo",
    "mounts",
    "mountstats",
    "projid_map",
    "setgroups",
    "stat",
    "status",
    "uid_map",
];

/// Says what a path beneath `/proc` stands for.
pub fn lookup(step: &mut Step, tid: u32, names: &[&str]) -> Node {
    match names {
        [] => Node::Directory,
        _ if names.contains(&"..") => Node::Missing,
        ["self"] => own(step, tid).map_or(Node::Missing, |(tgid, _)| {
            Node::Link(tgid.to_string().into())
        }),
        ["thread-self"] => own(step, tid).map_or(Node::Missing, |(tgid, pid)| {
            Node::Link(format!("{tgid}/task/{pid}").into())
        }),
        ["sys" | "pressure", ..] => mirror(step, Within::Proc, &names.join("/")),
        [name] if TOP_FILES.contains(name) => file((*name).to_owned(), false),
        [name, rest @ ..] => match name.parse() {
            Ok(inner) => match step.pids.outer(inner) {
                Some(outer) => process(step, outer, rest),
                None => Node::Missing,
            },
            Err(_) if rest.is_empty() => TOP_LINKS
                .iter()
                .find(|(link, _)| link == name)
                .map_or(Node::Missing, |(_, target)| {
                    Node::Link(target.as_bytes().to_vec())
                }),
            Err(_) => Node::Missing,
        },
    }
}

/// Returns the inner numbers of the caller's process and thread.
pub fn own(step: &mut Step, tid: u32) -> Option<(u32, u32)> {
    let status = Status::of(tid)?;
    let (process, thread) = (
        step.pids.inner(&status.ns_tgid),
        step.pids.inner(&status.ns_pid),
    );
    step.pids.note(process, status.tgid);
    step.pids.note(thread, tid);
    Some((process, thread))
}

fn file(path: String, writable: bool) -> Node {
    Node::File(HostFile {
        within: Within::Proc,
        path,
        writable,
    })
}

/// Says what a path beneath the directory of a process or thread stands for.
fn process(step: &mut Step, outer: u32, names: &[&str]) -> Node {
    if step.pids.is_holder(outer) {
        return holder(step, outer, names);
    }
    match names {
        [] => Node::Directory,
        ["fd" | "fdinfo" | "ns" | "task"] => Node::Directory,
        ["net", rest @ ..] => mirror(step, Within::Proc, &join(outer, "net", rest)),
        [name] if PID_FILES.contains(name) => {
            file(format!("{outer}/{name}"), PID_WRITABLE.contains(name))
        }
        [name] if PID_LINKS.contains(name) => match link(step, outer, name) {
            Some(link) => magic(step, link),
            None => Node::Missing,
        },
        [name] => text(outer, name).map_or(Node::Missing, Node::Text),
        ["fd", number] if is_number(number) => magic(step, format!("{outer}/fd/{number}")),
        ["fdinfo", number] if is_number(number) => file(format!("{outer}/fdinfo/{number}"), false),
        ["ns", name] if name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_') => {
            magic(step, format!("{outer}/ns/{name}"))
        }
        ["task", thread, rest @ ..] => match thread
            .parse()
            .ok()
            .and_then(|inner| step.pids.thread(outer, inner))
        {
            // No directory of threads within a thread.
            Some(thread) if rest.first() != Some(&"task") => process(step, thread, rest),
            _ => Node::Missing,
        },
        _ => Node::Missing,
    }
}

/// Says what a path beneath the directory of the process that holds the step stands for.
fn holder(step: &mut Step, outer: u32, names: &[&str]) -> Node {
    match names {
        [] | ["fd" | "fdinfo" | "ns" | "task"] => Node::Directory,
        ["net", rest @ ..] => mirror(step, Within::Proc, &join(outer, "net", rest)),
        ["cwd" | "root"] => Node::Link(b"/".to_vec()),
        [name] if HOLDER_FILES.contains(name) => file(format!("{outer}/{name}"), false),
        [name] if HOLDER_TEXTS.contains(name) => {
            text(outer, name).map_or(Node::Missing, Node::Text)
        }
        _ => Node::Missing,
    }
}

/// Returns where a link of a process is to be read.
fn link(step: &Step, outer: u32, name: &str) -> Option<String> {
    let Some(mediated) = &step.mediated else {
        return Some(format!("{outer}/{name}"));
    };
    // The kernel's are those of the machine.
    let link = match name {
        "cwd" => Link::Cwd,
        "exe" => Link::Exe,
        _ => Link::Root,
    };
    mediated.processes.link(outer, link, &step.root)
}

fn join(outer: u32, name: &str, rest: &[&str]) -> String {
    let mut path = format!("{outer}/{name}");
    for name in rest {
        path.push('/');
        path.push_str(name);
    }
    path
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn text(outer: u32, name: &str) -> Option<Text> {
    Some(match name {
        "mounts" => Text::Mounts,
        "mountinfo" => Text::MountInfo,
        "mountstats" => Text::Empty,
        "uid_map" | "gid_map" | "projid_map" => Text::IdMap,
        "setgroups" => Text::SetGroups,
        "status" => Text::Status(outer),
        "stat" => Text::Stat(outer),
        "limits" => Text::Limits(outer),
        "maps" => Text::Paths(outer, "maps"),
        "smaps" => Text::Paths(outer, "smaps"),
        "smaps_rollup" => Text::Paths(outer, "smaps_rollup"),
        "numa_maps" => Text::Paths(outer, "numa_maps"),
        _ => return None,
    })
}

/// Reads a link of a process; its text is what the step would see, without the tree's own path.
fn magic(step: &Step, link: String) -> Node {
    let Ok(target) = resolve::read_magic(&format!("/proc/{link}")) else {
        return Node::Missing;
    };
    let inside = step.inside(&target);
    let directory = inside.is_some_and(|path| is_directory(step, path));
    let text = inside.unwrap_or(&target).to_vec();
    Node::Magic(Magic {
        link,
        text,
        directory,
    })
}

fn is_directory(step: &Step, path: &[u8]) -> bool {
    use rustix::fs::OFlags;
    resolve::open(
        &step.root,
        path,
        OFlags::PATH | OFlags::DIRECTORY,
        resolve::Links::None,
    )
    .is_ok()
}
