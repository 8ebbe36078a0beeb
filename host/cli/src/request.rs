//! From arguments to a checked `Request`: everything about the command line that can be wrong is found here.

use std::path::PathBuf;

use stepwell_model::op::{HostEntry, Network};
use stepwell_model::request::{
    ContextSource, Frontend, GuestLimits, Isolation, NamedContext, Output, Request, StepLimits,
};
use stepwell_model::{Platform, parse_reference, remote};

use crate::args::{BuildArgs, GuestArgs, IsolationArg, NetworkArg};
use crate::sources::{self, Input};
use crate::supplies::{self, KeyAgent};
use crate::values::pair;
use crate::{attest, environment, output};

/// A request, and what it needs as long as it is worked on.
pub struct Prepared {
    request: Request,
    _input: Option<Input>,
    _agents: Vec<KeyAgent>,
}

impl std::ops::Deref for Prepared {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}

/// Checks the arguments and takes what comes on standard input; the error is what is wrong, for people.
pub fn from_args(args: &BuildArgs) -> Result<Prepared, String> {
    let (context, input) = sources::context(args)?;
    let (agents, held) = agents(args, &context)?;
    let request = request(args, context, agents)?;
    Ok(Prepared {
        request,
        _input: input,
        _agents: held,
    })
}

/// Id and socket of an agent.
type Agent = (String, PathBuf);

/// The agents that were given, and those that were started for keys.  Without any, that of the user's is for a context behind
/// ssh, as with buildx: the user named the address.
fn agents(
    args: &BuildArgs,
    context: &ContextSource,
) -> Result<(Vec<Agent>, Vec<KeyAgent>), String> {
    let (mut agents, mut held) = (Vec::new(), Vec::new());
    for text in &args.agents {
        let (id, socket, started) = supplies::agent(text)?;
        agents.push((id, socket));
        held.extend(started);
    }
    let is_ssh = matches!(context, ContextSource::Remote(address) if remote::is_ssh(address));
    if agents.is_empty()
        && is_ssh
        && let Ok((id, socket, _)) = supplies::agent("default")
    {
        agents.push((id, socket));
    }
    Ok((agents, held))
}

fn request(
    args: &BuildArgs,
    context: ContextSource,
    agents: Vec<Agent>,
) -> Result<Request, String> {
    let platform = match &args.platform {
        Some(text) => text.parse().map_err(|e| format!("--platform: {e}"))?,
        None => Platform::host(),
    };
    for tag in &args.tags {
        parse_reference(tag).map_err(|e| format!("--tag `{tag}` is not an image name: {e}"))?;
    }
    let build_args = build_args(args)?;
    let source_date_epoch = source_date_epoch(&build_args)?;
    let outputs = outputs(args)?;
    Ok(Request {
        frontend: args
            .frontend
            .clone()
            .map_or(Frontend::Dockerfile, Frontend::Component),
        context,
        file: sources::definition(args)?,
        named_contexts: with_platforms(
            args.build_contexts
                .iter()
                .map(|t| named_context(t))
                .collect::<Result<_, _>>()?,
        )?,
        target: args.target.clone(),
        build_args,
        labels: labels(&args.labels)?,
        options: pairs("--opt", &args.options)?,
        platform,
        no_cache: args.no_cache,
        no_cache_stages: args.no_cache_filter.clone(),
        extra_hosts: args
            .add_hosts
            .iter()
            .map(|t| host_entry(t))
            .collect::<Result<_, _>>()?,
        network: match args.network {
            NetworkArg::Default => Network::Default,
            NetworkArg::None => Network::None,
            NetworkArg::Host => Network::Host,
        },
        secrets: args
            .secrets
            .iter()
            .map(|t| supplies::secret(t))
            .collect::<Result<_, _>>()?,
        agents,
        known_hosts: environment::known_hosts(),
        shm_size: args.shm_size,
        limits: args
            .ulimits
            .iter()
            .map(|t| supplies::limit(t))
            .collect::<Result<_, _>>()?,
        tags: args.tags.clone(),
        provenance: attest::provenance(args, &outputs)?,
        told_provenance: attest::told(args)?,
        outputs,
        isolation: isolation(args.isolation),
        require_isolation: required(args)?,
        source_date_epoch,
        guest_limits: limits(&args.guest),
        step_limits: StepLimits {
            time: args.step_timeout,
            memory: args.step_memory,
            processes: args.step_processes,
            output: args.step_output,
        },
        namespace: args.cache_namespace.clone(),
        insecure_registries: args.insecure_registries.clone(),
        jobs: args
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(2, |n| n.get()))
            .max(1),
    })
}

