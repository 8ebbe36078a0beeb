//! Seccomp filters (seccomp(2)): rules are data, each with its reason; this file turns them into a BPF
//! program and installs it, with or without a notification descriptor.
//!
//! It must not know what any rule is for.  Answering notifications is [`crate::notify`]'s work.

use serde::{Deserialize, Serialize};

/// One rule: a system call and what becomes of it.  A call that no rule names is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Number of the system call on this architecture.
    pub nr: i64,
    /// Name of the system call, for people.
    pub name: String,
    /// What becomes of it.
    pub action: Action,
    /// All must hold for the rule to apply; none means always.  At most four.
    pub when: Vec<Condition>,
    /// Why the rule is there.
    pub reason: String,
}

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The supervisor is asked.
    Notify,
    /// It fails with this error number.
    Errno(u16),
    /// It is carried out, whatever later rules say.
    Allow,
}

/// A condition on one argument (0 to 5): `argument & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Index of the argument.
    pub argument: u8,
    /// Bits that are looked at.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
    /// Whether the condition is turned round: `argument & mask != value`.
    pub negate: bool,
}

impl Rule {
    /// Makes a rule without conditions.
    pub fn new(nr: i64, name: &str, action: Action, reason: &str) -> Self {
        Self { nr, name: name.to_owned(), action, when: Vec::new(), reason: reason.to_owned() }
    }
}
