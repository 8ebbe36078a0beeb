//! What one file of a source tree is, as stat(2) tells it.
//!
//! Pure data; reading it is the business of [`super::root`].

use rustix::fs::{FileType, Stat};

/// Type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    Character,
    /// Block device.
    Block,
}

/// Tells whether a file is still the same one with the same content.
///
/// ctime catches a same-size overwrite with a restored mtime, chmod, chown and setxattr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device of the file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of the content.
    pub mtime: Time,
    /// Time of the last change of anything.
    pub ctime: Time,
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970.
    pub secs: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

/// What one file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Type.
    pub kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky (07777).
    pub mode: u32,
    /// Owner on disk.
    pub uid: u32,
    /// Group on disk.
    pub gid: u32,
    /// Number of hard links.
    pub links: u64,
    /// Major and minor number, for devices.
    pub device: (u32, u32),
    /// Text of a symbolic link; empty for everything else.
    pub target: Vec<u8>,
    /// Tells whether it is still the same.
    pub identity: Identity,
}

impl Kind {
    /// Reads the type from the mode.
    pub fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::Character,
            FileType::BlockDevice => Self::Block,
            _ => Self::File,
        }
    }

    /// Returns the name for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
            Self::Character => "a character device",
            Self::Block => "a block device",
        }
    }
}

impl Node {
    /// Takes over what stat(2) said.
    #[allow(
        clippy::unnecessary_cast,
        reason = "the types of the fields differ between architectures"
    )]
    pub fn new(stat: &Stat, target: Option<Vec<u8>>) -> Self {
        let time = |secs, nanos| Time {
            secs,
            nanos: nanos as u32,
        };
        let device = stat.st_rdev as u64;
        Self {
            kind: Kind::of(stat),
            mode: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: stat.st_nlink as u64,
            device: (rustix::fs::major(device), rustix::fs::minor(device)),
            target: target.unwrap_or_default(),
            identity: Identity {
                device: stat.st_dev as u64,
                inode: stat.st_ino as u64,
                size: stat.st_size as u64,
                mtime: time(stat.st_mtime as i64, stat.st_mtime_nsec),
                ctime: time(stat.st_ctime as i64, stat.st_ctime_nsec),
            },
        }
    }
}
