//! Builds cases: all contexts are laid out first, then the program runs as an ordinary user, on several threads, on one store.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use serde_json::Value;
use stepwell_integration_tests::proxy::{Proxy, Tamper};
use stepwell_integration_tests::{World, ran};
use stepwell_test_support::{program, user};

use crate::case::Case;
use crate::image::Image;

/// What came of a case.
#[derive(Debug, Default)]
pub struct Built {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// The image, where there is one.
    pub image: Option<Result<Image, String>>,
    /// `severity`, and `line:column Rule: message (hint)`.
    pub messages: Vec<(String, String)>,
    /// What steps wrote.
    pub output: String,
    /// All that was written to standard error.
    pub stderr: String,
}

/// Compresses an archive in place, as its name ends.
fn compress(archive: &Path) {
    let ending = archive.extension().and_then(|e| e.to_str());
    let program = match ending {
        Some("gz") => "gzip",
        Some("bz2") => "bzip2",
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return,
    };
    let done = Command::new(program)
        .args(["-q", "-c"])
        .stdin(std::fs::File::open(archive).expect("the archive"))
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(done.status.success(), "{program}: {done:?}");
    std::fs::write(archive, done.stdout).expect("the compressed archive");
}

/// Lays out a case, once: its context, its Dockerfile.
fn lay_out(world: &World, case: &Case, dir: &Path) {
    let context = dir.join("context");
    if context.exists() {
        return;
    }
    let put = |name: &str, content: &str| {
        let path = context.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent"))
            .expect("a directory of the context");
        match name.ends_with('/') {
            true => std::fs::create_dir_all(&path).expect("a directory of the context"),
            false => {
                let text = world.expand(content).replace("@WEB@", &web(case));
                std::fs::write(&path, text).expect("a file of the context");
            }
        }
    };
    std::fs::create_dir_all(&context).expect("the context");
    if !case.dockerfile.is_empty() {
        put("Dockerfile", &case.dockerfile);
    }
    case.files
        .iter()
        .for_each(|(name, content)| put(name, content));
    for (name, files) in &case.archives {
        let file = std::fs::File::create(context.join(name)).expect("an archive");
        let mut tar = tar::Builder::new(file);
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o640);
            header.set_uid(3);
            header.set_gid(4);
            tar.append_data(&mut header, path, content.as_bytes())
                .expect("an entry");
        }
        tar.finish().expect("the end of the archive");
        compress(&context.join(name));
    }
    for (name, target) in &case.links {
        std::os::unix::fs::symlink(target, context.join(name)).expect("a link");
    }
    for (name, mode) in &case.modes {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = u32::from_str_radix(mode, 8).expect("permissions in octal");
        std::fs::set_permissions(context.join(name), std::fs::Permissions::from_mode(mode))
            .expect("permissions");
    }
}

/// The address of a case's own files.
fn web(case: &Case) -> String {
    match WEB.get() {
        Some(server) => format!("http://{}/{}", server.host(), case.name),
        None => String::new(),
    }
}

/// Starts the server of all files behind addresses.
fn serve(cases: &[Case]) {
    let files: Vec<(String, String)> = cases
        .iter()
        .flat_map(|case| {
            let of_case =
                |(path, text): (&String, &String)| (format!("/{}/{path}", case.name), text.clone());
            case.web.iter().map(of_case)
        })
        .collect();
    WEB.get_or_init(|| {
        Proxy::alone(
            move |asked| match files.iter().find(|(path, _)| *path == asked.target) {
                Some((_, text)) => Tamper::Answer(200, vec![], text.clone().into_bytes()),
                None => Tamper::Answer(404, vec![], vec![]),
            },
        )
    });
}

/// One server is enough for all runners in a process.
static WEB: OnceLock<Proxy> = OnceLock::new();

/// Where a case is laid out.
fn directory(world: &World, case: &Case) -> PathBuf {
    world.path("cases").join(&case.name)
}

