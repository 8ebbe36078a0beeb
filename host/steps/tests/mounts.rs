//! Mounts of steps, asserted from inside real steps in every tier that this machine permits.
//!
//! What is lent lies beside the tree; how the store lends caches and copies is tested in `stepwell-store`, the whole way
//! from a Dockerfile in the integration tests.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use support::{TestTree, each_mode};

/// Makes a directory with files beside the tree.
fn lent(tree: &TestTree, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let root = tree.path("").parent().expect("parent").join(name);
    fs::create_dir_all(&root).expect("directory");
    let own = |path: &Path| tree.mode().own(path);
    own(&root);
    for (file, content) in files {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        for above in path.ancestors().skip(1).take_while(|p| **p != root) {
            own(above);
        }
        fs::write(&path, content).expect("file");
        own(&path);
    }
    root
}

fn names(dir: PathBuf) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("list")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Every way that a shell has to change something, each of which has to fail with the same words.
const CHANGES: &str = "
    refused() { \"$@\" 2>/tmp/said && { echo \"done: $*\"; cat /tmp/said; }; grep -q 'Read-only file system' /tmp/said || { echo \"otherwise: $*\"; cat /tmp/said; }; }
    write() { echo x > $1; }
    append() { echo x >> $1; }
    for at in /m /m/sub /m/sub/..; do
      refused write $at/new; refused mkdir $at/d; refused ln -s x $at/l; refused ln /tmp/own $at/h; refused mv /tmp/own $at/moved
    done
    cd /m
    for file in /m/file file sub/../file /link/file; do
      refused write $file; refused append $file; refused rm -f $file; refused mv $file /tmp/; refused mv $file other
      refused touch -d 2001-01-01 $file; refused chmod 600 $file; refused cp /tmp/own $file
    done
    refused write new; refused mkdir d; refused rm -r sub; refused rmdir empty
    true";

#[test]
fn what_is_mounted_to_be_read_cannot_be_changed() {
    each_mode(|tree| {
        let files = [("file", "content\n"), ("sub/x", ""), ("empty/gone", "")];
        let root = lent(tree, "lent", &files);
        fs::remove_file(root.join("empty/gone")).expect("an empty directory");
        tree.write("tmp/own", "own", 0o644);
        std::os::unix::fs::symlink("m", tree.path("link")).expect("link");
        let bind = format!("/m={}", root.display());
        tree.step(&["sh", "-c", CHANGES])
            .options(&["--bind", &bind])
            .run()
            .code(0)
            .stderr("")
            .stdout("");
        assert_eq!(names(root.clone()), ["empty", "file", "sub"]);
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "content\n");
        assert!(!tree.path("m").exists(), "the mount point is gone again");
        // The same may be written, where that was asked for.
        tree.step(&[
            "sh",
            "-c",
            "echo more >> /m/file && rm -r /m/sub && cat /m/file",
        ])
        .options(&["--bind-rw", &bind])
        .run()
        .code(0)
        .stdout("content\nmore\n");
    });
}

#[test]
fn owners_in_a_cache_are_seen_by_every_way_and_go_with_what_is_moved_out() {
    each_mode(|tree| {
        let cache = lent(tree, "cache", &[("in/file", ""), ("in/more", "")]);
        tree.write("tmp/own", "own", 0o644);
        std::os::unix::fs::symlink("../cache/in", tree.path("tmp/way")).expect("link");
        let mount = format!("/cache={}", cache.display());
        let prints = |script: &str, wanted: &str| {
            let args = ["sh", "-c", script];
            let step = tree.step(&args).options(&["--cache", &mount]);
            step.run().code(0).stdout(wanted);
        };
        prints(
            "chown 33 /cache/in /cache/in/file; stat -c %u /cache/in/file",
            "33\n",
        );
        prints(
            "stat -c %u /cache/in/file; cd /cache/in; stat -c %u file . /tmp/way/file more; stat -Lc %u /tmp/way; ln -s file l; stat -Lc %u l",
            "33\n33\n33\n33\n0\n33\n33\n",
        );
        prints(
            "cd /cache/in; ln file /tmp/one; mv file /tmp/two; cd /tmp; ln -s two three; stat -Lc %u one /tmp/one two three /tmp/own; chown 34 own; stat -c %u /tmp/own",
            "33\n33\n33\n33\n0\n34\n",
        );
    });
}

