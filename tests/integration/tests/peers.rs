//! The same Dockerfile, built by Stepwell as an ordinary user and by Buildah, gives images that others see as equal.
//!
//! What differs on purpose is in [`ONLY_BUILDAHS`] and [`DIFFERENCES`], with its reason; anything else that differs is a
//! fault.  Times are compared to the second: Buildah rounds them, Stepwell keeps them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use stepwell_integration_tests::{World, listing, ran};
use stepwell_test_support::cmd::{run, tool};
use stepwell_test_support::{bundle, is_root, program};

/// Paths that only Buildah's file tree has, and why that is right.
const ONLY_BUILDAHS: &[(&str, &str)] = &[
    ("./run", MOUNT_POINT),
    ("./etc/hostname", MOUNT_POINT),
    ("./etc/hosts", MOUNT_POINT),
    ("./etc/resolv.conf", MOUNT_POINT),
];

const MOUNT_POINT: &str = "Buildah's chroot isolation leaves the places that it mounted something on for RUN; what a step of Stepwell sees there is no part of its tree";

/// What differs in the image's configuration (JSON pointer), and why that is right.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "/config/Labels/io.buildah.version",
        "Buildah signs its images with a label; Stepwell adds nothing that nobody asked for",
    ),
    ("/created", "the time of the build"),
    (
        "/history",
        "who made a layer and when: each builder says it in its own words",
    ),
    (
        "/rootfs",
        "Buildah makes one layer of a stage, Stepwell one of each step that changes files",
    ),
];

