//! The demonstration: a multi-stage Dockerfile with `apt-get install` onto a Debian base becomes an image in a registry on
//! loopback, built without privilege; other people's programs fetch it, unpack it and run it.

use std::path::Path;
use std::process::Command;

use stepwell_test_support::cmd::{run, show, tool};
use stepwell_test_support::registry::Registry;
use stepwell_test_support::{base, program, user, workspace};

use crate::{setup, test};

/// Sets up, builds, pushes, runs.  As root, the build is an ordinary user's all the same.
pub fn main(_: &[String]) -> Result<(), String> {
    setup::build()?;
    setup::tools()?;
    println!("demo: builds the program (minutes the first time)");
    show(test::cargo().args(["build", "--release", "--package", "stepwell"]))?;
    setup::images()?;
    let work = tempfile::Builder::new()
        .prefix("stepwell-demo-")
        .tempdir_in("/var/tmp")
        .map_err(|e| format!("a work directory: {e}"))?;
    let work = work.path();
    let registry = Registry::start(&work.join("registry"))?;
    let base = base::push(&base::debian()?, &registry.host(), "debian:12")?;
    let image = format!("{}/demo/hello:latest", registry.host());
    run(Command::new("cp")
        .arg("-r")
        .arg(workspace().join("examples/demo"))
        .arg(work.join("context")))?;
    user::give(work)?;
    println!("demo: stepwell build --build-arg BASE={base} --tag {image} --push examples/demo");
    let mut build = Command::new(program::release());
    build
        .args([
            "build",
            "--build-arg",
            &format!("BASE={base}"),
            "--tag",
            &image,
            "--push",
            "--root",
        ])
        .arg(work.join("store"));
    show(&mut user::ordinary({
        build.arg(work.join("context"));
        build
    }))?;
    fetch_and_run(work, &image)
}

/// Fetches the image with skopeo, unpacks it with umoci and runs it with crun.
fn fetch_and_run(work: &Path, image: &str) -> Result<(), String> {
    let (layout, bundle) = (work.join("layout"), work.join("bundle"));
    println!("demo: skopeo fetches it, umoci unpacks it, crun runs it");
    run(tool("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--src-tls-verify=false",
        ])
        .arg(format!("docker://{image}"))
        .arg(format!("oci:{}:latest", layout.display())))?;
    let mut unpack = tool("umoci");
    unpack
        .args(["unpack", "--image"])
        .arg(format!("{}:latest", layout.display()));
    if !stepwell_test_support::is_root() {
        unpack.arg("--rootless");
    }
    run(unpack.arg(&bundle))?;
    stepwell_test_support::bundle::run(&bundle)
}
