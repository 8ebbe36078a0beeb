//! What the mounts of a RUN step are made of: copies of files, caches, secrets, agents; and giving them back afterwards.
//!
//! Caches are had before any tree is taken, and in one order, so that steps that wait for each other's caches never wait
//! in a circle.  A cache that is shared is used by one step at a time too: without mounts one directory cannot
//! be in two trees at once, so what is lost by waiting is time, and nothing else.

use std::collections::HashSet;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use stepwell_model::event::Event;
use stepwell_model::mount::{CacheMount, Mount, SecretMount, Sharing, SshMount};
use stepwell_model::op::RunOp;
use stepwell_model::request::SecretValue;
use stepwell_model::{Digest, VertexId};
use stepwell_steps::run::mounts::{Owner, StepMount, What};
use stepwell_store::{CacheDir, CacheKey, Checkout, chain_id};
use stepwell_sys::meta::SideTable;
use stepwell_sys::resolve::{self, Links};

use crate::error::StepError;
use crate::names;
use crate::session::{Layers, Session, step_id};

/// How often a cache that is in use is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Most caches of one id that steps which share with nobody get.
const MOST_PRIVATE: u32 = 1_000;
/// Permission bits of a temporary directory.
const TEMPORARY: u32 = 0o1777;

/// Why a step's mounts cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SupplyError {
    /// A secret is required and was not given.
    #[error("the secret `{id}` is required, and was not given")]
    NoSecret {
        /// Which.
        id: String,
    },
    /// An agent is required and was not given.
    #[error("the SSH agent `{id}` is required, and was not given")]
    NoAgent {
        /// Which.
        id: String,
    },
    /// A step asks for a cache twice.
    #[error("the cache `{id}` is mounted twice in one step: it can be in one place at a time")]
    Twice {
        /// Which.
        id: String,
    },
    /// All caches that a step could have for itself are in use.
    #[error("{MOST_PRIVATE} steps use caches `{id}` of their own already")]
    TooMany {
        /// Which.
        id: String,
    },
    /// What a cache is to begin with is not there, or is no directory.
    #[error("the cache `{id}` cannot begin with `{source_path}`: there is no such directory")]
    NoBase {
        /// Which.
        id: String,
        /// The path.
        source_path: String,
    },
    /// The build was given up meanwhile.
    #[error("the build was interrupted")]
    Interrupted,
}

impl SupplyError {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSecret { id } => Some(format!(
                "add `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`"
            )),
            Self::NoAgent { id } => Some(format!(
                "add `--ssh {id}` for the agent of SSH_AUTH_SOCK, or `--ssh {id}=SOCKET`"
            )),
            Self::Twice { .. } => {
                Some("mount it once, or make it `sharing=private` in one of the places".to_owned())
            }
            Self::TooMany { .. } | Self::NoBase { .. } | Self::Interrupted => None,
        }
    }
}

/// Variables with something confidential.
pub type Variables = Vec<(String, SecretValue)>;

