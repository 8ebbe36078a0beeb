//! A frontend for images described by a recipe in TOML.  A whole example of a frontend of one's own:
//!
//! * [`recipe`]: the language, and messages with their place when it is broken;
//! * [`lower`]: from a recipe to the build graph;
//! * here: what the host calls.
#![forbid(unsafe_code)]

mod lower;
mod recipe;

use stepwell_guest::frontend::{About, Failure, Frontend, Image, Options, report};

struct RecipeFrontend;

stepwell_guest::export_frontend!(RecipeFrontend);

impl Frontend for RecipeFrontend {
    fn about() -> About {
        About {
            name: "recipe",
            version: env!("CARGO_PKG_VERSION"),
            definition_names: &["recipe.toml"],
        }
    }

    fn build(options: Options) -> Result<Image, Failure> {
        recipe::Source::new(&options.definition)
            .and_then(|source| lower::lower(&source.parse()?, &source, &options))
            .map_err(|diagnostic| {
                report(&diagnostic);
                Failure::Refused
            })
    }
}
