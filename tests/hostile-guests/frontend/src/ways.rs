//! The ways to misbehave.

use std::hint::black_box;
use std::mem::ManuallyDrop;

use stepwell_guest::frontend::graph::{self, Files, Run, Vertex};
use stepwell_guest::frontend::{Failure, Image, Options, Platform, Severity, contexts, images};

use crate::{nothing, say};

type Way = fn(&Options) -> Result<Image, Failure>;

macro_rules! ways {
    ($($name:literal => $way:ident,)*) => {
        pub const ALL: [(&str, Way); [$($name),*].len()] = [$(($name, $way)),*];
        pub const NAMES: [&str; ALL.len()] = [$($name),*];
    };
}

ways! {
    "loops for ever" => loops,
    "allocates for ever" => allocates,
    "builds an endless graph" => endless_graph,
    "builds an endless operation" => endless_operation,
    "builds a chain of huge files" => huge_files,
    "recurses for ever" => recurses,
    "floods diagnostics" => floods,
    "floods the history" => floods_history,
    "calls the host for ever" => calls,
    "reads for ever" => reads,
    "resolves for ever" => resolves,
    "collects handles" => collects,
    "points many strings at one place" => points,
    "makes up a handle" => makes_up,
    "uses a handle of another kind" => other_kind,
    "uses a handle twice" => twice,
    "panics" => panics,
    "reads outside its context" => outside,
    "names a context that it does not have" => unknown_context,
    "names an image that it did not resolve" => unresolved,
    "refuses without a reason" => refuses,
    "reports an error and answers an image" => contradicts,
    "gives up" => gives_up,
    "gives relative paths" => relative,
    "paints the screen" => paints,
}

fn loops(_: &Options) -> Result<Image, Failure> {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn allocates(_: &Options) -> Result<Image, Failure> {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1_u8; 1 << 20]);
        black_box(&kept);
    }
}

fn scratch(platform: &Platform, path: &str) -> Vertex {
    let files = Files::new(None);
    files.mkdir(path, 0o755, None);
    Files::finish(files, platform, None).expect("a directory can be made")
}

fn endless_graph(options: &Options) -> Result<Image, Failure> {
    for n in 0_u64.. {
        scratch(&options.target_platform, &format!("/{n}"));
    }
    Ok(nothing())
}

fn endless_operation(options: &Options) -> Result<Image, Failure> {
    let run = Run::new(&scratch(&options.target_platform, "/"), &[]);
    let value = "x".repeat(1 << 20);
    loop {
        run.add_host(&value, "::1");
    }
}

fn huge_files(options: &Options) -> Result<Image, Failure> {
    let content = vec![0; 16 << 20];
    for n in 0_u64.. {
        let files = Files::new(None);
        files.mkfile(&format!("/{n}"), &content, 0o644, None);
        let _ = Files::finish(files, &options.target_platform, None);
    }
    Ok(nothing())
}

fn recurses(_: &Options) -> Result<Image, Failure> {
    #[allow(unconditional_recursion, reason = "that is the point")]
    fn deeper(n: u64) -> u64 {
        black_box(deeper(black_box(n) + 1)) + 1
    }
    Err(Failure::Broken(deeper(0).to_string()))
}

fn floods(_: &Options) -> Result<Image, Failure> {
    loop {
        say(Severity::Warning, "Flood", "water");
    }
}

fn floods_history(_: &Options) -> Result<Image, Failure> {
    use stepwell_guest::frontend::History;
    let line = History {
        created_by: "x".repeat(64 << 10),
        ..History::default()
    };
    Ok(Image {
        history: vec![line; 64],
        source_date_epoch: None,
        ..nothing()
    })
}

fn calls(_: &Options) -> Result<Image, Failure> {
    loop {
        let _ = black_box(contexts::stat("", "file"));
    }
}

fn reads(_: &Options) -> Result<Image, Failure> {
    loop {
        let _ = black_box(contexts::read("", "file", u64::MAX));
    }
}

fn resolves(options: &Options) -> Result<Image, Failure> {
    for n in 0_u64.. {
        let _ = images::resolve(&format!("image:{n}"), &options.target_platform);
    }
    Ok(nothing())
}

fn collects(options: &Options) -> Result<Image, Failure> {
    let root = scratch(&options.target_platform, "/");
    let mut kept = Vec::new();
    loop {
        kept.push(Run::new(&root, &[]));
    }
}

