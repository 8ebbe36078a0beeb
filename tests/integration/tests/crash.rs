//! Builds that end before their time, that find no space, and that come all at once: what is kept is whole, nobody stays
//! behind, and the next build gives the digest that it would have given anyway.

use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use stepwell_integration_tests::children::{finished, nobody_stays, signal, started, within};
use stepwell_integration_tests::{Ran, World, ran};

/// Times of new files are these, so that digests can be compared.
const EPOCH: &str = "1700000000";

/// Three steps that write a good deal of small and some large files.
const DOCKERFILE: &str = "FROM @BUSYBOX@\nRUN mkdir /many && for n in $(seq 200); do echo $n > /many/$n; done\nCOPY data /data\nRUN dd if=/dev/zero of=/zeroes bs=1000 count=3000 && chmod 4755 /many/1 && rm /many/2\nRUN mv /many /moved && cat /data > /copy\n";

fn epoch(mut command: Command) -> Command {
    command.env("SOURCE_DATE_EPOCH", EPOCH);
    command
}

/// A build into `store` that writes an OCI archive and its metadata under `name`.
fn archive(world: &World, store: &str, name: &str, args: &[&str]) -> Command {
    let metadata = world.path(&format!("{name}.json"));
    let output = format!(
        "type=oci,dest={}",
        world.path(&format!("{name}.tar")).display()
    );
    let mut all = vec![
        "--output",
        &output,
        "--metadata-file",
        metadata.to_str().expect("a path"),
    ];
    all.extend(args);
    epoch(world.build_command_in(store, &all))
}

/// The digest that a build wrote into its metadata.
fn digest(world: &World, name: &str) -> String {
    let text = std::fs::read_to_string(world.path(&format!("{name}.json"))).expect("the metadata");
    let digest = text
        .split('"')
        .skip_while(|w| *w != "containerimage.digest")
        .nth(2);
    digest.expect("a digest").to_owned()
}

/// Builds, which has to succeed, and returns the digest.
#[track_caller]
fn built(world: &World, store: &str, args: &[&str]) -> String {
    let ran = ran(&mut archive(world, store, "image", args));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    digest(world, "image")
}

#[test]
fn ten_builds_at_once_share_a_store() {
    let world = World::new();
    world.file("data", "data\n").dockerfile(DOCKERFILE);
    // Five are the same, five have a last step of their own.
    for n in 0..10 {
        let last = if n < 5 {
            String::new()
        } else {
            format!("RUN echo {n} > /n\n")
        };
        world.file(&format!("Dockerfile.{n}"), world.expand(DOCKERFILE) + &last);
    }
    let file = |n: usize| {
        world
            .path(&format!("context/Dockerfile.{n}"))
            .display()
            .to_string()
    };
    let all = |store: fn(usize) -> String| -> Vec<Command> {
        (0..10)
            .map(|n| {
                archive(
                    &world,
                    &store(n),
                    &format!("image-{n}"),
                    &["--file", &file(n)],
                )
            })
            .collect()
    };
    let at_once: Vec<Child> = all(|_| "store".to_owned())
        .into_iter()
        .map(started)
        .collect();
    for (n, child) in at_once.into_iter().enumerate() {
        let ran = finished(child);
        assert_eq!(ran.code, Some(0), "build {n}:\n{}", ran.err);
    }
    let shared: Vec<String> = (0..10)
        .map(|n| digest(&world, &format!("image-{n}")))
        .collect();
    assert!(shared[..5].iter().all(|d| *d == shared[0]), "{shared:?}");
    // Alone, in a store of its own, each gives the same.
    for n in [0, 5, 6, 7, 8, 9] {
        let store = format!("store-{n}");
        assert_eq!(
            built(&world, &store, &["--file", &file(n)]),
            shared[n],
            "build {n}"
        );
    }
    nobody_stays(&world, "store");
}

