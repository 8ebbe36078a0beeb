//! Where the context and the definition are: `PATH`, an address, or standard input.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use stepwell_model::remote;
use stepwell_model::request::{ContextSource, DefinitionSource};
use tempfile::TempDir;

use crate::args::BuildArgs;

/// Largest Dockerfile that is taken from standard input.
const LARGEST_DEFINITION: u64 = 16 << 20;

/// What came on standard input, in a directory of its own; it goes with this value.
pub struct Input {
    _dir: TempDir,
}

/// Says where the context is; standard input is taken into a file.
pub fn context(args: &BuildArgs) -> Result<(ContextSource, Option<Input>), String> {
    let path = &args.context;
    if path == Path::new("-") {
        if args.file.as_deref() == Some(Path::new("-")) {
            return Err(
                "standard input cannot be the context and the Dockerfile: give one of the two as a file"
                    .to_owned(),
            );
        }
        let (file, input) = spooled()?;
        return Ok((ContextSource::File(file), Some(input)));
    }
    if path.is_dir() {
        return Ok((ContextSource::Directory(path.clone()), None));
    }
    match path.to_str().and_then(address) {
        Some(address) => Ok((ContextSource::Remote(address?), None)),
        None => Err(format!(
            "the context `{}` is not a directory; give the directory that holds the files of the build, for example `.`",
            path.display()
        )),
    }
}

/// Says where the definition is; standard input is read.
pub fn definition(args: &BuildArgs) -> Result<Option<DefinitionSource>, String> {
    let Some(path) = &args.file else {
        return Ok(None);
    };
    if path == Path::new("-") {
        let mut content = Vec::new();
        input()?
            .take(LARGEST_DEFINITION + 1)
            .read_to_end(&mut content)
            .map_err(|e| format!("the Dockerfile cannot be read from standard input: {e}"))?;
        if content.len() as u64 > LARGEST_DEFINITION {
            return Err(format!(
                "the Dockerfile on standard input has more than {LARGEST_DEFINITION} bytes"
            ));
        }
        return Ok(Some(DefinitionSource::Text {
            name: "Dockerfile".to_owned(),
            content,
        }));
    }
    let text = path.to_str().unwrap_or("");
    let is_web = ["http://", "https://"]
        .iter()
        .any(|s| text.to_ascii_lowercase().starts_with(s));
    Ok(Some(match is_web {
        true => DefinitionSource::Remote(text.to_owned()),
        false => DefinitionSource::File(path.clone()),
    }))
}

/// The address that a text is; nothing for a path.
pub fn address(text: &str) -> Option<Result<String, String>> {
    // Without a scheme only this host is known, as docker has it.
    let whole = match text.strip_prefix("github.com/") {
        Some(rest) => {
            let end = rest.find(['#', '?']).unwrap_or(rest.len());
            let (path, what) = rest.split_at(end);
            let path = path.trim_end_matches('/').trim_end_matches(".git");
            format!("https://github.com/{path}.git{what}")
        }
        None => text.to_owned(),
    };
    let parsed = remote::parse(&whole)?;
    Some(parsed.map(|_| whole))
}

/// Standard input, unless a person sits at it.
fn input() -> Result<std::io::StdinLock<'static>, String> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err(
            "`-` means standard input, which is a terminal: redirect it from a file or a program"
                .to_owned(),
        );
    }
    Ok(input.lock())
}

/// Takes all of standard input into a file.
fn spooled() -> Result<(PathBuf, Input), String> {
    let failed = |e: std::io::Error| format!("standard input cannot be kept: {e}");
    let dir = tempfile::Builder::new()
        .prefix("stepwell-input-")
        .tempdir()
        .map_err(failed)?;
    let path = dir.path().join("context");
    let mut file = std::fs::File::create_new(&path).map_err(failed)?;
    let size = std::io::copy(&mut input()?, &mut file).map_err(failed)?;
    if size == 0 {
        return Err(
            "there is nothing on standard input: give a tar archive or a Dockerfile".to_owned(),
        );
    }
    Ok((path, Input { _dir: dir }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        let shown = |text: &str| match address(text) {
            None => "path".to_owned(),
            Some(Ok(address)) => address,
            Some(Err(why)) => format!("error {why}"),
        };
        for (text, want) in [
            (".", "path"),
            ("dir/github.com/x", "path"),
            ("https://h/x.tar.gz", "https://h/x.tar.gz"),
            ("git@h:x.git#main:sub", "git@h:x.git#main:sub"),
            ("github.com/o/r", "https://github.com/o/r.git"),
            ("github.com/o/r.git#v1:d", "https://github.com/o/r.git#v1:d"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
        assert!(shown("https://h/x.git?a=b").starts_with("error "));
    }
}