/// What a step's mounts are made of, while it is the step's.
pub struct Supplies<'a> {
    /// By number of the mount.
    caches: Vec<(usize, CacheDir<'a>)>,
    /// Copies of files, by number of the mount.
    copies: Vec<(usize, Checkout<'a>)>,
}

impl<'a> Supplies<'a> {
    /// Gets everything that has to be had before the step's tree.
    pub fn get(
        session: &Session<'a>,
        vertex: VertexId,
        op: &RunOp,
        inputs: &[Option<Layers>],
    ) -> Result<Self, StepError> {
        let mut supplies = Self {
            caches: Vec::new(),
            copies: Vec::new(),
        };
        for mount in &op.mounts {
            given(session, mount)?;
        }
        supplies.caches = caches(session, vertex, op, inputs)?;
        for (number, mount) in op.mounts.iter().enumerate() {
            if let Mount::Bind(bind) = mount {
                let copy = copy(session, vertex, &layers(inputs, bind.from))?;
                supplies.copies.push((number, copy));
            }
        }
        Ok(supplies)
    }

    /// Returns the mounts and confidential variables of the step that runs in `tree`, and notes what is lent to it.
    pub fn mounts(
        &self,
        session: &Session<'a>,
        op: &RunOp,
        tree: &Checkout<'_>,
    ) -> Result<(Vec<StepMount>, Variables), StepError> {
        let (mut mounts, mut variables) = (Vec::new(), Vec::new());
        for (number, mount) in op.mounts.iter().enumerate() {
            let (target, read_only, what) = match mount {
                Mount::Bind(bind) => {
                    let root = of(&self.copies, number).map(|c| c.root_path().to_owned());
                    let source = bind.source.clone();
                    let Some(root) = root else { continue };
                    let keep = None;
                    (
                        &bind.target,
                        !bind.writable,
                        What::Lent { root, source, keep },
                    )
                }
                Mount::Cache(cache) => {
                    let Some(dir) = of(&self.caches, number) else {
                        continue;
                    };
                    dir.lend(tree, &cache.target)?;
                    let what = What::Lent {
                        root: dir.path(),
                        source: "/".to_owned(),
                        keep: Some(dir.hidden()?),
                    };
                    (&cache.target, cache.read_only, what)
                }
                Mount::Tmpfs(tmpfs) => (
                    &tmpfs.target,
                    false,
                    What::Empty {
                        mode: TEMPORARY,
                        size: tmpfs.size,
                    },
                ),
                Mount::Secret(secret) => {
                    let Some(content) = secret_of(session, secret) else {
                        continue;
                    };
                    if let Some(name) = &secret.env {
                        variables.push((name.clone(), content.clone()));
                    }
                    let Some(target) = &secret.target else {
                        continue;
                    };
                    let content = content.clone();
                    let owner = owner(secret.mode, secret.uid, secret.gid);
                    (target, true, What::Secret { content, owner })
                }
                Mount::Ssh(ssh) => {
                    let Some(socket) = agent_of(session, ssh) else {
                        continue;
                    };
                    let socket = socket.clone();
                    let owner = owner(ssh.mode, ssh.uid, ssh.gid);
                    (&ssh.target, false, What::Agent { socket, owner })
                }
            };
            mounts.push(StepMount {
                target: target.clone(),
                read_only,
                what,
            });
        }
        Ok((mounts, variables))
    }

    /// Returns the metadata of inodes of the copies that take no attribute.
    pub fn side(&self) -> SideTable {
        let mut side = SideTable::default();
        for (_, copy) in &self.copies {
            side.extend(&copy.side_table());
        }
        side
    }

    /// Gives everything back: caches go home, copies that nobody changed are kept for the next step.
    pub fn give_back(self) -> Result<(), StepError> {
        drop(self.caches);
        for (_, copy) in self.copies {
            copy.settle()?;
        }
        Ok(())
    }
}

fn of<T>(list: &[(usize, T)], number: usize) -> Option<&T> {
    list.iter().find(|(n, _)| *n == number).map(|(_, t)| t)
}

fn owner(mode: u32, uid: u32, gid: u32) -> Owner {
    Owner { mode, uid, gid }
}

fn layers(inputs: &[Option<Layers>], index: u32) -> Layers {
    let input = inputs.get(index as usize).cloned().flatten();
    input.unwrap_or_default()
}

/// Refuses a step whose secrets or agents the user did not give.
fn given(session: &Session<'_>, mount: &Mount) -> Result<(), SupplyError> {
    match mount {
        Mount::Secret(secret) if secret.required && secret_of(session, secret).is_none() => {
            let id = secret.id.clone();
            Err(SupplyError::NoSecret { id })
        }
        Mount::Ssh(ssh) if ssh.required && agent_of(session, ssh).is_none() => {
            let id = ssh.id.clone();
            Err(SupplyError::NoAgent { id })
        }
        _ => Ok(()),
    }
}

fn secret_of<'r>(session: &Session<'r>, secret: &SecretMount) -> Option<&'r SecretValue> {
    let mut secrets = session.request.secrets.iter().rev();
    secrets.find(|(id, _)| *id == secret.id).map(|(_, s)| s)
}

fn agent_of<'r>(session: &Session<'r>, ssh: &SshMount) -> Option<&'r PathBuf> {
    let mut agents = session.request.agents.iter().rev();
    agents
        .find(|(id, _)| *id == ssh.id)
        .map(|(_, socket)| socket)
}

/// A tree with the files of an input, for this step alone.
fn copy<'a>(
    session: &Session<'a>,
    vertex: VertexId,
    layers: &Layers,
) -> Result<Checkout<'a>, StepError> {
    let step = step_id(vertex);
    session.images.fetch(layers, session, step)?;
    let mut copy = session.store.checkout(layers, &session.unpacking(step))?;
    copy.begin()?;
    Ok(copy)
}

