//! Image configurations as plain data, and their way to and from the host's resource.

pub use super::bindings::stepwell::frontend::images::Healthcheck;
use super::bindings::stepwell::frontend::images::ImageConfig as Resource;

/// What a container of an image runs with.
#[derive(Debug, Clone, Default)]
pub struct ImageConfig {
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Program and arguments, or arguments of the entry point.
    pub cmd: Option<Vec<String>>,
    /// Program and its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Absolute path, or empty.
    pub working_dir: String,
    /// `user[:group]`, or empty.
    pub user: String,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// `port/protocol`.
    pub exposed_ports: Vec<String>,
    /// Absolute paths.
    pub volumes: Vec<String>,
    /// Name or number, or empty.
    pub stop_signal: String,
    /// How to check that a container is healthy.
    pub healthcheck: Option<Healthcheck>,
    /// Shell for the shell forms, where the default was changed.
    pub shell: Option<Vec<String>>,
    /// Instructions for whoever builds on this image.
    pub on_build: Vec<String>,
    /// Author, or empty.
    pub author: String,
}

/// One line of an image's history.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The instruction.
    pub created_by: String,
    /// For example the name of the frontend; or empty.
    pub comment: String,
    /// Whether no layer belongs to it.
    pub empty_layer: bool,
}

impl ImageConfig {
    pub(super) fn from_host(config: &Resource) -> Self {
        Self {
            env: config.env(),
            cmd: config.cmd(),
            entrypoint: config.entrypoint(),
            working_dir: config.working_dir(),
            user: config.user(),
            labels: config.labels(),
            exposed_ports: config.exposed_ports(),
            volumes: config.volumes(),
            stop_signal: config.stop_signal(),
            healthcheck: config.get_healthcheck(),
            shell: config.shell(),
            on_build: config.on_build(),
            author: config.author(),
        }
    }

    pub(super) fn to_host(&self) -> Resource {
        let config = Resource::new();
        config.set_env(&self.env);
        config.set_cmd(self.cmd.as_deref());
        config.set_entrypoint(self.entrypoint.as_deref());
        config.set_working_dir(&self.working_dir);
        config.set_user(&self.user);
        config.set_labels(&self.labels);
        config.set_exposed_ports(&self.exposed_ports);
        config.set_volumes(&self.volumes);
        config.set_stop_signal(&self.stop_signal);
        config.set_healthcheck(self.healthcheck.as_ref());
        config.set_shell(self.shell.as_deref());
        config.set_on_build(&self.on_build);
        config.set_author(&self.author);
        config
    }
}
