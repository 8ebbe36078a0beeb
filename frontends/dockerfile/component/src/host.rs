//! The core's host, made of the component's imports.

use dockerfile_core::lower::host::{
    Copy, FileAction, Host, Mount, Op, ReadError, ResolveError, ResolvedImage, Run, Vertex,
    VertexId,
};
use dockerfile_core::remote::GitSource;
use stepwell_guest::frontend::contexts::{self, AccessError};
use stepwell_guest::frontend::graph::{self, GraphError, SourceError};
use stepwell_guest::frontend::{Origin, Platform, images};

use crate::convert;

/// The imports; keeps the vertices, which the core knows by number.
#[derive(Default)]
pub(crate) struct Imports {
    vertices: Vec<graph::Vertex>,
}

impl Imports {
    /// Takes the result out.
    pub(crate) fn take(&mut self, id: VertexId) -> Option<graph::Vertex> {
        let index = id.0 as usize;
        (index < self.vertices.len()).then(|| self.vertices.swap_remove(index))
    }

    fn vertex(&self, id: VertexId) -> &graph::Vertex {
        &self.vertices[id.0 as usize]
    }

    fn make(&self, vertex: Vertex) -> Result<graph::Vertex, String> {
        let platform = convert::platform(&vertex.platform);
        let origin = convert::origin(vertex.origin);
        let origin = Some(&origin);
        let made = match vertex.op {
            Op::Http {
                url,
                name,
                checksum,
            } => {
                return graph::http(&url, &name, checksum.as_deref(), &platform, origin)
                    .map_err(unnamed);
            }
            Op::Git(source) => return git(*source, &platform, origin).map_err(unnamed),
            Op::Image { reference, digest } => graph::image(&reference, &digest, &platform, origin),
            Op::Context { name, exclude } => graph::context(&name, &exclude, &platform, origin),
            Op::Merge(inputs) => {
                let inputs: Vec<_> = inputs.iter().map(|id| self.vertex(*id)).collect();
                graph::merge(&inputs, &platform, origin)
            }
            Op::Run(run) => self.run(*run, &platform, origin),
            Op::Files { base, actions } => self.files(base, actions, &platform, origin),
        };
        made.map_err(|error| match error {
            GraphError::TooLarge(limit) => too_large(limit),
            GraphError::RelativePath(path) => format!("`{path}` is not an absolute path"),
            GraphError::UnresolvedImage(name) => format!("the image `{name}` was not resolved"),
            GraphError::UnknownContext(name) => format!("there is no context `{name}`"),
            GraphError::NoInput => "nothing to merge".to_owned(),
        })
    }

    fn run(
        &self,
        run: Run,
        platform: &Platform,
        origin: Option<&Origin>,
    ) -> Result<graph::Vertex, GraphError> {
        let made = graph::Run::new(self.vertex(run.root), &run.args);
        for (name, value) in &run.env {
            made.add_env(name, value);
        }
        for (name, value) in &run.uncounted_env {
            made.add_uncounted_env(name, value);
        }
        made.set_cwd(&run.cwd);
        made.set_user(&run.user);
        made.set_network(convert::network(run.network));
        for (path, content, mode) in &run.files {
            made.add_file(path, content, *mode);
        }
        for (name, address) in &run.hosts {
            made.add_host(name, address);
        }
        for mount in run.mounts {
            made.add_mount(self.mount(mount));
        }
        if let Some(size) = run.shm_size {
            made.set_shm_size(size);
        }
        if !run.hostname.is_empty() {
            made.set_hostname(&run.hostname);
        }
        for limit in run.limits {
            made.add_limit(&convert::limit(limit));
        }
        graph::Run::finish(made, platform, origin)
    }

    fn mount(&self, mount: Mount) -> graph::Mount {
        match mount {
            Mount::Bind {
                target,
                from,
                source,
                writable,
            } => {
                let made = graph::Mount::bind(&target, self.vertex(from), &source);
                made.set_writable(writable);
                made
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
                let made = graph::Mount::cache(&target, &id);
                made.set_sharing(convert::sharing(sharing));
                made.set_writable(!read_only);
                if let Some((from, source)) = base {
                    made.set_base(self.vertex(from), &source);
                }
                made.set_mode(mode);
                made.set_owner(uid, gid);
                made
            }
            Mount::Tmpfs { target, size } => {
                let made = graph::Mount::tmpfs(&target);
                if let Some(size) = size {
                    made.set_size(size);
                }
                made
            }
            Mount::Secret {
                id,
                target,
                env,
                required,
                mode,
                uid,
                gid,
            } => {
                let made = graph::Mount::secret(&id);
                if let Some(target) = target {
                    made.set_target(&target);
                }
                if let Some(name) = env {
                    made.set_env(&name);
                }
                made.set_required(required);
                made.set_mode(mode);
                made.set_owner(uid, gid);
                made
            }
            Mount::Ssh {
                id,
                target,
                required,
                mode,
                uid,
                gid,
            } => {
                let made = graph::Mount::ssh(&id, &target);
                made.set_required(required);
                made.set_mode(mode);
                made.set_owner(uid, gid);
                made
            }
        }
    }

