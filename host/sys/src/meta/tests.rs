use std::os::unix::fs::symlink;

use super::*;

fn full() -> Meta {
    let xattrs = [
        (b"security.capability".to_vec(), vec![1, 0, 0, 2]),
        (b"trusted.x".to_vec(), vec![]),
    ];
    let device = Some(Device {
        kind: DeviceKind::Block,
        major: 259,
        minor: 1_048_575,
    });
    Meta {
        uid: 100,
        gid: 65_534,
        device,
        xattrs: xattrs.into(),
    }
}

#[test]
fn encoding_is_pinned() {
    let owner = Meta {
        uid: 1000,
        gid: 5,
        ..Meta::default()
    };
    assert_eq!(owner.encode(), [1, 0xe8, 3, 0, 0, 5, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Meta::decode(&full().encode()), Ok(full()));
    assert_eq!(
        full().encode().len(),
        1 + 8 + 9 + 2 + (1 + 19 + 4 + 4) + (1 + 9 + 4)
    );
}

#[test]
fn hostile_bytes_are_refused() {
    let good = full().encode();
    for cut in 0..good.len() {
        assert!(Meta::decode(&good[..cut]).is_err(), "cut at {cut}");
    }
    let mut long = good.clone();
    long.push(0);
    assert_eq!(Meta::decode(&long), Err("bytes after the end"));
    let mut huge = Meta::default().encode();
    let end = huge.len() - 2;
    huge.truncate(end);
    huge.extend([1, 0, 1, b'x', 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(Meta::decode(&huge), Err("it ends too early"));
}

#[test]
fn lives_on_the_inode_or_beside_it() {
    let dir = tempfile::tempdir_in("/var/tmp").expect("directory");
    std::fs::write(dir.path().join("file"), "x").expect("file");
    symlink("nowhere", dir.path().join("link")).expect("link");
    let handle = std::fs::File::open(dir.path()).expect("open");
    let mut side = SideTable::default();
    for name in ["file", "link", "."] {
        assert_eq!(read_at(&handle, name).expect("read"), None, "{name}");
        save_at(&handle, name, &full(), &mut side).expect("save");
        let fd = open_at(handle.as_fd(), Path::new(name)).expect("open");
        let stat = fs::statx(&fd, c"", AtFlags::EMPTY_PATH, InodeId::STATX).expect("statx");
        assert_eq!(
            load(fd.as_fd(), &stat, &side).expect("load"),
            Some(full()),
            "{name}"
        );
    }
    assert_eq!(side.len(), 1, "only the symlink is kept beside");
    std::fs::hard_link(dir.path().join("file"), dir.path().join("second")).expect("hard link");
    assert_eq!(read_at(&handle, "second").expect("read"), Some(full()));
    save_at(&handle, "second", &Meta::default(), &mut side).expect("save");
    save_at(&handle, "link", &Meta::default(), &mut side).expect("save");
    assert_eq!(
        (read_at(&handle, "file").expect("read"), side.len()),
        (None, 0)
    );
}
