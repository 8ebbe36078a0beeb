//! `RUN --mount`: from the keys of each flag to what the step sees.

use std::collections::BTreeMap;

use super::host::{Host, Mount, Op, Sharing, VertexId};
use super::state::State;
use super::text::joined;
use super::{Lowering, Step};
use crate::ast::Fault;
use crate::ast::mount::{KINDS, Kind, Takes, fields};
use crate::diagnostic::{did_you_mean, rules};
use crate::lexer::At;
use crate::lexer::split::Word;

/// Directory of secrets that have no target of their own.
const SECRETS: &str = "/run/secrets/";
/// Sockets of SSH agents that have no target of their own; a number follows.
const AGENTS: &str = "/run/buildkit/ssh_agent.";
/// Build argument whose value parts the ids of cache mounts from those of others.
const CACHE_NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";

/// The keys of one flag, variables expanded.
struct Keys {
    kind: Kind,
    /// The whole flag.
    flag: Word,
    values: BTreeMap<&'static str, (String, At)>,
}

impl Keys {
    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(text, _)| text.as_str())
    }

    /// A text that says something.
    fn some(&self, name: &str) -> Option<&str> {
        self.text(name).filter(|text| !text.is_empty())
    }

    /// Where a key stands, else the whole flag.
    fn at(&self, name: &str) -> At {
        self.values.get(name).map_or(self.flag.at, |(_, at)| *at)
    }

    fn is_set(&self, name: &str) -> Option<bool> {
        self.text(name).map(|text| text == "true")
    }

    fn fault(&self, name: &str, message: String) -> Fault {
        Fault::new(&rules::INVALID_FLAG, self.at(name), message)
    }

    fn number(&self, name: &str, radix: u32, default: u32) -> Result<u32, Fault> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        let (what, hint) = match radix {
            8 => (
                "an octal mode",
                "write octal digits such as `0600`".to_owned(),
            ),
            _ => (
                "a number",
                format!("`{name}` takes a number, not a name, such as `1000`"),
            ),
        };
        // Rust's parser takes a sign.
        let parsed = u32::from_str_radix(text, radix).ok();
        parsed.filter(|_| !text.starts_with('+')).ok_or_else(|| {
            self.fault(name, format!("`{text}` is not {what}"))
                .hint(hint)
        })
    }

    /// Mode, user and group.
    fn owner(&self, mode: u32) -> Result<(u32, u32, u32), Fault> {
        Ok((
            self.number("mode", 8, mode)?,
            self.number("uid", 10, 0)?,
            self.number("gid", 10, 0)?,
        ))
    }

    fn read_only(&self, default: bool) -> bool {
        match (self.is_set("readonly"), self.is_set("readwrite")) {
            (Some(read_only), _) => read_only,
            (None, Some(writable)) => !writable,
            (None, None) => default,
        }
    }
}

