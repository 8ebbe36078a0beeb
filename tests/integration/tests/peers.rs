//! The same Dockerfile, built by Stepwell as an ordinary user and by Buildah, gives images that others see as equal.
//!
//! What differs on purpose is in [`ONLY_BUILDAHS`] and [`DIFFERENCES`], with its reason; anything else that differs is a
//! fault.  Times are compared to the second: Buildah rounds them, Stepwell keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};
use stepwell_integration_tests::archive::{self, Entry};
use stepwell_integration_tests::{World, listing, ran};
use stepwell_test_support::cmd::{run, tool};
use stepwell_test_support::{base, bundle, is_root, program, user};

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
    if !buildah_can_build() {
        return;
    }
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
        stepwell_test_support::not_run("comparing real with emulated ids needs root");
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

/// Files that only archives show as they are: a base brings them, steps make, move and change them.
const SPECIAL: &str = r#"FROM @REGISTRY@/special:1 AS stage
COPY --chmod=0755 special /tool/special
RUN /tool/special xattr /special/user user.second 776f && /tool/special time /special/user 1234567890 987654321
FROM @REGISTRY@/special:1
COPY --chmod=0755 special /tool/special
RUN mkdir /made && touch /made/cap /made/user /made/timed
RUN mv /special/cap /special/moved && mv /special/null /special/moved-null && mv /special/pipe /special/moved-pipe
RUN echo more >> /special/user && echo more >> /special/setuid && chmod 2711 /special/other
RUN chown 5:6 /special/given /special/given-cap
RUN ln /special/linked /special/twin && cp -p /special/kept /made/copied && chown 5:6 /made/copied && chmod 6711 /made/copied
RUN /tool/special xattr /made/cap security.capability 0100000200200000000000000000000000000000
RUN /tool/special xattr /made/user user.binary 00ff0a3d00 && chown 7:8 /made/user
RUN /tool/special time /made/timed 1000000000 123456789 && /tool/special time /made 1000000001 5
RUN mkfifo -m 0640 /made/pipe && /tool/special socket /made/socket && mkdir -m 3777 /made/sticky
COPY --from=stage /special /copied
COPY --from=stage --chown=9:9 /special/user /special/cap /special/setuid /owned/
HEALTHCHECK --interval=5s --timeout=1m --start-period=2s --retries=4 CMD test -e /made || exit 1
SHELL ["/bin/sh", "-e", "-c"]
ONBUILD RUN echo built on
ONBUILD COPY . /app
STOPSIGNAL 15
VOLUME ["/data", "/with space"]
VOLUME /third
EXPOSE 80 53/udp 1000-1002/tcp
LABEL plain=1 "with space"="a \"quoted\" value" empty= dollar='$HOME'
LABEL plain=2
ENTRYPOINT exec true
CMD ["a", "b c"]
"#;

/// The base of [`SPECIAL`]: busybox, and a layer of files that have something special.
fn special_base(world: &World) {
    let entry = |path: &str, kind, mode| Entry {
        path: format!("special/{path}"),
        kind,
        mode,
        mtime: "1300000000".into(),
        content: if kind == '0' {
            b"content\n".to_vec()
        } else {
            Vec::new()
        },
        ..Entry::default()
    };
    let with = |mut entry: Entry, name: &str, hex: &str| {
        entry.xattrs.insert(name.into(), hex.into());
        entry
    };
    // cap_net_raw+ep, as capabilities(7) describes version 2.
    let capability = "0100000200200000000000000000000000000000";
    let entries = [
        entry("", '5', 0o755),
        with(entry("cap", '0', 0o755), "security.capability", capability),
        with(
            entry("given-cap", '0', 0o755),
            "security.capability",
            capability,
        ),
        with(entry("user", '0', 0o644), "user.note", "68656c6c6f"),
        entry("setuid", '0', 0o4755),
        entry("kept", '0', 0o4755),
        entry("given", '0', 0o6755),
        Entry {
            owner: (0, 8),
            ..entry("other", '0', 0o2755)
        },
        Entry {
            mtime: "1300000000.123456789".into(),
            ..entry("linked", '0', 0o600)
        },
        Entry {
            device: (1, 3),
            ..entry("null", '3', 0o666)
        },
        Entry {
            device: (7, 200),
            owner: (0, 6),
            ..entry("loop", '4', 0o660)
        },
        entry("pipe", '6', 0o622),
        entry("sticky", '5', 0o1777),
        Entry {
            owner: (3, 4),
            ..entry("setgid", '5', 0o2775)
        },
    ];
    let archive = world.path("special.tar");
    std::fs::write(&archive, archive::write(&entries)).expect("the layer");
    let layout = world.path("special-layout");
    run(Command::new("cp")
        .arg("-r")
        .arg(base::busybox().expect("the busybox base"))
        .arg(&layout))
    .expect("a copy");
    run(tool("umoci")
        .args([
            "raw",
            "add-layer",
            "--image",
            &format!("{}:latest", layout.display()),
        ])
        .arg(&archive))
    .expect("a base");
    base::push(&layout, &world.registry.host(), "special:1").expect("the base in the registry");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/helpers/special.c");
    run(tool("gcc")
        .args([
            "-static", "-O1", "-Wall", "-Wextra", "-Werror", source, "-o",
        ])
        .arg(world.path("context/special")))
    .expect("gcc compiles the helper");
}

