//! The default cache policy.  Everything that an operation consists of counts, but what is known not to matter for
//! its result; every step may be reused; the results that were not used for the longest time are thrown away
//! first.
//!
//! It decides nothing about soundness: the host adds the namespace, the policy's digest and the inputs to each key.
#![forbid(unsafe_code)]

mod normal_form;
mod retain;

use stepwell_guest::cache_policy::{
    About, Attribute, Budget, CachePolicy, Decision, Kept, Operation, Step,
};

struct DefaultPolicy;

stepwell_guest::export_cache_policy!(DefaultPolicy);

impl CachePolicy for DefaultPolicy {
    fn about() -> About {
        About {
            name: "default".into(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    fn plan(settings: Vec<Attribute>, steps: Vec<Step>) -> Vec<Decision> {
        let no_cache = settings
            .iter()
            .any(|s| s.name == "no-cache" && s.value == "true");
        steps.iter().map(|step| decide(step, no_cache)).collect()
    }

    fn retain(budget: Budget, results: Vec<Kept>) -> Vec<u32> {
        retain::evicted(&budget, &results)
    }
}

/// Images and contexts are what they are whatever the user says of the cache: their keys are made of digests of what
/// they hold.  A rebuilt input with the same content lets a step hit by its content key.
fn decide(step: &Step, no_cache: bool) -> Decision {
    let source = matches!(step.operation, Operation::Image | Operation::Context);
    Decision {
        normal_form: normal_form::of(step),
        reuse: source || !no_cache,
        content_key: !source && !step.inputs.is_empty(),
        ttl: None,
        export: !source,
    }
}