/// A million elements of one list that all lie in the same 16 MiB: the host would copy 16 TiB.
fn points(options: &Options) -> Result<Image, Failure> {
    let root = scratch(&options.target_platform, "/");
    let mut text = ManuallyDrop::new("x".repeat(16 << 20));
    let (start, length) = (text.as_mut_ptr(), text.len());
    let many: Vec<String> = (0..1_000_000)
        // SAFETY: it is not safe; the strings are only handed to the host, and none is dropped.
        .map(|_| unsafe { String::from_raw_parts(start, length, length) })
        .collect();
    let many = ManuallyDrop::new(many);
    let run = Run::new(&root, &many);
    run.set_cwd("/");
    Ok(nothing())
}

fn makes_up(_: &Options) -> Result<Image, Failure> {
    // SAFETY: that the host does not take it is what is tested.
    let vertex = unsafe { Vertex::from_handle(12_345) };
    let run = Run::new(&vertex, &["true".into()]);
    run.set_cwd("/");
    Ok(nothing())
}

fn other_kind(options: &Options) -> Result<Image, Failure> {
    let files = Files::new(None);
    // SAFETY: that the host does not take it is what is tested.
    let vertex = unsafe { Vertex::from_handle(files.handle()) };
    let run = Run::new(&vertex, &["true".into()]);
    let _ = Run::finish(run, &options.target_platform, None);
    Ok(nothing())
}

fn twice(options: &Options) -> Result<Image, Failure> {
    let files = Files::new(None);
    // SAFETY: that the host does not take it is what is tested.
    let again = unsafe { Files::from_handle(files.handle()) };
    let _ = Files::finish(files, &options.target_platform, None);
    let _ = Files::finish(again, &options.target_platform, None);
    Ok(nothing())
}

fn panics(_: &Options) -> Result<Image, Failure> {
    panic!("of fear")
}

/// Paths that lead out of the context, through the text or through links that the test has put there.
const OUTSIDE: [&str; 9] = [
    "..",
    "../secret",
    "directory/../../secret",
    "/etc/passwd",
    "link-to-parent/secret",
    "absolute-link",
    "chain-1",
    "directory/chain-up",
    "loop-1",
];

/// Tells the user all that it could get hold of.
fn outside(_: &Options) -> Result<Image, Failure> {
    for path in OUTSIDE {
        let listed = contexts::list("", path).is_ok();
        match contexts::read("", path, 1 << 20) {
            Ok(content) => say(
                Severity::Error,
                "Got",
                &format!("{path}: {}", String::from_utf8_lossy(&content)),
            ),
            Err(_) if listed => say(Severity::Error, "Listed", path),
            Err(error) => say(Severity::Note, "Refused", &format!("{path}: {error:?}")),
        }
    }
    Ok(nothing())
}

fn unknown_context(options: &Options) -> Result<Image, Failure> {
    let got = contexts::read("other", "file", 1).is_ok() || contexts::list("other", "").is_ok();
    let made = graph::context("other", &[], &options.target_platform, None);
    match (got, made) {
        (false, Err(graph::GraphError::UnknownContext(_))) => {
            Err(Failure::Broken("refused as it should be".into()))
        }
        _ => Ok(nothing()),
    }
}

fn unresolved(options: &Options) -> Result<Image, Failure> {
    let digest = format!("sha256:{}", "0".repeat(64));
    match graph::image("secret:latest", &digest, &options.target_platform, None) {
        Err(graph::GraphError::UnresolvedImage(_)) => {
            Err(Failure::Broken("refused as it should be".into()))
        }
        _ => Ok(nothing()),
    }
}

fn refuses(_: &Options) -> Result<Image, Failure> {
    Err(Failure::Refused)
}

fn contradicts(_: &Options) -> Result<Image, Failure> {
    say(Severity::Error, "Contradiction", "this is wrong");
    Ok(nothing())
}

fn gives_up(_: &Options) -> Result<Image, Failure> {
    Err(Failure::Broken("no strength".into()))
}

fn relative(options: &Options) -> Result<Image, Failure> {
    let run = Run::new(&scratch(&options.target_platform, "/"), &["true".into()]);
    run.set_cwd("here");
    match Run::finish(run, &options.target_platform, None) {
        Err(graph::GraphError::RelativePath(_)) => {
            Err(Failure::Broken("refused as it should be".into()))
        }
        _ => Ok(nothing()),
    }
}

fn paints(_: &Options) -> Result<Image, Failure> {
    say(Severity::Warning, "Paint", "\u{1b}[31mred\u{202e}");
    Err(Failure::Broken("\u{1b}]0;title\u{7}red".into()))
}