/// Entries of the layers that differ, and why that is right.
const SPECIAL_DIFFERENCES: &[(&str, &str)] = &[
    ("etc", MOUNT_POINT),
    ("etc/hostname", MOUNT_POINT),
    ("etc/hosts", MOUNT_POINT),
    ("etc/resolv.conf", MOUNT_POINT),
    ("run", MOUNT_POINT),
    (
        "special/setuid",
        "in a user namespace the kernel takes the set-user-id bit from a file that is written to, whatever capabilities the writer has; Buildah runs as the machine's root here",
    ),
    (
        "special/twin",
        "Buildah's storage without mounts (vfs) copies a layer's tree and loses that two names are one file",
    ),
];

/// Fields of the configuration that differ, and why that is right.
const CONFIG_DIFFERENCES: &[(&str, &str)] = &[
    (
        "Entrypoint",
        "Buildah takes no notice of SHELL in the shell form of ENTRYPOINT; docker does",
    ),
    (
        "ExposedPorts",
        "Buildah keeps a range of ports as it is written; docker writes each port, and the OCI specification knows no ranges",
    ),
    ("Labels", "Buildah adds a label of its own"),
];

/// Times from here on are those of the build itself.
const NOW: f64 = 1_700_000_000.0;

#[test]
fn special_files_and_the_whole_configuration_equal_buildahs() {
    if !buildah_can_build() {
        return;
    }
    let world = World::new();
    special_base(&world);
    world.dockerfile(SPECIAL);
    world.pushed("ours", &[]);
    buildah_as(&world, "theirs", "docker");
    let [ours, theirs] = ["ours", "theirs"].map(|name| {
        world.fetched(name);
        archive::merged(&world.path(&format!("layout-{name}")))
    });
    are_as_written(&ours);
    if is_root() {
        differ_as_expected(&ours, &theirs);
    } else {
        stepwell_test_support::not_run(
            "without root Buildah makes no device nodes, nor owners to compare with",
        );
    }
    let [ours, theirs] = ["ours", "theirs"].map(|name| special_config(&world, name));
    assert_eq!(ours, expected_config());
    let fields: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let different: Vec<_> = fields
        .into_iter()
        .filter(|f| ours.get(*f) != theirs.get(*f))
        .collect();
    let expected: Vec<_> = CONFIG_DIFFERENCES.iter().map(|(field, _)| *field).collect();
    assert_eq!(different, expected, "{ours:#?}\n{theirs:#?}");
}

/// Asserts that the layers differ where [`SPECIAL_DIFFERENCES`] says, and nowhere else.
#[track_caller]
fn differ_as_expected(ours: &BTreeMap<String, Entry>, theirs: &BTreeMap<String, Entry>) {
    let paths: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differ = |path: &&String| match (ours.get(*path), theirs.get(*path)) {
        (Some(a), Some(b)) => !are_alike(a, b),
        _ => true,
    };
    let different: Vec<_> = paths.into_iter().filter(differ).collect();
    let expected: Vec<_> = SPECIAL_DIFFERENCES.iter().map(|(path, _)| *path).collect();
    let shown = |path: &String| format!("{path}\n  {:?}\n  {:?}", ours.get(path), theirs.get(path));
    let all: Vec<_> = different.iter().map(|p| shown(p)).collect();
    assert_eq!(different, expected, "{}", all.join("\n"));
}

/// Says whether two entries are the same but for Buildah's rounding of times and the time of the build.
fn are_alike(a: &Entry, b: &Entry) -> bool {
    let time = |entry: &Entry| entry.mtime.parse::<f64>().expect("a time");
    let (at, bt) = (time(a), time(b));
    let alike = (at - bt).abs() <= 1.0 || (at > NOW && bt > NOW);
    let timeless = |entry: &Entry| Entry {
        mtime: String::new(),
        ..entry.clone()
    };
    alike && timeless(a) == timeless(b)
}

