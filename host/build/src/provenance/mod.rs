//! Says how a result was made: an in-toto statement with SLSA's provenance (<https://slsa.dev/spec/v1.1/provenance>), laid out as
//! BuildKit does (moby/buildkit, docs/attestations/slsa-definitions.md), so that what reads theirs reads ours.  What BuildKit
//! does not know is below `internalParameters.stepwell`: the isolation that RUN steps got and why, and their network.
//!
//! Nothing confidential is in it: addresses without users, passwords and queries, secrets and agents by their ids only, and where the value
//! of a secret was given as something else as well, it is taken out.

mod clean;
mod definition;
mod purl;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stepwell_image::config;
use stepwell_model::mount::Mount;
use stepwell_model::op::{ImageOp, Network, RunOp};
use stepwell_model::remote;
use stepwell_model::request::{
    ContextSource, Frontend, NamedContext, Provenance, ProvenanceMode, Request,
};
use stepwell_model::{Digest, Op, Platform, Reference, Vertex, VertexId};

use crate::images::Images;
use crate::remote::Material;
use crate::session::Session;
use crate::tier;

/// What kind of statement it is.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// How statements are told from other JSON.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// What the parameters mean.
const BUILD_TYPE: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
/// Who vouches for it, where the user does not say.
const BUILDER: &str = "urn:stepwell:builder";
/// What the built-in frontend is called, as in BuildKit.
const DOCKERFILE: &str = "dockerfile.v0";

/// When a build began and ended, in seconds since 1970 and parts of one.
pub type Time = (i64, u32);

/// The statement that an image was made as the predicate says.
pub fn statement(
    predicate: &Value,
    names: &[Reference],
    platform: &Platform,
    manifest: &Digest,
) -> Vec<u8> {
    let digest = json!({"sha256": manifest.hex()});
    let mut subjects: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": purl::of(&name.whole(), platform), "digest": digest}))
        .collect();
    if subjects.is_empty() {
        subjects.push(json!({"name": "_", "digest": digest}));
    }
    let statement = json!({
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    });
    serde_json::to_vec(&statement).unwrap_or_default()
}

/// What is said of a build that is done.
pub fn predicate(
    session: &Session<'_>,
    target: Option<VertexId>,
    wanted: &Provenance,
    finished: Time,
) -> Value {
    let needed = target.map_or_else(Vec::new, |t| session.graph.needed_by(t));
    let told = Told {
        session,
        needed,
        wanted,
    };
    let mut predicate = json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "configSource": told.config_source(),
                "request": told.request(),
            },
            "internalParameters": told.internal(),
            "resolvedDependencies": told.dependencies(),
        },
        "runDetails": {
            "builder": {
                "id": wanted.builder_id.as_deref().unwrap_or(BUILDER),
                "version": {"stepwell": env!("CARGO_PKG_VERSION")},
            },
            "metadata": told.metadata(finished),
        },
    });
    clean::of_secrets(&mut predicate, &session.request.secrets);
    predicate
}

/// A build, as it is told.
struct Told<'s, 'a> {
    session: &'s Session<'a>,
    /// The vertices that the result is made of.
    needed: Vec<VertexId>,
    wanted: &'s Provenance,
}

impl Told<'_, '_> {
    fn vertices(&self) -> impl Iterator<Item = &Vertex> {
        self.needed.iter().map(|v| self.session.graph.vertex(*v))
    }

    fn runs(&self) -> impl Iterator<Item = &RunOp> {
        self.vertices().filter_map(|v| match &v.op {
            Op::Run(run) => Some(&**run),
            _ => None,
        })
    }

    fn is_max(&self) -> bool {
        self.wanted.mode == ProvenanceMode::Max
    }

    /// Where the definition is.
    fn config_source(&self) -> Value {
        let mut source = Map::new();
        source.insert("path".into(), json!(self.session.definition_name));
        if let Some(material) = self.session.contexts.main_material() {
            source.insert("uri".into(), json!(material.uri));
            source.insert(
                "digest".into(),
                json!({material.algorithm: material.digest}),
            );
        }
        Value::Object(source)
    }

    /// What was asked for.
    fn request(&self) -> Value {
        let request = self.session.request;
        let mut told = Map::new();
        let frontend = match &request.frontend {
            Frontend::Dockerfile => DOCKERFILE,
            Frontend::Component(_) => "gateway.v0",
        };
        told.insert("frontend".into(), json!(frontend));
        told.insert("args".into(), json!(self.args()));
        told.insert("locals".into(), json!(self.locals()));
        if self.is_max() {
            let list = |ids: BTreeMap<&str, bool>| -> Vec<Value> {
                let one = |(id, required): (&str, bool)| match required {
                    true => json!({"id": id}),
                    false => json!({"id": id, "optional": true}),
                };
                ids.into_iter().map(one).collect()
            };
            told.insert("secrets".into(), json!(list(self.mounted(secret))));
            told.insert("ssh".into(), json!(list(self.mounted(agent))));
        }
        Value::Object(told)
    }

