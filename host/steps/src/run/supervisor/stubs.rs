//! The skeleton of the grafts in the tree: directories that a step can list, enter and hold a descriptor of.
//!
//! They are made when somebody asks for them, and hold an entry for each name so that a listing is right; what
//! the entries are is never looked at, since every path into a graft is answered by [`super::nodes`].  They lie
//! inside the tree, so that no descriptor of a directory outside ever reaches a step, and they go with the step.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use stepwell_sys::resolve::{self, Links};

use super::nodes::{Within, open_host};
use super::remove::remove_tree;
use super::step::Step;
use super::{dev, pids, procfs, sysfs};

/// Stops a step from filling the disk by listing: entries of one directory.
const MAX_ENTRIES: usize = 20_000;

/// Stops it from filling memory: directories whose skeleton is remembered to be complete.
const MAX_MIRRORED: usize = 20_000;

/// Keeps a walk over everything (`find /`) from taking long, since making a file costs more than looking at one:
/// entries taken over from the machine's `/sys` and `/proc/sys` in one step.  Directories listed after that seem
/// empty; what is in them can still be opened.
const MAX_MIRRORED_ENTRIES: usize = 1_500;

/// What an entry looks like in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory,
    File,
    Link(Vec<u8>),
}

/// The entries that a directory is to have.
#[derive(Debug, Default)]
struct Listing {
    entries: BTreeMap<CString, Entry>,
    /// Whether what is not among them is to go.
    exact: bool,
    /// Whether it never changes.
    fixed: bool,
}

impl Listing {
    fn add(&mut self, name: impl Into<Vec<u8>>, entry: Entry) {
        if self.entries.len() < MAX_ENTRIES
            && let Ok(name) = CString::new(name)
        {
            self.entries.insert(name, entry);
        }
    }

    fn add_all(&mut self, names: &[&str], entry: &Entry) {
        for name in names {
            self.add(*name, entry.clone());
        }
    }
}

/// Opens the skeleton of a directory of a graft (a path without links); it is made where it is missing.
///
/// # Errors
/// What the file system answers.
pub fn open(step: &Step, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::DIRECTORY;
    match resolve::open(&step.root, path, flags, Links::None) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut here = Vec::new();
    for name in path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
    {
        let parent = if here.is_empty() {
            b"/".to_vec()
        } else {
            here.clone()
        };
        let parent = resolve::handle(&step.root, &parent, Links::None)?;
        match fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        here.push(b'/');
        here.extend(name);
    }
    resolve::open(&step.root, path, flags, Links::None)
}