impl<H: Host> Lowering<'_, H> {
    /// Says what the flags `--mount` of a step mount.
    pub(super) fn mounts(
        &mut self,
        state: &State,
        index: usize,
        step: Step<'_>,
        depth: usize,
    ) -> Result<Vec<Mount>, Fault> {
        let mut mounts = Vec::new();
        for (number, flag) in step.node.flag_list("mount").enumerate() {
            let keys = self.keys(state, step, flag)?;
            mounts.push(match keys.kind {
                Kind::Bind => self.bind(state, index, step, depth, &keys)?,
                Kind::Cache => self.cache(state, index, step, depth, &keys)?,
                Kind::Tmpfs => Mount::Tmpfs {
                    target: target(state, &keys)?,
                    size: size(&keys)?,
                },
                Kind::Secret => secret(state, &keys)?,
                Kind::Ssh => ssh(state, &keys, number)?,
            });
        }
        Ok(mounts)
    }

    fn keys(&mut self, state: &State, step: Step<'_>, flag: &Word) -> Result<Keys, Fault> {
        let mut keys = Keys {
            kind: Kind::Bind,
            flag: flag.clone(),
            values: BTreeMap::new(),
        };
        let fields = fields(flag)?;
        for field in &fields {
            let value = match &field.value {
                None => "true".to_owned(),
                Some(value) if field.key.name == "from" => no_variables(value)?,
                Some(value) => self.word(state, step, value)?,
            };
            let value = match field.key.takes {
                Takes::Bool => truth(&value)
                    .ok_or_else(|| {
                        let message =
                            format!("`{}` is `true` or `false`, not `{value}`", field.key.name);
                        Fault::new(&rules::INVALID_FLAG, field.at, message)
                    })?
                    .to_string(),
                Takes::Text => value,
            };
            keys.values.insert(field.key.name, (value, field.at));
        }
        if let Some(name) = keys.text("type") {
            keys.kind = kind(name, keys.at("type"))?;
        }
        for field in &fields {
            if !field.key.on.contains(&keys.kind) {
                let on: Vec<_> = field
                    .key
                    .on
                    .iter()
                    .map(|k| format!("`{}`", k.name()))
                    .collect();
                let message = format!(
                    "a mount of type `{}` has no key `{}`",
                    keys.kind.name(),
                    field.key.name
                );
                return Err(
                    Fault::new(&rules::INVALID_FLAG, field.at, message).hint(format!(
                        "`{}` is a key of {}",
                        field.key.name,
                        on.join(", ")
                    )),
                );
            }
        }
        Ok(keys)
    }

    fn bind(
        &mut self,
        state: &State,
        index: usize,
        step: Step<'_>,
        depth: usize,
        keys: &Keys,
    ) -> Result<Mount, Fault> {
        let target = target(state, keys)?;
        let from = match keys.some("from") {
            Some("scratch") => self.empty(state, step)?,
            Some(name) => {
                let word = Word {
                    text: name.to_owned(),
                    at: keys.at("from"),
                };
                self.source_named(&word, state, index, step, depth)?
            }
            None => self.context("", state, step)?,
        };
        Ok(Mount::Bind {
            target,
            from,
            source: joined("/", keys.text("source").unwrap_or_default()),
            writable: !keys.read_only(true),
        })
    }

    fn cache(
        &mut self,
        state: &State,
        index: usize,
        step: Step<'_>,
        depth: usize,
        keys: &Keys,
    ) -> Result<Mount, Fault> {
        let target = target(state, keys)?;
        let base = match keys.some("from") {
            Some("scratch") | None => None,
            Some(name) => {
                let word = Word {
                    text: name.to_owned(),
                    at: keys.at("from"),
                };
                let from = self.source_named(&word, state, index, step, depth)?;
                Some((from, joined("/", keys.text("source").unwrap_or_default())))
            }
        };
        let id = keys
            .some("id")
            .map_or_else(|| cleaned(keys.text("target"), &target), str::to_owned);
        let namespace = self
            .request
            .build_args
            .iter()
            .rev()
            .find(|(name, _)| name == CACHE_NAMESPACE)
            .map_or("", |(_, value)| value.as_str());
        let (mode, uid, gid) = keys.owner(0o755)?;
        Ok(Mount::Cache {
            target,
            id: if namespace.is_empty() {
                id
            } else {
                format!("{namespace}/{id}")
            },
            sharing: sharing(keys)?,
            read_only: keys.read_only(false),
            base,
            mode,
            uid,
            gid,
        })
    }

    /// An empty file system.
    fn empty(&mut self, state: &State, step: Step<'_>) -> Result<VertexId, Fault> {
        let nothing = Op::Files {
            base: None,
            actions: Vec::new(),
        };
        self.add(nothing, state, step, At::default())
    }
}

/// The id of a cache mount that has none: its target as written, cleaned.
fn cleaned(written: Option<&str>, target: &str) -> String {
    match written.filter(|w| !w.is_empty() && !w.starts_with('/')) {
        // A relative target is the same cache whatever the working directory.
        Some(relative) => joined("/", relative)[1..].to_owned(),
        None => target.to_owned(),
    }
}

fn no_variables(value: &Word) -> Result<String, Fault> {
    if !value.text.contains('$') {
        return Ok(value.text.clone());
    }
    let message = "`from` of `--mount` does not take variables".to_owned();
    Err(Fault::new(&rules::INVALID_FLAG, value.at, message)
        .hint("give the stage of a FROM line a name: `FROM $VARIABLE AS name`, and take from that"))
}

/// Reads a truth value as Go does.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn kind(name: &str, at: At) -> Result<Kind, Fault> {
    let lower = name.to_ascii_lowercase();
    if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == lower) {
        return Ok(*kind);
    }
    let names = KINDS.iter().map(|(name, _)| *name);
    let hint = match did_you_mean(name, names.clone()) {
        near if near.is_empty() => {
            let names: Vec<_> = names.map(|n| format!("`{n}`")).collect();
            format!("the types are {}", names.join(", "))
        }
        near => near,
    };
    let message = format!("`{name}` is not a type of mount");
    Err(Fault::new(&rules::INVALID_FLAG, at, message).hint(hint))
}

