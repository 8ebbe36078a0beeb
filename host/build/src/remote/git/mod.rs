//! Files of repositories.
//!
//! A ref is asked about in each build; a commit is fetched once, as a layer, whatever refs lead to it.  The work is that of the
//! `git` program, run as [`program`] says; what it checked out is copied into a layer by the code of COPY.

mod child;
mod program;
mod ssh;

use std::path::Path;

use stepwell_model::op::{CopyAction, FileAction, FilesOp, GitOp};
use stepwell_model::{Digest, Hasher, ignore, remote};
use stepwell_steps::files;
use stepwell_steps::source::SourceTree;
use stepwell_steps::source::node::Kind;
use stepwell_steps::source::root::Root;
use stepwell_store::{Layer, LayerOptions};

use super::{Found, Material, RemoteError, Remotes, TIME};
use program::Git;

/// Permissions of a checkout, whatever the umask of this process is.
const MODE: &str = "u=rwX,go=rX";

/// What a ref is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Id of the commit.
    pub(super) commit: String,
    /// The whole name of the ref; nothing where a commit was asked for.
    pub(super) name: Option<String>,
}

impl Remotes<'_> {
    /// Says which commit a repository's ref is.  Nobody is asked about a whole commit.
    pub(super) fn identify_repository(&self, op: &GitOp) -> Result<Found, RemoteError> {
        let resolved = if remote::is_whole_commit(&op.reference) {
            Resolved {
                commit: op.reference.clone(),
                name: None,
            }
        } else {
            self.resolve(op)?
        };
        if !resolved.commit.starts_with(&op.checksum) {
            return Err(RemoteError::Commit {
                address: remote::redact(&op.url),
                reference: op.reference.clone(),
                expected: op.checksum.clone(),
                found: resolved.commit,
            });
        }
        let layer = self.record(&self.commit_key(op, &resolved));
        Ok(Found {
            identity: identity(op, &resolved),
            layer: layer.map(|(_, layer)| layer),
            fetched: false,
            material: Material::commit(op, &resolved),
            resolved: Some(resolved),
        })
    }

    /// Says when a commit was made.  Its files are fetched unless they are here.
    pub fn commit_time(&self, op: &GitOp) -> Result<Option<i64>, RemoteError> {
        self.repository(op)?;
        let found = self.known(op).and_then(|found| found.resolved);
        Ok(found.and_then(|resolved| self.time(&self.commit_key(op, &resolved))))
    }

    fn commit_key(&self, op: &GitOp, resolved: &Resolved) -> Digest {
        let mut hasher = self.hasher("stepwell.git.v2");
        hasher.field(identity(op, resolved).as_bytes());
        // What is private to one is not given to who cannot fetch it.
        hasher.field(op.url.as_bytes());
        hasher.finish()
    }

    /// Asks which commit a ref is: a whole ref, a branch or a tag, in this order, as BuildKit has it; the default branch
    /// where none is named.
    fn resolve(&self, op: &GitOp) -> Result<Resolved, RemoteError> {
        let git = Git::new(self, &op.url)?;
        let names = names_of(&op.reference);
        let mut args = vec!["ls-remote".to_owned(), "--symref".to_owned(), git.url()];
        for name in &names {
            args.extend([name.clone(), format!("{name}^{{}}")]);
        }
        let answer = git.run(None, &args)?;
        let refs = Refs::parse(&answer);
        let found = names.iter().find_map(|name| refs.find(name));
        found.ok_or_else(|| RemoteError::NoSuchRef {
            address: remote::redact(&op.url),
            reference: op.reference.clone(),
        })
    }

    /// Fetches the commit that was found out.
    pub(super) fn fetch_repository(&self, op: &GitOp, known: Found) -> Result<Found, RemoteError> {
        let Some(resolved) = known.resolved.clone() else {
            return Ok(known);
        };
        let scratch = self.store.scratch()?;
        let layer = self.layer_of_commit(op, &resolved, &scratch);
        let _ = std::fs::remove_dir_all(&scratch);
        let (layer, time) = layer?;
        let summary = format!("fetch {}", remote::redact(&op.url));
        let commit = Some(resolved.commit.clone());
        let key = self.commit_key(op, &resolved);
        self.keep(
            &key,
            summary,
            layer,
            &[("commit", commit), (TIME, Some(time.to_string()))],
        )?;
        Ok(Found {
            layer: Some(layer),
            fetched: true,
            ..known
        })
    }

    fn layer_of_commit(
        &self,
        op: &GitOp,
        resolved: &Resolved,
        directory: &Path,
    ) -> Result<(Layer, i64), RemoteError> {
        let git = Git::new(self, &op.url)?;
        check_out(&git, op, resolved, directory)?;
        let tree = SourceTree::context(Root::open_ambient(directory)?, &[])?;
        let subdir = op.subdir.trim_matches('/');
        let found = tree.find(subdir.as_bytes(), true);
        if !found.is_ok_and(|f| f.node.kind == Kind::Directory) {
            return Err(RemoteError::NoDirectory {
                address: remote::redact(&op.url),
                path: op.subdir.clone(),
            });
        }
        // As BuildKit has it: a part of a repository is none.
        let keeps = op.keep_git_dir && subdir.is_empty();
        let exclude = if keeps {
            None
        } else {
            Some("**/.git".to_owned())
        };
        let copy = CopyAction {
            from: 0,
            sources: vec![ignore::literal(if subdir.is_empty() {
                "."
            } else {
                subdir
            })],
            dest: "/".to_owned(),
            owner: None,
            mode: MODE.to_owned(),
            extract: false,
            exclude: exclude.into_iter().collect(),
            parents: false,
        };
        // The checkout is younger than its commit.
        let time = commit_time(&git, directory)?;
        let clamp_mtime = op.commit_times.then_some(time);
        Ok((self.layer_of_copy(copy, tree, clamp_mtime)?, time))
    }

    /// Makes a layer of one copy into nothing.
    fn layer_of_copy(
        &self,
        copy: CopyAction,
        tree: SourceTree,
        clamp_mtime: Option<i64>,
    ) -> Result<Layer, RemoteError> {
        let op = FilesOp {
            base: None,
            actions: vec![FileAction::Copy(copy)],
        };
        let mut sink = self.store.layer_sink(LayerOptions {
            clamp_mtime,
            ..self.layer_options()
        })?;
        let base = self.store.chain_view(&[])?;
        let options = files::Options::default();
        files::apply(&op, &base, &[Some(tree)], self.store, &mut sink, &options)?;
        Ok(sink.finish()?)
    }
}

