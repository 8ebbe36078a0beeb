//! A machine's disk: the sites that are built, and a directory for what comes of each case. Made and read without mounting.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stepwell_test_support::cmd::tool;

use super::{CASES, quietly};
use crate::site::{Built, Site, Workload};

/// Room for a store with an unpacked Debian; the file has holes where nothing was written.
const SIZE: &str = "3G";

/// Directory of a workload on the disk.
pub fn name(workload: Workload) -> &'static str {
    match workload {
        Workload::Busybox => "busybox",
        Workload::Debian => "debian",
    }
}

/// Makes the disk in `dir`.
pub fn make(dir: &Path, sites: &[(Workload, &Site)]) -> PathBuf {
    let root = dir.join("disk");
    for (workload, site) in sites {
        let to = root.join(name(*workload));
        std::fs::create_dir_all(&to).expect("a directory of the disk");
        for part in ["bin", "base", "context"] {
            quietly(tool("cp").arg("-rl").arg(site.path(part)).arg(&to));
        }
    }
    for case in CASES {
        let out = root.join("out").join(case.name);
        std::fs::create_dir_all(&out).expect("a directory of the disk");
        std::fs::set_permissions(out, std::fs::Permissions::from_mode(0o777)).expect("its mode");
    }
    let image = dir.join("disk.ext4");
    let mut make = tool("mke2fs");
    make.args([
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-N",
        "60000",
        "-d",
    ]);
    quietly(make.arg(root).arg(&image).arg(SIZE));
    image
}

/// What one case came to.
#[derive(Debug)]
pub struct Outcome {
    /// The build.
    pub built: Built,
    /// What the control said, and its exit status.
    pub control: (String, String),
    /// The profile that commands of the case run under.
    pub profile: String,
}

/// Reads what a case came to.
pub fn outcome(image: &Path, case: &str, dir: &Path) -> Outcome {
    let file = |name: &str| {
        let to = dir.join(format!("{case}-{}", name.replace('/', "-")));
        let request = format!("dump /out/{case}/{name} {}", to.display());
        quietly(tool("debugfs").args(["-R", &request]).arg(image));
        std::fs::read_to_string(to).unwrap_or_default()
    };
    Outcome {
        built: Built {
            code: file("exit").trim().parse().ok(),
            told: file("log"),
            metadata: serde_json::from_str(&file("metadata.json")).unwrap_or(Value::Null),
        },
        control: (file("control"), file("control.exit").trim().to_owned()),
        profile: file("profile").trim().to_owned(),
    }
}
