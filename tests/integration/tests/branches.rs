//! Branches of one state that are carried out at the same time: each step has a root of its own, whichever way it was made (`cargo xtask
//! file-systems` runs this on xfs and btrfs, where roots share their contents), and none sees what another does.

use stepwell_integration_tests::World;
use stepwell_integration_tests::way::{Way, each_tier};
use stepwell_test_support::cmd::run;

/// Each branch writes over the same files, of many lengths and kinds, for as long as others may be getting their roots.
const DOCKERFILE: &str = r"
FROM @BUSYBOX@ AS base
RUN mkdir /d && for i in $(seq 40); do head -c $((i * 3999)) /bin/busybox > /d/$i; done && \
    ln /d/1 /d/one && chown 3:4 /d/3 && mkfifo /d/pipe && ln -s 1 /d/link && truncate -s 3M /d/hole && chmod 4755 /d/hole
FROM base AS a
COPY change /change
RUN sh /change a
FROM base AS b
COPY change /change
RUN sh /change b
FROM base AS c
COPY change /change
RUN sh /change c
FROM scratch
COPY --from=base /d /base
COPY --from=a /d /a
COPY --from=b /d /b
COPY --from=c /d /c
";

const CHANGE: &str = r"
for round in 1 2; do
	for i in $(seq $((($(printf %d \'$1) - 97) * 10 + 1)) 40); do echo $1$round | dd of=/d/$i conv=notrunc 2>/dev/null; done
done
rm /d/30 && mv /d/31 /d/30
cat /d/[0-9]* /d/one | sha256sum > /d/sum
";

/// The archive of a build, by its digest.
fn digest(way: Way, jobs: &str) -> String {
    let world = World::new();
    world.file("change", CHANGE).dockerfile(DOCKERFILE);
    let out = world.path(&format!("{}.tar", way.store()));
    let output = format!("type=oci,dest={}", out.display());
    let mut build = way.command(&world, &["--jobs", jobs, "--output", &output]);
    let built = stepwell_integration_tests::ran(build.env("SOURCE_DATE_EPOCH", "1700000000"));
    assert_eq!(built.code, Some(0), "{way:?}:\n{}", built.err);
    let sum = run(std::process::Command::new("sha256sum").arg(&out)).expect("sha256sum");
    sum.split_whitespace().next().expect("a digest").to_owned()
}

#[test]
fn branches_at_once_are_what_they_are_one_after_the_other() {
    let first = digest(Way::USERNS, "1");
    each_tier(|way| assert_eq!(digest(way, "4"), first, "{way:?}"));
}
