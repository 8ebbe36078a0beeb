//! COPY, ADD and WORKDIR: the instructions that make files without running anything.

use stepwell_patterns::remote;

use super::host::{Copy, FileAction, Host, Op, Owner};
use super::mode::{document_mode, is_mode};
use super::remote::RemoteSource;
use super::state::State;
use super::text::joined;
use super::{Lowering, Step};
use crate::ast::{Body, Fault, Keyword, TransferSource};
use crate::diagnostic::rules;
use crate::expand::Expander;
use crate::lexer::At;

/// The flags of a COPY or ADD.
struct Options {
    owner: Option<Owner>,
    chown: String,
    mode: String,
    exclude: Vec<String>,
    parents: bool,
    /// `--unpack`, where it is given.
    unpack: Option<bool>,
}

/// Sources that are taken from one place.
enum Taken {
    /// Paths of the context or of what `--from` names.
    Paths(Vec<String>),
    /// Something elsewhere, and where it is written.
    Remote(RemoteSource, At),
}

impl<H: Host> Lowering<'_, H> {
    /// Carries out COPY and ADD.
    pub(super) fn transfer(
        &mut self,
        state: &mut State,
        index: usize,
        step: Step<'_>,
        depth: usize,
    ) -> Result<(), Fault> {
        let Body::Transfer { sources, dest } = &step.node.body else {
            return Ok(());
        };
        let options = self.options(state, step)?;
        let written = self.word(state, step, dest)?;
        let target = destination(&state.config().working_dir, &written);
        self.checksum(state, step, sources)?;
        let (taken, shown) = self.sources(state, step, sources)?;
        self.several(step, sources.len(), &target, dest.at);
        let mut actions = Vec::new();
        for taken in taken {
            let (from, paths, extract) = match taken {
                Taken::Paths(paths) => {
                    let is_add = step.node.keyword == Keyword::Add;
                    let extract = options.unpack.unwrap_or(is_add);
                    (self.source(state, index, step, depth)?, paths, extract)
                }
                Taken::Remote(remote, at) => {
                    let extract = remote.is_file() && options.unpack == Some(true);
                    let (from, path) = self.fetched(state, step, remote, at)?;
                    (from, vec![path], extract)
                }
            };
            actions.push(FileAction::Copy(Copy {
                from,
                sources: paths,
                dest: target.clone(),
                owner: options.owner.clone(),
                mode: options.mode.clone(),
                extract,
                exclude: options.exclude.clone(),
                parents: options.parents,
            }));
        }
        self.documents(state, step, sources, &target, &options, &mut actions)?;
        self.finish_transfer(state, step, actions, options.mode.is_empty())?;
        let mut line = step.node.keyword.text().to_owned();
        for (name, value) in [
            ("--parents", options.parents.then_some("")),
            ("--chown=", Some(options.chown.as_str())),
            ("--chmod=", Some(options.mode.as_str())),
        ] {
            match value {
                Some("") if name.ends_with('=') => {}
                Some(value) => line.push_str(&format!(" {name}{value}")),
                None => {}
            }
        }
        line.push_str(&format!("{shown} {written} # buildkit"));
        self.note(state, line, true)
    }

    /// Adds the vertex; `--link` makes a layer that does not depend on what is below, unless `--chmod` is given.
    fn finish_transfer(
        &mut self,
        state: &mut State,
        step: Step<'_>,
        actions: Vec<FileAction>,
        no_mode: bool,
    ) -> Result<(), Fault> {
        let linked = step.node.flag_is_set("link") && no_mode;
        let base = if linked { None } else { state.root };
        let layer = self.add(Op::Files { base, actions }, state, step, At::default())?;
        state.root = Some(match state.root {
            Some(root) if linked => {
                self.add(Op::Merge(vec![root, layer]), state, step, At::default())?
            }
            _ => layer,
        });
        Ok(())
    }

    fn options(&mut self, state: &State, step: Step<'_>) -> Result<Options, Fault> {
        let text = |this: &mut Self, name: &str| match step.node.flag(name) {
            Some(word) => this.word(state, step, word),
            None => Ok(String::new()),
        };
        let (chown, mode) = (text(self, "chown")?, text(self, "chmod")?);
        if let Some(word) = step
            .node
            .flag("chmod")
            .filter(|_| !mode.is_empty() && !is_mode(&mode))
        {
            let message = format!("`{mode}` is not a mode");
            return Err(Fault::new(&rules::INVALID_FLAG, word.at, message).hint(
                "write up to four octal digits such as `0755`, or `u+x,go=rX` as chmod(1) takes it",
            ));
        }
        let exclude = step
            .node
            .flag_list("exclude")
            .map(|w| self.word(state, step, w))
            .collect::<Result<_, _>>()?;
        Ok(Options {
            owner: owner(&chown),
            chown,
            mode,
            exclude,
            parents: step.node.flag_is_set("parents"),
            unpack: step.node.flag("unpack").map(|v| v.text == "true"),
        })
    }

    /// Returns the sources in order, paths cleaned, and as the history shows them.
    fn sources(
        &mut self,
        state: &State,
        step: Step<'_>,
        sources: &[TransferSource],
    ) -> Result<(Vec<Taken>, String), Fault> {
        let (mut taken, mut shown, mut documents) = (Vec::new(), String::new(), String::new());
        for source in sources {
            let word = match source {
                TransferSource::Path(word) => word,
                TransferSource::Heredoc(i, _) => {
                    documents.push_str(&format!(" <<{}", step.node.heredocs[*i].name));
                    continue;
                }
            };
            let text = self.word(state, step, word)?;
            if let Some(remote) = self.remote(state, step, &text, word.at)? {
                shown.push_str(&format!(" {}", remote::without_user(&text)));
                taken.push(Taken::Remote(remote, word.at));
                continue;
            }
            shown.push_str(&format!(" {text}"));
            self.left_out(step, &source_path(&text, false), word.at)?;
            let path = source_path(&text, step.node.flag_is_set("parents"));
            match taken.last_mut() {
                Some(Taken::Paths(paths)) => paths.push(path),
                _ => taken.push(Taken::Paths(vec![path])),
            }
        }
        Ok((taken, shown + &documents))
    }

    /// Warns of a source that the ignore file leaves out.
    fn left_out(&mut self, step: Step<'_>, path: &str, at: At) -> Result<(), Fault> {
        if step.node.given_flag("from").is_some() {
            return Ok(());
        }
        let ignored = self.ignored("")?;
        let cost = path.len() * ignored.patterns.iter().map(String::len).sum::<usize>();
        let Some(left) = self.matching_left.checked_sub(cost) else {
            // Only a warning is lost.
            return Ok(());
        };
        self.matching_left = left;
        if ignored.leaves_out(path) {
            let message = format!(
                "`{path}` is left out of the build context by `{}`",
                ignored.file
            );
            let hint = "take it back with a pattern that begins with `!`, or do not copy it";
            self.fault(
                step,
                Fault::new(&rules::COPY_IGNORED, at, message).hint(hint),
            );
        }
        Ok(())
    }

    /// Warns of several sources with a destination that does not look like a directory.
    fn several(&mut self, step: Step<'_>, count: usize, target: &str, at: At) {
        if count > 1 && !target.ends_with('/') {
            let message =
                format!("with {count} sources the destination `{target}` has to be a directory");
            self.fault(
                step,
                Fault::new(&rules::SEVERAL_SOURCES, at, message).hint(format!("write `{target}/`")),
            );
        }
    }

    /// Adds the files that here-documents are.
    fn documents(
        &mut self,
        state: &State,
        step: Step<'_>,
        sources: &[TransferSource],
        target: &str,
        options: &Options,
        actions: &mut Vec<FileAction>,
    ) -> Result<(), Fault> {
        let into_directory = target.ends_with('/') || sources.len() > 1;
        for source in sources {
            let TransferSource::Heredoc(index, word) = source else {
                continue;
            };
            let heredoc = &step.node.heredocs[*index];
            let mut content = heredoc.text();
            if heredoc.expand {
                let done = Expander::heredoc().expand(&content, &state.scope);
                let done = done.map_err(|e| {
                    Fault::new(
                        &rules::INVALID_EXPANSION,
                        word.at,
                        format!("in the here-document `{}`: {e}", heredoc.name),
                    )
                })?;
                self.undefined(state, step, &done.missing, word.at);
                content = done.text;
            }
            self.spend(content.len(), word.at)?;
            let name = &heredoc.name;
            // With an owner the directories that are made have it too, which copying sees to.
            if into_directory && options.owner.is_none() {
                let path = joined(target, name);
                let mode = document_mode(&options.mode);
                actions.push(FileAction::Mkfile {
                    path,
                    content: content.into_bytes(),
                    mode,
                    owner: None,
                });
                continue;
            }
            // Only the base knows whether the destination is a directory, so the document is copied as a file is.
            let mkfile = FileAction::Mkfile {
                path: joined("/", name),
                content: content.into_bytes(),
                mode: 0o644,
                owner: None,
            };
            let op = Op::Files {
                base: None,
                actions: vec![mkfile],
            };
            let shown = (
                "preparing inline document".to_owned(),
                "internal".to_owned(),
            );
            actions.push(FileAction::Copy(Copy {
                from: self.add_as(op, &state.platform, step, word.at, shown)?,
                sources: vec![joined("/", name)[1..].to_owned()],
                dest: target.to_owned(),
                owner: options.owner.clone(),
                mode: options.mode.clone(),
                extract: false,
                exclude: Vec::new(),
                parents: false,
            }));
        }
        Ok(())
    }

    /// Carries out WORKDIR: the directory is made, and later steps begin in it.
    pub(super) fn workdir(&mut self, state: &mut State, step: Step<'_>) -> Result<(), Fault> {
        let Body::Text(word) = &step.node.body else {
            return Ok(());
        };
        let path = self.word(state, step, word)?;
        if !state.workdir_set && !path.starts_with('/') {
            let shown = if path.is_empty() { &word.text } else { &path };
            let message =
                format!("`{shown}` is relative to whatever directory the base image sets");
            self.fault(
                step,
                Fault::new(&rules::WORKDIR_RELATIVE, word.at, message)
                    .hint(format!("write `WORKDIR /{shown}`")),
            );
        }
        state.workdir_set = true;
        let dir = work_dir(&state.config().working_dir, &path);
        state.config_mut().working_dir.clone_from(&dir);
        let cleaned = joined("/", &dir);
        let made = cleaned != "/";
        if made {
            let owner = owner(&state.config().user);
            let action = FileAction::Mkdir {
                path: cleaned,
                mode: 0o755,
                owner,
            };
            state.root = Some(self.add(
                Op::Files {
                    base: state.root,
                    actions: vec![action],
                },
                state,
                step,
                At::default(),
            )?);
        }
        self.note(state, format!("WORKDIR {dir}"), made)
    }
}

