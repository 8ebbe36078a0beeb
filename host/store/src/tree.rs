//! Trees: a small pool of unpacked root file systems, transformed like git's work trees.
//!
//! A tree is taken exclusively ([`Store::checkout`](crate::Store::checkout)), brought to the wanted chain of layers by
//! deleting, restoring and adding only what differs, and changed in place by a step; then the difference is written
//! as a layer ([`Checkout::capture`]).  A tree whose step did not get that far is thrown away.
//!
//! # On disk
//! `trees/NAME/root/` is the file system, `trees/NAME/lock` is locked by whoever uses it, `trees/NAME/state` says which
//! layers it is made of, `trees/NAME/index` what each entry was when that was written ([`index`]).  **No readable
//! `state` means that the tree is not what any chain says**: it is removed before the first change and written after
//! the last one, so that whoever finds a tree without it and unlocked throws it away.  A step's own changes
//! come after `state` was renamed to `begun`, which says what the index still is, unlike the tree (`donor`).
//! `trees/NAME/lends` says that directories of others may lie in the tree meanwhile ([`caches`](crate::caches)).
//!
//! | file | what it does |
//! | --- | --- |
//! | [`checkout`] | the handle on a tree that callers hold |
//! | `pool` | finds the nearest tree, makes new ones, throws away |
//! | `plan` | compares index and chain: what is kept, mended, made, deleted |
//! | `apply` | carries that out: deletes, reads layers, creates |
//! | `donor` | finds files that new ones can share their content with |
//! | `create` | makes one inode with its metadata |
//! | `disk` | reads one inode with its metadata |
//! | `walk` | compares a tree with its index |
//! | `capture` | writes what differs as a layer |
//! | `unshare` | takes care that no file has a name outside of its tree |

mod apply;
mod capture;
pub mod checkout;
mod create;
mod disk;
mod donor;
pub mod index;
mod plan;
mod pool;
pub(crate) mod remove;
pub(crate) mod state;
mod unshare;
mod walk;

pub use capture::{CaptureOptions, Captured};
pub use checkout::{Checkout, ReadCheckout};
pub(crate) use state::TreePaths;

/// Hears how far the unpacking of a tree is; called from many threads.
pub trait Progress: Sync {
    /// `done` of `total` bytes of content are in the tree.
    fn unpacked(&self, done: u64, total: u64);
}

impl Progress for () {
    fn unpacked(&self, _: u64, _: u64) {}
}

impl<F: Fn(u64, u64) + Sync> Progress for F {
    fn unpacked(&self, done: u64, total: u64) {
        self(done, total);
    }
}

/// Directories that the sandbox makes up for each step: what is in them is never looked at.
const GRAFTED_DIRS: [&[u8]; 3] = [b"proc", b"dev", b"sys"];

/// Files that the sandbox makes up for each step: a step's changes to them go nowhere.
const GRAFTED_FILES: [&[u8]; 3] = [b"etc/resolv.conf", b"etc/hosts", b"etc/hostname"];

/// Says whether a path is made up by the sandbox, so that the index keeps what it has.
fn is_graft(path: &[u8]) -> bool {
    GRAFTED_FILES.contains(&path)
        || GRAFTED_DIRS.iter().any(|dir| {
            path.strip_prefix(*dir)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        })
}
