//! A directory that no look-up leaves.
//!
//! Symbolic links are read and resolved here, element by element, against a stack of directory handles: an absolute
//! target starts at the root again, `..` takes the handle below on the stack, and every element is opened with
//! O_NOFOLLOW.  So neither a link nor a link that is swapped during the look-up leads out, `/proc`'s magic links are
//! plain text, and no kernel feature is needed for safety; openat2 only makes the common look-ups faster.
//!
//! Must not know what is looked for or why: that is [`super::context`] and [`super::tree`].

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::SourceError;
use super::node::{Kind, Node};
use super::path;

/// Links followed in one look-up, as the kernel's limit (path_resolution(7)): ends loops.
const MAX_LINKS: usize = 40;

/// A directory that no look-up leaves; cheap to clone.
#[derive(Debug, Clone)]
pub struct Root {
    directory: Arc<OwnedFd>,
}

/// What a look-up found.
#[derive(Debug)]
pub struct Found {
    /// Where it is in truth: no element of it is a link, but for the last one where it was not to be followed.
    pub path: Vec<u8>,
    /// What it is.
    pub node: Node,
    /// The links that were followed, each by its own path.
    pub links: Vec<Vec<u8>>,
    parent: Option<Arc<OwnedFd>>,
}

impl Root {
    /// Opens the directory `path` of the machine, following links on the way to it: the user named it.
    pub fn open_ambient(path: &Path) -> Result<Self, SourceError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| SourceError::io("open", path.display(), e))?;
        Ok(Self::from_handle(directory))
    }

    /// Takes a directory that is already open.
    pub fn from_handle(directory: OwnedFd) -> Self {
        Self {
            directory: Arc::new(directory),
        }
    }

    /// Looks `path` up; a link as its last element is followed where `follow`.
    pub fn find(&self, path: &[u8], follow: bool) -> Result<Found, SourceError> {
        Lookup::new(self, path)?.run(follow)
    }

    /// Opens the directory at `path`, which has no link in it.
    pub fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, SourceError> {
        self.open_plain(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens the regular file at `path`, which has no link in it, and says what it is now.
    ///
    /// Never blocks: a named pipe that took the file's place is opened without waiting and refused.
    pub fn open_file(&self, path: &[u8]) -> Result<(OwnedFd, Node), SourceError> {
        let file = self.open_plain(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        regular(file, path)
    }

    fn open_plain(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, SourceError> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = |e| SourceError::io("open", path::show(path), e);
        if path.is_empty() {
            return rustix::fs::openat(&*self.directory, ".", flags, Mode::empty()).map_err(failed);
        }
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&*self.directory, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => self.open_slowly(path, flags),
            other => other.map_err(failed),
        }
    }

    /// Does what openat2 does where a seccomp filter or an old kernel refuses it.
    fn open_slowly(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, SourceError> {
        let failed = |e| SourceError::io("open", path::show(path), e);
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (dir, name) = path::split(path);
        let mut current = self.directory.clone();
        for element in path::elements_of(dir) {
            if element == b".." {
                return Err(failed(Errno::XDEV));
            }
            let next =
                rustix::fs::openat(&*current, element, step, Mode::empty()).map_err(failed)?;
            current = Arc::new(next);
        }
        rustix::fs::openat(&*current, name, flags, Mode::empty()).map_err(failed)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Found {
    /// Opens the regular file that was found, provided that it still is the one.
    pub fn open_file(&self) -> Result<(OwnedFd, Node), SourceError> {
        let failed = |e| SourceError::io("open", path::show(&self.path), e);
        let Some(parent) = &self.parent else {
            return Err(failed(Errno::ISDIR));
        };
        let flags =
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&**parent, path::base(&self.path), flags, Mode::empty())
            .map_err(failed)?;
        let (file, node) = regular(file, &self.path)?;
        if node.identity != self.node.identity {
            return Err(SourceError::Changed {
                path: path::show(&self.path),
            });
        }
        Ok((file, node))
    }
}

fn regular(file: OwnedFd, path: &[u8]) -> Result<(OwnedFd, Node), SourceError> {
    let stat =
        rustix::fs::fstat(&file).map_err(|e| SourceError::io("stat", path::show(path), e))?;
    let node = Node::new(&stat, None);
    match node.kind {
        Kind::File => Ok((file, node)),
        kind => Err(SourceError::NotAFile {
            path: path::show(path),
            found: kind.name(),
        }),
    }
}

/// One look-up on its way.
struct Lookup<'a> {
    root: &'a Root,
    wanted: &'a [u8],
    /// Elements that are still to be walked.
    pending: VecDeque<Vec<u8>>,
    /// Directories from the root to where the look-up stands, with their names; the root itself is not in it.
    stack: Vec<(Arc<OwnedFd>, Vec<u8>)>,
    links: Vec<Vec<u8>>,
}

impl<'a> Lookup<'a> {
    fn new(root: &'a Root, wanted: &'a [u8]) -> Result<Self, SourceError> {
        if wanted.len() > path::MAX_PATH || wanted.contains(&0) {
            return Err(SourceError::BadPath {
                path: path::show(&wanted[..wanted.len().min(80)]),
            });
        }
        let pending = path::elements_of(wanted).map(<[u8]>::to_vec).collect();
        Ok(Self {
            root,
            wanted,
            pending,
            stack: Vec::new(),
            links: Vec::new(),
        })
    }

    fn run(mut self, follow: bool) -> Result<Found, SourceError> {
        while let Some(name) = self.pending.pop_front() {
            if name == b".." {
                self.stack.pop();
                continue;
            }
            let handle = self.open_element(&name)?;
            let stat = rustix::fs::fstat(&handle).map_err(|e| self.failed("stat", e))?;
            let last = self.pending.is_empty();
            let kind = Kind::of(&stat);
            match kind {
                Kind::Symlink if !last || follow => self.enter_link(&handle, &name)?,
                Kind::Directory => self.stack.push((Arc::new(handle), name)),
                _ if last => {
                    let target = if kind == Kind::Symlink {
                        Some(self.read_link(&handle)?)
                    } else {
                        None
                    };
                    let path = path::join(&self.place(), &name);
                    let parent = Some(self.current());
                    return Ok(Found {
                        path,
                        node: Node::new(&stat, target),
                        links: self.links,
                        parent,
                    });
                }
                _ => return Err(self.failed("look up", Errno::NOTDIR)),
            }
        }
        let stat = rustix::fs::fstat(&*self.current()).map_err(|e| self.failed("stat", e))?;
        let path = self.place();
        Ok(Found {
            path,
            node: Node::new(&stat, None),
            links: self.links,
            parent: None,
        })
    }

    fn open_element(&self, name: &[u8]) -> Result<OwnedFd, SourceError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&*self.current(), name, flags, Mode::empty())
            .map_err(|e| self.failed("look up", e))
    }

    fn enter_link(&mut self, handle: &OwnedFd, name: &[u8]) -> Result<(), SourceError> {
        if self.links.len() >= MAX_LINKS {
            return Err(self.failed("look up", Errno::LOOP));
        }
        self.links.push(path::join(&self.place(), name));
        let target = self.read_link(handle)?;
        if target.first() == Some(&b'/') {
            self.stack.clear();
        }
        for element in path::elements_of(&target).rev() {
            self.pending.push_front(element.to_vec());
        }
        Ok(())
    }

    fn read_link(&self, handle: &OwnedFd) -> Result<Vec<u8>, SourceError> {
        let target = rustix::fs::readlinkat(handle, "", Vec::new())
            .map_err(|e| self.failed("read link", e))?;
        Ok(target.into_bytes())
    }

    fn current(&self) -> Arc<OwnedFd> {
        self.stack
            .last()
            .map_or(&self.root.directory, |(handle, _)| handle)
            .clone()
    }

    fn place(&self) -> Vec<u8> {
        self.stack
            .iter()
            .map(|(_, name)| name.as_slice())
            .collect::<Vec<_>>()
            .join(&b'/')
    }

    fn failed(&self, operation: &'static str, error: Errno) -> SourceError {
        SourceError::io(operation, path::show(self.wanted), error)
    }
}

/// Says what `name` in `directory` is, without following it.
pub(super) fn stat_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    shown: &[u8],
) -> Result<Node, SourceError> {
    let failed = |operation, e| SourceError::io(operation, path::show(shown), e);
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| failed("stat", e))?;
    let target = match Kind::of(&stat) {
        Kind::Symlink => {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())
                .map_err(|e| failed("read link", e))?;
            Some(target.into_bytes())
        }
        _ => None,
    };
    Ok(Node::new(&stat, target))
}
