//! Names without which no path leads to anything that is answered here: most paths have none of them, and are the
//! kernel's affair as soon as they are read.
//!
//! Three kinds of names are *special*: those of the grafts, those of files of which something is kept (an owner, a device
//! number, an attribute), and those of links whose target has a special name, or ends where its text does not say (`.`, `..`,
//! `/`).  A path that starts outside of the grafts and has no special name ends at a file of which nothing is kept,
//! through whatever links it goes.
//!
//! That rests on all names being known: those of the tree when the step begins (its index), and those that are given
//! afterwards, for which calls that name what is there already are asked about ([`rules`]).  Where the
//! knowledge ends (too many names, an inode with names that were not seen) everything is looked at as before; so is what may be
//! in a mount, of which only the place has a name that is known.  A wrong answer makes a step
//! see a wrong owner, or a graft's stub, and nothing else.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, statat};
use rustix::io::Errno;
use stepwell_sys::seccomp::{Action, Rule};

use super::call::{Call, Stop};
use super::path::elements;
use super::step::Step;

/// Stops a tree, or a step that gives names without end, from filling memory.
const MAX_NAMES: usize = 1_000_000;

const RENAME_EXCHANGE: u32 = libc::RENAME_EXCHANGE;

/// A name: one element of a path.
type Name = Box<[u8]>;

/// The special names of a tree.
#[derive(Debug, Clone)]
pub struct Names {
    special: HashSet<Name>,
    /// Numbers of the inodes of which something is kept.
    inodes: HashSet<u64>,
    /// By a name that is not special: the links that have it in their target.
    links: HashMap<Name, Vec<Name>>,
    /// How many names are in these tables.
    count: usize,
    is_whole: bool,
    /// Whether something is mounted: of what is in it no name is known, but that of the place.
    has_mounts: bool,
}

impl Default for Names {
    fn default() -> Self {
        let grafts = [&b"proc"[..], b"dev", b"sys"];
        Self {
            special: grafts.into_iter().map(Into::into).collect(),
            inodes: HashSet::new(),
            links: HashMap::new(),
            count: 0,
            is_whole: true,
            has_mounts: false,
        }
    }
}

/// The names in a path; neither `.` nor `..` is one.
fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    elements(path).filter(|name| *name != b"..")
}

/// The last name of a path, where it ends in one.
fn last(path: &[u8]) -> Option<&[u8]> {
    let last = path
        .rsplit(|byte| *byte == b'/')
        .find(|name| !name.is_empty())?;
    (!matches!(last, b"." | b"..")).then_some(last)
}

impl Names {
    /// Adds an entry of the tree: its path, the number of its inode (0 when not known), whether something is kept of it (where owners
    /// are emulated), and its target if it is a symbolic link.
    pub fn add(&mut self, path: &[u8], inode: u64, is_kept: bool, target: Option<&[u8]>) {
        if is_kept {
            self.is_whole &= inode != 0;
            self.inodes.insert(inode);
        }
        let Some(name) = last(path) else { return };
        if is_kept {
            self.mark(name);
        }
        if let Some(target) = target {
            self.link(name, target);
        }
    }

    /// Adds a place at which something is mounted, by its absolute path.
    pub fn mount(&mut self, path: &[u8]) {
        self.has_mounts = true;
        match last(path) {
            Some(name) => self.mark(name),
            None => self.is_whole = false,
        }
    }

    /// Says whether nothing that a path leads to is answered here, if it does not start in a graft.
    pub fn are_plain(&self, path: &[u8]) -> bool {
        // A directory of a mount may be where a relative path starts.
        let starts_in_tree = !self.has_mounts || path.starts_with(b"/");
        self.is_whole && starts_in_tree && self.none_is_special(path)
    }

    fn none_is_special(&self, path: &[u8]) -> bool {
        last(path).is_some() && names(path).all(|name| !self.special.contains(name))
    }

    /// Says whether nothing is kept of an inode of the tree.
    pub fn has_nothing(&self, inode: u64) -> bool {
        self.is_whole && !self.has_mounts && !self.inodes.contains(&inode)
    }

    /// A link was made, or is there.
    fn link(&mut self, name: &[u8], target: &[u8]) {
        if !self.none_is_special(target) {
            return self.mark(name);
        }
        for above in names(target) {
            self.links
                .entry(above.into())
                .or_default()
                .push(name.into());
            self.count += 1;
        }
        self.limit();
    }