/// Understands `user[:group]`; nothing where it is empty.
fn owner(text: &str) -> Option<Owner> {
    if text.is_empty() {
        return None;
    }
    let (user, group) = text
        .split_once(':')
        .map_or((text, None), |(u, g)| (u, Some(g)));
    let user = if user.is_empty() { "0" } else { user };
    Some(Owner {
        user: user.to_owned(),
        group: group.filter(|g| !g.is_empty()).map(str::to_owned),
    })
}

/// Returns the working directory behind WORKDIR: an absolute one stays as it is written, slashes and all, a relative one goes on
/// from the one before, and nothing changes nothing.
fn work_dir(before: &str, written: &str) -> String {
    match written {
        "" if before.starts_with('/') => before.to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => joined(before, relative),
    }
}

/// Makes a destination absolute; one that means a directory ends in a slash.
fn destination(working_dir: &str, written: &str) -> String {
    let path = joined(
        if working_dir.is_empty() {
            "/"
        } else {
            working_dir
        },
        written,
    );
    let is_directory =
        written.is_empty() || written == "." || written.ends_with('/') || written.ends_with("/.");
    if is_directory && path != "/" {
        path + "/"
    } else {
        path
    }
}

/// Cleans a source: relative to the root, without leaving it.  With `--parents` the pivot `/./` stays.
fn source_path(path: &str, parents: bool) -> String {
    let clean = |part: &str| joined("/", part)[1..].to_owned();
    let cleaned = match path.split_once("/./").filter(|_| parents) {
        Some((before, after)) => format!("{}/./{}", clean(before), clean(after)),
        None => clean(path),
    };
    if cleaned.is_empty() {
        ".".to_owned()
    } else {
        cleaned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_and_sources() {
        for (dir, written, want) in [
            ("/w", "a", "/w/a"),
            ("/w", ".", "/w/"),
            ("/w", "./", "/w/"),
            ("/", ".", "/"),
            ("/w", "/a/", "/a/"),
            ("/w", "/a/.", "/a/"),
            ("", "a", "/a"),
            ("/w", "../a", "/a"),
            ("/w", "", "/w/"),
        ] {
            assert_eq!(destination(dir, written), want, "{dir} {written}");
        }
        for (path, want) in [
            ("a", "a"),
            ("./a/", "a"),
            ("/a/b", "a/b"),
            (".", "."),
            ("/", "."),
            ("../../a", "a"),
            ("a/*.txt", "a/*.txt"),
        ] {
            assert_eq!(source_path(path, false), want, "{path}");
        }
        assert_eq!(source_path("a/./b/../c", true), "a/./c");
        for (before, written, want) in [
            ("", "", "/"),
            ("/w/", "", "/w/"),
            ("/w", "/a//b/../", "/a//b/../"),
            ("/w/", "a/", "/w/a"),
            ("/w", "..", "/"),
        ] {
            assert_eq!(work_dir(before, written), want, "{before} {written}");
        }
    }
}
