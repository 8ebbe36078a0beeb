//! ADD of files and repositories elsewhere: what the address and the flags say, and the vertex that stands for it.  Nothing is
//! fetched here.

use stepwell_patterns::remote::{self, GitSource, Remote};

use super::host::{Host, Op, VertexId};
use super::state::State;
use super::{Lowering, Step};
use crate::ast::{Fault, Keyword, TransferSource};
use crate::diagnostic::rules;
use crate::lexer::At;
use crate::reference;

/// Something elsewhere that ADD takes.
pub(super) enum RemoteSource {
    /// A file.
    File {
        url: String,
        checksum: Option<String>,
    },
    /// A repository.
    Git(Box<GitSource>),
}

impl RemoteSource {
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

impl<H: Host> Lowering<'_, H> {
    /// Says what a source is that is elsewhere; nothing for a path.
    pub(super) fn remote(
        &mut self,
        state: &State,
        step: Step<'_>,
        text: &str,
        at: At,
    ) -> Result<Option<RemoteSource>, Fault> {
        let Some(parsed) = remote::parse(text) else {
            return Ok(None);
        };
        if step.node.keyword == Keyword::Copy {
            let what = match parsed {
                Ok(Remote::File(_)) => "URL",
                _ => "Git repository",
            };
            let message = format!("`{text}` is a {what}, which COPY does not take");
            return Err(Fault::new(&rules::INVALID_ARGUMENT, at, message)
                .hint("use ADD, or fetch it with RUN"));
        }
        let parsed = parsed.map_err(|why| Fault::new(&rules::INVALID_ARGUMENT, at, why))?;
        let checksum = match step.node.flag("checksum") {
            Some(word) => Some(self.word(state, step, word)?).filter(|c| !c.is_empty()),
            None => None,
        };
        Ok(Some(match parsed {
            Remote::File(url) => RemoteSource::File { url, checksum },
            Remote::Git(source) => RemoteSource::Git(Box::new(agreed(step, source, checksum)?)),
        }))
    }

    /// Adds the vertex of something elsewhere; returns it and the path in it that is copied.
    pub(super) fn fetched(
        &mut self,
        state: &State,
        step: Step<'_>,
        source: RemoteSource,
        at: At,
    ) -> Result<(VertexId, String), Fault> {
        let (op, path) = match source {
            RemoteSource::File { url, checksum } => {
                let name = remote::file_name(&url);
                let path = stepwell_patterns::literal(&name);
                let op = Op::Http {
                    url,
                    name,
                    checksum,
                };
                (op, path)
            }
            RemoteSource::Git(source) => (Op::Git(source), ".".to_owned()),
        };
        let vertex = self.add(op, state, step, at)?;
        self.fetched = Some(vertex);
        Ok((vertex, path))
    }

    /// Checks `--checksum`: one source elsewhere has to be there, and the value has to be a digest of its kind.
    pub(super) fn checksum(
        &mut self,
        state: &State,
        step: Step<'_>,
        sources: &[TransferSource],
    ) -> Result<(), Fault> {
        let Some(word) = step.node.flag("checksum") else {
            return Ok(());
        };
        let value = self.word(state, step, word)?;
        if value.is_empty() {
            return Ok(());
        }
        let refuse = |message: String, hint: &str| {
            Err(Fault::new(&rules::INVALID_FLAG, word.at, message).hint(hint))
        };
        let [TransferSource::Path(source)] = sources else {
            return refuse(
                "`--checksum` takes one source, and no here-document".into(),
                "write an ADD for each source",
            );
        };
        match remote::parse(&self.word(state, step, source)?) {
            None => refuse(
                "`--checksum` is for URLs and Git repositories only".into(),
                "files of the build context need none: their content counts",
            ),
            Some(Ok(Remote::File(_))) if !reference::is_digest(&value) => refuse(
                format!("`{value}` is not a digest"),
                "write `--checksum=sha256:` and 64 hexadecimal digits",
            ),
            Some(Ok(Remote::Git(_))) if !remote::is_commit(&value) => refuse(
                format!("`{value}` is not a commit"),
                "write the 40 (or 64) hexadecimal digits of the commit",
            ),
            // What is wrong with the address is said where it is taken.
            Some(_) => Ok(()),
        }
    }
}

/// Puts together what the address of a repository says and what the flags do; they may not say different things.
fn agreed(
    step: Step<'_>,
    mut source: GitSource,
    checksum: Option<String>,
) -> Result<GitSource, Fault> {
    if let (Some(flag), Some(said)) = (step.node.flag("keep-git-dir"), source.keep_git_dir)
        && (flag.text == "true") != said
    {
        let message = format!(
            "`--keep-git-dir={}` and `keep-git-dir={said}` of the address say different things",
            flag.text
        );
        return Err(Fault::new(&rules::INVALID_FLAG, flag.at, message)
            .hint("say it in one of the two places"));
    }
    let keep = source
        .keep_git_dir
        .unwrap_or_else(|| step.node.flag_is_set("keep-git-dir"));
    source.keep_git_dir = Some(keep);
    if let (Some(flag), Some(checksum)) = (step.node.flag("checksum"), checksum) {
        if !source.checksum.is_empty() && source.checksum != checksum {
            let message = format!(
                "`--checksum={checksum}` and the commit `{}` of the address are not the same",
                source.checksum
            );
            return Err(Fault::new(&rules::INVALID_FLAG, flag.at, message)
                .hint("say it in one of the two places"));
        }
        source.checksum = checksum;
    }
    Ok(source)
}
