//! The configuration of an image: the JSON document that a manifest points at (OCI image-spec, config.md), as docker and
//! BuildKit write it.
//!
//! What they do not carry over from a base (`container`, `container_config`, `docker_version`, `id`, `Hostname`, …)
//! is not carried over here either: it described one container of the past.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stepwell_model::config::{Healthcheck, History, ImageConfig};
use stepwell_model::{Digest, Platform};

use crate::manifest::{ManifestError, encoded, json, null};

/// Largest configuration: it is held in memory.
pub const CONFIG_LIMIT: u64 = 8 << 20;

const DOCUMENT: &str = "configuration";

/// The configuration of an image with everything around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDocument {
    /// What the image runs on.
    pub platform: Platform,
    /// Version of the operating system that it needs; empty but for Windows.
    pub os_version: String,
    /// Features of the operating system that it needs; empty but for Windows.
    pub os_features: Vec<String>,
    /// What a container runs with.
    pub config: ImageConfig,
    /// When it was made (RFC 3339).
    pub created: Option<String>,
    /// How it was made, oldest first; as many entries that are not empty layers as there are `diff_ids`.
    pub history: Vec<HistoryEntry>,
    /// Digest of the tar of each layer, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// One line of the history with its time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// For example `buildkit.dockerfile.v0`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether no layer belongs to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl HistoryEntry {
    /// Gives a line of the history its time.
    pub fn new(line: &History, created: Option<String>) -> Self {
        Self {
            created,
            created_by: line.created_by.clone(),
            author: String::new(),
            comment: line.comment.clone(),
            empty_layer: line.empty_layer,
        }
    }
}

/// Writes a time as image configurations have it (RFC 3339, UTC, as Go does); years outside 0 to 9999 become 1970.
pub fn time(secs: i64, nanos: u32) -> String {
    let nanos = i32::try_from(nanos).unwrap_or(0);
    Timestamp::new(secs, nanos)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}

impl ImageDocument {
    /// The document of an image without layers.
    pub fn scratch(platform: Platform) -> Self {
        Self {
            platform,
            os_version: String::new(),
            os_features: Vec::new(),
            config: ImageConfig::default(),
            created: None,
            history: Vec::new(),
            diff_ids: Vec::new(),
        }
    }

    /// Reads the document.  A history that does not fit the layers is made to fit, as BuildKit does.
    ///
    /// # Errors
    /// It is too large, or not what it should be.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > CONFIG_LIMIT {
            let (document, size, limit) = (DOCUMENT, bytes.len(), CONFIG_LIMIT);
            return Err(ManifestError::TooLarge {
                document,
                size,
                limit,
            });
        }
        let raw: Document = json(DOCUMENT, bytes)?;
        let mut parsed = Self {
            platform: Platform {
                os: raw.os,
                architecture: raw.architecture,
                variant: raw.variant,
            },
            os_version: raw.os_version,
            os_features: raw.os_features,
            config: raw.config.into_model(raw.author),
            created: raw.created,
            history: raw.history,
            diff_ids: raw.rootfs.diff_ids,
        };
        parsed.fit_history();
        Ok(parsed)
    }

    /// Writes the document: compact JSON with the fields in the order in which BuildKit has them; the same bytes for the
    /// same document.
    pub fn encode(&self) -> Vec<u8> {
        encoded(&Document {
            architecture: self.platform.architecture.clone(),
            author: self.config.author.clone(),
            config: Config::of(&self.config),
            created: self.created.clone(),
            history: self.history.clone(),
            os: self.platform.os.clone(),
            os_features: self.os_features.clone(),
            os_version: self.os_version.clone(),
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: self.diff_ids.clone(),
            },
            variant: self.platform.variant.clone(),
        })
    }

    /// Moves all times that are later than `secs` back to it (`SOURCE_DATE_EPOCH`), those of the base as well, and
    /// gives those that have none this one.
    ///
    /// # Errors
    /// [`ManifestError::Time`] where a time cannot be read.
    pub fn clamp_times(&mut self, secs: i64) -> Result<(), ManifestError> {
        let limit = Timestamp::from_second(secs).unwrap_or(Timestamp::UNIX_EPOCH);
        let history = self.history.iter_mut().map(|entry| &mut entry.created);
        for created in history.chain([&mut self.created]) {
            let late = match created {
                Some(text) => match text.parse::<Timestamp>() {
                    Ok(time) => time > limit,
                    Err(_) => return Err(ManifestError::Time(text.clone())),
                },
                None => true,
            };
            if late {
                *created = Some(limit.to_string());
            }
        }
        Ok(())
    }

    fn fit_history(&mut self) {
        let mut layers = self.diff_ids.len();
        for entry in self.history.iter_mut().filter(|entry| !entry.empty_layer) {
            match layers.checked_sub(1) {
                Some(left) => layers = left,
                None => entry.empty_layer = true,
            }
        }
        let created = &self.created;
        self.history.extend((0..layers).map(|_| HistoryEntry {
            created: created.clone(),
            ..HistoryEntry::default()
        }));
    }
}

