//! What is planted for those who come after: by a step, links for later steps, COPY, WORKDIR, USER, mounts and archives; by an image,
//! device nodes.

use std::process::Command;

use stepwell_escape_tests::outside::Outside;
use stepwell_integration_tests::World;
use stepwell_integration_tests::way::{Way, each_tier};
use stepwell_test_support::cmd::run;

/// What can be looked up through a link, each followed by what looks.  `@OUT@` is a directory of the machine's.
const PLANTED: &str = "\
FROM @BUSYBOX@ AS planted
RUN mkdir -p /plain /srv && ln -s @OUT@ /link && ln -s ../../../../../../..@OUT@ /srv/dots && ln -s @OUT@/mode /plain/file && ln -s @OUT@/new /plain/new
RUN rm -rf /etc /home && ln -s @OUT@ /etc && ln -s @OUT@ /home && rm -rf /tmp && ln -s @OUT@ /tmp
RUN echo a later step; cat /etc/secret /link/secret /srv/dots/secret; true
WORKDIR /link/by-workdir
WORKDIR /srv/dots/by-workdir
RUN echo x > ../by-run; mkdir by-run; pwd
COPY f /link/by-copy
COPY f /plain/new
COPY f /srv/dots/by-slash/
COPY --chown=5:6 --chmod=4755 f /plain/file
ADD hostile.tar /unpacked
RUN --mount=type=cache,target=/link/cache --mount=type=tmpfs,target=/srv/dots/tmpfs --mount=type=secret,id=key,target=/home/by-secret --mount=target=/tmp/by-bind \\
    echo x > /link/cache/by-cache; cat /home/by-secret; ls /tmp/by-bind
USER 1000
RUN <<end
echo a file given inline
end
";

/// A user name is looked up in the step's own file, and not in the one that `/etc` leads to: that one has the name.
const BY_NAME: &str = "FROM planted\nUSER outsider\nRUN true\n";
/// What is copied from a stage does not come from behind its links.
const BY_COPY: &str = "FROM @BUSYBOX@\nCOPY --from=planted /link/secret /stolen\n";
/// A program is not found there either.
const BY_PROGRAM: &str = "FROM planted\nRUN [\"/link/program\"]\n";
const BY_SHEBANG: &str = "FROM planted\nUSER 0\nRUN printf '#!@OUT@/program\\n' > /plain/script; chmod 755 /plain/script\nRUN [\"/plain/script\"]\n";

#[test]
fn planted_links_mislead_nobody() {
    each_tier(|way| {
        let world = World::new();
        let mut outside = Outside::new(&world, way);
        let out = world.path("outside").display().to_string();
        archive(&world, &out);
        world.file("f", "from the context\n");
        std::fs::write(world.path("key"), "a secret of the build\n").expect("a file");
        let secret = format!("id=key,src={}", world.path("key").display());
        let image = world.path("image.tar");
        let output = format!("type=tar,dest={}", image.display());
        let mut build = |more: &str| {
            world.dockerfile(&(PLANTED.to_owned() + more).replace("@OUT@", &out));
            let built = way.build(&world, &["--secret", &secret, "--output", &output]);
            outside.is_untouched(&world);
            built
        };
        let built = build("");
        assert_eq!(built.code, Some(0), "{way:?}:\n{}", built.err);
        assert!(!built.err.contains("machine's secret"), "{}", built.err);
        holds_no_secret(&image);
        for (more, code) in [
            (BY_NAME, 65..=125),
            (BY_COPY, 65..=71),
            (BY_PROGRAM, 126..=127),
            (BY_SHEBANG, 126..=127),
        ] {
            let built = build(more);
            let ended = built.code.expect("no signal");
            assert!(
                code.contains(&ended),
                "{way:?} {more} {ended}:\n{}",
                built.err
            );
        }
    });
}

/// A device that any machine has, and whose content is known; were this one open, a disk would be, too.
const DEVICES: &str = "\
FROM @BUSYBOX@
RUN mknod -m 666 /zero c 1 5 && mkdir /dir && mknod -m 666 /dir/zero c 1 5
";
const OPENED: &str =
    "FROM planted\nRUN cp /dir/zero /copy; cat /zero /dir/zero /copy | head -c 64 | wc -c\n";

#[test]
fn device_nodes_of_an_image_are_none() {
    let world = World::new();
    world.dockerfile(DEVICES);
    let planted = world.path("planted");
    let output = format!("type=oci,tar=false,dest={}", planted.display());
    Way::USERNS.built(&world, &["--output", &output]);
    let context = format!("planted=oci-layout://{}", planted.display());
    world.dockerfile(OPENED);
    each_tier(|way| {
        let built = way.built(&world, &["--build-context", &context]);
        assert!(
            built.err.lines().any(|line| line.ends_with(" 0")),
            "{way:?}: {}",
            built.err
        );
    });
}

/// An archive that names places outside of where it is unpacked, and goes through its own links.
fn archive(world: &World, out: &str) {
    let dir = world.path("archive");
    let script = r#"mkdir -p "$1" && cd "$1" && mkdir d && ln -s "$2" link && ln -s "$2" proc && ln -s "$2" d/l && echo x > x &&
        tar -cf "$3" link proc d && tar -rPf "$3" --transform 's,^x$,link/by-archive,' x && tar -rPf "$3" --transform "s,^x\$,$2/by-archive," x"#;
    run(Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&dir)
        .arg(out)
        .arg(world.path("context/hostile.tar")))
    .expect("an archive");
}

#[track_caller]
fn holds_no_secret(image: &std::path::Path) {
    let bytes = std::fs::read(image).expect("the image");
    let secret = b"machine's secret";
    assert!(
        !bytes.windows(secret.len()).any(|w| w == secret),
        "what is outside is in the image"
    );
}