    /// The parameters, by the names that BuildKit has for them; build arguments and labels in the mode `max` only.
    fn args(&self) -> BTreeMap<String, String> {
        let request = self.session.request;
        let mut args: BTreeMap<String, String> = request.options.iter().cloned().collect();
        if let Some(target) = &request.target {
            args.insert("target".into(), target.clone());
        }
        if let Frontend::Component(path) = &request.frontend {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            args.insert("source".into(), name.into_owned());
        }
        for (name, context) in &request.named_contexts {
            args.insert(format!("context:{name}"), named(name, context));
        }
        if self.is_max() {
            for (name, value) in &request.build_args {
                args.insert(format!("build-arg:{name}"), clean::of_user(value));
            }
            for (name, value) in &request.labels {
                args.insert(format!("label:{name}"), value.clone());
            }
        }
        args
    }

    /// Directories of the user's that were used, whose content no digest here stands for.
    fn locals(&self) -> Vec<Value> {
        let request = self.session.request;
        let mut names = Vec::new();
        if !matches!(request.context, ContextSource::Remote(_)) {
            names.extend(["context", "dockerfile"].map(str::to_owned));
        }
        for vertex in self.vertices() {
            if let Op::Context(op) = &vertex.op
                && request.named_contexts.iter().any(|(name, context)| {
                    *name == op.name && matches!(context, NamedContext::Directory(_))
                })
            {
                names.push(op.name.clone());
            }
        }
        names.dedup();
        names.iter().map(|name| json!({"name": name})).collect()
    }

    /// Ids of what steps mount, and whether they do not go without.
    fn mounted(&self, of: fn(&Mount) -> Option<(&str, bool)>) -> BTreeMap<&str, bool> {
        let mut ids = BTreeMap::new();
        for (id, required) in self.runs().flat_map(|run| &run.mounts).filter_map(of) {
            *ids.entry(id).or_default() |= required;
        }
        ids
    }

    /// How it was made here.
    fn internal(&self) -> Value {
        let has_run_step = self.runs().next().is_some();
        let mut networks: BTreeMap<&str, usize> = BTreeMap::new();
        for run in self.runs() {
            *networks.entry(network(run.network)).or_default() += 1;
        }
        let isolation = tier::told(self.session.tier.get(), has_run_step);
        let mut internal = json!({
            "builderPlatform": Platform::host().to_string(),
            "stepwell": {"isolation": isolation, "networks": networks},
        });
        if self.is_max() {
            internal["buildConfig"] = definition::of(self.session.graph, &self.needed);
        }
        internal
    }

    /// Images, files and repositories that it was made of.
    fn dependencies(&self) -> Vec<Value> {
        let of = |uri: &str, algorithm: &str, digest: &str| json!({"uri": uri, "digest": {algorithm: digest}});
        let mut list: Vec<Value> = Vec::new();
        for vertex in self.vertices() {
            if let Op::Image(op) = &vertex.op {
                let uri = image(self.session.request, op, &vertex.platform);
                list.push(of(&uri, "sha256", &op.digest.hex()));
            }
        }
        for Material {
            uri,
            algorithm,
            digest,
        } in self.session.remotes.materials()
        {
            list.push(of(&uri, algorithm, &digest));
        }
        if let Frontend::Component(path) = &self.session.request.frontend
            && let Ok(bytes) = std::fs::read(path)
        {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let digest = Digest::of(&bytes).hex();
            list.push(json!({"name": name, "digest": {"sha256": digest}}));
        }
        let mut seen = Vec::new();
        list.retain(|entry| {
            let is_new = !seen.contains(entry);
            seen.push(entry.clone());
            is_new
        });
        list
    }

    fn metadata(&self, finished: Time) -> Value {
        let is_complete = self.locals().is_empty();
        let is_alone = self.runs().all(|run| run.network == Network::None);
        let (began, ended) = (self.session.began, finished);
        json!({
            "invocationId": self.session.invocation,
            "startedOn": config::time(began.0, began.1),
            "finishedOn": config::time(ended.0, ended.1),
            "buildkit_hermetic": is_complete && is_alone,
            "buildkit_completeness": {
                "request": self.is_max(),
                "resolvedDependencies": is_complete,
            },
            "buildkit_reproducible": self.wanted.reproducible,
        })
    }
}

fn secret(mount: &Mount) -> Option<(&str, bool)> {
    match mount {
        Mount::Secret(secret) => Some((&secret.id, secret.required)),
        _ => None,
    }
}

fn agent(mount: &Mount) -> Option<(&str, bool)> {
    match mount {
        Mount::Ssh(ssh) => Some((&ssh.id, ssh.required)),
        _ => None,
    }
}

fn network(network: Network) -> &'static str {
    match network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
    }
}

/// A named context, without any path of this machine.
fn named(name: &str, context: &NamedContext) -> String {
    match context {
        NamedContext::Directory(_) => format!("local:{name}"),
        NamedContext::Remote(address) => remote::redact(address),
        NamedContext::Image(reference) => format!("docker-image://{reference}"),
        NamedContext::OciLayout { reference, .. } => format!("oci-layout://{name}@{reference}"),
    }
}

/// An image, as a package URL; one of a layout of the user's by the name of its context.
fn image(request: &Request, op: &ImageOp, platform: &Platform) -> String {
    let layout = request
        .named_contexts
        .iter()
        .find(|(name, _)| Images::layout_reference(name) == op.reference);
    match layout {
        Some((name, _)) => purl::of_layout(name, &op.digest, platform),
        None => purl::of(&op.reference, platform),
    }
}
