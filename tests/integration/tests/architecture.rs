//! The crate graph is the architecture: only the edges listed here are allowed, and only one crate may be unsafe.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use stepwell_test_support::cmd::run;
use stepwell_test_support::workspace;

/// Crate, and which crates of the workspace it may depend on (tests and build scripts included).
const ALLOWED: &[(&str, &[&str])] = &[
    // Pure text matching, which both sides need to see alike.
    ("stepwell-patterns", &[]),
    ("stepwell-model", &["stepwell-patterns"]),
    ("stepwell-sys", &["stepwell-model"]),
    ("stepwell-image", &["stepwell-model"]),
    ("stepwell-solve", &["stepwell-model"]),
    (
        "stepwell-store",
        &["stepwell-model", "stepwell-sys", "stepwell-image"],
    ),
    ("stepwell-registry", &["stepwell-model", "stepwell-image"]),
    ("stepwell-guest-build", &[]),
    ("stepwell-wasm", &["stepwell-model", "stepwell-guest-build"]),
    (
        "stepwell-steps",
        &[
            "stepwell-model",
            "stepwell-sys",
            "stepwell-image",
            "stepwell-store",
        ],
    ),
    (
        "stepwell-build",
        &[
            "stepwell-model",
            "stepwell-sys",
            "stepwell-image",
            "stepwell-solve",
            "stepwell-store",
            "stepwell-registry",
            "stepwell-wasm",
            "stepwell-steps",
        ],
    ),
    (
        "stepwell",
        &[
            "stepwell-model",
            "stepwell-sys",
            "stepwell-store",
            "stepwell-steps",
            "stepwell-build",
        ],
    ),
    // Guests see the SDK and nothing of the host.
    ("stepwell-guest", &[]),
    ("dockerfile-core", &["stepwell-patterns"]),
    (
        "dockerfile-component",
        &["dockerfile-core", "stepwell-guest"],
    ),
    ("cache-policy-component", &["stepwell-guest"]),
    ("recipe-frontend", &["stepwell-guest"]),
    ("hostile-frontend", &["stepwell-guest"]),
    ("hostile-policy", &["stepwell-guest"]),
    ("wasi-frontend", &["stepwell-guest"]),
    ("stepwell-test-support", &[]),
    ("xtask", &["stepwell-test-support"]),
    (
        "stepwell-bench",
        &[
            "dockerfile-core",
            "stepwell-image",
            "stepwell-model",
            "stepwell-store",
            "stepwell-test-support",
            "stepwell-wasm",
        ],
    ),
    (
        "stepwell-integration-tests",
        &["stepwell-guest-build", "stepwell-test-support"],
    ),
    (
        "stepwell-escape-tests",
        &["stepwell-integration-tests", "stepwell-test-support"],
    ),
    (
        "stepwell-conformance",
        &[
            "stepwell-integration-tests",
            "stepwell-test-support",
            "dockerfile-core",
        ],
    ),
    ("stepwell-lockdown-tests", &["stepwell-test-support"]),
];

fn metadata() -> Value {
    let text = run(Command::new("cargo").current_dir(workspace()).args([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--offline",
    ]))
    .unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn only_the_allowed_edges_exist() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let members: BTreeSet<&str> = packages
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some((_, allowed)) = ALLOWED.iter().find(|(n, _)| *n == name) else {
            panic!(
                "`{name}` is not in the list of tests/integration/tests/architecture.rs: say what it may depend on"
            );
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            assert!(
                !members.contains(dependency) || allowed.contains(&dependency),
                "`{name}` must not depend on `{dependency}`"
            );
        }
    }
}

/// Loading compiled WebAssembly is unsafe by wasmtime's signature: host/wasm denies unsafe code but for that one file.
const WASM_EXCEPTION: (&str, &str) = ("stepwell-wasm", "#![deny(unsafe_code)]");

#[test]
fn only_sys_may_be_unsafe() {
    for package in metadata()["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let in_host = manifest.starts_with(workspace().join("host"));
        if !in_host || package["name"] == "stepwell-sys" {
            continue;
        }
        for target in package["targets"].as_array().unwrap() {
            let kinds = target["kind"].to_string();
            if !kinds.contains("lib") && !kinds.contains("bin") {
                continue;
            }
            let root = target["src_path"].as_str().unwrap();
            let text = std::fs::read_to_string(root).unwrap();
            let excepted = package["name"] == WASM_EXCEPTION.0 && text.contains(WASM_EXCEPTION.1);
            assert!(
                excepted || text.contains("#![forbid(unsafe_code)]"),
                "`{root}` must start with #![forbid(unsafe_code)]"
            );
        }
    }
}
