//! Random changes: the tree that a step changed, the layer laid on a fresh tree, and every way back agree.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use stepwell_store::Layer;

use crate::support::{Fixture, each_way};

/// Numbers that look random and are the same in every run (Knuth's MMIX constants).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn path(&mut self, root: &Path) -> PathBuf {
        let names = ["a", "b", "c", "d-e", "d", "f.x"];
        let depth = 1 + self.below(3);
        (0..depth).fold(root.to_path_buf(), |path, _| {
            path.join(names[self.below(names.len())])
        })
    }

    fn change(&mut self, root: &Path) {
        let (path, other) = (self.path(root), self.path(root));
        // Most of these fail now and then, on missing parents for example: that is as good as any change.
        match self.below(10) {
            0 | 1 => {
                let _ = fs::create_dir_all(&path);
            }
            2 | 3 => {
                let content = vec![self.below(256) as u8; self.below(3) * 100_000 + self.below(5)];
                let _ = fs::write(&path, content);
            }
            4 => {
                let _ = fs::remove_file(&path);
            }
            5 => {
                let _ = fs::remove_dir_all(&path);
            }
            6 => {
                let _ = fs::hard_link(&path, &other);
            }
            7 => {
                let _ = symlink("somewhere", &path);
            }
            8 => {
                let _ = fs::rename(&path, &other);
            }
            _ => {
                let is_link = path.symlink_metadata().is_ok_and(|m| m.is_symlink());
                let mode = [0o644, 0o755, 0o1777, 0o700][self.below(4)];
                if !is_link {
                    let _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
                }
            }
        }
    }
}

#[test]
fn changed_trees_layers_and_ways_back_agree() {
    each_way(|fixture| {
        let mut random = Random(42);
        for _ in 0..8 {
            one_history(fixture, &mut random);
        }
    });
}

fn one_history(fixture: &Fixture, random: &mut Random) {
    let mut chain: Vec<Layer> = Vec::new();
    let mut wanted = vec![fixture.snapshot(&chain)];
    for _ in 0..5 {
        let captured = fixture.step(&chain, |root| (0..25).for_each(|_| random.change(root)));
        chain.push(captured.layer);
        wanted.push(fixture.snapshot(&chain));
    }
    assert_eq!(&fixture.fresh_snapshot(&chain), wanted.last().unwrap());
    for _ in 0..12 {
        let length = random.below(chain.len() + 1);
        let (chain, want) = (&chain[..length], &wanted[length]);
        assert_eq!(&fixture.snapshot(chain), want, "{length} layers");
    }
}
