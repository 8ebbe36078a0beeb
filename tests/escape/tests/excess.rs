//! Steps that make too much of something: output, what is in memory, lengths of files, depth, names that nobody expects.  The builder stays small,
//! and says what is wrong or carries on; it never hangs.

use std::time::Duration;

use stepwell_integration_tests::World;
use stepwell_integration_tests::children::{finished, started, within};
use stepwell_integration_tests::way::{Way, each_tier};

/// One line without an end, bytes of all values, and lines without number; then the step waits until it has been looked at.
const OUTPUT: &str = "\
FROM @BUSYBOX@
RUN head -c 120000000 /dev/zero | tr '\\0' x; head -c 20000000 /dev/urandom >&2; yes | head -c 20000000; \\
    touch /said; until [ -e /go ]; do sleep 0.05; done
";

/// More than a builder takes by itself, and less than what the step prints.
const MEMORY: u64 = 80 << 20;

#[test]
fn output_without_end_takes_no_memory() {
    let way = Way::USERNS;
    for progress in ["--progress=plain", "--progress=rawjson", "--progress=tty"] {
        let world = World::new();
        world.dockerfile(OUTPUT);
        let child = started(way.command(&world, &[progress]));
        let status = format!("/proc/{}/status", child.id());
        // A pipe that nobody empties stops the builder, and so the step.
        let reader = std::thread::spawn(move || finished(child));
        assert!(
            within(Duration::from_secs(200), || way
                .inside(&world, "said")
                .is_some()),
            "{progress}: the step does not come to its end"
        );
        let status = std::fs::read_to_string(status).expect("the builder");
        let said = way.inside(&world, "said").expect("the tree");
        std::fs::write(said.with_file_name("go"), "").expect("a file");
        let built = reader.join().expect("its end");
        assert_eq!(built.code, Some(0), "{progress}");
        let printed = built.out.len() + built.err.len();
        // In JSON a byte may take six.
        assert!(printed < 32 << 20, "{progress}: {printed} bytes are shown");
        let shown = built.out + &built.err;
        let clipped = shown.contains("output clipped");
        // What ended well is taken off a terminal again.
        assert!(
            clipped || progress == "--progress=tty",
            "{progress}: not a word of what is left out"
        );
        let peak = peak(&status);
        assert!(peak < MEMORY, "{progress}: {} MiB were needed", peak >> 20);
    }
}

/// Most memory that a process has had.
fn peak(status: &str) -> u64 {
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    let number = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    number.expect("VmHWM") << 10
}

/// Ways to fill a directory in memory: at once, by and by, in files that nobody can see, from a process that nobody waits for.
const FILLINGS: &[&str] = &[
    "head -c 40m /dev/zero > $at/x; sleep 1000",
    "while :; do head -c 100k /dev/zero || break; done >> $at/x; sleep 1000",
    "mkdir -p $at/.a/.b; i=0; while head -c 300k /dev/zero > $at/.a/.b/$i; do i=$((i + 1)); done; sleep 1000",
    "exec 3> $at/x; rm $at/x; while :; do head -c 100k /dev/zero || break; done >&3; sleep 1000",
    "(setsid sh -c 'while :; do head -c 100k /dev/zero || break; done >> $at/x' &) ; sleep 1000",
];

#[test]
fn who_fills_what_is_in_memory_is_stopped() {
    each_tier(|way| {
        let world = World::new();
        // All of them in one surrounding, in the others those that hide something.
        let fillings = if way == Way::USERNS {
            FILLINGS
        } else {
            &FILLINGS[3..]
        };
        let at = ["/dev/shm", "/t"].into_iter().cycle();
        for (filling, at) in fillings.iter().zip(at) {
            // Where the kernel keeps the size it refuses what is more, and nobody has to be stopped.
            let filling = if way.ids {
                filling.replace(
                    "sleep 1000",
                    "sleep 1; [ $(du -sk $at | cut -f1) -le 4096 ] && exit 9",
                )
            } else {
                (*filling).to_owned()
            };
            world.file("fill.sh", &filling);
            world.dockerfile("FROM @BUSYBOX@\nARG at\nRUN --mount=type=bind,target=/c --mount=type=tmpfs,target=/t,size=4m sh /c/fill.sh\n");
            let arg = format!("at={at}");
            let built = way.build(&world, &["--shm-size=4m", "--build-arg", &arg]);
            if way.ids {
                built.failed_with(9, &[]);
            } else {
                let told = format!("more into `{at}`");
                built.failed_with(75, &[&told, "4194304 bytes"]);
            }
        }
    });
}