#[test]
fn a_part_and_a_file_can_be_mounted_and_writable_ones_in_read_only_ones() {
    each_mode(|tree| {
        let root = lent(
            tree,
            "lent",
            &[("a/b/file", "in b\n"), ("alone", "alone\n")],
        );
        let other = lent(tree, "other", &[("alone", "alone\n")]);
        let cache = lent(tree, "cache", &[("hit", "cached\n")]);
        let part = format!("/src={}:/a/b", root.display());
        let file = format!("/etc/conf={}:/alone", other.display());
        let inner = format!("/src/.cache={}", cache.display());
        tree.write("etc/conf", "image's\n", 0o644);
        let script = "cat /src/file /etc/conf /src/.cache/hit; echo new > /src/.cache/new; echo x > /src/new; echo x > /etc/conf; mv /etc/conf /etc/c; ls -A /src";
        tree.step(&["sh", "-c", script])
            .options(&["--bind", &part, "--bind", &file, "--cache", &inner])
            .run()
            .code(0)
            .stdout("in b\nalone\ncached\n.cache\nfile\n")
            .stderr_has("can't create /src/new: Read-only file system")
            .stderr_has("can't create /etc/conf: Read-only file system")
            .stderr_has("Device or resource busy");
        assert_eq!(names(cache), ["hit", "new"]);
        assert_eq!(names(root.join("a/b")), ["file"]);
        assert_eq!(
            fs::read_to_string(tree.path("etc/conf")).unwrap(),
            "image's\n"
        );
    });
}

#[test]
fn mount_points_stay_where_they_are() {
    each_mode(|tree| {
        let cache = lent(tree, "cache", &[("hit", "cached\n"), ("d/x", "")]);
        let mount = format!("/data/c={}", cache.display());
        let script = "cd /data; mv c d; mv -T /tmp c; rmdir /data/c; rm -rf /data/c; ls -A /data; ls -A /data/c";
        tree.step(&["sh", "-c", script])
            .options(&["--cache", &mount])
            .run()
            .code(0)
            .stdout("c\n")
            .stderr_has("mv: can't rename 'c': Device or resource busy")
            .stderr_has("rmdir: '/data/c': Device or resource busy");
        assert_eq!(names(cache), [""; 0], "what is in it can be removed");
        assert!(tree.path("tmp").is_dir() && !tree.path("data").exists());
    });
}

#[test]
fn a_temporary_directory_is_empty_and_goes() {
    each_mode(|tree| {
        tree.write("tmp/own", "image's\n", 0o644);
        tree.step(&[
            "sh",
            "-c",
            "ls -A /tmp; echo x > /tmp/x; stat -c %a /tmp; ls /tmp",
        ])
        .options(&["--tmpfs", "/tmp", "--tmpfs", "/made/for/it"])
        .run()
        .code(0)
        .stdout("1777\nx\n");
        assert_eq!(names(tree.path("tmp")), ["own"]);
        assert!(!tree.path("made").exists());
    });
}

#[test]
fn secrets_are_read_by_those_who_may_and_are_nowhere_on_the_disk() {
    each_mode(|tree| {
        let options = ["--secret", "/run/secrets/token=hush-hush"];
        let script = "cd /run/secrets; ls; cat token; echo; wc -c < /run/secrets/token; stat -c '%s %a %u' token; head -c 4 ./token; echo
            cat < token | wc -c; cp token /copied; test -r token && echo readable; grep -c hush /run/secrets/../secrets/token";
        tree.step(&["sh", "-c", script])
            .options(&options)
            .run()
            .code(0)
            .stderr("")
            .stdout("token\nhush-hush\n9\n9 400 0\nhush\n9\nreadable\n1\n");
        assert_eq!(
            fs::read_to_string(tree.path("copied")).unwrap(),
            "hush-hush"
        );
        assert!(!tree.path("run").exists());
        let script =
            "echo x > /run/secrets/token; rm -f /run/secrets/token; exec 3<>/run/secrets/token";
        tree.step(&["sh", "-c", script])
            .options(&options)
            .run()
            .stderr_has("Read-only file system")
            .stderr_has("Device or resource busy");
        // What a memory file's own link leads to cannot be written either.
        tree.step(&[
            "sh",
            "-c",
            "exec 3</run/secrets/token; echo x > /proc/self/fd/3; cat /proc/self/fd/3",
        ])
        .options(&options)
        .run()
        .stdout("hush-hush");
        tree.step(&["cat", "/run/secrets/token"])
            .options(&options)
            .options(&["--user", "1000"])
            .run()
            .code(1)
            .stderr_has("Permission denied");
    });
}