/// Fetches one commit and nothing of its history into an empty directory, and checks it out there.
fn check_out(
    git: &Git<'_, '_>,
    op: &GitOp,
    resolved: &Resolved,
    directory: &Path,
) -> Result<(), RemoteError> {
    let here = Some(directory);
    git.run(here, &["init", "--quiet", "--template="])?;
    git.run(here, &["remote", "add", "origin", &git.url()])?;
    let commit = resolved.commit.as_str();
    let fetch = |wanted: &str, deep: bool| {
        let depth = if deep { "--no-tags" } else { "--depth=1" };
        git.run(
            here,
            &[
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-recurse-submodules",
                depth,
                "origin",
                wanted,
            ],
        )
    };
    let by_commit = match fetch(commit, false) {
        // A server of plain files cannot leave the history out, and an old one gives only what its refs name.
        Err(RemoteError::Git { .. }) => match &resolved.name {
            Some(name) => fetch(name, false).or_else(|_| fetch(name, true)),
            None => fetch("+refs/*:refs/remotes/origin/*", true),
        },
        other => other,
    };
    by_commit?;
    if let Some(name) = &resolved.name {
        git.run(here, &["update-ref", name, commit])?;
    }
    git.run(
        here,
        &["checkout", "--quiet", "--force", "--detach", commit],
    )?;
    if op.submodules && directory.join(".gitmodules").is_file() {
        let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
        let shallow = [&update[..], &["--depth=1"]].concat();
        if git.run(here, &shallow).is_err() {
            git.run(here, &update)?;
        }
    }
    // It names what was asked for, and when.
    let _ = std::fs::remove_file(directory.join(".git/FETCH_HEAD"));
    Ok(())
}