    fn files(
        &self,
        base: Option<VertexId>,
        actions: Vec<FileAction>,
        platform: &Platform,
        origin: Option<&Origin>,
    ) -> Result<graph::Vertex, GraphError> {
        let files = graph::Files::new(base.map(|id| self.vertex(id)));
        for action in actions {
            match action {
                FileAction::Copy(copy) => files.copy(self.copy(copy)),
                FileAction::Mkdir { path, mode, owner } => {
                    files.mkdir(&path, mode, owner.map(convert::owner).as_ref());
                }
                FileAction::Mkfile {
                    path,
                    content,
                    mode,
                    owner,
                } => {
                    files.mkfile(&path, &content, mode, owner.map(convert::owner).as_ref());
                }
            }
        }
        graph::Files::finish(files, platform, origin)
    }

    fn copy(&self, copy: Copy) -> graph::Copy {
        let made = graph::Copy::new(self.vertex(copy.from), &copy.sources, &copy.dest);
        if let Some(owner) = copy.owner {
            made.set_owner(&convert::owner(owner));
        }
        if !copy.mode.is_empty() {
            made.set_mode(&copy.mode);
        }
        made.set_extract(copy.extract);
        made.set_parents(copy.parents);
        for pattern in &copy.exclude {
            made.add_exclude(pattern);
        }
        made
    }
}

fn git(
    source: GitSource,
    platform: &Platform,
    origin: Option<&Origin>,
) -> Result<graph::Vertex, SourceError> {
    let made = graph::GitSource::new(&source.url);
    made.set_reference(&source.reference);
    made.set_subdir(&source.subdir);
    made.set_checksum(&source.checksum);
    made.set_keep_git_dir(source.keep_git_dir.unwrap_or(false));
    made.set_submodules(source.submodules.unwrap_or(true));
    made.set_commit_times(source.commit_times);
    graph::GitSource::finish(made, platform, origin)
}

fn too_large(limit: u64) -> String {
    format!("the build graph has reached its limit of {limit} vertices")
}

fn unnamed(error: SourceError) -> String {
    match error {
        SourceError::TooLarge(limit) => too_large(limit),
        SourceError::BadAddress(why) => why,
        SourceError::BadChecksum(text) => format!("`{text}` is not a digest"),
    }
}

/// Why something of a context cannot be had, for people.
fn unreadable(error: AccessError) -> String {
    match error {
        AccessError::UnknownContext => "there is no context of this name".into(),
        AccessError::NotFound => "it is not there".into(),
        AccessError::NotAFile => "it is not a file".into(),
        AccessError::NotADirectory => "it is not a directory".into(),
        AccessError::Outside => "it is outside of the context".into(),
        AccessError::TooLarge(limit) => format!("it is larger than {limit} bytes"),
        AccessError::Denied => "permission denied".into(),
        AccessError::Io(text) => text,
    }
}

impl Host for Imports {
    fn read(&mut self, context: &str, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        contexts::read(context, path, limit).map_err(|error| match error {
            AccessError::NotFound | AccessError::NotADirectory | AccessError::Outside => {
                ReadError::NotFound
            }
            other => ReadError::Failed(unreadable(other)),
        })
    }

    fn context_time(&mut self, context: &str) -> Result<Option<i64>, String> {
        contexts::time(context).map_err(unreadable)
    }

    fn fetched_time(&mut self, source: VertexId) -> Result<Option<i64>, String> {
        graph::fetched_time(self.vertex(source)).map_err(unreadable)
    }

    fn resolve(
        &mut self,
        reference: &str,
        platform: &dockerfile_core::lower::host::Platform,
    ) -> Result<ResolvedImage, ResolveError> {
        use images::ResolveError as Error;
        let image =
            images::resolve(reference, &convert::platform(platform)).map_err(
                |error| match error {
                    Error::InvalidReference(text) => ResolveError::Invalid(text),
                    Error::NotFound(text) | Error::NoSuchPlatform(text) | Error::Denied(text) => {
                        ResolveError::Failed(text)
                    }
                    Error::Unavailable(text) => ResolveError::Unavailable(text),
                },
            )?;
        Ok(ResolvedImage {
            reference: image.reference,
            digest: image.digest,
            platform: convert::platform_to_core(image.platform),
            config: convert::config_to_core(image.config),
        })
    }

    fn add(&mut self, vertex: Vertex) -> Result<VertexId, String> {
        let made = self.make(vertex)?;
        self.vertices.push(made);
        Ok(VertexId(self.vertices.len() as u32 - 1))
    }
}
