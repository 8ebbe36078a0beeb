//! Emulated ids of processes: pure rules of who may become whom (credentials(7), setresuid(2),
//! capabilities(7)), and the table of the identities that a step's processes have.
//!
//! A process carries the number of its identity in its tag (`stepwell_sys::memory::tag`), which the kernel
//! copies at fork: nothing has to be followed or forgotten when processes come and go.  Nothing here does I/O.

use std::collections::HashMap;
use std::sync::Arc;

use rustix::io::Errno;

use crate::run::types::Credentials;

/// Stops a step that makes up ids without end from filling memory.
const MAX_IDENTITIES: usize = 16_384;

/// Stops a step from filling memory with supplementary groups; the kernel's own limit is 65,536 a process.
const MAX_GROUPS_KEPT: usize = 4_000_000;

/// Most supplementary groups of one process (`NGROUPS_MAX`).
pub const MAX_GROUPS: usize = 65_536;

/// "Leave it as it is", in calls that set ids.
pub const KEEP: u32 = u32::MAX;

/// The four ids of one kind, user or group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Four {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved.
    pub saved: u32,
    /// Of the file system.
    pub fs: u32,
}

impl Four {
    const fn all(id: u32) -> Self {
        Self {
            real: id,
            effective: id,
            saved: id,
            fs: id,
        }
    }

    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// setuid(2), setgid(2).
    fn set(&mut self, id: u32, privileged: bool) -> Result<(), Errno> {
        if privileged {
            *self = Self::all(id);
        } else if id == self.real || id == self.saved {
            (self.effective, self.fs) = (id, id);
        } else {
            return Err(Errno::PERM);
        }
        Ok(())
    }

    /// setreuid(2), setregid(2).
    fn set_two(&mut self, real: u32, effective: u32, privileged: bool) -> Result<(), Errno> {
        let old = *self;
        let real_ok = real == KEEP || real == old.real || real == old.effective;
        if !privileged && !(real_ok && (effective == KEEP || old.has(effective))) {
            return Err(Errno::PERM);
        }
        if real != KEEP {
            self.real = real;
        }
        if effective != KEEP {
            self.effective = effective;
        }
        if real != KEEP || (effective != KEEP && effective != old.real) {
            self.saved = self.effective;
        }
        self.fs = self.effective;
        Ok(())
    }

    /// setresuid(2), setresgid(2).
    fn set_three(&mut self, three: [u32; 3], privileged: bool) -> Result<(), Errno> {
        let old = *self;
        let [real, effective, saved] = three;
        // Who changes none of the three keeps the fourth one (since Linux 6.2; before, it became the effective one).
        let stays = |new: u32, ids: &[u32]| new == KEEP || ids.iter().all(|id| *id == new);
        if stays(real, &[old.real])
            && stays(effective, &[old.effective, old.fs])
            && stays(saved, &[old.saved])
        {
            return Ok(());
        }
        if !privileged && three.iter().any(|&id| id != KEEP && !old.has(id)) {
            return Err(Errno::PERM);
        }
        for (slot, id) in [&mut self.real, &mut self.effective, &mut self.saved]
            .into_iter()
            .zip(three)
        {
            if id != KEEP {
                *slot = id;
            }
        }
        self.fs = self.effective;
        Ok(())
    }

    /// setfsuid(2), setfsgid(2); what is not allowed changes nothing.
    fn set_fs(&mut self, id: u32, privileged: bool) {
        // Programs ask who they are by -1, which is nobody's.
        if valid(id).is_ok() && (privileged || self.has(id) || id == self.fs) {
            self.fs = id;
        }
    }
}

/// Sets of capabilities, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caps {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
    /// Bounding.
    pub bounding: u64,
    /// Ambient.
    pub ambient: u64,
}

/// What docker gives to a container: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
/// net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
const DEFAULT_CAPS: u64 = 0xa804_25fb;