fn commit_time(git: &Git<'_, '_>, directory: &Path) -> Result<i64, RemoteError> {
    let text = git.run(Some(directory), &["log", "-1", "--format=%ct"])?;
    Ok(text.trim().parse().unwrap_or(0))
}

/// The refs that a name may mean, the first that exists does; `HEAD` for none.
fn names_of(reference: &str) -> Vec<String> {
    if reference.is_empty() {
        return vec!["HEAD".to_owned()];
    }
    if reference.starts_with("refs/") {
        return vec![reference.to_owned()];
    }
    ["refs/", "refs/heads/", "refs/tags/"]
        .iter()
        .map(|prefix| format!("{prefix}{reference}"))
        .collect()
}

/// What `git ls-remote --symref` says.
struct Refs<'t> {
    /// Name, and the commit or the tag that it is.
    ids: Vec<(&'t str, &'t str)>,
    /// Name, and the ref that it stands for.
    links: Vec<(&'t str, &'t str)>,
}

impl<'t> Refs<'t> {
    fn parse(text: &'t str) -> Self {
        let (mut ids, mut links) = (Vec::new(), Vec::new());
        for (id, name) in text.lines().filter_map(|l| l.split_once('\t')) {
            match id.strip_prefix("ref: ") {
                Some(target) => links.push((name, target)),
                None if remote::is_whole_commit(id) => ids.push((name, id)),
                None => {}
            }
        }
        Self { ids, links }
    }

    /// Finds a ref; of a tag with a message, the commit behind it.
    fn find(&self, name: &str) -> Option<Resolved> {
        let of = |list: &[(&'t str, &'t str)], name: &str| {
            list.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
        };
        let commit = of(&self.ids, &format!("{name}^{{}}")).or_else(|| of(&self.ids, name))?;
        let whole = of(&self.links, name).unwrap_or(name);
        Some(Resolved {
            commit: commit.to_owned(),
            name: Some(whole.to_owned()),
        })
    }
}

/// What a repository's files are: the commit, and what of it is taken.
fn identity(op: &GitOp, resolved: &Resolved) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field(b"stepwell.git-files.v1");
    hasher.field(resolved.commit.as_bytes());
    hasher.field(op.subdir.as_bytes());
    for flag in [op.keep_git_dir, op.submodules, op.commit_times] {
        hasher.field(&[u8::from(flag)]);
    }
    if op.keep_git_dir {
        // They are in `.git`.
        hasher.field(op.url.as_bytes());
        hasher.field(resolved.name.as_deref().unwrap_or("").as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    #[test]
    fn refs_are_found_as_buildkit_finds_them() {
        let text = format!(
            "ref: refs/heads/main\tHEAD\n{ONE}\tHEAD\n{ONE}\trefs/heads/v1\n{TWO}\trefs/tags/v1\n{ONE}\trefs/tags/v2\n{TWO}\trefs/tags/v2^{{}}\nx\trefs/heads/bad\n"
        );
        let refs = Refs::parse(&text);
        let find = |reference: &str| {
            let found = names_of(reference).iter().find_map(|n| refs.find(n));
            found.map(|r| (r.commit, r.name.unwrap()))
        };
        let some = |commit: &str, name: &str| Some((commit.to_owned(), name.to_owned()));
        assert_eq!(find(""), some(ONE, "refs/heads/main"));
        // A branch before a tag; the commit behind a tag with a message.
        assert_eq!(find("v1"), some(ONE, "refs/heads/v1"));
        assert_eq!(find("tags/v1"), some(TWO, "refs/tags/v1"));
        assert_eq!(find("refs/tags/v2"), some(TWO, "refs/tags/v2"));
        assert_eq!(find("bad"), None);
        assert_eq!(find("main"), None);
    }
}