/// The build argument that sets the time of new files and of the image.
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

pub const fn isolation(tier: IsolationArg) -> Isolation {
    match tier {
        IsolationArg::Auto => Isolation::Auto,
        IsolationArg::Userns => Isolation::Userns,
        IsolationArg::Chroot => Isolation::Chroot,
        IsolationArg::Mediated => Isolation::Mediated,
    }
}

/// `--require-isolation`, which must not demand more than `--isolation` asks for.
fn required(args: &BuildArgs) -> Result<Isolation, String> {
    // The tiers are written in their order, best first.
    if args.isolation != IsolationArg::Auto
        && args.isolation as u8 > args.require_isolation as u8
        && args.require_isolation != IsolationArg::Auto
    {
        let name = |tier: IsolationArg| format!("{tier:?}").to_lowercase();
        return Err(format!(
            "`--isolation {}` is weaker than what `--require-isolation {}` demands; leave one of them out",
            name(args.isolation),
            name(args.require_isolation)
        ));
    }
    Ok(isolation(args.require_isolation))
}

fn outputs(args: &BuildArgs) -> Result<Vec<Output>, String> {
    let mut outputs = args
        .outputs
        .iter()
        .map(|t| output::parse(t))
        .collect::<Result<Vec<_>, _>>()?;
    if args.push {
        match outputs.iter_mut().find_map(|o| {
            if let Output::Image { push, .. } = o {
                Some(push)
            } else {
                None
            }
        }) {
            Some(push) => *push = true,
            None => outputs.push(Output::Image {
                push: true,
                image: Default::default(),
            }),
        }
    }
    let unnamed =
        |o: &Output| matches!(o, Output::Image { push: true, image } if image.names.is_empty());
    if args.tags.is_empty() && outputs.iter().any(unnamed) {
        return Err(
            "an image that is pushed needs a name: add `--tag registry/repository:tag`".to_owned(),
        );
    }
    let to_stdout = |o: &&Output| {
        matches!(
            o,
            Output::Oci { dest: None, .. }
                | Output::Docker { dest: None, .. }
                | Output::Tar { dest: None }
        )
    };
    if outputs.iter().filter(to_stdout).count() > 1 {
        return Err(
            "only one output can go to standard output: give the others `dest=FILE`".to_owned(),
        );
    }
    Ok(outputs)
}

/// Splits `--label NAME=VALUE`; a name alone has an empty value, as with buildx.
fn labels(texts: &[String]) -> Result<Vec<(String, String)>, String> {
    let label = |text: &String| match text.split_once('=') {
        Some(_) => pair("--label", text).map(|(k, v)| (k.to_owned(), v.to_owned())),
        None => Ok((text.clone(), String::new())),
    };
    texts.iter().map(label).collect()
}

fn pairs(flag: &str, texts: &[String]) -> Result<Vec<(String, String)>, String> {
    texts
        .iter()
        .map(|t| pair(flag, t).map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect()
}

/// `NAME=VALUE`, or `NAME` for the environment's value; none where the environment has none (as docker does).
/// The build arguments; `SOURCE_DATE_EPOCH` of the environment is one, as with buildx, where no other is given.
fn build_args(args: &BuildArgs) -> Result<Vec<(String, String)>, String> {
    let given = args
        .build_args
        .iter()
        .filter_map(|t| build_arg(t).transpose());
    let mut given: Vec<_> = given.collect::<Result<_, _>>()?;
    if let Ok(value) = std::env::var(SOURCE_DATE_EPOCH)
        && !value.is_empty()
        && given.iter().all(|(name, _)| name != SOURCE_DATE_EPOCH)
    {
        given.push((SOURCE_DATE_EPOCH.to_owned(), value));
    }
    Ok(given)
}

fn build_arg(text: &str) -> Result<Option<(String, String)>, String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!(
            "`--build-arg {text}` must have the form NAME=VALUE"
        )),
        Some((name, value)) => Ok(Some((name.to_owned(), value.to_owned()))),
        None => Ok(std::env::var(text)
            .ok()
            .map(|value| (text.to_owned(), value))),
    }
}

