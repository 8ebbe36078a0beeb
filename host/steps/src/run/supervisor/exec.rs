//! execve(2): programs named through `/proc/PID/exe`, and programs that change emulated ids.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;
use stepwell_sys::memory;
use stepwell_sys::meta::{InodeId, Meta};
use stepwell_sys::resolve::{self, Links};

use super::call::{Answer, Call, Stop};
use super::credentials::become_identity;
use super::nodes::{Magic, Node};
use super::path::{AT_FDCWD, GraftPlace, Place, TreePlace, locate};
use super::step::Step;
use super::stubs;

const S_ISUID: u32 = 0o4000;
/// Set-group-ID takes effect only on files that the group may execute.
const SETGID_EXECUTABLE: u32 = 0o2010;

/// execve(path, argv, envp)
pub fn execve(step: &mut Step, call: &Call<'_>) -> Result<Answer, Stop> {
    let path = call.path(0)?;
    let program = match locate(step, call, AT_FDCWD, &path, true)? {
        Place::Graft(GraftPlace {
            node: Node::Magic(Magic { text, .. }),
            ..
        }) => {
            rewrite(step, call, &path, &text)?;
            resolve::handle(&step.root, &text, Links::Follow).ok()
        }
        Place::Graft(GraftPlace {
            node: Node::Missing,
            ..
        }) => return Err(Errno::NOENT.into()),
        Place::Graft(GraftPlace {
            node: Node::Native, ..
        }) => None,
        Place::Graft(_) => return Err(Errno::ACCESS.into()),
        Place::Tree(TreePlace {
            handle,
            redirected,
            path: target,
        }) => {
            if redirected {
                rewrite(step, call, &path, &target)?;
            }
            handle.ok()
        }
        Place::Descriptor(_) => None,
    };
    if let Some(program) = program.filter(|_| step.emulates()) {
        change_identity(step, call, &program)?;
    }
    Ok(Answer::CarryOn)
}

/// Puts another path where the caller's is: the kernel reads it again.  What does not fit is reached by a link.
fn rewrite(step: &Step, call: &Call<'_>, old: &[u8], target: &[u8]) -> Result<(), Stop> {
    let mut text = if target.len() <= old.len() {
        target.to_vec()
    } else {
        stubs::link_to_program(step, target, call.tid(), old.len())
            .map_err(|_| Stop::Fail(Errno::ACCESS))?
    };
    text.push(0);
    call.check()?;
    let address = call.arg(0);
    // The path may be a constant of the program, in memory that it cannot write.
    memory::write(call.tid(), address, &text)
        .or_else(|_| memory::write_forced(call.tid(), address, &text))
        .map_err(|_| Stop::Fail(Errno::ACCESS))
}

/// Works out who the process is once the program runs.
///
/// # Errors
/// As [`become_identity`].
///
/// It takes effect before the kernel has said that the program can run; what the kernel will refuse for sure is
/// left alone.
pub fn change_identity(step: &mut Step, call: &Call<'_>, program: &OwnedFd) -> Result<(), Stop> {
    let stat = fs::statx(program, c"", AtFlags::EMPTY_PATH, InodeId::STATX)?;
    let mode = u32::from(stat.stx_mode);
    if FileType::from_raw_mode(mode) != FileType::RegularFile || mode & 0o111 == 0 {
        return Ok(());
    }
    let special = mode & S_ISUID != 0 || mode & SETGID_EXECUTABLE == SETGID_EXECUTABLE;
    if !special && step.identities.only_root() {
        return Ok(());
    }
    let (mut set_uid, mut set_gid) = (None, None);
    if special && !is_script(program) {
        let Meta { uid, gid, .. } = step.meta(program.as_fd()).unwrap_or_default();
        set_uid = (mode & S_ISUID != 0).then_some(uid);
        set_gid = (mode & SETGID_EXECUTABLE == SETGID_EXECUTABLE).then_some(gid);
    }
    let old = step.identity(call.tid());
    let mut new = (*old).clone();
    new.exec(set_uid, set_gid);
    become_identity(step, call, &old, new)
}

/// The kernel ignores the bits of scripts.
fn is_script(program: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    let mut head = [0; 2];
    let file = std::fs::File::open(format!("/proc/self/fd/{}", program.as_raw_fd()));
    file.and_then(|file| file.read_exact_at(&mut head, 0))
        .is_ok()
        && head == *b"#!"
}
