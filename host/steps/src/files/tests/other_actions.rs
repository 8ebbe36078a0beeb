//! Directories, files, links and removals, and several actions in one layer.

use super::*;

fn mkdir(path: &str, mode: u32) -> FileAction {
    FileAction::Mkdir {
        path: path.into(),
        mode,
        owner: None,
    }
}

fn mkfile(path: &str, content: &str) -> FileAction {
    FileAction::Mkfile {
        path: path.into(),
        content: content.into(),
        mode: 0o644,
        owner: None,
    }
}

fn rm(path: &str) -> FileAction {
    FileAction::Rm {
        path: path.into(),
        allow_missing: false,
    }
}

fn link(target: &str, path: &str) -> FileAction {
    FileAction::Symlink {
        target: target.into(),
        path: path.into(),
    }
}

fn copy(arguments: &str) -> FileAction {
    FileAction::Copy(parse_copy(arguments))
}

fn base() -> World {
    World::new(&["f=1", "d/x=2"]).with_base(&[
        "etc/",
        "etc/a=",
        "etc/s/",
        "etc/s/b=",
        "work->srv/app",
        "srv/",
        "0700 9:9 srv/app/",
        "file=",
    ])
}

#[test]
fn each_action() {
    let owner = Some(Owner {
        user: "3".into(),
        group: None,
    });
    let table: Vec<(Vec<FileAction>, &[&str])> = vec![
        (
            vec![mkdir("/a/b", 0o700)],
            &["d 0755 0:0 a", "d 0700 0:0 a/b"],
        ),
        (
            vec![FileAction::Mkdir {
                path: "/a/b".into(),
                mode: 0o755,
                owner: owner.clone(),
            }],
            &["d 0755 3:3 a", "d 0755 3:3 a/b"],
        ),
        // WORKDIR of a directory that is there changes nothing, also through a link.
        (vec![mkdir("/srv/app", 0o755)], &[]),
        (vec![mkdir("/work", 0o755)], &[]),
        (vec![mkdir("/", 0o755)], &[]),
        (
            vec![mkdir("/work/sub", 0o755)],
            &[
                "d 0755 0:0 srv",
                "d 0700 9:9 srv/app",
                "d 0755 0:0 srv/app/sub",
            ],
        ),
        (
            vec![mkfile("/n/f", "x")],
            &["d 0755 0:0 n", "f 0644 0:0 n/f=x"],
        ),
        (
            vec![FileAction::Mkfile {
                path: "/f".into(),
                content: vec![],
                mode: 0o600,
                owner,
            }],
            &["f 0600 3:3 f="],
        ),
        (vec![rm("/etc/a")], &["d 0755 0:0 etc", "removed etc/a"]),
        (vec![rm("/etc")], &["removed etc"]),
        (vec![rm("/work")], &["removed work"]),
        (
            vec![FileAction::Rm {
                path: "/none".into(),
                allow_missing: true,
            }],
            &[],
        ),
        (
            vec![link("../x", "/n/l")],
            &["d 0755 0:0 n", "l 0:0 n/l->../x"],
        ),
    ];
    for (actions, want) in table {
        assert_eq!(
            base().run(actions.clone()).unwrap().lines,
            want,
            "{actions:?}"
        );
    }
}

#[test]
fn later_actions_see_what_earlier_ones_did() {
    let table: Vec<(Vec<FileAction>, &[&str])> = vec![
        (
            vec![mkfile("/a", "1"), mkfile("/a", "2")],
            &["f 0644 0:0 a=2"],
        ),
        (vec![mkfile("/a", "1"), rm("/a")], &[]),
        (
            vec![mkdir("/n", 0o700), copy("f /n")],
            &["d 0700 0:0 n", "f 0644 0:0 n/f=1"],
        ),
        (
            vec![link("etc/s", "/l"), copy("f /l/")],
            &[
                "d 0755 0:0 etc",
                "d 0755 0:0 etc/s",
                "f 0644 0:0 etc/s/f=1",
                "l 0:0 l->etc/s",
            ],
        ),
        (
            vec![rm("/etc/s"), mkdir("/etc/s", 0o711)],
            &["d 0755 0:0 etc", "d 0711 0:0 etc/s", "opaque etc/s"],
        ),
        (
            vec![rm("/etc"), copy("d /etc/s/")],
            &[
                "d 0755 0:0 etc",
                "opaque etc",
                "d 0755 0:0 etc/s",
                "f 0644 0:0 etc/s/x=2",
            ],
        ),
        (vec![rm("/etc"), mkfile("/etc", "f")], &["f 0644 0:0 etc=f"]),
        (
            vec![rm("/file"), mkdir("/file", 0o755)],
            &["d 0755 0:0 file"],
        ),
        (vec![rm("/etc/s"), rm("/etc")], &["removed etc"]),
        (
            vec![copy("f /etc/s/"), rm("/etc/s/f")],
            &["d 0755 0:0 etc", "d 0755 0:0 etc/s"],
        ),
    ];
    for (actions, want) in table {
        assert_eq!(
            base().run(actions.clone()).unwrap().lines,
            want,
            "{actions:?}"
        );
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let table = [
        (
            vec![mkdir("/file", 0o755)],
            "cannot make the directory `/file`: `/file` is not a directory",
        ),
        (
            vec![mkdir("/file/x", 0o755)],
            "cannot make the directory `/file/x`: `/file` is not a directory",
        ),
        (
            vec![mkfile("/etc", "")],
            "cannot make `/etc`: it exists already",
        ),
        (
            vec![rm("/none")],
            "cannot remove `/none`: it does not exist",
        ),
        (
            vec![rm("/etc"), rm("/etc/a")],
            "cannot remove `/etc/a`: it does not exist",
        ),
        (vec![rm("/")], "cannot remove `/`: it does not exist"),
        (
            vec![link("x", "/file")],
            "cannot make `/file`: it exists already",
        ),
        (
            vec![link("l2", "/l1"), link("l1", "/l2"), copy("f /l1/x")],
            "too many symbolic links on the way to `/l1` in the image",
        ),
        (
            vec![mkfile("/.wh.x", "")],
            "cannot make `/.wh.x`: names that begin with `.wh.` mean a removed file in a layer",
        ),
    ];
    for (actions, want) in table {
        assert_eq!(base().run(actions).unwrap_err().to_string(), want);
    }
}
