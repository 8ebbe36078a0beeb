//! A host in memory, and graphs as text.

use std::collections::BTreeMap;

use super::super::host::*;
use crate::diagnostic::{Diagnostic, Severity};

/// Images, context files and the vertices added so far.
#[derive(Default)]
pub(super) struct Memory {
    pub images: BTreeMap<String, ImageConfig>,
    pub files: BTreeMap<(String, String), String>,
    pub vertices: Vec<Vertex>,
    pub limit: Option<usize>,
    /// Whether no registry answers.
    pub offline: bool,
    pub resolved: Vec<String>,
    /// Times of contexts, and of what is behind addresses.
    pub times: BTreeMap<String, i64>,
}

impl Host for Memory {
    fn read(&mut self, context: &str, path: &str, _limit: u64) -> Result<Vec<u8>, ReadError> {
        match self.files.get(&(context.to_owned(), path.to_owned())) {
            Some(text) if text == "unreadable" => {
                Err(ReadError::Failed("permission denied".into()))
            }
            Some(text) => Ok(text.clone().into_bytes()),
            None => Err(ReadError::NotFound),
        }
    }

    fn resolve(
        &mut self,
        reference: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError> {
        self.resolved.push(reference.to_owned());
        if self.offline {
            return Err(ResolveError::Unavailable("no network".into()));
        }
        if reference.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ResolveError::Invalid("names are lower case".into()));
        }
        let config = self
            .images
            .get(reference)
            .cloned()
            .ok_or_else(|| ResolveError::Failed("no such image".into()))?;
        Ok(ResolvedImage {
            reference: format!("docker.io/library/{reference}"),
            digest: format!("sha256:{reference}"),
            // As docker's official images for one platform.
            platform: match reference.starts_with("arm64v8/") {
                true => Platform {
                    architecture: "arm64".into(),
                    ..platform.clone()
                },
                false => platform.clone(),
            },
            config,
        })
    }

    fn context_time(&mut self, context: &str) -> Result<Option<i64>, String> {
        match context {
            "broken" => Err("no network".into()),
            context => Ok(self.times.get(context).copied()),
        }
    }

    fn fetched_time(&mut self, source: VertexId) -> Result<Option<i64>, String> {
        let url = match &self.vertices[source.0 as usize].op {
            Op::Http { url, .. } => url,
            Op::Git(source) => &source.url,
            other => panic!("{other:?}"),
        };
        Ok(self.times.get(url).copied())
    }

    fn add(&mut self, vertex: Vertex) -> Result<VertexId, String> {
        if self.limit.is_some_and(|l| self.vertices.len() >= l) {
            return Err("the build graph is full".into());
        }
        self.vertices.push(vertex);
        Ok(VertexId(self.vertices.len() as u32 - 1))
    }
}

/// A host that knows some images.
pub(super) fn memory() -> Memory {
    let mut memory = Memory::default();
    let debian = ImageConfig {
        env: vec!["PATH=/bin".into(), "LANG=C".into()],
        cmd: Some(vec!["bash".into()]),
        ..ImageConfig::default()
    };
    let app = ImageConfig {
        entrypoint: Some(vec!["/app".into()]),
        cmd: Some(vec!["serve".into()]),
        working_dir: "/srv".into(),
        user: "app".into(),
        ..ImageConfig::default()
    };
    let triggers = ImageConfig {
        on_build: vec!["COPY . /src".into(), "RUN make $FLAGS".into()],
        ..ImageConfig::default()
    };
    let uses = ImageConfig {
        on_build: vec!["COPY --from=tools /bin/tool /usr/bin/".into()],
        ..ImageConfig::default()
    };
    let faulty = ImageConfig {
        on_build: vec!["RNU x".into(), "FROM y".into(), "RUN a\nRUN b".into()],
        ..ImageConfig::default()
    };
    for (name, config) in [
        ("debian", debian),
        ("app", app),
        ("triggers", triggers),
        ("uses", uses),
        ("faulty", faulty),
        ("busybox:1", ImageConfig::default()),
    ] {
        memory.images.insert(name.into(), config);
    }
    memory
}

pub(super) fn request(text: &str) -> Request {
    let amd64 = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        variant: String::new(),
    };
    Request {
        file: "Dockerfile".into(),
        content: text.into(),
        target_platform: amd64.clone(),
        build_platform: amd64,
        ..Request::default()
    }
}

/// Builds and returns the graph as text, one vertex a line, and the outcome.
pub(super) fn lowered(request: &Request, memory: &mut Memory) -> (String, Outcome) {
    let outcome = super::super::build(request, memory).unwrap_or_else(|d| {
        panic!(
            "{}\n{}",
            String::from_utf8_lossy(&request.content),
            shown(&d)
        )
    });
    (graph(memory), outcome)
}

/// Builds a text on the usual host.
pub(super) fn built(text: &str) -> (String, Outcome) {
    lowered(&request(text), &mut memory())
}

/// Builds a text that has to fail, and returns the errors as text.
pub(super) fn refused(text: &str) -> String {
    let list = super::super::build(&request(text), &mut memory()).expect_err(text);
    assert!(list.iter().any(|d| d.severity == Severity::Error));
    shown(
        &list
            .into_iter()
            .filter(|d| d.severity == Severity::Error)
            .collect::<Vec<_>>(),
    )
}

