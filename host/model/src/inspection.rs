//! What a frontend answers when it is asked about a definition without building it (`--call=targets|outline`).

use serde::{Deserialize, Serialize};

use crate::Span;

/// A part of a definition that can be built.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Target {
    /// Its name, or empty.
    pub name: String,
    /// What it begins with, as written.
    pub base: String,
    /// Its platform as written, or empty.
    pub platform: String,
    /// What it is, or empty.
    pub description: String,
    /// Whether it is built where none is named.
    pub default: bool,
    /// Where it stands.
    pub span: Span,
}

/// A build argument that counts for a target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its value where nothing more is given.
    pub value: Option<String>,
    /// What it is for, or empty.
    pub description: String,
    /// Where it stands.
    pub span: Span,
}

/// Something that steps of a target mount and that only the user has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supply {
    /// What it is.
    pub kind: SupplyKind,
    /// Its id.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// Where it is asked for.
    pub span: Span,
}

/// What a supply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SupplyKind {
    /// `--secret`.
    Secret,
    /// `--ssh`.
    Ssh,
}
