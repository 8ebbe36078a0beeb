//! Checkouts as sources, content digests, changing files, many and large files.

use super::*;

use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::sync::Arc;

use stepwell_sys::meta::{self, Device, DeviceKind, Meta, SideTable};

use crate::source::Owners;

/// What is changed, and how.
type Change = (&'static str, fn(&World));

fn checkout(world: &World, owners: Owners) -> SourceTree {
    let root: OwnedFd = fs::File::open(world.path("")).unwrap().into();
    SourceTree::checkout(root, owners)
}

#[test]
fn emulated_owners_devices_and_attributes_come_from_the_metadata() {
    let world = World::new(&["d/f=1", "d/null=", "d/l->f"]);
    let mut side = SideTable::default();
    let keep = |path: &str, meta: Meta, side: &mut SideTable| {
        let dir = fs::File::open(world.path("d")).unwrap();
        meta::save_at(&dir, path, &meta, side).unwrap();
    };
    let capability = (b"security.capability".to_vec(), vec![1, 0, 0, 2]);
    keep(
        "f",
        Meta {
            uid: 7,
            gid: 8,
            xattrs: [capability.clone()].into(),
            device: None,
        },
        &mut side,
    );
    let device = Some(Device {
        kind: DeviceKind::Char,
        major: 1,
        minor: 3,
    });
    keep(
        "null",
        Meta {
            device,
            ..Meta::default()
        },
        &mut side,
    );
    keep(
        "l",
        Meta {
            uid: 5,
            gid: 5,
            ..Meta::default()
        },
        &mut side,
    );
    assert_eq!(side.len(), 1, "a symbolic link takes no attribute");

    let tree = checkout(&world, Owners::Emulated(Arc::new(side)));
    let outcome = world
        .run_with(
            vec![FileAction::Copy(parse_copy("d /m"))],
            vec![Some(tree.clone())],
        )
        .unwrap();
    assert_eq!(
        outcome.lines,
        [
            "d 0755 0:0 m",
            "f 0644 7:8 m/f=1",
            "l 5:5 m/l->f",
            "c 0644 0:0 m/null 1,3"
        ]
    );
    assert_eq!(
        outcome.entries[1].xattrs,
        [capability].into(),
        "nothing of user.stepwell.* is in the layer"
    );
    let outcome = world
        .run_with(
            vec![FileAction::Copy(parse_copy("--chown=1:2 d /m"))],
            vec![Some(tree)],
        )
        .unwrap();
    assert_eq!(
        outcome.lines,
        [
            "d 0755 1:2 m",
            "f 0644 1:2 m/f=1",
            "l 1:2 m/l->f",
            "c 0644 1:2 m/null 1,3"
        ]
    );
}

#[test]
fn real_owners_are_kept_from_checkouts_and_not_from_contexts() {
    let world = World::new(&["d/f=1", "d/s/g="]);
    if chown(world.path("d/f"), Some(7), Some(8)).is_err() {
        eprintln!("SKIPPED: owners cannot be changed here; emulated ones are tested");
        return;
    }
    chown(world.path("d/s"), Some(9), Some(9)).unwrap();
    let tree = checkout(&world, Owners::Real);
    let outcome = world
        .run_with(vec![FileAction::Copy(parse_copy("d /m"))], vec![Some(tree)])
        .unwrap();
    assert_eq!(
        outcome.lines,
        [
            "d 0755 0:0 m",
            "f 0644 7:8 m/f=1",
            "d 0755 9:9 m/s",
            "f 0644 0:0 m/s/g="
        ]
    );
    assert_eq!(
        world.copy("d /m").unwrap(),
        [
            "d 0755 0:0 m",
            "f 0644 0:0 m/f=1",
            "d 0755 0:0 m/s",
            "f 0644 0:0 m/s/g="
        ]
    );
}

#[test]
fn what_a_sandbox_left_in_a_checkout_is_not_copied() {
    let world = World::new(&[
        "dev/null=",
        "dev/shm/x=",
        "dev/console=",
        "proc/1/stat=",
        "proc/2=",
        "f=",
    ]);
    let world = world.with_base(&["dev/", "dev/console=", "proc/", "f="]);
    let tree = checkout(&world, Owners::Real).showing(Arc::new(world.base.clone()));
    let copy = |arguments: &str| {
        let action = FileAction::Copy(parse_copy(arguments));
        world
            .run_with(vec![action], vec![Some(tree.clone())])
            .map(|o| o.lines)
    };
    let lines = copy(". /m").unwrap();
    let names: Vec<_> = lines.iter().filter_map(|l| l.split(' ').nth(3)).collect();
    assert_eq!(names, ["m", "m/dev", "m/dev/console=", "m/f=", "m/proc"]);
    assert_eq!(copy("proc/* /m/").unwrap(), [""; 0]);
    let error = copy("dev/null /m").unwrap_err().to_string();
    assert_eq!(error, "`dev/null` does not exist in the source stage");
}

#[test]
fn user_attributes_come_from_checkouts_only() {
    let world = World::new(&["f=1"]);
    let file = fs::File::open(world.path("f")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::fsetxattr(&file, "user.note", b"hello", flags).is_err() {
        panic!("the file system of the temporary directory takes no user attributes");
    }
    let op = || vec![FileAction::Copy(parse_copy("f /"))];
    let of_context = world.run(op()).unwrap();
    assert!(of_context.entries[0].xattrs.is_empty());
    let of_stage = world
        .run_with(op(), vec![Some(checkout(&world, Owners::Real))])
        .unwrap();
    assert_eq!(
        of_stage.entries[0].xattrs,
        [(b"user.note".to_vec(), b"hello".to_vec())].into()
    );
}

#[test]
fn the_digest_is_pinned_and_counts_what_a_copy_sees() {
    let make = || World::new(&["d/f=1", "755 d/x=2", "d/l->f", "d/s/g=3", "other="]);
    let digest = |world: &World, arguments: &str| {
        let op = vec![FileAction::Copy(parse_copy(arguments))];
        world.run(op).unwrap().digest
    };
    let first = digest(&make(), "d /m");
    assert_eq!(
        first.short(),
        "16acfb4af0f8",
        "the encoding changed: raise the version in the prefix"
    );

    let same: [Change; 4] = [
        ("another file", |w| w.make("other=changed")),
        ("another time", |w| {
            fs::File::options()
                .write(true)
                .open(w.path("d/f"))
                .unwrap()
                .set_modified(std::time::UNIX_EPOCH)
                .unwrap()
        }),
        ("the mode of the source itself", |w| {
            fs::set_permissions(w.path("d"), fs::Permissions::from_mode(0o700)).unwrap()
        }),
        ("written again", |w| w.make("d/f=1")),
    ];
    for (what, change) in same {
        let world = make();
        change(&world);
        assert_eq!(digest(&world, "d /m"), first, "{what}");
    }
    let different: [Change; 7] = [
        ("content", |w| w.make("d/f=9")),
        ("mode", |w| w.make("600 d/f=1")),
        ("setuid", |w| w.make("4755 d/x=2")),
        ("a new file", |w| w.make("d/new=")),
        ("a new directory", |w| w.make("d/newdir")),
        ("a link's text", |w| {
            fs::remove_file(w.path("d/l")).unwrap();
            w.make("d/l->x");
        }),
        ("a hard link", |w| {
            fs::remove_file(w.path("d/s/g")).unwrap();
            fs::write(w.path("d/s/g"), "1").unwrap();
            fs::remove_file(w.path("d/f")).unwrap();
            fs::hard_link(w.path("d/s/g"), w.path("d/f")).unwrap();
        }),
    ];
    for (what, change) in different {
        let world = make();
        change(&world);
        assert_ne!(digest(&world, "d /m"), first, "{what}");
    }
    // Where --chmod says the mode, the source's does not count.
    let world = make();
    let before = digest(&world, "--chmod=644 d /m");
    world.make("600 d/f=1");
    assert_eq!(digest(&world, "--chmod=644 d /m"), before);
}

#[test]
fn what_changes_after_it_was_selected_is_an_error() {
    let changes: [Change; 4] = [
        ("d/f", |w| w.make("d/f=changed")),
        ("d/f", |w| {
            fs::set_permissions(w.path("d/f"), fs::Permissions::from_mode(0o600)).unwrap()
        }),
        ("d/f", |w| {
            fs::remove_file(w.path("d/f")).unwrap();
            w.make("d/f=1");
        }),
        ("d/big", |w| {
            fs::File::options()
                .write(true)
                .open(w.path("d/big"))
                .unwrap()
                .set_len(10)
                .unwrap()
        }),
    ];
    for (path, change) in changes {
        let world = World::new(&["d/f=1"]);
        fs::write(world.path("d/big"), vec![1; 1 << 20]).unwrap();
        let op = FilesOp {
            base: None,
            actions: vec![FileAction::Copy(parse_copy("d /m"))],
        };
        let inputs = [Some(world.context())];
        let selected = select(&op, &inputs).unwrap();
        change(&world);
        let error = carry_out(&selected, world.below(), Mtime::default(), &mut |part| {
            if let Part::Entry(_, Some(content)) = part {
                content.read_to_end(&mut Vec::new()).unwrap();
            }
            Ok(())
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            format!("`{path}` changed while it was being read")
        );
        let error = selected.digest(&StatCache::in_memory()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`{path}` changed while it was being read")
        );
    }
}

/// A large file that is cut short or grows while it is being streamed.
#[test]
fn a_large_file_that_changes_while_it_is_read_is_an_error() {
    for length in [1 << 19, 3 << 20] {
        let world = World::new(&[]);
        fs::write(world.path("big"), vec![1; 2 << 20]).unwrap();
        let op = FilesOp {
            base: None,
            actions: vec![FileAction::Copy(parse_copy("big /"))],
        };
        let inputs = [Some(world.context())];
        let selected = select(&op, &inputs).unwrap();
        let error = carry_out(&selected, world.below(), Mtime::default(), &mut |part| {
            let Part::Entry(_, Some(content)) = part else {
                panic!("a file was expected")
            };
            content.read_exact(&mut [0; 1000]).unwrap();
            fs::File::options()
                .write(true)
                .open(world.path("big"))
                .unwrap()
                .set_len(length)
                .unwrap();
            content.read_to_end(&mut Vec::new()).unwrap();
            Ok(())
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            "`big` changed while it was being read"
        );
    }
}

#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    let world = World::new(&["d/s/f=inside"]);
    let op = FilesOp {
        base: None,
        actions: vec![FileAction::Copy(parse_copy("d /m"))],
    };
    let inputs = [Some(world.context())];
    let selected = select(&op, &inputs).unwrap();
    fs::create_dir(world.dir.path().join("outside")).unwrap();
    fs::write(world.dir.path().join("outside/f"), "SECRET").unwrap();
    fs::remove_dir_all(world.path("d/s")).unwrap();
    symlink("../../outside", world.path("d/s")).unwrap();
    let error = carry_out(&selected, world.below(), Mtime::default(), &mut |_| Ok(())).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot open `d/s/f`"),
        "{error}"
    );
}

#[test]
fn special_files() {
    let world = World::new(&["d/f=1"]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.path("d/pipe"),
        rustix::fs::FileType::Fifo,
        0o640.into(),
        0,
    )
    .unwrap();
    fs::set_permissions(world.path("d/pipe"), fs::Permissions::from_mode(0o640)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.path("d/socket")).unwrap();
    let outcome = world
        .run(vec![FileAction::Copy(parse_copy("d /m"))])
        .unwrap();
    assert_eq!(
        outcome.lines,
        ["d 0755 0:0 m", "f 0644 0:0 m/f=1", "p 0640 0:0 m/pipe"]
    );
    assert_eq!(outcome.notes, ["the socket `d/socket` is left out"]);
    assert_eq!(
        world.copy("d/socket /").unwrap_err(),
        "cannot copy `d/socket`: a socket cannot be in a layer"
    );
}

#[test]
fn names_of_any_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new(&["d/"]);
    let name = std::ffi::OsStr::from_bytes(b"n\xff\n");
    fs::write(world.path("d").join(name), "1").unwrap();
    let outcome = world
        .run(vec![FileAction::Copy(parse_copy("d /m"))])
        .unwrap();
    assert_eq!(outcome.entries[1].path, b"m/n\xff\n");
    world.make("w/.wh.x=");
    let error = world.copy("w /m").unwrap_err();
    assert_eq!(
        error,
        "cannot make `/m/.wh.x`: names that begin with `.wh.` mean a removed file in a layer"
    );
}

#[test]
fn many_files_come_in_order() {
    let world = World::new(&[]);
    for i in 0..3000 {
        world.make(&format!("d/{:02}/{i}={i}", i % 40));
    }
    let outcome = world
        .run(vec![FileAction::Copy(parse_copy("d /m"))])
        .unwrap();
    assert_eq!(outcome.lines.len(), 3000 + 41);
    let mut sorted = outcome.entries.clone();
    sorted.sort_by(|a, b| crate::source::walk::compare(&a.path, &b.path));
    assert_eq!(outcome.entries, sorted);
    let again = world
        .run(vec![FileAction::Copy(parse_copy("d /m"))])
        .unwrap();
    assert_eq!(again.lines, outcome.lines);
}