/// SplitMix64: instants that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[test]
fn a_build_that_is_killed_leaves_nothing_wrong_behind() {
    let world = World::new();
    world.file("data", "data\n").dockerfile(DOCKERFILE);
    let timed = |store: &str, args: &[&str]| {
        let start = Instant::now();
        let digest = built(&world, store, args);
        (digest, start.elapsed())
    };
    let (expected, mut whole) = timed("store-first", &[]);
    let mut random = Random(0x57e9_3e11);
    let mut killed = 0;
    for round in 0..50 {
        // A new store now and then, so that pulling and unpacking the base are hit as well.
        let store = format!("store-{}", round / 5);
        let micros = u64::try_from(whole.as_micros()).expect("a short time");
        let after = Duration::from_micros(random.below(micros));
        let mut child = started(archive(&world, &store, "killed", &["--no-cache"]));
        sleep(after);
        killed += usize::from(child.try_wait().expect("its state").is_none());
        child.kill().expect("SIGKILL");
        drop(finished(child));
        nobody_stays(&world, &store);
        let again: &[&str] = if round % 2 == 0 { &[] } else { &["--no-cache"] };
        let (digest, took) = timed(&store, again);
        assert_eq!(digest, expected, "round {round}, killed after {after:?}");
        if !again.is_empty() {
            // Other work on the machine may have begun since, or ended.
            whole = whole.min(took);
        }
    }
    assert!(killed > 25, "only {killed} builds were still running");
}

