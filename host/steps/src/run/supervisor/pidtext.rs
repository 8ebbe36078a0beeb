//! Files of `/proc/PID` whose content is made up, or translated: numbers of processes to those of the step,
//! ids to the emulated ones, paths to those inside the tree.

use std::fs::File;
use std::io::Read;

use rustix::fs::OFlags;
use rustix::io::Errno;
use stepwell_sys::memory;

use super::identity::Identity;
use super::mounts;
use super::nodes::{Text, Within, open_host};
use super::pids::Status;
use super::step::Step;

/// Stops a step with very many mappings from filling memory.
const MAX_TEXT: u64 = 32 << 20;

/// Makes the content of a file.
///
/// # Errors
/// `ESRCH` when the process is gone.
pub fn content(step: &Step, text: Text) -> Result<Vec<u8>, Errno> {
    match text {
        Text::Mounts => Ok(mounts::mounts()),
        Text::MountInfo => Ok(mounts::mount_info(step)),
        Text::Empty => Ok(Vec::new()),
        Text::IdMap => Ok(format!("{:>10} {:>10} {:>10}\n", 0, 0, u32::MAX).into()),
        Text::SetGroups => Ok(b"allow\n".to_vec()),
        Text::Status(pid) => status(step, pid),
        Text::Stat(pid) => stat(step, pid),
        Text::Limits(pid) => limits(step, pid),
        Text::Paths(pid, name) => Ok(without_root(&read(step, pid, name)?, &step.root_text)),
    }
}

fn read(step: &Step, pid: u32, name: &str) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let errno = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let path = format!("{pid}/{name}");
    let file = File::from(open_host(step, Within::Proc, &path, OFlags::RDONLY)?);
    file.take(MAX_TEXT).read_to_end(&mut text).map_err(errno)?;
    Ok(text)
}

fn status(step: &Step, pid: u32) -> Result<Vec<u8>, Errno> {
    let text = String::from_utf8_lossy(&read(step, pid, "status")?).into_owned();
    let known = Status::parse(&text);
    let identity = step
        .emulates()
        .then(|| step.identities.get(memory::tag(pid).unwrap_or(None)));
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let key = line.split(':').next().unwrap_or_default();
        let stopped =
            || (key == "State" && is_stopped(step, line)).then(|| "T (stopped)".to_owned());
        let value = stopped()
            .or_else(|| number_value(step, &known, key))
            .or_else(|| {
                identity
                    .as_deref()
                    .and_then(|identity| identity_value(identity, key))
            });
        match value {
            Some(value) => out.push_str(&format!("{key}:\t{value}\n")),
            None => out.push_str(&format!("{line}\n")),
        }
    }
    Ok(out.into())
}

/// Says whether a state is that of a process which a signal has stopped: of one that is traced the kernel says that its tracer
/// has.
fn is_stopped(step: &Step, state: &str) -> bool {
    step.mediated.is_some() && state.contains("tracing stop")
}

/// Returns the value of a line that names processes.
fn number_value(step: &Step, known: &Status, key: &str) -> Option<String> {
    let number = match key {
        "Tgid" | "NStgid" => step.pids.inner(&known.ns_tgid),
        "Pid" | "NSpid" => step.pids.inner(&known.ns_pid),
        "PPid" => step.pids.inner_of(known.parent),
        "TracerPid" => 0,
        "NSpgid" => step.pids.inner(&known.ns_pgid),
        "NSsid" => step.pids.inner(&known.ns_sid),
        _ => return None,
    };
    Some(number.to_string())
}