    /// Makes a name special, and with it the links that lead by it.
    fn mark(&mut self, name: &[u8]) {
        let mut todo: Vec<Name> = vec![name.into()];
        while let Some(name) = todo.pop() {
            if !self.special.contains(&name) {
                todo.extend(self.links.remove(&name).unwrap_or_default());
                self.special.insert(name);
                self.count += 1;
            }
        }
        self.limit();
    }

    fn limit(&mut self) {
        if self.count + self.inodes.len() > MAX_NAMES {
            *self = Self {
                is_whole: false,
                ..Self::default()
            };
        }
    }

    /// What has one name gets another; an old path that ends in none may be anything.
    fn rename(&mut self, old: &[u8], new: &[u8]) {
        // What comes out of a mount may be anything.
        let is_special = last(old).is_none_or(|name| self.special.contains(name))
            || (self.has_mounts && !self.are_plain(old));
        if let Some(name) = last(new).filter(|_| is_special) {
            self.mark(name);
        }
    }

    /// From now on something is kept of an inode that has this name, if any.
    pub fn keep(&mut self, name: Option<&[u8]>, inode: u64) {
        self.inodes.insert(inode);
        match name {
            Some(name) => self.mark(name),
            None => self.limit(),
        }
    }

    /// The same, of a file that may have names that nobody said; `path` is how the kernel calls it.
    pub fn keep_known(&mut self, path: Option<&[u8]>, stat: &Statx) {
        let is_dir = stat.stx_mode & libc::S_IFMT as u16 == libc::S_IFDIR as u16;
        self.is_whole &= is_dir || stat.stx_nlink <= 1 || self.inodes.contains(&stat.stx_ino);
        self.keep(path.and_then(last), stat.stx_ino);
    }
}

/// Says whether a path names the directory in which its last name is.
pub fn has_directory(path: &[u8]) -> bool {
    let mut elements = path.split(|byte| *byte == b'/').filter(|e| !e.is_empty());
    let _ = elements.next_back();
    !matches!(elements.next_back(), None | Some(b"." | b".."))
}

/// A call that gives a name.
struct Row {
    nr: i64,
    name: &'static str,
    /// What it gives a name to.
    what: What,
    /// Argument with the old path, or with the target.
    old: usize,
    /// Argument with the new path.
    new: usize,
}

/// What a call gives a name to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// Something that is there already.
    Old,
    /// A new symbolic link.
    Link,
}

macro_rules! rows {
    ($($number:ident $what:ident $old:literal $new:literal),* $(,)?) => {
        &[$(Row { nr: libc::$number, name: stringify!($number), what: What::$what, old: $old, new: $new }),*]
    };
}

const ROWS: &[Row] = rows! { SYS_renameat Old 1 3, SYS_renameat2 Old 1 3, SYS_linkat Old 1 3, SYS_symlinkat Link 0 2 };

#[cfg(target_arch = "x86_64")]
const LEGACY: &[Row] = rows! { SYS_rename Old 0 1, SYS_link Old 0 1, SYS_symlink Link 0 1 };

#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[Row] = &[];

fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(LEGACY)
}

/// Returns the rules that make the kernel ask when names are given.
pub fn rules() -> impl Iterator<Item = Rule> {
    rows().map(|row| {
        let name = row.name.trim_start_matches("SYS_");
        Rule::new(row.nr, name, Action::Notify, "what has a name gets another")
    })
}

/// Looks at a call that may give a name.
///
/// # Errors
/// Its paths cannot be read: the kernel says why.
pub fn watch(step: &mut Step, call: &Call<'_>) -> Result<(), Stop> {
    let Some(names) = &mut step.names else {
        return Ok(());
    };
    let number = i64::from(call.number());
    let Some(row) = rows().find(|row| row.nr == number) else {
        return Ok(());
    };
    let (old, new) = (call.path(row.old)?, call.path(row.new)?);
    if row.what == What::Link {
        if let Some(name) = last(&new) {
            names.link(name, &old);
        }
        return Ok(());
    }
    // What is at the end of links may have any name.
    let follows = number == libc::SYS_linkat && call.uint(4) != 0;
    if follows && !names.are_plain(&old) {
        names.rename(b".", &new);
    }
    names.rename(&old, &new);
    if number == libc::SYS_renameat2 && call.uint(4) & RENAME_EXCHANGE != 0 {
        names.rename(&new, &old);
    }
    Ok(())
}

impl Step {
    /// Says whether the kernel alone answers rightly for a path, and hardly a look is needed to know it.
    pub fn is_plain(&mut self, call: &Call<'_>, path: &[u8]) -> bool {
        let plain = |names: &Names| names.are_plain(path);
        self.names.as_ref().is_some_and(plain)
            && (path.starts_with(b"/") || !self.entered(call.tid()))
    }