/// Number of CAP_CHOWN.
pub const CAP_CHOWN: u32 = 0;
/// Number of CAP_FOWNER.
pub const CAP_FOWNER: u32 = 3;
/// Number of CAP_FSETID.
pub const CAP_FSETID: u32 = 4;
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
/// Number of CAP_MKNOD.
pub const CAP_MKNOD: u32 = 27;

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// User ids.
    pub uid: Four,
    /// Group ids.
    pub gid: Four,
    /// Supplementary groups, in the order they were given.
    pub groups: Arc<[u32]>,
    /// Capabilities.
    pub caps: Caps,
    /// Whether permitted capabilities outlive the next change to a user other than root (PR_SET_KEEPCAPS).
    pub keep_caps: bool,
    /// Securebits (PR_SET_SECUREBITS).
    pub securebits: u32,
    /// Whether programs may still raise privileges (PR_SET_NO_NEW_PRIVS).
    pub no_new_privs: bool,
}

impl Identity {
    /// Makes the identity of a process that is started with these ids.
    pub fn new(credentials: &Credentials) -> Self {
        let privileged = if credentials.uid == 0 {
            DEFAULT_CAPS
        } else {
            0
        };
        Self {
            uid: Four::all(credentials.uid),
            gid: Four::all(credentials.gid),
            groups: credentials
                .groups
                .iter()
                .copied()
                .take(MAX_GROUPS)
                .collect(),
            caps: Caps {
                effective: privileged,
                permitted: privileged,
                inheritable: 0,
                bounding: DEFAULT_CAPS,
                ambient: 0,
            },
            keep_caps: false,
            securebits: 0,
            no_new_privs: false,
        }
    }

    /// Says whether the process has a capability in effect.
    pub fn can(&self, capability: u32) -> bool {
        self.caps.effective & (1 << capability) != 0
    }