/// The absolute target; the working directory where there is none.
fn target(state: &State, keys: &Keys) -> Result<String, Fault> {
    let written = keys.text("target").unwrap_or_default();
    let target = joined(&state.config().working_dir, written);
    if target != "/" {
        return Ok(target);
    }
    let (message, hint) = if written.is_empty() {
        (
            "the mount has no target, and the working directory is `/`".to_owned(),
            "add `target=/directory`",
        )
    } else {
        (
            format!("`{written}` is the root directory, on which nothing is mounted"),
            "name a directory below it: `target=/directory`",
        )
    };
    Err(keys.fault("target", message).hint(hint))
}

fn sharing(keys: &Keys) -> Result<Sharing, Fault> {
    let text = keys.some("sharing").unwrap_or("shared");
    match text.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        other => {
            let hint = match did_you_mean(other, ["shared", "private", "locked"]) {
                near if near.is_empty() => "caches are `shared`, `private` or `locked`".to_owned(),
                near => near,
            };
            Err(keys
                .fault("sharing", format!("`{text}` is not a way to share a cache"))
                .hint(hint))
        }
    }
}

fn size(keys: &Keys) -> Result<Option<u64>, Fault> {
    let Some(text) = keys.some("size") else {
        return Ok(None);
    };
    bytes(text).map(Some).ok_or_else(|| {
        keys.fault("size", format!("`{text}` is not a size"))
            .hint("write a number with a unit, such as `64m` or `1.5g`")
    })
}

/// Reads a size with a unit of 1024, as docker's libraries do: `512`, `64m`, `1.5GiB`.
fn bytes(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let shift = ["", "k", "m", "g", "t", "p"]
        .iter()
        .position(|u| *u == unit)?;
    let size = number * (1_u64 << (10 * shift)) as f64;
    (size.is_finite() && size < i64::MAX as f64).then_some(size as u64)
}

fn secret(state: &State, keys: &Keys) -> Result<Mount, Fault> {
    if keys.some("source").is_some() && keys.some("id").is_some() {
        let message = "a secret has `id` or `source`, which are the same, and not both".to_owned();
        return Err(keys.fault("source", message).hint("remove `source=…`"));
    }
    let named = keys.some("id").or(keys.some("source"));
    let written = keys.some("target");
    let base = |path: &str| {
        path.trim_end_matches('/')
            .rsplit('/')
            .next()
            .map(str::to_owned)
    };
    let id = match (named, written) {
        (Some(id), _) => id.to_owned(),
        (None, Some(target)) => base(target).unwrap_or_default(),
        (None, None) => {
            let message = "the secret has neither `id` nor `target`".to_owned();
            return Err(keys
                .fault("type", message)
                .hint("add the id that is given to `--secret id=…`: `id=name`"));
        }
    };
    let env = keys.text("env").map(str::to_owned);
    if let Some(name) = env.as_deref().filter(|n| n.is_empty() || n.contains('=')) {
        return Err(keys.fault("env", format!("`{name}` is not the name of a variable")));
    }
    let target = match (written, &env) {
        (Some(_), _) => Some(target(state, keys)?),
        (None, Some(_)) => None,
        (None, None) => Some(format!("{SECRETS}{}", base(&id).unwrap_or_default())),
    };
    let (mode, uid, gid) = keys.owner(0o400)?;
    Ok(Mount::Secret {
        id,
        target,
        env,
        required: keys.is_set("required").unwrap_or(false),
        mode,
        uid,
        gid,
    })
}

fn ssh(state: &State, keys: &Keys, number: usize) -> Result<Mount, Fault> {
    let target = match keys.some("target") {
        Some(_) => target(state, keys)?,
        None => format!("{AGENTS}{number}"),
    };
    let (mode, uid, gid) = keys.owner(0o600)?;
    Ok(Mount::Ssh {
        id: keys.some("id").unwrap_or("default").to_owned(),
        target,
        required: keys.is_set("required").unwrap_or(false),
        mode,
        uid,
        gid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, want) in [
            ("0", 0),
            ("512", 512),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
            ("3 kb", 3072),
        ] {
            assert_eq!(bytes(text), Some(want), "{text}");
        }
        for bad in ["", "x", "1x", "-1", "1e99", "1.2.3"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