/// Has `/proc/self` and `/proc/thread-self` of the skeleton lead to a thread, since the kernel follows them for it now.
///
/// Two threads that enter theirs at the same time may meet in one of them; what they then look at by name is answered right.
///
/// # Errors
/// As [`open`].
pub fn lead_to(step: &Step, pid: u32, tid: u32) -> Result<(), Errno> {
    const NEW: &str = ".own";
    let proc = open(step, b"/proc", OFlags::RDONLY)?;
    let whole = format!("{pid}/task/{tid}");
    for (name, names) in procfs::OWN_LINKS {
        let end = whole.match_indices('/').nth(*names - 1);
        let target = end.map_or(&whole[..], |(at, _)| &whole[..at]);
        match fs::unlinkat(&proc, NEW, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        fs::symlinkat(target, &proc, NEW)?;
        fs::renameat(&proc, NEW, &proc, *name)?;
    }
    Ok(())
}

/// Brings the entries of a directory of a graft up to date, and opens it.
///
/// # Errors
/// As [`open`].
pub fn list(step: &mut Step, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    if !step.mirrored.contains(path) {
        let mut listing = listing(step, path);
        if listing.fixed {
            if step.mirrored_entries + listing.entries.len() > MAX_MIRRORED_ENTRIES {
                listing.entries.clear();
            }
            step.mirrored_entries += listing.entries.len();
        }
        let directory = open(step, path, OFlags::RDONLY)?;
        fill(step, &directory, &listing)?;
        if listing.fixed && step.mirrored.len() < MAX_MIRRORED {
            step.mirrored.insert(path.to_vec());
        }
    }
    open(step, path, flags)
}

/// Says what a directory is to hold.
fn listing(step: &mut Step, path: &[u8]) -> Listing {
    let text = String::from_utf8_lossy(path).into_owned();
    let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
    match &names[..] {
        ["proc"] => processes(step),
        ["proc", "sys" | "pressure", ..] => Listing {
            fixed: true,
            ..mirrored(step, Within::Proc, &names[1..].join("/"))
        },
        ["proc", pid, rest @ ..] => match pid.parse().ok().and_then(|inner| step.pids.outer(inner))
        {
            Some(outer) => process(step, outer, rest),
            None => Listing::default(),
        },
        ["sys", rest @ ..] => sys(step, rest),
        ["dev"] => devices(step),
        ["dev", "pts"] => terminals(step),
        _ => Listing::default(),
    }
}

fn processes(step: &mut Step) -> Listing {
    let mut listing = Listing {
        exact: true,
        ..Listing::default()
    };
    add_existing(&mut listing, step, "", procfs::TOP_FILES);
    listing.add_all(procfs::TOP_DIRECTORIES, &Entry::Directory);
    for (name, target) in procfs::TOP_LINKS {
        listing.add(*name, Entry::Link(target.as_bytes().to_vec()));
    }
    for (name, _) in procfs::OWN_LINKS {
        // What looks at it is told better; beneath a descriptor it is a link at least, which no walk enters.
        listing.add(*name, Entry::Link(b"1".to_vec()));
    }
    for (inner, _) in step.pids.all() {
        listing.add(inner.to_string(), Entry::Directory);
    }
    listing
}

/// Adds those files that this kernel's `/proc` has.
fn add_existing(listing: &mut Listing, step: &Step, directory: &str, names: &[&str]) {
    for name in names {
        if open_host(
            step,
            Within::Proc,
            &format!("{directory}{name}"),
            OFlags::PATH,
        )
        .is_ok()
        {
            listing.add(*name, Entry::File);
        }
    }
}

fn process(step: &mut Step, outer: u32, rest: &[&str]) -> Listing {
    let mut listing = Listing {
        exact: true,
        ..Listing::default()
    };
    if step.pids.is_holder(outer) {
        return holder(step, outer, rest);
    }
    match rest {
        [] => {
            add_existing(&mut listing, step, &format!("{outer}/"), procfs::PID_FILES);
            add_existing(&mut listing, step, &format!("{outer}/"), procfs::PID_TEXTS);
            listing.add_all(procfs::PID_LINKS, &Entry::Link(b"/".to_vec()));
            listing.add_all(procfs::PID_DIRECTORIES, &Entry::Directory);
        }
        ["fd"] => {
            for number in pids::numbers(&format!("/proc/{outer}/fd")) {
                listing.add(number.to_string(), Entry::Link(b"/".to_vec()));
            }
        }
        ["fdinfo"] => {
            for number in pids::numbers(&format!("/proc/{outer}/fd")) {
                listing.add(number.to_string(), Entry::File);
            }
        }
        ["task"] => {
            for thread in pids::threads(outer)
                .into_iter()
                .filter_map(|outer| step.pids.inner_thread(outer))
            {
                listing.add(thread.to_string(), Entry::Directory);
            }
        }
        ["task", thread, rest @ ..] => {
            if let Some(outer) = thread
                .parse()
                .ok()
                .and_then(|inner| step.pids.thread(outer, inner))
            {
                listing = process(step, outer, rest);
                listing.entries.remove(c"task");
            }
        }
        ["ns" | "net", ..] => {
            return mirrored(step, Within::Proc, &format!("{outer}/{}", rest.join("/")));
        }
        _ => {}
    }
    listing
}

/// What a step sees of the process that holds it.
fn holder(step: &Step, outer: u32, rest: &[&str]) -> Listing {
    let mut listing = Listing {
        exact: true,
        ..Listing::default()
    };
    match rest {
        [] => {
            let directory = format!("{outer}/");
            add_existing(&mut listing, step, &directory, procfs::HOLDER_FILES);
            add_existing(&mut listing, step, &directory, procfs::HOLDER_TEXTS);
            listing.add_all(&["cwd", "root"], &Entry::Link(b"/".to_vec()));
            listing.add_all(procfs::PID_DIRECTORIES, &Entry::Directory);
        }
        ["net", ..] => return mirrored(step, Within::Proc, &format!("{outer}/{}", rest.join("/"))),
        _ => {}
    }
    listing
}

fn sys(step: &Step, rest: &[&str]) -> Listing {
    let mut listing = mirrored(step, Within::Sys, &rest.join("/"));
    listing.entries.retain(|name, _| {
        let mut names = rest.to_vec();
        name.to_str().is_ok_and(|name| {
            names.push(name);
            sysfs::shown(&names)
        })
    });
    listing.fixed = true;
    listing
}

fn devices(step: &Step) -> Listing {
    let mut listing = Listing::default();
    if !step.real_devices {
        listing.add_all(&dev::DEVICES, &Entry::File);
        listing.add("tty", Entry::File);
    }
    listing.add_all(&["console", "ptmx"], &Entry::File);
    listing.add("pts", Entry::Directory);
    for (name, target) in dev::LINKS {
        listing.add(name, Entry::Link(target.as_bytes().to_vec()));
    }
    listing
}

fn terminals(step: &Step) -> Listing {
    let mut listing = Listing {
        exact: true,
        ..Listing::default()
    };
    listing.add("ptmx", Entry::File);
    for number in &step.ptys {
        listing.add(number.to_string(), Entry::File);
    }
    listing
}

/// Takes over the entries of one of the machine's directories.
fn mirrored(step: &Step, within: Within, path: &str) -> Listing {
    let mut listing = Listing {
        exact: true,
        ..Listing::default()
    };
    let Ok(directory) = open_host(step, within, path, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return listing;
    };
    let Ok(entries) = Dir::read_from(&directory) else {
        return listing;
    };
    for entry in entries.flatten().take(MAX_ENTRIES) {
        let kind = match entry.file_type() {
            FileType::Directory => Entry::Directory,
            FileType::Symlink => match fs::readlinkat(&directory, entry.file_name(), Vec::new()) {
                Ok(target) => Entry::Link(target.into_bytes()),
                Err(_) => continue,
            },
            _ => Entry::File,
        };
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            listing.add(entry.file_name().to_bytes(), kind);
        }
    }
    listing
}

