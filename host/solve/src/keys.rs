//! Cache keys: SHA-256 over a list of labelled parts, the *preimage*, which is kept beside the result so that a
//! later miss can be explained.
//!
//! The definition key of a vertex is made of the tenant's namespace, the digest of the cache policy, the policy's
//! normal form of the operation, the platform, and for each input its definition key or, for a context, the
//! digest of the files that the operation selects.  So a policy decides what matters and can harm nobody
//! outside its own namespace, and a guest never hashes.
//!
//! The content key replaces the keys of the inputs by what the inputs turned out to be (chain ids of
//! layers, digests of selected files): a rebuilt input with the same content still hits.

use serde::{Deserialize, Serialize};
use stepwell_model::{Digest, Hasher, Platform};

/// What the policy says of one vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The operation, reduced to what matters for its result.
    pub normal_form: Vec<u8>,
    /// Whether an earlier result may be taken.
    pub reuse: bool,
    /// Whether the definition key is tried; not where an input is carried out again, whose result counts then.
    pub definition_key: bool,
    /// Whether the content key is tried after the definition key missed.
    pub content_key: bool,
    /// Longest age of a reused result, in seconds.
    pub ttl: Option<u64>,
}

impl Decision {
    /// Says whether an earlier result may be taken before the inputs are known.
    pub fn by_definition(&self) -> bool {
        self.reuse && self.definition_key
    }
}

/// What is the same for all keys of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyContext {
    /// Separates tenants.
    pub namespace: String,
    /// Digest of the policy component.
    pub policy: Digest,
    /// Everything that changes all layers of a build: for example the time that mtimes are clamped to.
    pub settings: String,
}

/// One labelled part of a preimage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is, for example `operation` or `input 0`.
    pub label: String,
    /// Its text: a digest, or the normal form where it is text.
    pub value: String,
}

/// What a key was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preimage(pub Vec<Part>);

/// Label of the part that holds the policy's normal form.
pub const OPERATION: &str = "operation";
/// Label of the part that says what something fetched is, where its definition does not say it all.
pub const FETCHED: &str = "fetched";
/// Label of the part that holds the digest of the files selected from input `n`.
pub fn content_label(input: u32) -> String {
    format!("files of input {input}")
}
/// Label of the part that holds the key of input `n`.
pub fn input_label(input: u32) -> String {
    format!("input {input}")
}
/// Label of the part that holds the chain id of input `n`.
pub fn chain_label(input: u32) -> String {
    format!("layers of input {input}")
}

impl Preimage {
    /// Starts a preimage with the parts that every key has.
    pub fn new(kind: &str, context: &KeyContext, decision: &Decision, platform: &Platform) -> Self {
        let part = |label: &str, value: String| Part {
            label: label.to_owned(),
            value,
        };
        Self(vec![
            part("kind", format!("stepwell.key.v1.{kind}")),
            part("namespace", context.namespace.clone()),
            part("policy", context.policy.to_string()),
            part("settings", context.settings.clone()),
            part("platform", platform.to_string()),
            part(OPERATION, text_of(&decision.normal_form)),
        ])
    }

    /// Adds a part.
    pub fn push(&mut self, label: String, value: Digest) {
        self.0.push(Part {
            label,
            value: value.to_string(),
        });
    }

    /// Computes the key.
    pub fn key(&self) -> Digest {
        let mut hasher = Hasher::new();
        for part in &self.0 {
            hasher.field(part.label.as_bytes());
            hasher.field(part.value.as_bytes());
        }
        hasher.finish()
    }

    /// Returns the value of the part `label`.
    pub fn get(&self, label: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|p| p.label == label)
            .map(|p| p.value.as_str())
    }
}

/// A normal form as text: as it is where it is UTF-8 (then `explain` can show it), else its digest.
fn text_of(normal_form: &[u8]) -> String {
    match std::str::from_utf8(normal_form) {
        Ok(text) => text.to_owned(),
        Err(_) => Digest::of(normal_form).to_string(),
    }
}
