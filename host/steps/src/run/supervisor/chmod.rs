//! chmod(2) and linkat(2) on what a graft leads to: the C library changes the mode of an open file, and gives an
//! unnamed one its name, by its link in `/proc/self/fd`.

use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, Mode};
use rustix::io::Errno;
use stepwell_sys::resolve::{self, Links};

use super::call::{Answer, Call, Stop};
use super::identity::CAP_FSETID;
use super::nodes::{self, HostFile, Node, Within};
use super::owner::{Target, own_link, target_of};
use super::path::{AT_FDCWD, GraftPlace, Place, TreePlace, locate, near, split, without_slash};
use super::step::Step;
use crate::run::types::Ids;

const S_ISGID: u32 = 0o2000;

/// chmod(path, mode)
#[cfg(target_arch = "x86_64")]
pub fn chmod(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(step, call, AT_FDCWD, &call.path(0)?, call.uint(1), true)
}

/// fchmodat(dirfd, path, mode)
pub fn fchmodat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(step, call, call.int(0), &call.path(1)?, call.uint(2), true)
}

/// fchmodat2(dirfd, path, mode, flags)
pub fn fchmodat2(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let follow = call.uint(3) & libc::AT_SYMLINK_NOFOLLOW as u32 == 0;
    change(
        step,
        call,
        call.int(0),
        &call.path(1)?,
        call.uint(2),
        follow,
    )
}

/// fchmod(fd, mode), with the set-group-ID bit
pub fn fchmod(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    change(step, call, call.int(0), b"", call.uint(1), true)
}

fn change(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    mode: u32,
    follow: bool,
) -> Result<Answer, Stop> {
    // The kernel takes this bit from a file of a group that the caller is not in, and all of a step are in root's alone.
    let sets_group = step.ids == Ids::RealOwners && mode & S_ISGID != 0;
    let is_settled = |step: &mut Step| {
        step.is_plain(call, path) || near(step, call, dirfd, path, follow).is_some()
    };
    if !sets_group && is_settled(step) {
        return Ok(Answer::CarryOn);
    }
    let place = locate(step, call, dirfd, path, follow)?;
    match &place {
        Place::Tree(TreePlace {
            redirected: false, ..
        })
        | Place::Descriptor(_)
            if !sets_group =>
        {
            return Ok(Answer::CarryOn);
        }
        Place::Graft(graft) => match &graft.node {
            Node::Native => return Ok(Answer::CarryOn),
            // Packages set the modes of devices; they are right already.
            Node::File(HostFile {
                within: Within::Dev,
                ..
            })
            | Node::PtyMaster
            | Node::Terminal => {
                return Ok(Answer::Value(0));
            }
            Node::File(HostFile {
                within: Within::Sys,
                ..
            }) => return Err(Errno::ROFS.into()),
            Node::File(_) | Node::Text(_) => return Err(Errno::PERM.into()),
            _ => {}
        },
        Place::Tree(_) | Place::Descriptor(_) => {}
    }
    match target_of(step, call, place)? {
        Target::Elsewhere if sets_group => Ok(Answer::CarryOn),
        Target::Elsewhere => Ok(Answer::Value(0)),
        Target::Tree(inode) => {
            let mut mode = mode & 0o7777;
            let identity = step.identity(call.tid());
            if sets_group && !identity.can(CAP_FSETID) && !identity.in_group(inode.meta(step)?.gid)
            {
                mode -= S_ISGID;
            }
            call.check()?;
            inode.chmod(mode)?;
            Ok(Answer::Value(0))
        }
    }
}

/// linkat(olddirfd, oldpath, newdirfd, newpath, flags), with AT_SYMLINK_FOLLOW
pub fn linkat(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let old = match locate(step, call, call.int(0), &call.path(1)?, true)? {
        Place::Graft(graft) => graft.node,
        _ => return Ok(Answer::CarryOn),
    };
    match old {
        Node::Native => return Ok(Answer::CarryOn),
        Node::Missing => return Err(Errno::NOENT.into()),
        _ => {}
    }
    let text = call.path(3)?;
    let bare = without_slash(&text);
    let new = match locate(step, call, call.int(2), bare, false)? {
        // Behind the name of what is no directory there is no slash.
        Place::Tree(TreePlace {
            handle: Err(Errno::NOENT),
            path,
            ..
        }) if bare.len() == text.len() => path,
        Place::Tree(TreePlace {
            handle: Err(errno), ..
        }) => return Err(errno.into()),
        Place::Graft(GraftPlace {
            node: Node::Native | Node::Missing,
            ..
        }) => return Err(Errno::XDEV.into()),
        _ => return Err(Errno::EXIST.into()),
    };
    let (directory, name) = split(&new).ok_or(Errno::NOENT)?;
    let directory = resolve::handle(&step.root, directory, Links::Follow)?;
    let Node::Magic(old) = old else {
        return Err(Errno::XDEV.into());
    };
    call.check()?;
    // The target is a file that the caller holds open; the kernel refuses one of another file system.
    let target = nodes::follow(step, &old.link)?;
    fs::linkat(
        fs::CWD,
        own_link(target.as_fd()),
        &directory,
        name,
        AtFlags::SYMLINK_FOLLOW,
    )?;
    Ok(Answer::Value(0))
}

impl super::owner::Inode {
    /// Changes the mode.
    ///
    /// # Errors
    /// What the file system answers.
    fn chmod(&self, mode: u32) -> Result<(), Errno> {
        fs::chmodat(
            fs::CWD,
            self.link(),
            Mode::from_raw_mode(mode),
            AtFlags::empty(),
        )
    }
}
