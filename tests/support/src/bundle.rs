//! Running an unpacked image with crun.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::cmd::{output, tool};

/// Runs the bundle in `dir` (as `umoci unpack` makes it) and shows its output; anything but success is an error.
pub fn run(dir: &Path) -> Result<(), String> {
    let output = run_output(dir)?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if output.status.success() {
        Ok(())
    } else {
        Err(format!(
            "the container ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

/// Runs the bundle in `dir` and returns what it did.
pub fn run_output(dir: &Path) -> Result<Output, String> {
    let config = dir.join("config.json");
    simplify(&config, own_ids())?;
    let name = format!(
        "stepwell-{}-{}",
        std::process::id(),
        dir.file_name().unwrap_or_default().to_string_lossy()
    );
    let crun = ["crun", "--cgroup-manager=disabled", "run", "--bundle"];
    let direct = output(tool(crun[0]).args(&crun[1..]).arg(dir).arg(&name))?;
    if direct.status.success() || !String::from_utf8_lossy(&direct.stderr).contains("hybrid") {
        return Ok(direct);
    }
    // crun refuses machines whose cgroups are mounted in the hybrid way: give it a mount name space in which they are not.
    let mut flags = vec!["--mount", "--cgroup"];
    if !crate::is_root() {
        flags.push("--map-root-user");
        // In that name space, the own ids are 0.
        simplify(&config, (0, 0))?;
    }
    let script = r#"umount -R /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup && exec "$@""#;
    output(
        tool("unshare")
            .args(flags)
            .args(["sh", "-c", script, "sh"])
            .args(crun)
            .arg(dir)
            .arg(&name),
    )
}

/// User and group of this process.
fn own_ids() -> (u32, u32) {
    std::fs::metadata("/proc/self").map_or((0, 0), |m| (m.uid(), m.gid()))
}

/// Takes out of a bundle's configuration what needs a terminal or control groups.  Without root there is one id to be
/// had: the container's user gets it, whoever that is.
fn simplify(file: &Path, (uid, gid): (u32, u32)) -> Result<(), String> {
    let fail = |e: String| format!("`{}`: {e}", file.display());
    let text = std::fs::read_to_string(file).map_err(|e| fail(e.to_string()))?;
    let mut config: Value = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
    config["process"]["terminal"] = Value::Bool(false);
    let user = config["process"]["user"].clone();
    if !crate::is_root()
        && let Some(user) = config["process"]["user"].as_object_mut()
    {
        user.remove("additionalGids");
    }
    if let Some(linux) = config["linux"].as_object_mut() {
        if !crate::is_root() {
            let one = |inside: &Value, outside| json!([{"containerID": inside.as_u64().unwrap_or(0), "hostID": outside, "size": 1}]);
            linux.insert("uidMappings".into(), one(&user["uid"], uid));
            linux.insert("gidMappings".into(), one(&user["gid"], gid));
        }
        linux.remove("resources");
        linux.remove("cgroupsPath");
        if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
            namespaces.retain(|n| n["type"] != "cgroup");
        }
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|m| m["type"] != "cgroup");
    }
    std::fs::write(file, config.to_string()).map_err(|e| fail(e.to_string()))
}
