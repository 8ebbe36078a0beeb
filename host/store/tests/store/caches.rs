//! Caches that are lent to trees and come home, whoever dies meanwhile; trees that are lent to be read; and files that a
//! step linked from one to the other.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use stepwell_store::{CacheDir, CacheKey, Checkout, PruneOptions, Store, UsageKind};

use crate::support::{Fixture, capture, each_way, file, names};

const PLAIN: (u32, u32, u32) = (0o755, 0, 0);

fn key(id: &str) -> CacheKey<'_> {
    CacheKey {
        namespace: "",
        id,
        base: None,
        owner: PLAIN,
        instance: 0,
    }
}

/// A cache that holds a file `hit`.
fn filled<'a>(store: &'a Store, id: &str) -> CacheDir<'a> {
    let cache = store.cache(&key(id)).unwrap().unwrap();
    cache.make(None, PLAIN).unwrap();
    fs::write(cache.path().join("hit"), id).unwrap();
    cache
}

/// Lends a cache to a tree as a step has it.
fn lend(cache: &CacheDir<'_>, tree: &Checkout<'_>, target: &str) -> PathBuf {
    cache.lend(tree, target).unwrap();
    let place = tree.root_path().join(target.trim_start_matches('/'));
    fs::rename(cache.path(), &place).unwrap();
    place
}

fn content(cache: &CacheDir<'_>) -> String {
    fs::read_to_string(cache.path().join("hit")).unwrap_or_else(|e| e.to_string())
}

/// A tree that was begun, and what is left of the process that had it and a cache: no locks, no clean-up.
fn dead<'a>(fixture: &'a Fixture, tree: Checkout<'a>, caches: Vec<CacheDir<'a>>) -> PathBuf {
    let path = tree.root_path().to_owned();
    // The tree cannot be thrown away while the caches are in use, and the caches are not where they belong.
    drop(tree);
    drop(caches);
    assert!(path.exists(), "what is lent is still in the tree");
    let _ = fixture;
    path
}

fn begun<'a>(fixture: &'a Fixture, content: &'static str) -> Checkout<'a> {
    let layer = fixture.layer(&[file("a", content)]);
    let mut tree = fixture.store.checkout(&[layer], &()).unwrap();
    tree.begin().unwrap();
    tree
}

#[test]
fn a_cache_is_one_callers_alone_and_caches_are_told_apart() {
    each_way(|fixture| {
        let cache = filled(&fixture.store, "id");
        let other = fixture.again();
        assert!(other.cache(&key("id")).unwrap().is_none(), "in use");
        let paths: Vec<_> = [
            CacheKey {
                instance: 1,
                ..key("id")
            },
            CacheKey {
                namespace: "tenant",
                ..key("id")
            },
            CacheKey {
                owner: (0o700, 0, 0),
                ..key("id")
            },
            CacheKey {
                owner: (0o755, 1, 0),
                ..key("id")
            },
            CacheKey {
                base: Some(stepwell_model::Digest::of(b"base")),
                ..key("id")
            },
            key("other"),
        ]
        .iter()
        .map(|key| other.cache(key).unwrap().unwrap().path())
        .collect();
        assert!(!paths.contains(&cache.path()));
        let mut distinct = paths.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), paths.len());
        drop(cache);
        assert_eq!(content(&other.cache(&key("id")).unwrap().unwrap()), "id");
        let private = CacheKey {
            owner: (0o2750, 0, 0),
            ..key("id")
        };
        let private = other.cache(&private).unwrap().unwrap();
        private.make(None, (0o2750, 0, 0)).unwrap();
        assert_eq!(
            fs::metadata(private.path()).unwrap().mode() & 0o7777,
            0o2750
        );
    });
}

#[test]
fn a_cache_is_brought_home_by_whoever_wants_it() {
    each_way(|fixture| {
        let tree = begun(fixture, "one");
        let cache = filled(&fixture.store, "id");
        lend(&cache, &tree, "/c");
        let root = dead(fixture, tree, vec![cache]);
        let other = fixture.again();
        assert_eq!(content(&other.cache(&key("id")).unwrap().unwrap()), "id");
        assert!(!root.join("c").exists());
    });
}

