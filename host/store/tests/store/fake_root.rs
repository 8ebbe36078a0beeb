//! All of this file's neighbours once more, as an ordinary user's root of a user namespace with one id.

use std::process::Command;

use crate::support::is_real_root;

/// The user that tests run as besides root; needs no entry in `/etc/passwd`.
const USER: &str = "4242";

#[test]
fn as_root_of_a_namespace_with_one_id() {
    if std::env::var_os("STEPWELL_STORE_TEST_INNER").is_some() {
        return;
    }
    // The build directory may be closed to others.
    let dir = tempfile::Builder::new()
        .prefix("stepwell-test-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let program = dir.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for path in [dir.path(), &program] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    }
    let mut command = if is_real_root() {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            USER,
            "--regid",
            USER,
            "--clear-groups",
            "unshare",
            "-Ur",
        ]);
        command
    } else {
        let mut command = Command::new("unshare");
        command.arg("-Ur");
        command
    };
    let output = command
        .arg(&program)
        .args(["--test-threads", "2"])
        .env("STEPWELL_STORE_TEST_INNER", "1")
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("test transform::back_and_forth ... ok"),
        "{text}"
    );
}