/// What the layers hold by the Dockerfile, whatever others make of it.
fn are_as_written(tree: &BTreeMap<String, Entry>) {
    let capability = Some("0100000200200000000000000000000000000000");
    let xattr = |path: &str, name: &str| tree[path].xattrs.get(name).map(String::as_str);
    for path in ["special/moved", "made/cap", "copied/cap"] {
        assert_eq!(xattr(path, "security.capability"), capability, "{path}");
    }
    // A new owner takes privileges away, as chown(2) says.
    assert_eq!(tree["special/given-cap"].xattrs.len(), 0);
    assert_eq!(
        (tree["special/given"].mode, tree["special/given"].owner),
        (0o755, (5, 6))
    );
    for path in ["special/user", "copied/user", "owned/user"] {
        assert_eq!(xattr(path, "user.note"), Some("68656c6c6f"), "{path}");
    }
    assert_eq!(xattr("made/user", "user.binary"), Some("00ff0a3d00"));
    for (path, time) in [
        ("copied/user", "1234567890.987654321"),
        ("made/timed", "1000000000.123456789"),
        ("copied/linked", "1300000000.123456789"),
    ] {
        assert_eq!(tree[path].mtime, time, "{path}");
    }
    for (path, kind, device) in [
        ("special/moved-null", '3', (1, 3)),
        ("special/loop", '4', (7, 200)),
        ("special/moved-pipe", '6', (0, 0)),
        ("made/pipe", '6', (0, 0)),
        ("copied/null", '3', (1, 3)),
    ] {
        assert_eq!(
            (tree[path].kind, tree[path].device),
            (kind, device),
            "{path}"
        );
    }
    for (path, mode) in [
        ("special/sticky", 0o1777),
        ("special/setgid", 0o2775),
        ("special/other", 0o2711),
        ("made/sticky", 0o3777),
        ("made/copied", 0o6711),
        ("copied/setuid", 0o4755),
    ] {
        assert_eq!(tree[path].mode, mode, "{path}");
    }
    assert_eq!(tree["special/twin"].kind, '1');
    assert!(
        !tree.contains_key("made/socket"),
        "an archive holds no sockets"
    );
}

fn expected_config() -> Map<String, Value> {
    let config = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": ["/bin/sh", "-e", "-c", "exec true"],
        "Cmd": ["a", "b c"],
        "Shell": ["/bin/sh", "-e", "-c"],
        "StopSignal": "15",
        "Healthcheck": {
            "Test": ["CMD-SHELL", "test -e /made || exit 1"],
            "Interval": 5_000_000_000_u64,
            "Timeout": 60_000_000_000_u64,
            "StartPeriod": 2_000_000_000,
            "Retries": 4,
        },
        "OnBuild": ["RUN echo built on", "COPY . /app"],
        "Volumes": {"/data": {}, "/with space": {}, "/third": {}},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "1000/tcp": {}, "1001/tcp": {}, "1002/tcp": {}},
        "Labels": {"plain": "2", "with space": "a \"quoted\" value", "empty": "", "dollar": "$HOME"},
    });
    config.as_object().expect("an object").clone()
}

/// What an image runs with, less what is empty: docker's format writes every field.
fn special_config(world: &World, name: &str) -> Map<String, Value> {
    let text = run(tool("skopeo")
        .args(["inspect", "--config", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{}/{name}:latest", world.registry.host())))
    .expect("skopeo reads the configuration");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    let mut config = config["config"].as_object().expect("an object").clone();
    config.retain(|_, value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    });
    // A container's name of the past; docker drops it too.
    config.remove("Hostname");
    config
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

/// Buildah keeps owners by subordinate ids alone; where a machine gives none, there is nothing to compare with.
fn buildah_can_build() -> bool {
    let can = is_root() || user::has_subordinate_ids();
    if !can {
        stepwell_test_support::not_run(
            "Buildah needs root, or newuidmap with its capabilities and ids in /etc/subuid",
        );
    }
    can
}

/// Builds with Buildah, in a store of its own without any mount, and pushes.
fn buildah(world: &World, name: &str) {
    buildah_as(world, name, "oci");
}

/// The same with a format: `oci` has no place for some instructions.
fn buildah_as(world: &World, name: &str, format: &str) {
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
            "--format",
            format,
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