#[test]
fn a_file_that_no_layer_can_hold_is_an_error() {
    each_tier(|way| {
        let world = World::new();
        world.dockerfile("FROM @BUSYBOX@\nRUN truncate -s 15360G /vast\n");
        let built = way.build(&world, &[]);
        built.failed_with(71, &["too large", "/vast", "sparse"]);
        // It is not the length of a file that is gone that counts, and what is all holes can be long.
        world.dockerfile(
            "FROM @BUSYBOX@\nRUN truncate -s 15360G /vast && rm /vast && truncate -s 20M /long\nRUN [ $(wc -c < /long) = 20971520 ] && echo as long\n",
        );
        let built = way.built(&world, &[]);
        assert!(
            built.printed().iter().any(|l| l == "as long"),
            "{}",
            built.err
        );
    });
}

#[test]
fn a_path_that_nobody_can_open_is_an_error() {
    each_tier(|way| {
        let world = World::new();
        world.dockerfile(
            "FROM @BUSYBOX@\nRUN d=$(printf '%0250d' 0); for in in /deep /half; do mkdir $in && cd $in; for i in 1 2 3 4 5 6 7 8 9 10; do mkdir $d && cd $d; done; done; mv /half $(find /deep | tail -1)\n",
        );
        way.build(&world, &[])
            .failed_with(71, &["`/deep/000", "File name too long"]);
    });
}

/// Makes files whose names mean something to terminals, shells, programs, archives and lists of lines.
const NAMES: &str = r#"
mkdir /names && cd /names
for name in 'two\nlines' '\033]0;owned\007' '-rf' ' ' '*' '\200\377' '\302\233' '$(touch owned)' '..\\' '.wh.etc' '.wh..wh..opq'
do echo x > "./$(printf %b "$name")" || exit 1
done
"#;

#[test]
fn names_are_names() {
    each_tier(|way| {
        let world = World::new();
        world.file("names", NAMES);
        world.dockerfile(
            "FROM @BUSYBOX@\nCOPY names /names.sh\nRUN sh /names.sh && ls /names\nRUN cd /names && set -- * && echo $# names, $(cat -- * .[!.]* ..?* 2>/dev/null | wc -l) files; ls -d /etc\n",
        );
        let built = way.built(&world, &[]);
        let said = built.printed();
        for line in ["8 names, 9 files", "/etc"] {
            assert!(said.iter().any(|l| l == line), "{way:?}:\n{}", built.err);
        }
        assert!(
            built.err.contains(".wh.etc"),
            "{way:?}: nothing is said of what is left out:\n{}",
            built.err
        );
        assert!(
            !built.err.contains(['\u{1b}', '\u{7}', '\u{9b}']),
            "{way:?}:\n{:?}",
            built.err
        );
        let layers = way.layers(&world, &[]);
        let entries: Vec<_> = layers.iter().flatten().collect();
        for name in [
            r"names/two\nlines",
            r"names/\033]0;owned\a",
            "names/-rf",
            "names/ ",
            "names/*",
            r"names/\200\377",
            "names/$(touch owned)",
        ] {
            assert!(
                entries.iter().any(|e| *e == name),
                "{way:?}: {name}: {entries:?}"
            );
        }
        assert!(
            !entries
                .iter()
                .any(|e| e.contains(".wh.") || e.ends_with("/owned")),
            "{entries:?}"
        );
    });
}