/// Mounts a small file system for the store (in a mount namespace of the test's own), builds, makes it larger, builds again.
const FULL_DISK: &str = r#"
mount -t tmpfs -o "size=$SIZE,mode=0777" none "$STORE" || exit 99
"$@"; echo "first $?"
mount -t tmpfs -o "remount,size=1g" none "$STORE" || exit 99
"$@"; echo "second $?"
find "$STORE"/*/tmp -mindepth 1 | sed 's/^/left /'
"#;

fn with_small_store(size: &str, store: &Path, build: &Command) -> Ran {
    let mut command = Command::new("unshare");
    if !stepwell_test_support::is_root() {
        command.arg("--map-root-user");
    }
    command
        .args(["--mount", "sh", "-c", FULL_DISK, "sh"])
        .arg(build.get_program())
        .args(build.get_args())
        .env("SIZE", size)
        .env("STORE", store);
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    ran(&mut command)
}

#[test]
fn a_full_disk_is_named_and_does_no_harm() {
    let world = World::new();
    world.file("data", "data\n").dockerfile(DOCKERFILE);
    let expected = built(&world, "store-good", &[]);
    let store = world.path("store-small");
    std::fs::create_dir(&store).expect("the mount point");
    // Full while the base is pulled, while it is unpacked, and while a step writes.
    for size in ["200k", "600k", "2m", "4m"] {
        let build = archive(&world, "store-small", "small", &[]);
        let ran = with_small_store(size, &store, &build);
        assert!(
            ran.out.contains("second 0"),
            "{size}: {}{}",
            ran.out,
            ran.err
        );
        assert!(!ran.out.contains("left "), "{size}: {}", ran.out);
        // Ours, and that of a step's own program.
        let named = ran.err.contains("no space left on the store's file system")
            || ran.err.contains("No space left on device");
        assert!(named, "{size}: {}", ran.err);
        // Where a step's own program finds no space, its exit status is the build's.
        let own = ran.out.contains("first 71") || ran.out.contains("first 1\n");
        assert!(own, "{size}: {}{}", ran.out, ran.err);
        assert_eq!(digest(&world, "small"), expected, "{size}");
    }
}

#[test]
fn signals_end_a_build_within_a_second() {
    let world = World::new();
    world.dockerfile("FROM @BUSYBOX@\nRUN sleep 1000 & sleep 1001\n");
    for name in ["INT", "TERM", "HUP"] {
        let child = started(archive(&world, "store", "never", &[]));
        let sleeps = || {
            world.processes_of("store").iter().any(|p| {
                std::fs::read_to_string(format!("/proc/{p}/cmdline"))
                    .is_ok_and(|l| l.contains("1001") && l.contains("sleep") && !l.contains("sh\0"))
            })
        };
        assert!(
            within(Duration::from_secs(20), sleeps),
            "the step does not start"
        );
        interrupted(&world, child, name);
        assert!(!world.path("never.tar").exists(), "a half-written output");
    }
    world.dockerfile("FROM @BUSYBOX@\nRUN echo goes on\n");
    world.built(&[]);
}

/// An image of one layer with a file of 32 GiB of zeros, in a few MB: reading it takes far longer than anybody waits here.
/// Nobody gets to the point where its diff id is found to be wrong.
const HUGE: &str = r#"
mkdir -p blobs/sha256 && truncate -s 32G zeros && truncate -s 64M part && gzip -9 < part > part.gz
tar -cf - zeros 2> /dev/null | head -c 512 | gzip > layer
for n in $(seq 512); do cat part.gz >> layer; done
keep() { d=$(sha256sum < "$1" | cut -c 1-64) && s=$(stat -c %s "$1") && mv "$1" "blobs/sha256/$d"; }
describe() { printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s%s}' "$1" "$d" "$s" "${2-}"; }
keep layer && l=$(describe layer.v1.tar+gzip)
printf '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$d" > c
keep c && c=$(describe config.v1+json)
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' "$c" "$l" > m
keep m && m=$(describe manifest.v1+json ',"annotations":{"org.opencontainers.image.ref.name":"latest"}')
printf '{"schemaVersion":2,"manifests":[%s]}' "$m" > index.json
echo '{"imageLayoutVersion":"1.0.0"}' > oci-layout && rm zeros part part.gz
"#;

/// Ends a build by a signal, and looks that it is gone soon and nothing half-done is left.
#[track_caller]
fn interrupted(world: &World, child: Child, name: &str) -> Ran {
    let start = Instant::now();
    signal(&child, name);
    let ran = finished(child);
    let took = start.elapsed();
    ran.failed_with(130, &["the build was interrupted"]);
    // Promised is a second; a machine at work may take a little longer to run anybody at all.
    assert!(
        took < Duration::from_secs(5),
        "SIG{name}: {took:?}\n{}",
        ran.err
    );
    nobody_stays(world, "store");
    ran
}

#[test]
fn a_signal_ends_the_reading_of_a_huge_layer() {
    let world = World::new();
    let layout = world.path("layout");
    std::fs::create_dir(&layout).expect("the layout");
    let mut make = Command::new("sh");
    make.args(["-euc", HUGE]).current_dir(&layout);
    stepwell_test_support::cmd::run(&mut make).expect("an image");
    world.dockerfile("FROM huge\nRUN true\n");
    let context = format!("huge=oci-layout://{}", layout.display());
    let child = started(archive(
        &world,
        "store",
        "never",
        &["--build-context", &context],
    ));
    // The layer's blob is kept before it is read.
    let is_fetched = || {
        let blobs = std::fs::read_dir(world.path("store/v1/blobs/sha256"));
        let sizes = blobs.into_iter().flatten().flatten();
        sizes
            .filter_map(|b| b.metadata().ok())
            .any(|m| m.len() > 1 << 20)
    };
    let fetched = within(Duration::from_secs(60), is_fetched);
    if !fetched {
        panic!(
            "the layer is not fetched:\n{}",
            interrupted(&world, child, "INT").err
        );
    }
    sleep(Duration::from_millis(200));
    interrupted(&world, child, "INT");
    assert!(!world.path("never.tar").exists(), "a half-written output");
    world.dockerfile("FROM @BUSYBOX@\nRUN echo goes on\n");
    world.built(&[]);
}

#[test]
fn a_signal_ends_the_waiting_for_a_registry_that_says_nothing() {
    let world = World::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    world.dockerfile(&format!("FROM 127.0.0.1:{port}/silent:1\nRUN true\n"));
    let child = started(archive(&world, "store", "never", &[]));
    // It is connected to, and waits for an answer.
    let connection = silent.accept().expect("a connection");
    interrupted(&world, child, "INT");
    drop(connection);
    // The terminal is lost: there is nobody to tell, which must not keep the build alive or make it panic.
    let mut child = started(archive(&world, "store", "never", &[]));
    let connection = silent.accept().expect("a connection");
    drop(child.stderr.take());
    signal(&child, "HUP");
    let child = std::cell::RefCell::new(child);
    let ended = || child.borrow_mut().try_wait().expect("its state").is_some();
    let ended = within(Duration::from_secs(20), ended);
    let mut child = child.into_inner();
    if !ended {
        child.kill().expect("SIGKILL");
    }
    assert_eq!(child.wait().expect("its end").code(), Some(130));
    drop(connection);
}
