//! A cache policy that misbehaves, in the way that the setting `way` names.
#![forbid(unsafe_code)]

use stepwell_guest::cache_policy::{About, Attribute, Budget, CachePolicy, Decision, Kept, Step};

struct Hostile;

stepwell_guest::export_cache_policy!(Hostile);

impl CachePolicy for Hostile {
    fn about() -> About {
        About {
            name: "hostile".into(),
            version: "0".into(),
        }
    }

    fn plan(settings: Vec<Attribute>, steps: Vec<Step>) -> Vec<Decision> {
        let decision = Decision {
            normal_form: vec![],
            reuse: true,
            content_key: true,
            ttl: None,
            export: true,
        };
        let way = settings.iter().find(|s| s.name == "way");
        match way.map(|s| s.value.as_str()) {
            Some("one too few") => vec![decision; steps.len().saturating_sub(1)],
            Some("loops") => loop {
                std::hint::spin_loop();
            },
            Some("huge answer") => vec![
                Decision {
                    normal_form: vec![0; 100 << 20],
                    ..decision
                };
                1
            ],
            _ => vec![decision; steps.len()],
        }
    }

    fn retain(_: Budget, results: Vec<Kept>) -> Vec<u32> {
        vec![0, results.len() as u32]
    }
}