/// Gets the caches of a step, and makes those that are new.
fn caches<'a>(
    session: &Session<'a>,
    vertex: VertexId,
    op: &RunOp,
    inputs: &[Option<Layers>],
) -> Result<Vec<(usize, CacheDir<'a>)>, StepError> {
    let mut wanted: Vec<_> = op
        .mounts
        .iter()
        .enumerate()
        .filter_map(|(number, mount)| match mount {
            Mount::Cache(cache) => Some((number, cache, base_id(cache, inputs))),
            _ => None,
        })
        .collect();
    // Everybody waits in the same order.
    wanted.sort_by(|(_, a, a_base), (_, b, b_base)| {
        (&a.id, a_base, a.mode, a.uid, a.gid).cmp(&(&b.id, b_base, b.mode, b.uid, b.gid))
    });
    let mut seen = HashSet::new();
    let mut caches = Vec::new();
    for (number, cache, base) in wanted {
        let key = CacheKey {
            namespace: &session.request.namespace,
            id: &cache.id,
            base,
            owner: (cache.mode, cache.uid, cache.gid),
            instance: 0,
        };
        let again = !seen.insert((&cache.id, base, key.owner));
        if again && cache.sharing != Sharing::Private {
            let id = cache.id.clone();
            return Err(SupplyError::Twice { id }.into());
        }
        let dir = match cache.sharing {
            Sharing::Private => private(session, key)?,
            Sharing::Shared | Sharing::Locked => waited_for(session, vertex, key)?,
        };
        if !dir.path().exists() {
            make(session, vertex, &dir, cache, inputs)?;
        }
        caches.push((number, dir));
    }
    Ok(caches)
}

/// Identifies what a cache begins with.
fn base_id(cache: &CacheMount, inputs: &[Option<Layers>]) -> Option<Digest> {
    let base = cache.base.as_ref()?;
    let chain = chain_id(&layers(inputs, base.from));
    Some(Digest::of(format!("{chain} {}", base.source).as_bytes()))
}

fn private<'a>(session: &Session<'a>, key: CacheKey<'_>) -> Result<CacheDir<'a>, StepError> {
    for instance in 0..MOST_PRIVATE {
        if let Some(dir) = session.store.cache(&CacheKey { instance, ..key })? {
            return Ok(dir);
        }
    }
    let id = key.id.to_owned();
    Err(SupplyError::TooMany { id }.into())
}

fn waited_for<'a>(
    session: &Session<'a>,
    vertex: VertexId,
    key: CacheKey<'_>,
) -> Result<CacheDir<'a>, StepError> {
    let mut told = false;
    loop {
        if let Some(dir) = session.store.cache(&key)? {
            return Ok(dir);
        }
        if session.cancel.is_cancelled() {
            return Err(SupplyError::Interrupted.into());
        }
        if !std::mem::replace(&mut told, true) {
            let step = names::of(session.graph.vertex(vertex));
            session.events.event(Event::Note {
                text: format!(
                    "{step}: waits for the cache `{}`, which another step uses",
                    key.id
                ),
            });
        }
        sleep(ASK_AGAIN);
    }
}

/// Makes a cache that is not there yet: empty, or with a directory of another input, which is taken out of a tree of its own.
fn make(
    session: &Session<'_>,
    vertex: VertexId,
    dir: &CacheDir<'_>,
    cache: &CacheMount,
    inputs: &[Option<Layers>],
) -> Result<(), StepError> {
    let owner = (cache.mode, cache.uid, cache.gid);
    let Some(base) = &cache.base else {
        return Ok(dir.make(None, owner)?);
    };
    let copy = copy(session, vertex, &layers(inputs, base.from))?;
    let missing = || SupplyError::NoBase {
        id: cache.id.clone(),
        source_path: base.source.clone(),
    };
    let handle = resolve::handle(copy.root_dir(), base.source.as_bytes(), Links::Follow)
        .map_err(|_| missing())?;
    let path = resolve::path_of(&handle).ok_or_else(missing)?;
    let path =
        PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(path));
    if !path.is_dir() {
        return Err(missing().into());
    }
    dir.make(Some(&path), owner)?;
    // What is left of it is of no use.
    Ok(copy.abandon()?)
}