    /// The same for a path at which something is made: it belongs to root, as the kernel will have it.
    pub fn makes_plain(&mut self, call: &Call<'_>, path: &[u8]) -> bool {
        if !has_directory(path) || !self.is_plain(call, path) {
            return false;
        }
        let identity = self.identity(call.tid());
        (identity.uid.fs, identity.gid.fs) == (0, 0)
    }

    /// Remembers that something is kept of an inode that was just made.
    ///
    /// # Errors
    /// It is gone.
    pub fn remember(&mut self, parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        if let Some(names) = &mut self.names {
            let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            names.keep(Some(name.as_encoded_bytes()), stat.st_ino);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with a directory of a group's, `/etc/mtab`, and links to both.
    fn tree() -> Names {
        let mut names = Names::default();
        let links = [
            ("etc/mtab", "../proc/self/mounts"),
            ("etc/table", "mtab"),
            ("var/spool/mail", "../mail"),
            ("lib", "usr/lib"),
            ("usr/here", "."),
            ("top", "/"),
        ];
        for (path, target) in links {
            names.add(path.as_bytes(), 7, false, Some(target.as_bytes()));
        }
        names.add(b"", 1, false, None);
        names.add(b"var/mail", 8, true, None);
        names
    }

    fn plain(names: &Names, path: &str) -> bool {
        names.are_plain(path.as_bytes())
    }

    #[test]
    fn paths_without_special_names_are_plain() {
        let names = tree();
        for path in [
            "/usr/lib/x",
            "x",
            "/lib/y/",
            "a/../b",
            "./c",
            "/process/device",
            "lib",
        ] {
            assert!(plain(&names, path), "{path}");
        }
        for path in [
            "",
            "/",
            ".",
            "..",
            "a/..",
            "/proc/1",
            "dev",
            "/x/sys",
            "/etc/mtab",
            "/etc/table",
            "/var/mail/root",
            "/var/spool/mail",
            "/usr/here/x",
            "/top/etc",
        ] {
            assert!(!plain(&names, path), "{path}");
        }
        assert!(names.has_nothing(7) && !names.has_nothing(8));
    }

    #[test]
    fn names_that_are_given_later_count_with_the_links_that_lead_by_them() {
        let mut names = tree();
        names.link(b"one", b"two/x");
        names.link(b"zero", b"/a/one");
        assert!(plain(&names, "zero") && plain(&names, "x/one"));
        names.keep(Some(b"x"), 30);
        for path in ["zero", "one", "/x", "two/x/y"] {
            assert!(!plain(&names, path), "{path}");
        }
        assert!(plain(&names, "two") && !names.has_nothing(30));

        names.rename(b"/etc/mtab", b"/tmp/other");
        names.rename(b"/usr/lib", b"/usr/lib2");
        names.rename(b"", b"/tmp/unnamed");
        assert!(!plain(&names, "other") && plain(&names, "lib2") && !plain(&names, "unnamed"));
    }

    #[test]
    fn of_what_is_mounted_nothing_is_known() {
        let mut names = tree();
        names.mount(b"/var/cache/apt");
        names.link(b"way", b"../var/cache/apt/archives");
        names.link(b"other", b"b/c");
        for path in ["/var/cache/apt/x", "relative", "/way", "apt"] {
            assert!(!plain(&names, path), "{path}");
        }
        assert!(plain(&names, "/var/cache/other") && !names.has_nothing(99));
        names.rename(b"inside", b"/tmp/one");
        names.rename(b"/x/apt/y", b"two");
        names.rename(b"/x/y", b"/x/three");
        assert!(!plain(&names, "/tmp/one") && !plain(&names, "/two"));
        assert!(plain(&names, "/x/three"));
        names.mount(b"/");
        assert!(!plain(&names, "/x/three"));
    }

    #[test]
    fn where_knowledge_ends_nothing_is_plain() {
        let mut names = tree();
        names.add(b"x", 0, true, None);
        assert!(!plain(&names, "y") && !names.has_nothing(99));

        let mut names = tree();
        for number in 0..=MAX_NAMES {
            names.link(number.to_string().as_bytes(), b"a");
        }
        assert!(!plain(&names, "y"));
        assert!(names.count < 10);
    }

    #[test]
    fn directories_of_new_files_are_told() {
        for path in ["/a/b", "a/b", "a//b/", "./a/b"] {
            assert!(has_directory(path.as_bytes()), "{path}");
        }
        for path in ["a", "/a", "./a", "../a", "", "/"] {
            assert!(!has_directory(path.as_bytes()), "{path}");
        }
    }
}
