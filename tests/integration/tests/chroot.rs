//! chroot(2) in RUN steps, which an ordinary user with subordinate ids has: package managers that install into another root
//! (`dpkg --root`, `rpm --root`, debootstrap) need it.  That it does not lead out is the affair of `tests/escape`.

use stepwell_integration_tests::World;
use stepwell_integration_tests::way::Way;

/// A package with a script that dpkg runs in the root that it installs into.
const DOCKERFILE: &str = r#"
FROM @DEBIAN@ AS made
COPY --from=@BUSYBOX@ / /inner/
COPY thing /thing
RUN chmod 755 /thing/DEBIAN/postinst && dpkg-deb --build /thing /thing.deb && cd /inner && mkdir -p var/lib/dpkg/updates var/lib/dpkg/info && touch var/lib/dpkg/status && \
    dpkg --root=/inner --install /thing.deb && \
    chroot /inner /bin/busybox cat /configured && \
    chroot --userspec=1000:1000 /inner /bin/busybox id -u
RUN --mount=type=bind,target=/inner/m cd /inner/m && \
    chroot /inner /bin/sh -c 'cat /m/file; echo x > /m/new; cd /m; rm file' 2>&1; true
FROM scratch
COPY --from=made /inner/configured /
"#;

#[test]
fn package_managers_install_into_another_root() {
    let way = Way::IDS;
    if let Some(why) = way.missing() {
        stepwell_test_support::not_run(why);
        return;
    }
    let world = World::with_debian();
    world
        .file(
            "thing/DEBIAN/control",
            "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: me <me@example.org>\nDescription: thing\n",
        )
        .file(
            "thing/DEBIAN/postinst",
            "#!/bin/sh\ntest -e /var/lib/dpkg/status && echo \"$1 in its root\" > /configured\n",
        )
        .file("file", "of the context\n")
        .dockerfile(DOCKERFILE);
    let built = way.built(&world, &[]);
    let said = built.printed();
    for line in [
        "configure in its root",
        "1000",
        "of the context",
        "/bin/sh: can't create /m/new: Read-only file system",
        "rm: can't remove 'file': Read-only file system",
    ] {
        assert!(said.iter().any(|l| l == line), "`{line}`:\n{}", built.err);
    }
    let layers = way.layers(&world, &[]);
    assert!(
        layers.concat().iter().any(|e| e == "configured"),
        "{layers:?}"
    );
}
