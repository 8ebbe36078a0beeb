//! A published contract never changes: the files of `guest-sdk/wit/since-v*/` are those that `guest-sdk/wit/FROZEN`
//! lists, with their digests (`sha256:…  path`, one a line).

use std::collections::BTreeMap;
use std::path::Path;

use stepwell_model::Digest;

/// Lists what is not as `FROZEN` says.
fn problems(wit: &Path) -> Vec<String> {
    let list = std::fs::read_to_string(wit.join("FROZEN")).expect("the list can be read");
    let mut listed: BTreeMap<&str, &str> = list
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(|l| l.split_once("  ").expect("digest, two spaces, path"))
        .map(|(digest, path)| (path, digest))
        .collect();
    let mut problems = Vec::new();
    for path in frozen(wit) {
        let content = std::fs::read(wit.join(&path)).expect("it can be read");
        match listed.remove(path.as_str()) {
            None => problems.push(format!("{path} is not listed")),
            Some(digest) if digest != Digest::of(&content).to_string() => {
                problems.push(format!("{path} was changed"));
            }
            Some(_) => {}
        }
    }
    problems.extend(listed.keys().map(|path| format!("{path} is gone")));
    problems
}

/// Paths of all files in `since-*` folders, relative to `wit`.
fn frozen(wit: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut todo = vec![wit.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).expect("it can be listed") {
            let path = entry.expect("an entry").path();
            let relative = path.strip_prefix(wit).expect("below it");
            let name = relative.to_str().expect("UTF-8").to_owned();
            match (name.starts_with("since-v"), path.is_dir()) {
                (true, true) => todo.push(path),
                (true, false) => files.push(name),
                (false, _) => {}
            }
        }
    }
    files.sort();
    files
}

#[test]
fn published_contracts_are_as_they_were() {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-sdk/wit");
    assert_eq!(problems(&wit), [""; 0]);
}

#[test]
fn a_changed_an_added_and_a_missing_file_are_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().join("since-v0.0.1/frontend");
    std::fs::create_dir_all(&folder).expect("a directory");
    let list = |path: &str| format!("{}  since-v0.0.1/frontend/{path}\n", Digest::of(b"x"));
    let text = format!(
        "# comment\n{}{}{}",
        list("same"),
        list("changed"),
        list("gone")
    );
    std::fs::write(dir.path().join("FROZEN"), text).expect("the list");
    for (name, content) in [("same", "x"), ("changed", "y"), ("added", "x")] {
        std::fs::write(folder.join(name), content).expect("a file");
    }
    assert_eq!(
        problems(dir.path()),
        [
            "since-v0.0.1/frontend/added is not listed",
            "since-v0.0.1/frontend/changed was changed",
            "since-v0.0.1/frontend/gone is gone",
        ]
    );
}