    /// Says whether the process is in a group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid.fs == gid || self.groups.contains(&gid)
    }

    /// setuid(2).
    pub fn setuid(&mut self, id: u32) -> Result<(), Errno> {
        valid(id)?;
        self.change_uid(|uid, privileged| uid.set(id, privileged))
    }

    /// setreuid(2).
    pub fn setreuid(&mut self, real: u32, effective: u32) -> Result<(), Errno> {
        self.change_uid(|uid, privileged| uid.set_two(real, effective, privileged))
    }

    /// setresuid(2).
    pub fn setresuid(&mut self, three: [u32; 3]) -> Result<(), Errno> {
        self.change_uid(|uid, privileged| uid.set_three(three, privileged))
    }

    /// setfsuid(2): returns what it was.
    pub fn setfsuid(&mut self, id: u32) -> u32 {
        let old = self.uid.fs;
        self.uid.set_fs(id, self.can(CAP_SETUID));
        old
    }

    /// setgid(2).
    pub fn setgid(&mut self, id: u32) -> Result<(), Errno> {
        valid(id)?;
        let privileged = self.can(CAP_SETGID);
        self.gid.set(id, privileged)
    }

    /// setregid(2).
    pub fn setregid(&mut self, real: u32, effective: u32) -> Result<(), Errno> {
        let privileged = self.can(CAP_SETGID);
        self.gid.set_two(real, effective, privileged)
    }

    /// setresgid(2).
    pub fn setresgid(&mut self, three: [u32; 3]) -> Result<(), Errno> {
        let privileged = self.can(CAP_SETGID);
        self.gid.set_three(three, privileged)
    }

    /// setfsgid(2): returns what it was.
    pub fn setfsgid(&mut self, id: u32) -> u32 {
        let old = self.gid.fs;
        self.gid.set_fs(id, self.can(CAP_SETGID));
        old
    }

    /// setgroups(2).
    pub fn setgroups(&mut self, groups: Vec<u32>) -> Result<(), Errno> {
        if !self.can(CAP_SETGID) {
            return Err(Errno::PERM);
        }
        self.groups = groups.into();
        Ok(())
    }

    fn change_uid(
        &mut self,
        change: impl FnOnce(&mut Four, bool) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let old = self.uid;
        let privileged = self.can(CAP_SETUID);
        change(&mut self.uid, privileged)?;
        self.follow_uid(old);
        Ok(())
    }

    /// What becomes of capabilities when user ids change (capabilities(7), "Effect of user ID changes").
    fn follow_uid(&mut self, old: Four) {
        let (had_root, has_root) = (old.has(0), self.uid.has(0));
        if had_root && !has_root {
            if !self.keep_caps {
                self.caps.permitted = 0;
                self.caps.effective = 0;
            }
            self.caps.ambient = 0;
        }
        if old.effective == 0 && self.uid.effective != 0 {
            self.caps.effective = 0;
        }
        if old.effective != 0 && self.uid.effective == 0 {
            self.caps.effective = self.caps.permitted;
        }
    }

    /// execve(2): ids of a set-user-ID or set-group-ID file take effect, capabilities are worked out anew.
    pub fn exec(&mut self, set_uid: Option<u32>, set_gid: Option<u32>) {
        let raises = !self.no_new_privs && (set_uid.is_some() || set_gid.is_some());
        if raises {
            self.uid.effective = set_uid.unwrap_or(self.uid.effective);
            self.gid.effective = set_gid.unwrap_or(self.gid.effective);
        }
        (self.uid.saved, self.uid.fs) = (self.uid.effective, self.uid.effective);
        (self.gid.saved, self.gid.fs) = (self.gid.effective, self.gid.effective);
        if raises {
            self.caps.ambient = 0;
        }
        let root = self.uid.effective == 0 || self.uid.real == 0;
        let permitted = if root {
            self.caps.inheritable | self.caps.bounding
        } else {
            self.caps.ambient
        };
        self.caps.permitted = permitted;
        self.caps.effective = if self.uid.effective == 0 {
            permitted
        } else {
            self.caps.ambient
        };
        self.keep_caps = false;
    }
}

fn valid(id: u32) -> Result<(), Errno> {
    if id == KEEP {
        Err(Errno::INVAL)
    } else {
        Ok(())
    }
}

/// The identities that processes of a step have or had, by number.
#[derive(Debug)]
pub struct Identities {
    list: Vec<Arc<Identity>>,
    numbers: HashMap<Arc<Identity>, u64>,
    groups: usize,
}

impl Identities {
    /// Makes the table; number 0 is what the step starts with.
    pub fn new(credentials: &Credentials) -> Self {
        let first = Arc::new(Identity::new(credentials));
        Self {
            numbers: HashMap::from([(first.clone(), 0)]),
            list: vec![first],
            groups: 0,
        }
    }

    /// Returns the identity of a tag; a process without one, or with one that we never gave, has the first.
    pub fn get(&self, tag: Option<u64>) -> Arc<Identity> {
        let index = tag
            .and_then(|tag| usize::try_from(tag).ok())
            .filter(|&index| index < self.list.len());
        self.list[index.unwrap_or(0)].clone()
    }

    /// Returns the tag of an identity.
    ///
    /// # Errors
    /// `EAGAIN` when there are too many.
    pub fn number(&mut self, identity: Identity) -> Result<u64, Errno> {
        if let Some(&number) = self.numbers.get(&identity) {
            return Ok(number);
        }
        self.groups += identity.groups.len();
        if self.list.len() >= MAX_IDENTITIES || self.groups > MAX_GROUPS_KEPT {
            return Err(Errno::AGAIN);
        }
        let number = self.list.len() as u64;
        let identity = Arc::new(identity);
        self.list.push(identity.clone());
        self.numbers.insert(identity, number);
        Ok(number)
    }

