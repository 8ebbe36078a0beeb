//! The core's data in the words of the contract, and back.

use dockerfile_core::diagnostic as core_diagnostic;
use dockerfile_core::lower::host as core;
use stepwell_guest::frontend as sdk;

/// Turns what the user asks for into the core's request.
pub(crate) fn request(options: sdk::Options, call: core::Call) -> core::Request {
    core::Request {
        call,
        ignore_file: options.ignore_file.map(|f| (f.name, f.content)),
        file: options.definition.name,
        content: options.definition.content,
        target: options.target,
        build_args: options.build_args,
        labels: options.labels,
        target_platform: platform_to_core(options.target_platform),
        build_platform: platform_to_core(options.build_platform),
        contexts: options
            .named_contexts
            .into_iter()
            .map(named_context)
            .collect(),
        hosts: options
            .extra_hosts
            .into_iter()
            .map(|h| (h.host, h.address))
            .collect(),
        network: match options.network {
            sdk::Network::Default => core::Network::Default,
            sdk::Network::None => core::Network::None,
            sdk::Network::Host => core::Network::Host,
        },
        shm_size: options.shm_size,
        limits: options
            .limits
            .into_iter()
            .map(|l| (l.name, l.soft, l.hard))
            .collect(),
    }
}

pub(crate) fn limit((name, soft, hard): core::Limit) -> sdk::Limit {
    sdk::Limit { name, soft, hard }
}

pub(crate) fn sharing(sharing: core::Sharing) -> sdk::Sharing {
    match sharing {
        core::Sharing::Shared => sdk::Sharing::Shared,
        core::Sharing::Private => sdk::Sharing::Private,
        core::Sharing::Locked => sdk::Sharing::Locked,
    }
}

fn named_context(context: sdk::NamedContext) -> core::NamedContext {
    let image = match context.kind {
        sdk::ContextKind::Directory => None,
        sdk::ContextKind::Image(reference) => Some(reference),
    };
    core::NamedContext {
        name: context.name,
        image,
    }
}

pub(crate) fn platform_to_core(platform: sdk::Platform) -> core::Platform {
    core::Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
    }
}

pub(crate) fn platform(platform: &core::Platform) -> sdk::Platform {
    sdk::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
    }
}

pub(crate) fn network(network: core::Network) -> sdk::Network {
    match network {
        core::Network::Default => sdk::Network::Default,
        core::Network::None => sdk::Network::None,
        core::Network::Host => sdk::Network::Host,
    }
}

pub(crate) fn owner(owner: core::Owner) -> sdk::Owner {
    sdk::Owner {
        user: owner.user,
        group: owner.group,
    }
}

pub(crate) fn origin(origin: core::Origin) -> sdk::Origin {
    sdk::Origin {
        file: origin.file,
        span: span(origin.span),
        text: origin.text,
        stage: origin.stage,
    }
}

pub(crate) fn span(span: core_diagnostic::Span) -> sdk::Span {
    sdk::Span {
        line: span.line,
        column: span.column,
        end_line: span.end_line,
        end_column: span.end_column,
    }
}

pub(crate) fn diagnostic(diagnostic: core_diagnostic::Diagnostic) -> sdk::Diagnostic {
    sdk::Diagnostic {
        severity: match diagnostic.severity {
            core_diagnostic::Severity::Note => sdk::Severity::Note,
            core_diagnostic::Severity::Warning => sdk::Severity::Warning,
            core_diagnostic::Severity::Error => sdk::Severity::Error,
        },
        code: diagnostic.code.to_owned(),
        message: diagnostic.message,
        file: diagnostic.file,
        span: span(diagnostic.span),
        source: diagnostic.source,
        hint: diagnostic.hint,
    }
}

pub(crate) fn history(line: core::History) -> sdk::History {
    sdk::History {
        created_by: line.created_by,
        comment: line.comment.to_owned(),
        empty_layer: line.empty_layer,
    }
}

pub(crate) fn config_to_sdk(config: core::ImageConfig) -> sdk::ImageConfig {
    sdk::ImageConfig {
        env: config.env,
        cmd: config.cmd,
        entrypoint: config.entrypoint,
        working_dir: config.working_dir,
        user: config.user,
        labels: config.labels.into_iter().collect(),
        exposed_ports: config.exposed_ports.into_iter().collect(),
        volumes: config.volumes.into_iter().collect(),
        stop_signal: config.stop_signal,
        healthcheck: config.healthcheck.map(|check| sdk::Healthcheck {
            test: check.test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        shell: config.shell,
        on_build: config.on_build,
        author: config.author,
    }
}

pub(crate) fn config_to_core(config: sdk::ImageConfig) -> core::ImageConfig {
    core::ImageConfig {
        env: config.env,
        cmd: config.cmd,
        entrypoint: config.entrypoint,
        working_dir: config.working_dir,
        user: config.user,
        labels: config.labels.into_iter().collect(),
        exposed_ports: config.exposed_ports.into_iter().collect(),
        volumes: config.volumes.into_iter().collect(),
        stop_signal: config.stop_signal,
        healthcheck: config.healthcheck.map(|check| core::Healthcheck {
            test: check.test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        shell: config.shell,
        on_build: config.on_build,
        author: config.author,
    }
}
