//! `cargo xtask bench roots DIR…`: making the root of a second branch, while the first one is at work, in stores below the directories: by
//! unpacking layers, as everywhere, and by sharing contents with the first, where the file system has that (xfs, btrfs).
//!
//! Unpacking is measured with the first root of a store; sharing with the second, at once, and with the third, when all was flushed, since
//! what is shared has to be on the disk. What is written is counted by the device.  The best of some rounds is shown: other
//! work on the machine only ever makes a round slower.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::syncfs;
use serde_json::Value;
use stepwell_image::{Entry, Kind, LayerOptions};
use stepwell_model::Digest;
use stepwell_store::{Checkout, Compression, Ids, Layer, Store, StoreOptions};

use crate::cost;

/// How often each is measured, where nothing is said.
const ROUNDS: u32 = 3;

/// Files of the base with large files, and the bytes in each.
const LARGE: (u64, u64) = (20, 100 << 20);

/// Unit of the kernel's counters of devices.
const SECTOR: u64 = 512;

/// What making a root took, in seconds.
#[derive(Debug, Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

/// A base: its name, and layers in a store.
struct Base {
    name: &'static str,
    layers: Vec<Layer>,
}

/// Measures below the directories in `args`; `--rounds=N` says how often, `--debug` that nothing is optimised.
pub fn main(args: &[String]) -> Result<(), String> {
    let dirs: Vec<_> = args.iter().filter(|a| !a.starts_with("--")).collect();
    let rounds = args.iter().find_map(|a| a.strip_prefix("--rounds="));
    let rounds = rounds.map_or(Ok(ROUNDS), str::parse);
    let rounds = rounds.map_err(|e| format!("`--rounds`: {e}"))?;
    if dirs.is_empty() {
        return Err("`bench roots` needs directories, each on a file system to be measured".into());
    }
    println!(
        "| base | file system | first root, wall s / cpu s | second, at once | MB written for both | third, flushed | MB written | wall ratios | cpu ratios |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let work = tempfile::tempdir_in("/var/tmp").map_err(|e| format!("a work directory: {e}"))?;
    let source = store(&work.path().join("store"))?;
    let bases = [
        debian(
            &source,
            &cost::layout(args.contains(&"--debug".to_owned()))?,
        )?,
        large(&source)?,
    ];
    for base in &bases {
        for dir in &dirs {
            measure(&source, base, Path::new(dir), rounds)?;
        }
    }
    Ok(())
}

fn store(root: &Path) -> Result<Store, String> {
    let ids = if rustix::process::geteuid().is_root() {
        Ids::Real
    } else {
        Ids::Emulated
    };
    Store::open(root, StoreOptions::new(ids)).map_err(|e| e.to_string())
}

/// Debian with a compiler, as `bench cost` has it.
fn debian(store: &Store, layout: &Path) -> Result<Base, String> {
    let json = |path: PathBuf| -> Result<Value, String> {
        let text = fs::read(&path).map_err(|e| format!("`{}`: {e}", path.display()))?;
        serde_json::from_slice(&text).map_err(|e| format!("`{}`: {e}", path.display()))
    };
    let digest = |value: &Value| -> Result<Digest, String> {
        let text = value.as_str().ok_or("a descriptor without a digest")?;
        text.parse().map_err(|_| format!("`{text}` is no digest"))
    };
    let blob = |digest: &Digest| layout.join("blobs/sha256").join(digest.hex());
    let index = json(layout.join("index.json"))?;
    let manifest = json(blob(&digest(&index["manifests"][0]["digest"])?))?;
    let config = json(blob(&digest(&manifest["config"]["digest"])?))?;
    let mut layers = Vec::new();
    let described = manifest["layers"].as_array().into_iter().flatten();
    for (number, layer) in described.enumerate() {
        let (found, size) = store
            .blobs()
            .import(&blob(&digest(&layer["digest"])?), None)
            .map_err(|e| e.to_string())?;
        let diff_id = digest(&config["rootfs"]["diff_ids"][number])?;
        let layer = store.adopt_layer(diff_id, found, size, Compression::Gzip);
        layers.push(layer.map_err(|e| e.to_string())?);
    }
    Ok(Base {
        name: "Debian with gcc",
        layers,
    })
}

/// A base of a few large files, half of which can be compressed.
fn large(store: &Store) -> Result<Base, String> {
    let mut sink = store
        .layer_sink(LayerOptions::default())
        .map_err(|e| e.to_string())?;
    let (files, size) = LARGE;
    for number in 0..files {
        let entry = Entry::new(format!("large-{number}"), Kind::File { size }, 0o644);
        let mut content = Noise(number + 1).take(size);
        sink.add(&entry, Some(&mut content))
            .map_err(|e| e.to_string())?;
    }
    let layers = vec![sink.finish().map_err(|e| e.to_string())?];
    Ok(Base {
        name: "2 GB in 20 files",
        layers,
    })
}

/// Bytes that look random (xorshift), each followed by one that does not.
struct Noise(u64);

impl std::io::Read for Noise {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        for pair in buf.chunks_mut(16) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let mut bytes = [0x20; 16];
            bytes[..8].copy_from_slice(&self.0.to_le_bytes());
            pair.copy_from_slice(&bytes[..pair.len()]);
        }
        Ok(buf.len())
    }
}