fn named_context(text: &str) -> Result<(String, NamedContext), String> {
    let (name, place) = pair("--build-context", text)?;
    let context = if let Some(reference) = place.strip_prefix("docker-image://") {
        parse_reference(reference).map_err(|e| {
            format!("--build-context `{text}`: `{reference}` is not an image name: {e}")
        })?;
        NamedContext::Image(reference.to_owned())
    } else if let Some(layout) = place.strip_prefix("oci-layout://") {
        let (path, reference) = match (layout.split_once('@'), layout.rsplit_once(':')) {
            (Some((path, digest)), _) => (path, digest),
            (None, Some((path, tag))) if !tag.contains('/') => (path, tag),
            _ => (layout, ""),
        };
        NamedContext::OciLayout {
            path: PathBuf::from(path),
            reference: reference.to_owned(),
        }
    } else if let Some(address) = sources::address(place) {
        NamedContext::Remote(address.map_err(|e| format!("--build-context `{text}`: {e}"))?)
    } else if place.contains("://") {
        return Err(format!(
            "--build-context `{text}`: this kind of context is not known here; a directory, `docker-image://`, `oci-layout://`, `https://` and addresses of repositories are"
        ));
    } else {
        let path = PathBuf::from(place);
        if !path.is_dir() {
            return Err(format!(
                "--build-context `{text}`: `{place}` is not a directory"
            ));
        }
        NamedContext::Directory(path)
    };
    Ok((name.to_owned(), context))
}

/// Writes the platforms of contexts that are for one (`NAME::PLATFORM`) as they are written everywhere; which one counts is decided where it
/// is used.
fn with_platforms(
    contexts: Vec<(String, NamedContext)>,
) -> Result<Vec<(String, NamedContext)>, String> {
    let normal = |name: String| -> Result<String, String> {
        let Some((name, wanted)) = name.split_once("::") else {
            return Ok(name);
        };
        let platform: Platform = wanted
            .parse()
            .map_err(|e| format!("--build-context `{name}::{wanted}`: {e}"))?;
        Ok(format!("{name}::{platform}"))
    };
    let all = contexts.into_iter();
    all.map(|(name, context)| Ok((normal(name)?, context)))
        .collect()
}

fn host_entry(text: &str) -> Result<HostEntry, String> {
    let (host, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| format!("`--add-host {text}` must have the form HOST:IP"))?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    address
        .parse::<std::net::IpAddr>()
        .map_err(|_| format!("`--add-host {text}`: `{address}` is not an IP address"))?;
    Ok(HostEntry {
        host: host.to_owned(),
        address: address.to_owned(),
    })
}

/// The time that the user asks for.  A name stands for the time of what it names, and is the frontend's business.
fn source_date_epoch(build_args: &[(String, String)]) -> Result<Option<i64>, String> {
    let given = build_args
        .iter()
        .rev()
        .find(|(n, _)| n == SOURCE_DATE_EPOCH);
    match given.map(|(_, value)| value.as_str()) {
        None | Some("") => Ok(None),
        Some(text) if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            text.parse().map(Some).map_err(|_| {
                format!("SOURCE_DATE_EPOCH `{text}` is not a number of seconds since 1970")
            })
        }
        Some(_) => Ok(None),
    }
}

pub fn limits(args: &GuestArgs) -> GuestLimits {
    GuestLimits {
        memory: args.guest_memory,
        time: args.guest_time,
        vertices: args.guest_vertices,
        host_calls: args.guest_calls,
        bytes_read: args.guest_read,
        output: args.guest_output,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_of_contexts_are_written_in_one_way() {
        let image = |text: &str| NamedContext::Image(text.to_owned());
        let given = [
            "a",
            "a::linux/aarch64",
            "a::linux/x86_64",
            "b::linux/arm/v7",
        ];
        let given = given.map(|n| (n.to_owned(), image(n))).to_vec();
        let names = with_platforms(given).unwrap().into_iter().map(|(n, _)| n);
        let want = ["a", "a::linux/arm64", "a::linux/amd64", "b::linux/arm/v7"];
        assert_eq!(names.collect::<Vec<_>>(), want);
        let bad = vec![("a::x/y/z/w".to_owned(), image("a"))];
        assert!(with_platforms(bad).is_err());
    }
}