#[test]
fn a_cache_is_brought_home_before_its_tree_is_thrown_away() {
    each_way(|fixture| {
        let tree = begun(fixture, "one");
        let cache = filled(&fixture.store, "id");
        let place = lend(&cache, &tree, "/c");
        let moved = place.with_file_name("d").join("deep");
        fs::create_dir(moved.parent().unwrap()).unwrap();
        fs::rename(&place, &moved).unwrap();
        let root = dead(fixture, tree, vec![cache]);
        // Looks at all trees, and finds this one without a state.
        let layer = fixture.layer(&[file("b", "two")]);
        drop(fixture.again().checkout(&[layer], &()).unwrap());
        assert!(!root.exists(), "the tree is thrown away");
        assert_eq!(
            content(&fixture.again().cache(&key("id")).unwrap().unwrap()),
            "id"
        );
    });
}

#[test]
fn caches_in_caches_and_what_they_hide_are_all_brought_home() {
    each_way(|fixture| {
        let tree = begun(fixture, "one");
        let (outer, inner) = (
            filled(&fixture.store, "outer"),
            filled(&fixture.store, "inner"),
        );
        fs::create_dir_all(outer.path().join("pip")).unwrap();
        fs::write(outer.path().join("pip/own"), "hidden").unwrap();
        let place = lend(&outer, &tree, "/c");
        // As a step's mounts are put in: noted, moved aside, replaced.
        let hidden = outer.hidden().unwrap();
        fs::write(hidden.join("0.hides"), "pip").unwrap();
        fs::rename(place.join("pip"), hidden.join("0")).unwrap();
        lend(&inner, &tree, "/c/pip");
        fs::write(hidden.join("1.stands"), "src").unwrap();
        fs::create_dir(place.join("src")).unwrap();
        fs::write(place.join("src/context"), "a copy").unwrap();
        // One that was noted and not moved yet.
        fs::write(hidden.join("2.hides"), "hit").unwrap();
        dead(fixture, tree, vec![outer, inner]);
        let other = fixture.again();
        // The outer one first, which must not take the inner one along.
        let outer = other.cache(&key("outer")).unwrap().unwrap();
        assert_eq!(content(&outer), "outer");
        assert_eq!(
            fs::read_to_string(outer.path().join("pip/own")).unwrap(),
            "hidden"
        );
        assert!(!outer.path().join("src").exists());
        assert_eq!(fs::read_dir(hidden).unwrap().count(), 0);
        assert_eq!(
            content(&other.cache(&key("inner")).unwrap().unwrap()),
            "inner"
        );
    });
}

#[test]
fn a_cache_that_the_step_removed_is_new() {
    each_way(|fixture| {
        let tree = begun(fixture, "one");
        let cache = filled(&fixture.store, "id");
        let place = lend(&cache, &tree, "/c");
        fs::remove_dir_all(place).unwrap();
        drop((tree, cache));
        let cache = fixture.store.cache(&key("id")).unwrap().unwrap();
        assert!(!cache.path().exists());
        cache.make(None, PLAIN).unwrap();
    });
}

#[test]
fn caches_are_listed_and_pruned_only_when_everything_is() {
    let fixture = Fixture::new(stepwell_store::Ids::Emulated);
    let cache = filled(&fixture.store, "id\x1b[31m");
    let find = || {
        let items = fixture.store.usage().unwrap().items;
        items.into_iter().find(|i| i.kind == UsageKind::Cache)
    };
    let item = find().unwrap();
    assert_eq!((&*item.summary, item.in_use), ("id[31m", true));
    assert!(item.size >= 2);
    let all = PruneOptions {
        all: true,
        ..PruneOptions::default()
    };
    fixture.store.prune(&all).unwrap();
    assert!(find().is_some(), "in use");
    drop(cache);
    fixture.store.prune(&PruneOptions::default()).unwrap();
    assert!(find().is_some());
    fixture.store.prune(&all).unwrap();
    assert!(find().is_none());
}

/// Something that a step may have done to a tree that it was only to read.
type Deed = fn(&Path);