/// Measures one base in one place and prints the row.
fn measure(source: &Store, base: &Base, dir: &Path, rounds: u32) -> Result<(), String> {
    let mut best: [Option<Took>; 3] = [None; 3];
    let mut written = [0; 2];
    for _ in 0..rounds {
        let work = tempfile::tempdir_in(dir).map_err(|e| format!("`{}`: {e}", dir.display()))?;
        let store = store(&work.path().join("store"))?;
        for layer in &base.layers {
            store
                .blobs()
                .import(&source.blobs().path(&layer.digest), None)
                .and_then(|_| store.toc(layer))
                .map_err(|e| e.to_string())?;
        }
        let mut trees = Vec::new();
        let before = flushed(dir)?;
        for (number, best) in best.iter_mut().enumerate() {
            if number == 2 {
                written[0] = flushed(dir)? - before;
            }
            let (took, tree) = root(&store, base)?;
            *best = Some(best.map_or(took, |b| if b.wall < took.wall { b } else { took }));
            trees.push(tree);
        }
        written[1] = flushed(dir)? - before - written[0];
    }
    let [Some(first), Some(second), Some(third)] = best else {
        return Ok(());
    };
    let cell = |t: &Took| format!("{:.3} / {:.2}", t.wall, t.cpu);
    println!(
        "| {} | {} | {} | {} | {:.1} | {} | {:.1} | {:.2}, {:.4} | {:.2}, {:.4} |",
        base.name,
        mounted(dir)?.1,
        cell(&first),
        cell(&second),
        written[0] as f64 / 1e6,
        cell(&third),
        written[1] as f64 / 1e6,
        second.wall / first.wall,
        third.wall / first.wall,
        second.cpu / first.cpu,
        third.cpu / first.cpu
    );
    Ok(())
}

/// Makes a root in which a step could begin.
fn root<'a>(store: &'a Store, base: &Base) -> Result<(Took, Checkout<'a>), String> {
    let (cpu, start) = (processor(), Instant::now());
    let mut tree = store
        .checkout(&base.layers, &())
        .map_err(|e| e.to_string())?;
    tree.begin().map_err(|e| e.to_string())?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), processor() - cpu);
    Ok((Took { wall, cpu }, tree))
}

/// Flushes the file system of a directory; returns the bytes that were written to its device so far.
fn flushed(dir: &Path) -> Result<u64, String> {
    let handle = fs::File::open(dir).map_err(|e| format!("`{}`: {e}", dir.display()))?;
    syncfs(&handle).map_err(|e| format!("`{}` cannot be flushed: {e}", dir.display()))?;
    written(dir)
}

/// Processor time of this process so far, in seconds.
fn processor() -> f64 {
    let times = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = times.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    // USER_HZ, which is 100 on all machines of interest.
    ticks / 100.0
}

/// Bytes that were written to the device of a directory so far.
fn written(dir: &Path) -> Result<u64, String> {
    let (device, _) = mounted(dir)?;
    let name = device.rsplit('/').next().unwrap_or_default().to_owned();
    let path = format!("/sys/class/block/{name}/stat");
    let text = fs::read_to_string(&path).map_err(|e| format!("`{path}`: {e}"))?;
    let sectors = text.split_whitespace().nth(6).and_then(|n| n.parse().ok());
    let sectors: u64 = sectors.ok_or_else(|| format!("`{path}` is not as expected"))?;
    Ok(sectors * SECTOR)
}

/// The device and the type of the file system that holds a directory.
fn mounted(dir: &Path) -> Result<(String, String), String> {
    let dir = fs::canonicalize(dir).map_err(|e| format!("`{}`: {e}", dir.display()))?;
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|e| e.to_string())?;
    let rows = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?, words.next()?))
    });
    let found = rows
        .filter(|(_, place, _)| dir.starts_with(place))
        .max_by_key(|(_, place, _)| place.len());
    let (device, _, kind) = found.ok_or("nothing is mounted")?;
    Ok((device.to_owned(), kind.to_owned()))
}