/// Returns the value of a line that names ids or privileges.
fn identity_value(identity: &Identity, key: &str) -> Option<String> {
    let four = |four: super::identity::Four| {
        format!(
            "{}\t{}\t{}\t{}",
            four.real, four.effective, four.saved, four.fs
        )
    };
    let caps = |set: u64| format!("{set:016x}");
    Some(match key {
        "Uid" => four(identity.uid),
        "Gid" => four(identity.gid),
        "Groups" => identity
            .groups
            .iter()
            .map(|group| format!("{group} "))
            .collect(),
        "CapInh" => caps(identity.caps.inheritable),
        "CapPrm" => caps(identity.caps.permitted),
        "CapEff" => caps(identity.caps.effective),
        "CapBnd" => caps(identity.caps.bounding),
        "CapAmb" => caps(identity.caps.ambient),
        "NoNewPrivs" => u8::from(identity.no_new_privs).to_string(),
        "Seccomp" | "Seccomp_filters" => "0".to_owned(),
        _ => return None,
    })
}

/// Translates pid, parent, process group, session and the terminal's process group (proc_pid_stat(5)).
fn stat(step: &Step, pid: u32) -> Result<Vec<u8>, Errno> {
    let text = read(step, pid, "stat")?;
    let known = Status::of(pid).ok_or(Errno::SRCH)?;
    let name_end = text
        .iter()
        .rposition(|byte| *byte == b')')
        .ok_or(Errno::SRCH)?;
    let name_start = text
        .iter()
        .position(|byte| *byte == b'(')
        .ok_or(Errno::SRCH)?;
    let tail = String::from_utf8_lossy(&text[name_end + 1..]).into_owned();
    let mut fields: Vec<String> = tail.split_whitespace().map(str::to_owned).collect();
    let inner = |numbers: &[u32]| step.pids.inner(numbers).to_string();
    // Fields after the name: state, ppid, pgrp, session, tty_nr, tpgid, …
    if let [state, parent, group, session, _, foreground, ..] = &mut fields[..] {
        if step.mediated.is_some() && state == "t" {
            *state = "T".to_owned();
        }
        *parent = step.pids.inner_of(known.parent).to_string();
        *group = inner(&known.ns_pgid);
        *session = inner(&known.ns_sid);
        if let Ok(outer) = foreground.parse::<u32>() {
            *foreground = step.pids.inner_of(outer).to_string();
        }
    }
    let mut out = inner(&known.ns_pid).into_bytes();
    out.push(b' ');
    out.extend(&text[name_start..=name_end]);
    out.extend(format!(" {}\n", fields.join(" ")).bytes());
    Ok(out)
}

/// Hides the limit in which a process's tag is kept.
fn limits(step: &Step, pid: u32) -> Result<Vec<u8>, Errno> {
    let text = String::from_utf8_lossy(&read(step, pid, "limits")?).into_owned();
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with("Max realtime timeout") {
            out.push_str(&format!(
                "{:<26}{:<21}{:<21}{:<10}\n",
                "Max realtime timeout", "unlimited", "unlimited", "us"
            ));
        } else {
            out.push_str(&format!("{line}\n"));
        }
    }
    Ok(out.into())
}

/// Takes the tree's own path off the paths that end lines (maps(5): after the inode, a space, the path).
fn without_root(text: &[u8], root: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let marked = [b" ", root, b"/"].concat();
        let equals = [b"=", root, b"/"].concat();
        let found = [marked, equals].into_iter().find_map(|mark| {
            memchr::memmem::find(line, &mark).map(|at| (at + 1, at + mark.len() - 1))
        });
        match found {
            Some((start, end)) => {
                out.extend(&line[..start]);
                out.extend(&line[end..]);
            }
            None => out.extend(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_the_trees_own() {
        let text = b"00-10 r-xp 00 fe:00 12   /store/t/root/usr/bin/sh\n10-20 rw-p 00 00:00 0 [heap]\nff default file=/store/t/root/lib/x mapped=3\n";
        let want = b"00-10 r-xp 00 fe:00 12   /usr/bin/sh\n10-20 rw-p 00 00:00 0 [heap]\nff default file=/lib/x mapped=3\n";
        assert_eq!(without_root(text, b"/store/t/root"), want);
    }
}