/// Makes what is missing of a listing, and removes what is too much.
fn fill(step: &Step, directory: &OwnedFd, listing: &Listing) -> Result<(), Errno> {
    let mut present = Vec::new();
    for entry in Dir::read_from(directory)?.flatten() {
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            present.push(entry.file_name().to_owned());
        }
    }
    for name in &present {
        if listing.exact && !listing.entries.contains_key(name) {
            remove_tree(directory.as_fd(), name, &step.scratch).map_err(|error| error.errno)?;
        }
    }
    let present: std::collections::HashSet<&CStr> = present.iter().map(CString::as_c_str).collect();
    for (name, entry) in listing
        .entries
        .iter()
        .filter(|(name, _)| !present.contains(name.as_c_str()))
    {
        match make(directory, name, entry) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn make(directory: &OwnedFd, name: &CStr, entry: &Entry) -> Result<(), Errno> {
    match entry {
        Entry::Directory => fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)),
        Entry::File => fs::mknodat(
            directory,
            name,
            FileType::RegularFile,
            Mode::from_raw_mode(0o644),
            0,
        ),
        Entry::Link(target) => fs::symlinkat(&target[..], directory, name),
    }
}

/// Makes a link to `target` beneath `/proc` by which the step can execute it, and returns its path, which is not
/// longer than `room`.
///
/// # Errors
/// `ENAMETOOLONG` when there is no room, and what the file system answers.
pub fn link_to_program(
    step: &Step,
    target: &[u8],
    key: u32,
    room: usize,
) -> Result<Vec<u8>, Errno> {
    let name = format!(".x{key}");
    let path = format!("/proc/{name}");
    if path.len() > room {
        return Err(Errno::NAMETOOLONG);
    }
    let proc = open(step, b"/proc", OFlags::RDONLY)?;
    match fs::unlinkat(&proc, &*name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    fs::symlinkat(target, &proc, &*name)?;
    Ok(path.into_bytes())
}