    /// Says whether any process ever was anybody but root with root's privileges.
    pub fn only_root(&self) -> bool {
        self.list.len() == 1
            && self.list[0].uid == Four::default()
            && self.list[0].gid == Four::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Identity {
        Identity::new(&Credentials::default())
    }

    fn user(uid: u32) -> Identity {
        Identity::new(&Credentials {
            uid,
            gid: uid,
            groups: vec![uid, 7],
        })
    }

    #[test]
    fn root_becomes_a_user_for_good() {
        let mut it = root();
        it.setgroups(vec![33]).expect("groups");
        it.setgid(33).expect("gid");
        it.setuid(33).expect("uid");
        assert_eq!((it.uid, it.gid), (Four::all(33), Four::all(33)));
        assert_eq!((it.caps.permitted, it.caps.effective), (0, 0));
        assert_eq!(it.setuid(0), Err(Errno::PERM));
        assert_eq!(it.setgroups(vec![]), Err(Errno::PERM));
        assert_eq!(
            it.setresuid([KEEP, 33, 33]),
            Ok(()),
            "what one is already may be set again"
        );
        assert_eq!(it.setuid(KEEP), Err(Errno::INVAL));
    }

    #[test]
    fn an_effective_id_can_be_taken_back() {
        let mut it = root();
        it.setresuid([KEEP, 100, KEEP]).expect("seteuid");
        assert!(!it.can(CAP_CHOWN) && it.caps.permitted != 0);
        assert_eq!(it.setgroups(vec![]), Err(Errno::PERM));
        it.setresuid([KEEP, 0, KEEP]).expect("back");
        assert!(it.can(CAP_CHOWN));
        it.setreuid(100, 100).expect("both");
        assert_eq!(it.uid, Four::all(100), "the saved id follows");
    }

    #[test]
    fn a_set_user_id_program_raises_and_lowers() {
        let mut it = user(1000);
        it.exec(Some(0), None);
        assert_eq!((it.uid.real, it.uid.effective, it.uid.saved), (1000, 0, 0));
        assert!(it.can(CAP_SETUID));
        it.setuid(33).expect("uid");
        it.exec(None, None);
        assert_eq!((it.uid, it.caps.permitted), (Four::all(33), 0));
        let mut held = user(1000);
        held.no_new_privs = true;
        held.exec(Some(0), Some(0));
        assert_eq!((held.uid.effective, held.gid.effective), (1000, 1000));
    }

    #[test]
    fn the_id_for_files_stays_where_nothing_is_said() {
        let mut it = root();
        assert_eq!((it.setfsuid(70), it.setfsuid(KEEP), it.uid.fs), (0, 70, 70));
        it.setresuid([KEEP; 3]).expect("nothing");
        it.setresuid([0, KEEP, 0]).expect("nothing new");
        assert_eq!(it.uid.fs, 70);
        it.setresuid([KEEP, 0, KEEP]).expect("itself");
        assert_eq!(it.uid.fs, 0);
    }

    #[test]
    fn capabilities_are_kept_when_asked_for() {
        let mut it = root();
        it.keep_caps = true;
        it.setuid(5).expect("uid");
        assert!(it.caps.permitted != 0 && it.caps.effective == 0);
        it.exec(None, None);
        assert_eq!(it.caps.permitted, 0);
    }

    #[test]
    fn identities_are_numbered_and_bounded() {
        let mut all = Identities::new(&Credentials::default());
        assert!(all.only_root());
        let number = all.number(user(1000)).expect("number");
        assert_eq!((number, all.number(user(1000))), (1, Ok(1)));
        assert_eq!(all.get(Some(1)).uid.real, 1000);
        assert_eq!(all.get(Some(99)).uid.real, 0);
        assert_eq!(all.get(None).uid.real, 0);
        let refused = (0..MAX_IDENTITIES as u32 + 5)
            .map(|n| all.number(user(n + 2000)))
            .filter(Result::is_err);
        assert!(refused.count() > 0);
    }
}
