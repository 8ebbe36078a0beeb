//! How an operation looks to a policy: a list of labelled values, in a fixed order.
//!
//! Everything that an operation consists of has to be here, or two different operations could get the same key: so
//! every operation is taken apart without `..`, and a new field does not compile until it has a label.  The content of a
//! file is given by its digest.
//!
//! | operation | labels |
//! | --- | --- |
//! | image | `reference` `digest` |
//! | context | `name` `exclude`\* |
//! | run | `arg`\* `env`\* `uncounted-env`\* (both `NAME=value`) `cwd` `user` `network` `file`\* `host`\* `hostname`, then for each mount `mount-KIND` and its details, each `mount-…`; `shm-size`? `limit`\* |
//! | files | `base`? then, for each action, `copy` `mkdir` `mkfile` `rm` or `symlink` and its details, each `…-` prefixed |
//! | merge | none |
//! | http (to a policy: another operation) | `http` (its address) `name` `checksum`? |
//! | git (the same) | `git` (its address) `reference` `subdir` `checksum` `keep-git-dir` `submodules` `commit-times` |

use stepwell_model::mount::{
    BindMount, CacheBase, CacheMount, Limit, Mount, SecretMount, SshMount, TmpfsMount,
};
use stepwell_model::op::{
    ContextOp, CopyAction, FileAction, FilesOp, GitOp, HostEntry, HttpOp, ImageOp, InlineFile,
    MergeOp, Network, Owner, RunOp,
};
use stepwell_model::{Digest, Op, Vertex};

use super::wit::{Attribute, Operation, Step};

/// Describes a vertex to a policy.
pub(super) fn step(vertex: &Vertex) -> Step {
    let mut list = List(Vec::new());
    let operation = match &vertex.op {
        Op::Image(op) => list.image(op),
        Op::Context(op) => list.context(op),
        Op::Http(op) => list.http(op),
        Op::Git(op) => list.git(op),
        Op::Run(op) => list.run(op),
        Op::Files(op) => list.files(op),
        Op::Merge(MergeOp {}) => Operation::Merge,
    };
    Step {
        operation,
        attributes: list.0,
        platform: vertex.platform.to_string(),
        inputs: vertex.inputs.iter().map(|i| i.0).collect(),
    }
}

struct List(Vec<Attribute>);

