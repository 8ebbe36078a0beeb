//! What a COPY takes over of a file besides its content and what stat(2) says: owner, device, extended attributes.
//!
//! Contexts: everything belongs to root, and of the attributes only file capabilities are taken, which is all that
//! docker's layers have; the `user.*` attributes of somebody's working directory (where a browser loaded a file from)
//! are no business of the image.  Checkouts: owners as there, `user.*` and file capabilities.  Labels and ACLs of the
//! machine (`security.selinux`, `system.posix_acl_*`, `trusted.*`) are never taken, nor is `user.stepwell.*`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use stepwell_model::Hasher;
use stepwell_sys::meta::{self, DeviceKind, InodeId};

use super::error::SourceError;
use super::node::{Kind, Node};
use super::path;
use super::tree::{Owners, SourceTree};

/// The attribute that file capabilities are in (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";

/// Longest value and longest list of names that the kernel gives (xattr(7)).
const MAX_XATTR: usize = 65_536;

/// Owner, device and attributes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extra {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What the file stands for, where it is a device node that could not be made.
    pub device: Option<(Kind, u32, u32)>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Extra {
    /// Feeds all of it.
    pub fn hash_into(&self, hasher: &mut Hasher) {
        hasher.update(&self.uid.to_le_bytes());
        hasher.update(&self.gid.to_le_bytes());
        let device = self
            .device
            .map(|(kind, major, minor)| format!("{kind:?} {major} {minor}"));
        hasher.field(device.unwrap_or_default().as_bytes());
        hasher.update(&(self.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &self.xattrs {
            hasher.field(name);
            hasher.field(value);
        }
    }
}

impl SourceTree {
    /// Reads what goes with the regular file or directory `file`.
    pub fn extra_of(
        &self,
        file: BorrowedFd<'_>,
        node: &Node,
        path: &[u8],
    ) -> Result<Extra, SourceError> {
        let failed = |operation, e| SourceError::io(operation, path::show(path), e);
        let Some(owners) = self.owners() else {
            let mut extra = Extra::default();
            if node.kind == Kind::File
                && let Some(value) =
                    read_xattr(file, CAPABILITY).map_err(|e| failed("read attribute of", e))?
            {
                extra.xattrs.insert(CAPABILITY.to_vec(), value);
            }
            return Ok(extra);
        };
        let mut extra = self.owner_of(file, node, owners, path)?;
        for name in list_xattrs(file).map_err(|e| failed("list attributes of", e))? {
            let wanted = name == CAPABILITY || name.starts_with(b"user.");
            if wanted
                && !name.starts_with(meta::XATTR_PREFIX.as_bytes())
                && let Some(value) =
                    read_xattr(file, &name).map_err(|e| failed("read attribute of", e))?
            {
                extra.xattrs.entry(name).or_insert(value);
            }
        }
        Ok(extra)
    }

    /// Reads what goes with whatever is at `path`, which has no link in it.
    pub fn extra_at(&self, path: &[u8], node: &Node) -> Result<Extra, SourceError> {
        let Some(owners) = self.owners() else {
            return Ok(Extra::default());
        };
        match node.kind {
            Kind::Directory => self.extra_of(self.root.open_directory(path)?.as_fd(), node, path),
            Kind::File => self.extra_of(self.root.open_file(path)?.0.as_fd(), node, path),
            _ => self.owner_of(self.root.open_handle(path)?.as_fd(), node, owners, path),
        }
    }

    /// Reads what goes with what is at `path` when an entry of that kind is written.
    pub(crate) fn extra_again(&self, path: &[u8], kind: Kind) -> Result<Extra, SourceError> {
        if self.owners().is_none() && kind != Kind::File {
            return Ok(Extra::default());
        }
        let found = self.root.find(path, false)?;
        self.extra_at(&found.path, &found.node)
    }

    fn owner_of(
        &self,
        file: BorrowedFd<'_>,
        node: &Node,
        owners: &Owners,
        path: &[u8],
    ) -> Result<Extra, SourceError> {
        let Owners::Emulated(side) = owners else {
            return Ok(Extra {
                uid: node.uid,
                gid: node.gid,
                ..Extra::default()
            });
        };
        let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, InodeId::STATX)
            .map_err(|e| SourceError::io("stat", path::show(path), e))?;
        let kept = meta::load(file, &stat, side)
            .map_err(|e| SourceError::Metadata {
                path: path::show(path),
                reason: e.to_string(),
            })?
            .unwrap_or_default();
        let device = kept.device.map(|device| {
            let kind = if device.kind == DeviceKind::Char {
                Kind::Character
            } else {
                Kind::Block
            };
            (kind, device.major, device.minor)
        });
        let mut xattrs = kept.xattrs;
        xattrs.retain(|name, _| name == CAPABILITY || name.starts_with(b"user."));
        Ok(Extra {
            uid: kept.uid,
            gid: kept.gid,
            device,
            xattrs,
        })
    }
}

impl super::root::Root {
    fn open_handle(&self, path: &[u8]) -> Result<OwnedFd, SourceError> {
        let (dir, name) = path::split(path);
        let parent = self.open_directory(dir)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::empty())
            .map_err(|e| SourceError::io("open", path::show(path), e))
    }
}

fn read_xattr(file: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    // Large enough for nearly all; the size is asked for only when it is not.
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::fgetxattr(file, name, &mut value[..]) {
            Ok(size) => {
                value.truncate(size);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < MAX_XATTR => value.resize(MAX_XATTR, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn list_xattrs(file: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = vec![0; 1024];
    loop {
        match rustix::fs::flistxattr(file, &mut names[..]) {
            Ok(size) => {
                names.truncate(size);
                let names = names.split(|b| *b == 0).filter(|n| !n.is_empty());
                return Ok(names.map(<[u8]>::to_vec).collect());
            }
            Err(Errno::RANGE) if names.len() < MAX_XATTR => names.resize(MAX_XATTR, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
}
