//! The configuration of an image (OCI image-spec, config.md, and docker's additions: healthcheck, shell, onbuild).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What a container of the image runs with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    pub labels: BTreeMap<String, String>,
    /// `port/protocol`.
    pub exposed_ports: BTreeSet<String>,
    /// Absolute paths.
    pub volumes: BTreeSet<String>,
    /// Name or number, or empty.
    pub stop_signal: String,
    /// How to check that a container is healthy.
    pub healthcheck: Option<Healthcheck>,
    /// Shell for the shell forms, where the default was changed.
    pub shell: Option<Vec<String>>,
    /// Instructions for whoever builds on this image.
    pub on_build: Vec<String>,
    /// Author (MAINTAINER), or empty.
    pub author: String,
}

/// A health check; durations are in nanoseconds, 0 means inherited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// Time between two checks.
    pub interval: u64,
    /// Time a check may take.
    pub timeout: u64,
    /// Time in which failures do not count.
    pub start_period: u64,
    /// Time between two checks during the start period.
    pub start_interval: u64,
    /// Failures in a row that make a container unhealthy.
    pub retries: u64,
}

/// One line of an image's history, without its time, which the export sets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// The instruction.
    pub created_by: String,
    /// For example `buildkit.dockerfile.v0`; or empty.
    pub comment: String,
    /// Whether no layer belongs to it.
    pub empty_layer: bool,
}
