//! What a frontend imports, one file per interface.  Every function first counts as a call into the host; whatever the
//! host keeps for the guest counts against a limit.
//!
//! An `Err` of `wasmtime::Result` traps the guest: a limit, or a handle that it does not have.  What a frontend is
//! meant to deal with is in the result within.

mod contexts;
mod diagnostics;
mod graph;
mod images;
mod inspection;
mod options;
mod outcome;

use stepwell_model::mount::{Limit, Sharing};
use stepwell_model::op::{HostEntry, Network, Owner};
use stepwell_model::{Origin, Platform, Span};

use super::bindings::stepwell::frontend::types as wit;
use super::state::State;
use crate::plain::plain;

/// The interface has types only.
impl wit::Host for State {}

pub(super) fn platform_from(p: wit::Platform) -> Platform {
    Platform {
        os: p.os,
        architecture: p.architecture,
        variant: p.variant,
    }
}

pub(super) fn platform_to(p: &Platform) -> wit::Platform {
    wit::Platform {
        os: p.os.clone(),
        architecture: p.architecture.clone(),
        variant: p.variant.clone(),
    }
}

pub(super) fn span_from(s: wit::Span) -> Span {
    Span {
        line: s.line,
        column: s.column,
        end_line: s.end_line,
        end_column: s.end_column,
    }
}

pub(super) fn origin_from(o: wit::Origin) -> Origin {
    Origin {
        file: plain(o.file),
        span: span_from(o.span),
        text: plain(o.text),
        stage: plain(o.stage),
    }
}

pub(super) fn owner_from(o: wit::Owner) -> Owner {
    Owner {
        user: o.user,
        group: o.group,
    }
}

pub(super) fn network_from(n: wit::Network) -> Network {
    match n {
        wit::Network::Default => Network::Default,
        wit::Network::None => Network::None,
        wit::Network::Host => Network::Host,
    }
}

pub(super) fn network_to(n: Network) -> wit::Network {
    match n {
        Network::Default => wit::Network::Default,
        Network::None => wit::Network::None,
        Network::Host => wit::Network::Host,
    }
}

pub(super) fn sharing_from(s: wit::Sharing) -> Sharing {
    match s {
        wit::Sharing::Shared => Sharing::Shared,
        wit::Sharing::Private => Sharing::Private,
        wit::Sharing::Locked => Sharing::Locked,
    }
}

pub(super) fn limit_from(l: wit::Limit) -> Limit {
    Limit {
        name: l.name,
        soft: l.soft,
        hard: l.hard,
    }
}

pub(super) fn limit_to(l: &Limit) -> wit::Limit {
    wit::Limit {
        name: l.name.clone(),
        soft: l.soft,
        hard: l.hard,
    }
}

pub(super) fn host_entry_to(h: &HostEntry) -> wit::HostEntry {
    wit::HostEntry {
        host: h.host.clone(),
        address: h.address.clone(),
    }
}