#[test]
fn an_agent_is_reached_through_a_socket_of_the_builders_own() {
    each_mode(|tree| {
        let place = lent(tree, "agent", &[]);
        let path = place.join("socket");
        let listener = UnixListener::bind(&path).expect("bind");
        tree.mode().own(&path);
        let mount = format!("/run/agent.0={}", path.display());
        // Busybox has no client for such sockets (that is Debian's part, in the integration tests): we are it.
        let script = "test -S $SSH_AUTH_SOCK && stat -c '%n %a' $SSH_AUTH_SOCK; until [ -e /tmp/done ]; do sleep 0.1; done";
        let step = tree
            .step(&["sh", "-c", script])
            .options(&["--ssh", &mount])
            .command()
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("step");
        let socket = tree.path("run/agent.0");
        let mut client = (0..100)
            .find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                UnixStream::connect(&socket).ok()
            })
            .expect("the step's socket");
        client.write_all(b"hello").expect("write");
        client
            .shutdown(std::net::Shutdown::Write)
            .expect("shutdown");
        let (mut server, _) = listener.accept().expect("accept");
        let mut said = String::new();
        server.read_to_string(&mut said).expect("read");
        server
            .write_all(format!("heard {said}").as_bytes())
            .expect("write");
        drop(server);
        said.clear();
        client.read_to_string(&mut said).expect("read");
        assert_eq!(said, "heard hello");
        // An agent that is gone hangs up.
        drop(listener);
        let mut client = UnixStream::connect(&socket).expect("the step's socket");
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        tree.write("tmp/done", "", 0o644);
        let output = step.wait_with_output().expect("step");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "/run/agent.0 600\n"
        );
        assert!(output.status.success() && !tree.path("run").exists());
    });
}

#[test]
fn limits_and_sizes_arrive() {
    each_mode(|tree| {
        tree.step(&["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"])
            .options(&["--limit", "nofile=64", "--limit", "core=0"])
            .run()
            .code(0)
            .stdout("64\n64\n0\n");
        // Nothing that begins a step may need a second process or thread when the limit holds.
        tree.step(&["sh", "-c", "echo began"])
            .options(&["--limit", "nproc=1"])
            .run()
            .code(0)
            .stdout("began\n");
        tree.step(&["true"])
            .options(&["--limit", "rttime=1"])
            .run()
            .code(125)
            .stderr_has("the limit `rttime` cannot be given to a process");
        tree.step(&[
            "sh",
            "-c",
            "stat -f -c '%b %S' /dev/shm; echo x > /dev/shm/x; cat /dev/shm/x",
        ])
        .options(&["--shm-size", "1048576"])
        .run()
        .code(0)
        .stdout("256 4096\nx\n");
    });
}

#[test]
fn memory_is_not_larger_than_was_said_where_the_kernel_holds_it() {
    each_mode(|tree| {
        if !tree.mode().has_kernel_world() {
            return;
        }
        let fill = "for to in /dev/shm /small; do head -c 900k /dev/zero >$to/a && ! head -c 900k /dev/zero >$to/b 2>/dev/null && echo full; done";
        tree.step(&["sh", "-c", fill])
            .options(&["--shm-size", "1048576", "--tmpfs", "/small=1048576"])
            .run()
            .code(0)
            .stdout("full\nfull\n");
        assert!(!tree.path("small").exists());
    });
}

#[test]
fn a_step_that_cannot_be_mounted_for_leaves_the_tree_as_it_was() {
    each_mode(|tree| {
        let root = lent(tree, "lent", &[("file", "x")]);
        let before = names(tree.path(""));
        let bind = format!("/bin/busybox={}", root.display());
        tree.step(&["true"])
            .options(&["--tmpfs", "/new/one", "--bind", &bind])
            .run()
            .code(125)
            .stderr_has("cannot mount `/bin/busybox`: a directory cannot be mounted on a file");
        assert_eq!(names(tree.path("")), before);
        // A program may come with a mount, and it is gone with it.
        let tools = lent(tree, "tools", &[]);
        fs::copy(tree.path("bin/busybox"), tools.join("echo")).expect("copy");
        fs::set_permissions(tools.join("echo"), fs::Permissions::from_mode(0o755)).expect("mode");
        tree.mode().own(&tools.join("echo"));
        let bind = format!("/opt/tools={}", tools.display());
        tree.step(&["/opt/tools/echo", "from the mount"])
            .options(&["--bind", &bind])
            .run()
            .code(0)
            .stdout("from the mount\n");
        assert_eq!(names(tree.path("")), before);
    });
}