pub(super) fn shown(list: &[Diagnostic]) -> String {
    let line = |d: &Diagnostic| {
        format!(
            "{}:{} {}: {}{}",
            d.span.line,
            d.span.column,
            d.code,
            d.message,
            if d.hint.is_empty() {
                String::new()
            } else {
                format!(" ({})", d.hint)
            }
        )
    };
    list.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn graph(memory: &Memory) -> String {
    memory
        .vertices
        .iter()
        .enumerate()
        .map(|(i, v)| format!("{i} {}", op(&v.op)))
        .collect::<Vec<_>>()
        .join("\n")
}

pub(super) fn op(op: &Op) -> String {
    match op {
        Op::Image { reference, .. } => format!("image {reference}"),
        Op::Context { name, exclude } => format!("context {name:?} {exclude:?}"),
        Op::Http {
            url,
            name,
            checksum,
        } => format!("http {url} as {name:?} {checksum:?}"),
        Op::Git(git) => format!(
            "git {} {:?} {:?} {:?} keep {:?} submodules {:?}",
            git.url, git.reference, git.subdir, git.checksum, git.keep_git_dir, git.submodules
        ),
        Op::Merge(inputs) => format!("merge {:?}", inputs.iter().map(|i| i.0).collect::<Vec<_>>()),
        Op::Run(run) => {
            let env: Vec<String> = run
                .env
                .iter()
                .filter(|(n, v)| n != "PATH" && (n != "LANG" || v != "C"))
                .map(|(n, v)| format!("{n}={v}"))
                .collect();
            let mut text = format!(
                "run on {} {:?} env {env:?} in {}",
                run.root.0, run.args, run.cwd
            );
            if !run.user.is_empty() {
                text.push_str(&format!(" as {}", run.user));
            }
            if run.network != Network::Default {
                text.push_str(&format!(" network {:?}", run.network));
            }
            for (path, content, mode) in &run.files {
                text.push_str(&format!(
                    " file {path} {mode:o} {:?}",
                    String::from_utf8_lossy(content)
                ));
            }
            for mount in &run.mounts {
                text.push_str(&format!("\n  {}", self::mount(mount)));
            }
            if !run.hostname.is_empty() {
                text.push_str(&format!(" named {}", run.hostname));
            }
            if let Some(size) = run.shm_size {
                text.push_str(&format!(" shm {size}"));
            }
            for (name, soft, hard) in &run.limits {
                text.push_str(&format!(" limit {name} {soft:?} {hard:?}"));
            }
            text
        }
        Op::Files { base, actions } => {
            let base = base.map_or("scratch".to_owned(), |b| b.0.to_string());
            format!(
                "files on {base}: {}",
                actions.iter().map(action).collect::<Vec<_>>().join("; ")
            )
        }
    }
}

fn mount(mount: &Mount) -> String {
    match mount {
        Mount::Bind {
            target,
            from,
            source,
            writable,
        } => {
            let how = if *writable { "rw" } else { "ro" };
            format!("bind {target} {source} of {} {how}", from.0)
        }
        Mount::Cache {
            target,
            id,
            sharing,
            read_only,
            base,
            mode,
            uid,
            gid,
        } => {
            let how = if *read_only { " ro" } else { "" };
            let base = base.as_ref().map_or(String::new(), |(from, source)| {
                format!(" base {source} of {}", from.0)
            });
            format!("cache {target} {id} {sharing:?} {mode:o} {uid}:{gid}{how}{base}")
        }
        Mount::Tmpfs { target, size } => format!("tmpfs {target} {size:?}"),
        Mount::Secret {
            id,
            target,
            env,
            required,
            mode,
            uid,
            gid,
        } => {
            let how = if *required { " required" } else { "" };
            format!("secret {id} {target:?} {env:?} {mode:o} {uid}:{gid}{how}")
        }
        Mount::Ssh {
            id,
            target,
            required,
            mode,
            uid,
            gid,
        } => {
            let how = if *required { " required" } else { "" };
            format!("ssh {id} {target} {mode:o} {uid}:{gid}{how}")
        }
    }
}

fn owner(owner: &Option<Owner>) -> String {
    owner
        .as_ref()
        .map(|o| format!(" owner {}:{}", o.user, o.group.as_deref().unwrap_or("-")))
        .unwrap_or_default()
}

fn action(action: &FileAction) -> String {
    match action {
        FileAction::Copy(copy) => {
            let mut text = format!(
                "copy {:?} of {} to {}{}",
                copy.sources,
                copy.from.0,
                copy.dest,
                owner(&copy.owner)
            );
            for (set, name) in [(copy.extract, " extract"), (copy.parents, " parents")] {
                text.push_str(if set { name } else { "" });
            }
            if !copy.mode.is_empty() {
                text.push_str(&format!(" mode {}", copy.mode));
            }
            if !copy.exclude.is_empty() {
                text.push_str(&format!(" without {:?}", copy.exclude));
            }
            text
        }
        FileAction::Mkdir {
            path,
            mode,
            owner: o,
        } => format!("mkdir {path} {mode:o}{}", owner(o)),
        FileAction::Mkfile {
            path,
            content,
            mode,
            owner: o,
        } => format!(
            "mkfile {path} {mode:o} {:?}{}",
            String::from_utf8_lossy(content),
            owner(o)
        ),
    }
}