impl List {
    fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(Attribute {
            name: name.into(),
            value: value.into(),
        });
    }

    fn image(&mut self, op: &ImageOp) -> Operation {
        let ImageOp { reference, digest } = op;
        self.push("reference", reference);
        self.push("digest", digest.to_string());
        Operation::Image
    }

    fn context(&mut self, op: &ContextOp) -> Operation {
        let ContextOp { name, exclude } = op;
        self.push("name", name);
        exclude.iter().for_each(|e| self.push("exclude", e));
        Operation::Context
    }

    /// The contract knew no such operation when it was published.
    fn http(&mut self, op: &HttpOp) -> Operation {
        let HttpOp {
            url,
            name,
            checksum,
        } = op;
        self.push("http", url);
        self.push("name", name);
        checksum
            .iter()
            .for_each(|c| self.push("checksum", c.to_string()));
        Operation::Other
    }

    fn git(&mut self, op: &GitOp) -> Operation {
        let GitOp {
            url,
            reference,
            subdir,
            checksum,
            keep_git_dir,
            submodules,
            commit_times,
        } = op;
        self.push("git", url);
        self.push("reference", reference);
        self.push("subdir", subdir);
        self.push("checksum", checksum);
        self.push("keep-git-dir", keep_git_dir.to_string());
        self.push("submodules", submodules.to_string());
        self.push("commit-times", commit_times.to_string());
        Operation::Other
    }

    fn run(&mut self, op: &RunOp) -> Operation {
        let RunOp {
            args,
            env,
            uncounted_env,
            cwd,
            user,
            network,
            files,
            extra_hosts,
            hostname,
            mounts,
            shm_size,
            limits,
        } = op;
        args.iter().for_each(|a| self.push("arg", a));
        for (name, list) in [("env", env), ("uncounted-env", uncounted_env)] {
            list.iter()
                .for_each(|v| self.push(name, format!("{}={}", v.name, v.value)));
        }
        self.push("cwd", cwd);
        self.push("user", user);
        self.push("network", name_of(*network));
        for InlineFile {
            path,
            content,
            mode,
        } in files
        {
            self.push("file", path);
            self.push("file-content", Digest::of(content).to_string());
            self.push("file-mode", format!("{mode:04o}"));
        }
        for HostEntry { host, address } in extra_hosts {
            self.push("host", format!("{address} {host}"));
        }
        self.push("hostname", hostname);
        mounts.iter().for_each(|mount| self.mount(mount));
        if let Some(size) = shm_size {
            self.push("shm-size", size.to_string());
        }
        for Limit { name, soft, hard } in limits {
            let text =
                |value: &Option<u64>| value.map_or("unlimited".to_owned(), |v| v.to_string());
            self.push("limit", format!("{name}={}:{}", text(soft), text(hard)));
        }
        Operation::Run
    }

    fn mount(&mut self, mount: &Mount) {
        match mount {
            Mount::Bind(BindMount {
                target,
                from,
                source,
                writable,
            }) => {
                self.push("mount-bind", target);
                self.push("mount-from", from.to_string());
                self.push("mount-source", source);
                self.push("mount-writable", writable.to_string());
            }
            Mount::Cache(CacheMount {
                target,
                id,
                sharing,
                read_only,
                base,
                mode,
                uid,
                gid,
            }) => {
                self.push("mount-cache", target);
                self.push("mount-id", id);
                self.push("mount-sharing", format!("{sharing:?}").to_lowercase());
                self.push("mount-writable", (!read_only).to_string());
                if let Some(CacheBase { from, source }) = base {
                    self.push("mount-from", from.to_string());
                    self.push("mount-source", source);
                }
                self.mount_owner(*mode, *uid, *gid);
            }
            Mount::Tmpfs(TmpfsMount { target, size }) => {
                self.push("mount-tmpfs", target);
                if let Some(size) = size {
                    self.push("mount-size", size.to_string());
                }
            }
            Mount::Secret(SecretMount {
                id,
                target,
                env,
                required,
                mode,
                uid,
                gid,
            }) => {
                self.push("mount-secret", id);
                for (name, value) in [("mount-target", target), ("mount-env", env)] {
                    if let Some(value) = value {
                        self.push(name, value);
                    }
                }
                self.push("mount-required", required.to_string());
                self.mount_owner(*mode, *uid, *gid);
            }
            Mount::Ssh(SshMount {
                id,
                target,
                required,
                mode,
                uid,
                gid,
            }) => {
                self.push("mount-ssh", target);
                self.push("mount-id", id);
                self.push("mount-required", required.to_string());
                self.mount_owner(*mode, *uid, *gid);
            }
        }
    }

    fn mount_owner(&mut self, mode: u32, uid: u32, gid: u32) {
        self.push("mount-mode", format!("{mode:04o}"));
        self.push("mount-owner", format!("{uid}:{gid}"));
    }

    fn files(&mut self, op: &FilesOp) -> Operation {
        let FilesOp { base, actions } = op;
        if let Some(base) = base {
            self.push("base", base.to_string());
        }
        actions.iter().for_each(|action| self.action(action));
        Operation::Files
    }

    fn action(&mut self, action: &FileAction) {
        match action {
            FileAction::Copy(copy) => self.copy(copy),
            FileAction::Mkdir { path, mode, owner } => {
                self.push("mkdir", path);
                self.push("mkdir-mode", format!("{mode:04o}"));
                self.owner("mkdir-owner", owner.as_ref());
            }
            FileAction::Mkfile {
                path,
                content,
                mode,
                owner,
            } => {
                self.push("mkfile", path);
                self.push("mkfile-content", Digest::of(content).to_string());
                self.push("mkfile-mode", format!("{mode:04o}"));
                self.owner("mkfile-owner", owner.as_ref());
            }
            FileAction::Rm {
                path,
                allow_missing,
            } => {
                self.push("rm", path);
                self.push("rm-allow-missing", allow_missing.to_string());
            }
            FileAction::Symlink { target, path } => {
                self.push("symlink", path);
                self.push("symlink-target", target);
            }
        }
    }

    fn copy(&mut self, copy: &CopyAction) {
        let CopyAction {
            from,
            sources,
            dest,
            owner,
            mode,
            extract,
            exclude,
            parents,
        } = copy;
        self.push("copy", dest);
        self.push("copy-from", from.to_string());
        sources.iter().for_each(|s| self.push("copy-source", s));
        self.owner("copy-owner", owner.as_ref());
        self.push("copy-mode", mode);
        self.push("copy-extract", extract.to_string());
        exclude.iter().for_each(|e| self.push("copy-exclude", e));
        self.push("copy-parents", parents.to_string());
    }

    /// `user`, or `user:group`; a colon within a name is doubled, so that nothing is ambiguous.
    fn owner(&mut self, name: &str, owner: Option<&Owner>) {
        if let Some(Owner { user, group }) = owner {
            let user = user.replace(':', "::");
            match group {
                Some(group) => self.push(name, format!("{user}:{}", group.replace(':', "::"))),
                None => self.push(name, user),
            }
        }
    }
}

fn name_of(network: Network) -> &'static str {
    match network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
    }
}
