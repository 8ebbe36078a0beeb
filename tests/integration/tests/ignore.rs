//! The ignore file of a Dockerfile that lies outside the context: it counts, and is not followed where it is a link.

use std::path::Path;
use std::process::Command;

use stepwell_integration_tests::ran;
use stepwell_test_support::{program, user};

/// Builds `FROM scratch`, `COPY . /` and returns the names of the files that came out.
fn built(dir: &Path) -> Vec<String> {
    let out = dir.join("out");
    let _ = std::fs::remove_dir_all(&out);
    user::give(dir).expect("the user's files");
    let mut command = Command::new(program::debug());
    command
        .args(["build", "--progress=quiet", "--root"])
        .arg(dir.join("store"));
    command
        .arg("--file")
        .arg(dir.join("elsewhere/app.Dockerfile"));
    command
        .arg(format!("--output=type=local,dest={}", out.display()))
        .arg(dir.join("context"));
    let ran = ran(&mut user::ordinary(command));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let entries = std::fs::read_dir(&out).expect("the result");
    let mut names: Vec<_> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn it_counts_where_it_is_a_file_and_is_not_followed_where_it_is_a_link() {
    let dir = tempfile::Builder::new()
        .prefix("stepwell-ignore-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let at = |name: &str| dir.path().join(name);
    for name in ["context", "elsewhere"] {
        std::fs::create_dir(at(name)).expect("a directory");
    }
    for (name, content) in [
        ("context/a", "A"),
        ("context/b", "B"),
        ("elsewhere/app.Dockerfile", "FROM scratch\nCOPY . /\n"),
        ("elsewhere/app.Dockerfile.dockerignore", "a\n"),
        ("secret", "b\n"),
    ] {
        std::fs::write(at(name), content).expect("a file");
    }
    assert_eq!(built(dir.path()), ["b"]);
    let ignore = at("elsewhere/app.Dockerfile.dockerignore");
    std::fs::remove_file(&ignore).expect("it was there");
    std::os::unix::fs::symlink("../secret", &ignore).expect("a link");
    assert_eq!(built(dir.path()), ["a", "b"]);
}
