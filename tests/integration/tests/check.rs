//! `stepwell check` and `stepwell build --call`, as an ordinary user without any network.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use stepwell_integration_tests::{Ran, ran};
use stepwell_test_support::{program, user};

/// A directory with files, which the ordinary user may read.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("stepwell-check-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, content).expect("a file");
    }
    user::give(dir.path()).expect("the user's files");
    dir
}

fn stepwell(dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(program::debug());
    command.args(args).current_dir(dir);
    ran(&mut user::ordinary(command))
}

const CLEAN: &str = "FROM never-pulled:1 AS build\nRUN make\nCMD [\"x\"]\n";
const WARNS: &str = "FROM scratch AS Build\n";
const WRONG: &str = "FROM scratch\nCPOY a /\nLABEL a=1 b\n";

#[test]
fn the_exit_code_says_whether_something_is_found() {
    let dir = tree(&[
        ("clean/Dockerfile", CLEAN),
        ("warns/a.Dockerfile", WARNS),
        ("wrong/Containerfile", WRONG),
        ("other.txt", WRONG),
    ]);
    for (paths, code, end) in [
        (&["clean"][..], 0, "1 file checked: nothing found\n"),
        (&["other.txt"], 1, "1 file checked: 2 errors, 0 warnings\n"),
        (
            &["warns", "clean"],
            1,
            "2 files checked: 0 errors, 1 warning\n",
        ),
        (&["."], 1, "3 files checked: 2 errors, 1 warning\n"),
        (&[], 1, "3 files checked: 2 errors, 1 warning\n"),
    ] {
        let args: Vec<&str> = std::iter::once("check")
            .chain(paths.iter().copied())
            .collect();
        let ran = stepwell(dir.path(), &args);
        assert_eq!(ran.code, Some(code), "{paths:?}: {}{}", ran.out, ran.err);
        assert!(ran.out.ends_with(end), "{paths:?}: {}", ran.out);
    }
    stepwell(dir.path(), &["check", "missing"]).failed_with(64, &["cannot read `missing`"]);
    stepwell(dir.path(), &["check", "--format=xml"]).failed_with(64, &["xml"]);
}

#[test]
fn text_shows_the_place_underlined_and_the_hint() {
    let dir = tree(&[("Dockerfile", WRONG)]);
    let ran = stepwell(dir.path(), &["check", "Dockerfile"]);
    assert_eq!(
        ran.out,
        "error[UnknownInstruction]: `CPOY` is not an instruction\n  --> Dockerfile:2:1\n 2 | CPOY a /\n   | ^^^^\n  hint: did you mean `COPY`?\n\
         error[InvalidArgument]: `b` has no `=`\n  --> Dockerfile:3:11\n 3 | LABEL a=1 b\n   |           ^\n  \
         hint: write `name=value`; put a value with spaces into quotes\n1 file checked: 2 errors, 0 warnings\n"
    );
}

#[test]
fn json_and_sarif_have_every_finding_with_its_place() {
    let dir = tree(&[("a/Dockerfile", WRONG), ("b/Dockerfile", WARNS)]);
    let parsed = |format: &str| -> Value {
        let ran = stepwell(dir.path(), &["check", "--format", format]);
        assert_eq!(ran.code, Some(1));
        serde_json::from_str(&ran.out).expect("JSON")
    };
    let json = parsed("json");
    assert_eq!(json["files"][0]["file"], "a/Dockerfile");
    assert_eq!(json["files"][0]["diagnostics"][1]["span"]["column"], 11);
    assert_eq!(
        json["files"][1]["diagnostics"][0]["code"],
        "StageNameCasing"
    );
    let sarif = parsed("sarif");
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    let shown: Vec<String> = results
        .iter()
        .map(|r| {
            let place = &r["locations"][0]["physicalLocation"];
            format!(
                "{} {} {} {}",
                r["ruleId"],
                r["level"],
                place["artifactLocation"]["uri"],
                place["region"]["startLine"]
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "\"UnknownInstruction\" \"error\" \"a/Dockerfile\" 2",
            "\"InvalidArgument\" \"error\" \"a/Dockerfile\" 3",
            "\"StageNameCasing\" \"warning\" \"b/Dockerfile\" 1"
        ]
    );
}

#[test]
fn hundreds_of_files_take_no_longer_than_a_commit_hook_may() {
    let names: Vec<String> = (0..500)
        .map(|i| format!("p{}/s{i}/Dockerfile", i % 7))
        .collect();
    let files: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), CLEAN)).collect();
    let dir = tree(&files);
    let start = std::time::Instant::now();
    let ran = stepwell(dir.path(), &["check"]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    // Half a second on a quiet machine; tests run on busy ones.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
