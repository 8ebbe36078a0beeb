//! RUN steps where nothing is allowed: an ordinary user without capabilities, namespaces and chroot, under the filter of
//! container runtimes.  No other tier can be had there, so what works here works by mediation.
//!
//! The denial is first shown to deny, so that no test passes for want of one.

use std::process::Command;

use stepwell_integration_tests::{World, denial, ran, under};
use stepwell_test_support::bundle;
use stepwell_test_support::cmd::tool;

/// Two stages on Debian, packages in both, other ids, and what a package's scripts do.
const DEBIAN: &str = "\
FROM @DEBIAN@ AS build
RUN apt-get update && apt-get install -y --no-install-recommends hello openssh-client
RUN hello > /greeting && id -u >> /greeting && ls /proc/self/fd > /dev/null && bash -c 'cat <(echo substituted)' >> /greeting
FROM @DEBIAN@
RUN useradd --create-home --uid 1000 app && install -d -o app -g app /data
COPY --from=build --chown=app:app /greeting /data/
USER app
RUN id -un > /data/who
WORKDIR /data
CMD [\"sh\", \"-c\", \"cat greeting who; stat -c %U:%G greeting\"]
";

/// Modes, owners, links and times of all kinds, and nothing that differs between two runs.
const REPRODUCIBLE: &str = "\
FROM @DEBIAN@
RUN groupadd -g 77 team && useradd -m -u 1000 -G team app && rm -rf /var/log/* /var/cache/*
RUN umask 027 && mkdir -p /data/a/b && cd /data && echo one > a/1 && ln a/1 a/2 && ln -s a/1 link && mkfifo pipe
RUN chown -R app:team /data/a && chmod 0 /data/a/1 && chmod 2750 /data/a && chmod 4755 /data/link
RUN cp -a /data /copy && mv /copy/a /moved && rm /copy/pipe && tar -cf - -C / data | tar -xpf - -C /mnt
RUN mkdir -p /closed/sub && echo x > /closed/sub/f && echo s > /closed/none && chmod 0 /closed/none && chmod 0555 /closed/sub /closed
RUN cat /closed/none >> /closed/sub/f && touch /closed/new && rm /closed/sub/f
USER app
RUN cd ~ && echo $PWD $HOME $(id -u) > own && umask && perl -e 'mkdir q(p), 0751; utime 5, 6, q(own)'
";

#[test]
fn debian_builds_where_nothing_is_allowed() {
    let world = World::with_debian();
    let denial = denial::restricted(&world);
    world.dockerfile(DEBIAN);
    let build = world.build_command(&["--push", "--tag", "@REGISTRY@/mediated:latest"]);
    let built = ran(&mut under(&denial, &build));
    assert_eq!(built.code, Some(0), "{}", built.err);
    let output = bundle::run_output(&world.fetched("mediated")).expect("crun runs it");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Hello, world!\n0\nsubstituted\napp\napp:app\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_image_is_the_one_of_the_other_tiers() {
    let world = World::with_debian();
    let denial = denial::restricted(&world);
    world.dockerfile(REPRODUCIBLE);
    let digest = |store: &str, isolation: &str, denial: Option<&Command>| {
        let metadata = world.path(&format!("metadata-{store}.json"));
        let mut build = world.build_command_in(
            store,
            &[
                "--isolation",
                isolation,
                "--push",
                "--tag",
                "@REGISTRY@/same:latest",
                "--metadata-file",
                metadata.to_str().expect("a path"),
            ],
        );
        build.env("SOURCE_DATE_EPOCH", "1700000000");
        let mut build =
            denial.map_or_else(|| under(&Command::new("env"), &build), |d| under(d, &build));
        let built = ran(&mut build);
        assert_eq!(built.code, Some(0), "{store}:\n{}", built.err);
        let text = std::fs::read(&metadata).expect("the metadata");
        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        json["containerimage.digest"]
            .as_str()
            .expect("a digest")
            .to_owned()
    };
    let wanted = digest("store-userns", "userns", None);
    assert_eq!(digest("store-mediated", "mediated", None), wanted);
    assert_eq!(digest("store-restricted", "auto", Some(&denial)), wanted);
}

/// A refusal says what was tried, and what would allow it.
#[test]
fn where_tracing_is_denied_too_the_build_says_what_is_missing() {
    let world = World::new();
    world.dockerfile("FROM @BUSYBOX@\nRUN true\n");
    let mut strace = tool("strace");
    strace.args([
        "-f",
        "-qq",
        "-e",
        "trace=none",
        "-e",
        "signal=none",
        "-o",
        "/dev/null",
        "--",
    ]);
    let output = format!("type=oci,dest={}", world.path("image.tar").display());
    // Whoever is traced already can be traced by nobody else; strace itself denies the namespaces here.
    let build = world.build_command(&["--isolation", "mediated", "-o", &output]);
    let built = ran(&mut under(&strace, &build));
    assert_ne!(built.code, Some(0), "{}", built.err);
    assert!(
        built.err.contains("tier `mediated`: ptrace") && built.err.contains("allow `ptrace`"),
        "{}",
        built.err
    );
}