/// The document as it is written.  BuildKit sorts these fields by name.
#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(default)]
    architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    author: String,
    #[serde(default, deserialize_with = "null")]
    config: Config,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(default, deserialize_with = "null")]
    history: Vec<HistoryEntry>,
    #[serde(default)]
    os: String,
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null",
        skip_serializing_if = "Vec::is_empty"
    )]
    os_features: Vec<String>,
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    os_version: String,
    rootfs: RootFs,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    variant: String,
}

#[derive(Serialize, Deserialize)]
struct RootFs {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, deserialize_with = "null")]
    diff_ids: Vec<Digest>,
}

/// A set as Go writes it: a map to empty structures.
type Set = BTreeMap<String, Empty>;

#[derive(Serialize, Deserialize, Default)]
struct Empty {}

/// The `config` of the document, in the order of BuildKit's structure; what is empty is left out.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    #[serde(deserialize_with = "null", skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(deserialize_with = "null", skip_serializing_if = "Set::is_empty")]
    exposed_ports: Set,
    #[serde(deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "null", skip_serializing_if = "Set::is_empty")]
    volumes: Set,
    #[serde(deserialize_with = "null", skip_serializing_if = "String::is_empty")]
    working_dir: String,
    #[serde(deserialize_with = "null", skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null", skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Health>,
    #[serde(deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    on_build: Vec<String>,
    #[serde(deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    shell: Vec<String>,
}

/// Docker's health check; durations in nanoseconds.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Health {
    #[serde(deserialize_with = "null", skip_serializing_if = "Vec::is_empty")]
    test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    retries: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Config {
    fn of(config: &ImageConfig) -> Self {
        let set = |names: &std::collections::BTreeSet<String>| {
            names.iter().map(|n| (n.clone(), Empty {})).collect()
        };
        Self {
            user: config.user.clone(),
            exposed_ports: set(&config.exposed_ports),
            env: config.env.clone(),
            entrypoint: config.entrypoint.clone().unwrap_or_default(),
            cmd: config.cmd.clone().unwrap_or_default(),
            volumes: set(&config.volumes),
            working_dir: config.working_dir.clone(),
            labels: config.labels.clone(),
            stop_signal: config.stop_signal.clone(),
            healthcheck: config.healthcheck.as_ref().map(Health::of),
            on_build: config.on_build.clone(),
            shell: config.shell.clone().unwrap_or_default(),
        }
    }

    fn into_model(self, author: String) -> ImageConfig {
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        ImageConfig {
            env: self.env,
            cmd: some(self.cmd),
            entrypoint: some(self.entrypoint),
            working_dir: self.working_dir,
            user: self.user,
            labels: self.labels,
            exposed_ports: self.exposed_ports.into_keys().collect(),
            volumes: self.volumes.into_keys().collect(),
            stop_signal: self.stop_signal,
            healthcheck: self.healthcheck.map(Health::into_model),
            shell: some(self.shell),
            on_build: self.on_build,
            author,
        }
    }
}

impl Health {
    fn of(check: &Healthcheck) -> Self {
        let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            test: check.test.clone(),
            interval: signed(check.interval),
            timeout: signed(check.timeout),
            start_period: signed(check.start_period),
            start_interval: signed(check.start_interval),
            retries: signed(check.retries),
        }
    }

    fn into_model(self) -> Healthcheck {
        // Docker refuses negative ones; a base that has them gets the defaults.
        let unsigned = |number| u64::try_from(number).unwrap_or(0);
        Healthcheck {
            test: self.test,
            interval: unsigned(self.interval),
            timeout: unsigned(self.timeout),
            start_period: unsigned(self.start_period),
            start_interval: unsigned(self.start_interval),
            retries: unsigned(self.retries),
        }
    }
}

#[cfg(test)]
mod tests;
