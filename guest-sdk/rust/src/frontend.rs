//! What a frontend sees and answers: a pleasant face on the bindings of `stepwell:frontend`.
//!
//! [`Options::get`] says what is wanted, [`contexts`] and [`images`] are read from, vertices are made with [`graph`],
//! messages go through [`report`], and [`Frontend::build`] answers an [`Image`].

#[doc(hidden)]
pub mod bindings;
mod config;

pub use bindings::stepwell::frontend::diagnostics::{Diagnostic, Severity, report};
pub use bindings::stepwell::frontend::inspection::{
    Supply, report_argument, report_supply, report_target,
};
pub use bindings::stepwell::frontend::options::{ContextKind, Definition, NamedContext};
pub use bindings::stepwell::frontend::types::{
    Failure, HostEntry, Limit, Network, Origin, Owner, Platform, Sharing, Span,
};
pub use config::{Healthcheck, History, ImageConfig};

use bindings::stepwell::frontend::{images as wit_images, inspection, options, outcome};
use graph::Vertex;

/// Reading the directories that the user handed over.
pub mod contexts {
    pub use super::bindings::stepwell::frontend::contexts::{
        AccessError, DirectoryEntry, EntryKind, EntryStat, list, read, stat, time,
    };
}

/// Making the vertices of the build graph.
pub mod graph {
    pub use super::bindings::stepwell::frontend::graph::{
        FileCopy as Copy, Files, GitSource, GraphError, Mount, Run, SourceError, Vertex, context,
        fetched_time, http, image, merge,
    };
}

/// Resolving images.
pub mod images {
    pub use super::bindings::stepwell::frontend::images::ResolveError;
    use super::{ImageConfig, Platform, wit_images};

    /// An image that a reference was resolved to.
    #[derive(Debug, Clone)]
    pub struct ResolvedImage {
        /// The reference, normalised: what [`graph::image`](super::graph::image) takes.
        pub reference: String,
        /// Digest of the manifest for the platform.
        pub digest: String,
        /// The platform that the image is for.
        pub platform: Platform,
        /// Its configuration.
        pub config: ImageConfig,
    }

    /// Resolves a reference to the image for a platform.
    pub fn resolve(reference: &str, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        let image = wit_images::resolve(reference, platform)?;
        Ok(ResolvedImage {
            reference: image.reference(),
            digest: image.digest(),
            platform: image.platform(),
            config: ImageConfig::from_host(&image.config()),
        })
    }
}

/// What the user asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The definition, as the host read it.
    pub definition: Definition,
    /// The ignore file that belongs to the definition, where both lie outside the main context.
    pub ignore_file: Option<Definition>,
    /// Which part of the definition is wanted (`--target`).
    pub target: Option<String>,
    /// `--build-arg`, in order; a later one of the same name wins.
    pub build_args: Vec<(String, String)>,
    /// `--label`, in order.
    pub labels: Vec<(String, String)>,
    /// `--opt`: parameters of this frontend's own.
    pub custom: Vec<(String, String)>,
    /// For what the result is.
    pub target_platform: Platform,
    /// What the builder itself runs on.
    pub build_platform: Platform,
    /// The contexts besides the main one, whose name is `""`.
    pub named_contexts: Vec<NamedContext>,
    /// `--add-host`.
    pub extra_hosts: Vec<HostEntry>,
    /// `--network`: what steps get that do not say otherwise.
    pub network: Network,
    /// `--shm-size`: size of `/dev/shm` in steps, in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub limits: Vec<Limit>,
}

impl Options {
    /// Asks the host for all of them.
    pub fn get() -> Self {
        Self {
            definition: options::get_definition(),
            ignore_file: options::ignore_file(),
            target: options::target(),
            build_args: options::build_args(),
            labels: options::labels(),
            custom: options::custom(),
            target_platform: options::target_platform(),
            build_platform: options::build_platform(),
            named_contexts: options::named_contexts(),
            extra_hosts: options::extra_hosts(),
            network: options::default_network(),
            shm_size: options::shm_size(),
            limits: options::limits(),
        }
    }
}

/// Says what is asked about the definition: `build`, `check`, `targets`, `outline`, or what may come.
pub fn call() -> String {
    inspection::call()
}

/// What a frontend says of itself.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Names under which a definition is looked for when the user gives none.
    pub definition_names: &'static [&'static str],
}

/// The image that a frontend answers.
#[derive(Debug, Default)]
pub struct Image {
    /// Its files; none means an empty image.
    pub root: Option<Vertex>,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its history, from the oldest.
    pub history: Vec<History>,
    /// The time that new files and the image get where the user gives none, in seconds since 1970.
    pub source_date_epoch: Option<i64>,
}

/// A frontend; [`export_frontend!`](crate::export_frontend) makes a component of it.
pub trait Frontend {
    /// Says what this frontend is.
    fn about() -> About;

    /// Turns the definition into a graph and says what its result is.
    fn build(options: Options) -> Result<Image, Failure>;
}

impl About {
    fn to_host(self) -> outcome::Description {
        let description = outcome::Description::new(self.name, self.version);
        for name in self.definition_names {
            description.add_definition_name(name);
        }
        description
    }
}

impl Image {
    fn to_host(&self) -> outcome::Image {
        let image = outcome::Image::new(self.root.as_ref());
        image.set_config(&self.config.to_host());
        for line in &self.history {
            image.add_history(&line.created_by, &line.comment, line.empty_layer);
        }
        if let Some(seconds) = self.source_date_epoch {
            image.set_source_date_epoch(seconds);
        }
        image
    }
}

impl<T: Frontend> bindings::exports::stepwell::frontend::entry::Guest for T {
    fn describe() -> outcome::Description {
        T::about().to_host()
    }

    fn build() -> Result<outcome::Image, Failure> {
        T::build(Options::get()).map(|image| image.to_host())
    }
}

/// Exports a [`Frontend`](crate::frontend::Frontend) from the component.
#[macro_export]
macro_rules! export_frontend {
    ($frontend:ident) => {
        $crate::frontend::bindings::export!($frontend with_types_in $crate::frontend::bindings);
    };
}
