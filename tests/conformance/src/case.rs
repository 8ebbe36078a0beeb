//! A case as it is written in `cases/*.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// One Dockerfile and what becomes of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name, unique among all cases.
    pub name: String,
    /// The rule that it shows, in a sentence.
    pub rule: String,
    /// Where the rule is from.
    pub source: String,
    /// The Dockerfile; `@BUSYBOX@` stands for the base.
    pub dockerfile: String,
    /// Flags of the build.
    #[serde(default)]
    pub args: Vec<String>,
    /// Files of the context, with their content; a name that ends in a slash is an empty directory.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Permissions of files, in octal.
    #[serde(default)]
    pub modes: BTreeMap<String, String>,
    /// Symbolic links of the context, with their targets.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// Archives of the context: name, and names and contents of the files in it. The end of the name says how the archive
    /// is compressed: `.gz`, `.bz2`, `.xz`, `.zst`.
    #[serde(default)]
    pub archives: BTreeMap<String, BTreeMap<String, String>>,
    /// Files behind `@WEB@`, an http address of the case's own.
    #[serde(default)]
    pub web: BTreeMap<String, String>,
    /// The files of the result: `type mode owner path`, and `= "content"` or `-> target`.
    pub tree: Option<Vec<String>>,
    /// Only files below this path count for `tree`.
    #[serde(default)]
    pub below: String,
    /// JSON pointers into the image's configuration, and the values there.
    #[serde(default)]
    pub config: BTreeMap<String, toml::Value>,
    /// JSON pointers to which there is nothing in the configuration.
    #[serde(default)]
    pub absent: Vec<String>,
    /// The lines of history that the build made.
    pub history: Option<Vec<String>>,
    /// Texts that steps write.
    #[serde(default)]
    pub output: Vec<String>,
    /// Errors about the Dockerfile, in order: how `line:column Rule: message (hint)` begins.
    #[serde(default)]
    pub errors: Vec<String>,
    /// Warnings, in order, in the same form; not looked at where it is missing.
    pub warnings: Option<Vec<String>>,
    /// A failure that is no error of the Dockerfile: exit code, and a text of the message.
    pub fails: Option<Failure>,
    /// Where Buildah is known to do something else, and why that is so.
    pub buildah: Option<String>,
}

/// How a build ends that fails while it is carried out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Exit code.
    pub code: i32,
    /// Part of the message.
    pub text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

impl Case {
    /// Says whether the build has to succeed.
    pub fn succeeds(&self) -> bool {
        self.errors.is_empty() && self.fails.is_none()
    }
}

/// Reads all cases of a directory, in the order of its files.
pub fn load(dir: &Path) -> Vec<Case> {
    let entries = std::fs::read_dir(dir).expect("the directory of cases");
    let mut files: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file of cases");
        let parsed: File =
            toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        cases.extend(parsed.case);
    }
    cases
}
