//! Where the program under test is.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{is_root, workspace};

/// The optimised program.
pub fn release() -> PathBuf {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| reachable(&target_dir().join("release/stepwell")))
        .clone()
}

/// The program as the tests use it (profile `dev`).
pub fn debug() -> PathBuf {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| reachable(&target_dir().join("debug/stepwell")))
        .clone()
}

/// Whichever of the two is there, the optimised one first.
pub fn any() -> Result<PathBuf, String> {
    ["release", "debug"]
        .map(|profile| target_dir().join(profile).join("stepwell"))
        .into_iter()
        .find(|program| program.is_file())
        .ok_or_else(|| "`stepwell` is not built yet".to_owned())
}

/// Directory that cargo builds into.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// As root, the tests run the program as another user, who may not be able to reach the source tree: a copy serves.
fn reachable(program: &Path) -> PathBuf {
    if !is_root() {
        return program.to_path_buf();
    }
    let stamp = std::fs::metadata(program)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |d| d.as_nanos());
    let dir = PathBuf::from("/var/tmp/stepwell-test-program");
    let copy = dir.join(format!("stepwell-{stamp}"));
    if !copy.is_file() {
        let part = dir.join(format!(".part-{}", std::process::id()));
        let old = std::fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path());
        // Copies of older programs that nobody has used for an hour.
        for file in old.filter(|f| {
            std::fs::metadata(f)
                .and_then(|m| m.accessed())
                .is_ok_and(|t| t.elapsed().is_ok_and(|e| e.as_secs() > 3600))
        }) {
            let _ = std::fs::remove_file(file);
        }
        let _ = std::fs::create_dir_all(&dir);
        if std::fs::copy(program, &part).is_ok() {
            let _ = std::fs::rename(&part, &copy);
        }
    }
    copy
}