#[test]
fn a_tree_that_was_lent_is_kept_only_as_it_was() {
    const DEEDS: [(&str, Deed, bool); 8] = [
        ("nothing", |_| {}, true),
        (
            "moved away and back",
            |root| {
                fs::rename(root, root.with_file_name("away")).unwrap();
                fs::rename(root.with_file_name("away"), root).unwrap();
            },
            true,
        ),
        (
            "touched, as it was",
            |root| {
                let mode = fs::metadata(root.join("a")).unwrap().permissions();
                fs::set_permissions(root.join("a"), mode).unwrap();
            },
            true,
        ),
        (
            "written",
            |root| fs::write(root.join("a"), "owt").unwrap(),
            false,
        ),
        ("made", |root| fs::write(root.join("b"), "").unwrap(), false),
        (
            "removed",
            |root| fs::remove_file(root.join("a")).unwrap(),
            false,
        ),
        (
            "changed",
            |root| fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o600)).unwrap(),
            false,
        ),
        (
            "linked",
            |root| fs::hard_link(root.join("a"), root.with_file_name("elsewhere")).unwrap(),
            false,
        ),
    ];
    each_way(|fixture| {
        for (what, deed, kept) in DEEDS {
            let layer = fixture.layer(&[file("a", "one")]);
            let mut tree = fixture.store.checkout(&[layer], &()).unwrap();
            tree.begin().unwrap();
            let root = tree.root_path().to_owned();
            deed(&root);
            assert_eq!(tree.settle().unwrap(), kept, "{what}");
            let again = fixture.store.checkout(&[layer], &()).unwrap();
            assert_eq!(again.root_path() == root, kept, "{what}");
            assert_eq!(
                fs::read_to_string(again.root_path().join("a")).unwrap(),
                "one"
            );
            again.abandon().unwrap();
        }
    });
}

#[test]
fn no_file_of_a_tree_is_reached_from_outside() {
    each_way(|fixture| {
        let base = fixture.layer(&[file("base", "base"), file("other", "other")]);
        let mut tree = fixture.store.checkout(&[base], &()).unwrap();
        tree.begin().unwrap();
        let root = tree.root_path().to_owned();
        let outside = fixture.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("made"), "made").unwrap();
        // Out of the tree and into it; and links within it, which stay.
        fs::hard_link(root.join("base"), outside.join("base")).unwrap();
        fs::hard_link(outside.join("made"), root.join("one")).unwrap();
        fs::hard_link(root.join("one"), root.join("two")).unwrap();
        std::os::unix::fs::symlink("base", root.join("link")).unwrap();
        fs::hard_link(root.join("link"), outside.join("link")).unwrap();
        let time = fs::metadata(&root).unwrap().modified().unwrap();
        let captured = capture(&mut tree);
        assert_eq!(
            names(&fixture.store, &captured.layer),
            ["link", "one", "two -> one"]
        );
        drop(tree);
        for name in ["base", "made"] {
            fs::write(outside.join(name), "poison").unwrap();
        }
        let again = fixture
            .store
            .checkout(&[base, captured.layer], &())
            .unwrap();
        assert_eq!(again.root_path(), root, "the same tree, believed as it is");
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert_eq!(
            [read("base"), read("one"), read("two")],
            ["base", "made", "made"]
        );
        let stat = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
        assert_eq!(
            (
                stat("base").nlink(),
                stat("one").nlink(),
                stat("link").nlink()
            ),
            (1, 2, 1)
        );
        assert_eq!(stat("one").ino(), stat("two").ino());
        assert_eq!(fs::metadata(&root).unwrap().modified().unwrap(), time);
        drop(again);
        let layers = [base, captured.layer];
        assert_eq!(fixture.snapshot(&layers), fixture.fresh_snapshot(&layers));
    });
}

#[test]
fn a_copy_that_changed_little_is_changed_and_not_made_again() {
    each_way(|fixture| {
        let files = |last: &'static str| {
            [
                file("a", "1"),
                file("b", "2"),
                file("c", "3"),
                file("d", last),
            ]
        };
        let (was, now) = (fixture.layer(&files("4")), fixture.layer(&files("five")));
        let root = fixture
            .store
            .checkout(&[was], &())
            .unwrap()
            .root_path()
            .to_owned();
        let kept = fs::metadata(root.join("a")).unwrap().ino();
        assert_eq!(
            fixture.store.checkout(&[now], &()).unwrap().root_path(),
            root
        );
        assert_eq!(fs::metadata(root.join("a")).unwrap().ino(), kept);
        assert_eq!(fs::read_to_string(root.join("d")).unwrap(), "five");
        // Something else altogether gets a tree of its own, and so does what is put on more than one layer.
        let other = fixture.layer(&[file("x", "1"), file("y", "2")]);
        assert_ne!(
            fixture.store.checkout(&[other], &()).unwrap().root_path(),
            root
        );
        assert_ne!(
            fixture
                .store
                .checkout(&[other, was], &())
                .unwrap()
                .root_path(),
            root
        );
        assert_eq!(fixture.snapshot(&[now]), fixture.fresh_snapshot(&[now]));
    });
}
