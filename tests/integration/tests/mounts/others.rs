//! The flags beside `--mount`: limits, hosts, sizes, networks.

use stepwell_integration_tests::World;
use stepwell_integration_tests::way::each_way;

#[test]
fn limits_hosts_sizes_and_networks_reach_the_step() {
    let world = World::new();
    world.dockerfile(
        "FROM @BUSYBOX@\nRUN ulimit -n; ulimit -Hn; grep -c db.example /etc/hosts; stat -f -c '%b %S' /dev/shm; ls /sys/class/net\nRUN --network=none ls /sys/class/net; ! wget -q -T 2 -O - http://@REGISTRY@/v2/\nRUN --network=host --security=sandbox wget -q -O - http://@REGISTRY@/v2/ && echo reached\n",
    );
    each_way(|way| {
        let ran = way.built(
            &world,
            &[
                "--ulimit",
                "nofile=99:100",
                "--add-host",
                "db.example:10.1.2.3",
                "--shm-size",
                "1m",
            ],
        );
        let lines = ran.printed();
        assert_eq!(
            lines[..4],
            ["99", "100", "1", "256 4096"].map(str::to_owned),
            "{way:?}:\n{}",
            ran.err
        );
        assert!(
            lines.iter().any(|l| l.ends_with("reached")),
            "{way:?}:\n{}",
            ran.err
        );
        let ran = way.built(&world, &["--network=none", "--no-cache"]);
        assert!(
            ran.printed()
                .iter()
                .filter(|l| l.ends_with("reached"))
                .count()
                == 1,
            "the file's own word counts more"
        );
    });
}