const DOCKERFILE: &str = "\
FROM @BUSYBOX@ AS tools
RUN mkdir -p /made/deep && echo tool > /made/deep/tool && ln -s deep/tool /made/link && ln /made/deep/tool /made/hard
FROM @BUSYBOX@
ENV GREETING=\"hello world\" EMPTY=
ENV DERIVED=${GREETING}!
LABEL one=1 two=\"2 3\"
ARG VERSION=7
COPY tree /copied/
COPY --chown=12:34 tree/plain /owned/plain
COPY --chown=nobody:nogroup tree /owned/tree
COPY --chmod=0750 tree/plain tree/script /moded/
COPY tree/*.txt /globbed/
COPY --from=tools /made /made
ADD archive.tar /added/
WORKDIR /work/dir
WORKDIR relative
RUN echo $VERSION > version && pwd > here
RUN chown 1000:2000 version && chmod 6755 here && chmod 1777 /work
RUN ln -s ../missing dangling && ln version twin && mkfifo fifo && mkdir -m 0700 closed && touch closed/in
RUN rm -r /copied/gone && rm /bin/vi && mkdir /bin/vi && echo now a directory > /bin/vi/file
RUN rm -r /made/deep && mkdir /made/deep && echo other > /made/deep/other
RUN touch 'name with spaces' \"$(printf 'not\\377utf8')\" && dd if=/dev/zero of=big bs=1024 count=300 2>/dev/null
USER nobody
RUN id -u > /tmp/mine
VOLUME /volume
EXPOSE 80 53/udp
STOPSIGNAL SIGUSR1
ENTRYPOINT [\"sh\", \"-c\"]
CMD [\"id -u; pwd; cat here; echo $DERIVED\"]
";

#[test]
fn the_image_equals_buildahs() {
    let world = context();
    world.pushed("ours", &[]);
    buildah(&world, "theirs");
    let (ours, theirs) = (world.fetched("ours"), world.fetched("theirs"));
    let mut trees = [&ours, &theirs].map(|b| files(&b.join("rootfs")));
    trees[1].retain(|line| {
        let path = line.split(' ').nth(3);
        !ONLY_BUILDAHS.iter().any(|(only, _)| path == Some(only))
    });
    let [only_ours, only_theirs] = [(0, 1), (1, 0)].map(|(a, b)| missing(&trees[a], &trees[b]));
    assert!(
        only_ours.is_empty() && only_theirs.is_empty(),
        "only ours:\n{}\nonly Buildah's:\n{}",
        only_ours.join("\n"),
        only_theirs.join("\n")
    );
    let configs = ["ours", "theirs"].map(|name| config(&world, name));
    assert_eq!(configs[0], configs[1]);
    let outputs = [&ours, &theirs].map(|b| {
        let output = bundle::run_output(b).expect("crun runs it");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    assert_eq!(
        outputs[0],
        "65534\n/work/dir/relative\n/work/dir/relative\nhello world!\n"
    );
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn with_source_date_epoch_a_fresh_store_gives_the_same_digest() {
    let world = context();
    let first = reproducible(&mut ordinary(&world), &world);
    run(Command::new("rm").arg("-rf").arg(world.path("store"))).expect("the store goes");
    // Neither the time of the build nor that of a file which is newer than the epoch must show.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    run(Command::new("touch").arg(world.path("context/tree/script"))).expect("a newer file");
    let second = reproducible(&mut ordinary(&world), &world);
    assert_eq!(first, second);
}

/// Only root can have real ids. Elsewhere there is nothing to compare with, and the other tests hold.
#[test]
fn with_source_date_epoch_root_and_an_ordinary_user_get_the_same_digest() {
    let world = context();
    let expected = reproducible(&mut ordinary(&world), &world);
    if !is_root() {
        println!("skipped: comparing real with emulated ids needs root");
        return;
    }
    for isolation in ["chroot", "auto"] {
        let mut command = Command::new(program::debug());
        command
            .args(["build", "--progress=plain", "--isolation", isolation])
            .arg("--root")
            .arg(world.path(&format!("root-store-{isolation}")))
            .args(outputs(&world))
            .arg(world.path("context"));
        assert_eq!(
            reproducible(&mut command, &world),
            expected,
            "root, isolation `{isolation}`"
        );
    }
}

/// The context of all tests here, with what has modes, links and sizes worth comparing.
fn context() -> World {
    let world = World::new();
    for (name, content) in [
        ("plain", "plain\n"),
        ("script", "#!/bin/sh\n"),
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("gone/file", "x"),
        ("sub/dir/file", "y"),
    ] {
        world.file(&format!("tree/{name}"), content);
    }
    world.dockerfile(DOCKERFILE);
    let script = "cd tree && chmod 0755 . gone sub sub/dir && chmod 0644 plain *.txt gone/file && chmod 0600 sub/dir/file && chmod 0755 script && ln -s plain link && find . -type f -exec touch -d '2011-02-03 04:05:06.25 UTC' {} + && touch -d '2001-02-03 04:05:06 UTC' plain a.txt sub/dir/file && cd .. && tar --owner=5 --group=6 --numeric-owner -cf archive.tar -C tree plain script sub && chmod 0644 archive.tar";
    run(Command::new("sh")
        .args(["-c", script])
        .current_dir(world.path("context")))
    .expect("the context");
    world
}

/// Builds with Buildah, in a store of its own without any mount, and pushes.
fn buildah(world: &World, name: &str) {
    let image = world.expand(&format!("@REGISTRY@/{name}:latest"));
    let policy = world.path("policy.json");
    std::fs::write(
        &policy,
        r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
    )
    .expect("a policy");
    let command = || {
        let mut command = tool("buildah");
        command
            .args(["--storage-driver", "vfs", "--root"])
            .arg(world.path("buildah/root"))
            .arg("--runroot")
            .arg(world.path("buildah/run"));
        command
    };
    run(command()
        .args([
            "build",
            "--isolation=chroot",
            "--format=oci",
            "--tls-verify=false",
        ])
        .args(["--quiet", "--tag", &image, "--signature-policy"])
        .arg(&policy)
        .arg(world.path("context")))
    .expect("Buildah builds");
    run(command()
        .args(["push", "--tls-verify=false", "--signature-policy"])
        .arg(&policy)
        .arg(&image))
    .expect("Buildah pushes");
}

/// The listing of a tree, with which files are hard links of one another, and when copied files were changed.
fn files(root: &Path) -> Vec<String> {
    let mut lines = listing(root);
    for script in [
        r#"cd "$1" && find . -type f -links +1 -printf '%i %p\n' | sort | awk '{ if ($1 == last) names = names " = " $2; else { if (names) print names; names = $2 } last = $1 } END { if (names) print names }'"#,
        r#"cd "$1" && find copied owned moded globbed added -type f -printf 'changed %Ts %p\n'"#,
    ] {
        let text = run(Command::new("sh").args(["-c", script, "sh"]).arg(root)).expect("a listing");
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

fn missing(of: &[String], from: &[String]) -> Vec<String> {
    of.iter()
        .filter(|line| !from.contains(line))
        .cloned()
        .collect()
}

/// The configuration of an image, without what may differ.
fn config(world: &World, name: &str) -> Value {
    let text = run(tool("skopeo")
        .args(["inspect", "--config", "--tls-verify=false"])
        .arg(format!("docker://{}/{name}:latest", world.registry.host())))
    .expect("skopeo reads the configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    for (pointer, _) in DIFFERENCES {
        let (parent, field) = pointer.rsplit_once('/').expect("a JSON pointer");
        if let Some(object) = config.pointer_mut(parent).and_then(Value::as_object_mut) {
            object.remove(field);
        }
    }
    config
}

/// The ordinary user's build of the context into an archive.
fn ordinary(world: &World) -> Command {
    world.build_command(&outputs(world).each_ref().map(String::as_str))
}

/// The flags that write the image and its digest.
fn outputs(world: &World) -> [String; 4] {
    [
        "--output".to_owned(),
        format!("type=oci,dest={}", world.path("image.tar").display()),
        "--metadata-file".to_owned(),
        world.path("metadata.json").display().to_string(),
    ]
}

/// Runs a build as of a fixed time, and returns the digest of the manifest.
fn reproducible(build: &mut Command, world: &World) -> String {
    let metadata = world.path("metadata.json");
    let _ = std::fs::remove_file(&metadata);
    let _ = std::fs::remove_file(world.path("image.tar"));
    let built = ran(build.env("SOURCE_DATE_EPOCH", "1000000000"));
    assert_eq!(built.code, Some(0), "{}", built.err);
    let json: Value =
        serde_json::from_slice(&std::fs::read(&metadata).expect("the metadata")).expect("JSON");
    json["containerimage.digest"]
        .as_str()
        .expect("a digest")
        .to_owned()
}