/// Builds all cases and returns what came of them, in their order.
pub fn all(
    world: &World,
    cases: &[Case],
    build: impl Fn(&World, &Case, &Path) -> Built + Sync,
) -> Vec<Built> {
    serve(cases);
    for case in cases {
        lay_out(world, case, &directory(world, case));
    }
    world.give();
    restore_modes(world, cases);
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Built)>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads + 1 {
            scope.spawn(|| {
                while let Some((index, case)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|i| Some((i, cases.get(i)?)))
                {
                    let built = build(world, case, &directory(world, case));
                    done.lock()
                        .expect("no thread panicked")
                        .push((index, built));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panicked");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, built)| built).collect()
}

/// chown(2) took the set-id bits away.
fn restore_modes(world: &World, cases: &[Case]) {
    for case in cases {
        for (name, mode) in case.modes.iter().filter(|(_, m)| m.len() > 3) {
            let path = directory(world, case).join("context").join(name);
            let status = Command::new("chmod").arg(mode).arg(path).status();
            assert!(status.is_ok_and(|s| s.success()), "chmod of `{name}`");
        }
    }
}

/// The flags of a case; `@DIR@` stands for its context.
fn arguments(world: &World, case: &Case, dir: &Path) -> Vec<String> {
    let context = dir.join("context").display().to_string();
    case.args
        .iter()
        .map(|a| {
            let text = world.expand(a).replace("@DIR@", &context);
            text.replace("@WEB@", &web(case))
        })
        .collect()
}

/// Builds a case with Stepwell.
pub fn stepwell(world: &World, case: &Case, dir: &Path) -> Built {
    let archive = dir.join("image.tar");
    let mut command = Command::new(program::debug());
    command
        .args(["build", "--progress=rawjson", "--root"])
        .arg(world.path("store"));
    if !case
        .args
        .iter()
        .any(|a| a.starts_with("--call") || a == "--check")
    {
        command.arg(format!(
            "--output=type=oci,dest={},compression=uncompressed",
            archive.display()
        ));
    }
    command
        .args(arguments(world, case, dir))
        .arg(dir.join("context"));
    let ran = ran(&mut user::ordinary(command));
    let mut built = Built {
        code: ran.code,
        image: archive.is_file().then(|| Image::read(&archive)),
        output: ran.out,
        ..Built::default()
    };
    for line in ran.err.lines() {
        match serde_json::from_str::<Value>(line) {
            Ok(event) => take(&event, &mut built),
            Err(_) => built.stderr.push_str(&format!("{line}\n")),
        }
    }
    let _ = std::fs::remove_file(&archive);
    built
}

fn take(event: &Value, built: &mut Built) {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    match text("event") {
        "output" => built.output.push_str(text("text")),
        "failed" => {
            let (file, span) = (&event["origin"]["file"], &event["origin"]["span"]);
            if let Some(file) = file.as_str() {
                let place = format!("  --> {file}:{}:{}\n", span["line"], span["column"]);
                built.stderr.push_str(&place);
            }
            for part in [text("message"), text("hint")] {
                built.stderr.push_str(&format!("{part}\n"));
            }
        }
        "diagnostic" => {
            let hint = if text("hint").is_empty() {
                String::new()
            } else {
                format!(" ({})", text("hint"))
            };
            let shown = format!(
                "{}:{} {}: {}{hint}",
                event["span"]["line"],
                event["span"]["column"],
                text("code"),
                text("message")
            );
            built.messages.push((text("severity").to_owned(), shown));
        }
        _ => {}
    }
}

/// Builds a case with Buildah, for comparison.
pub fn buildah(world: &World, case: &Case, dir: &Path) -> Built {
    let archive = dir.join("buildah.tar");
    let storage = world.path("buildah");
    let base = |verb: &str| {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(storage.join("root"))
            .arg("--runroot")
            .arg(storage.join("run"));
        command.args(["--storage-driver=vfs", verb]);
        command
    };
    let tag = format!("localhost/{}", case.name);
    let mut build = base("build");
    build.args([
        "--isolation=chroot",
        "--tls-verify=false",
        "--quiet",
        "--layers=false",
        "-t",
        &tag,
    ]);
    build
        .args(arguments(world, case, dir))
        .arg(dir.join("context"));
    let ran_build = ran(&mut user::ordinary(build));
    if ran_build.code == Some(0) {
        let mut push = base("push");
        push.args([
            "--quiet",
            "--disable-compression",
            &tag,
            &format!("oci-archive:{}", archive.display()),
        ]);
        ran(&mut user::ordinary(push));
    }
    Built {
        code: ran_build.code,
        image: archive.is_file().then(|| Image::read(&archive)),
        stderr: ran_build.err,
        output: ran_build.out,
        ..Built::default()
    }
}
