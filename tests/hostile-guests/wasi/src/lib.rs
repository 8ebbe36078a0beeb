//! A frontend that needs WASI, as guests in Python or Go do, and tells what it sees of the machine through it.

#[allow(missing_docs, unsafe_code, clippy::all, reason = "generated")]
mod wasi {
    wit_bindgen::generate!({
        inline: r#"
            package test:probe;

            world probe {
                import wasi:cli/environment@0.2.0;
                import wasi:clocks/wall-clock@0.2.0;
                import wasi:clocks/monotonic-clock@0.2.0;
                import wasi:random/random@0.2.0;
                import wasi:filesystem/preopens@0.2.0;
            }

            package wasi:cli@0.2.0 {
                interface environment {
                    get-environment: func() -> list<tuple<string, string>>;
                    get-arguments: func() -> list<string>;
                    initial-cwd: func() -> option<string>;
                }
            }

            package wasi:clocks@0.2.0 {
                interface wall-clock {
                    record datetime { seconds: u64, nanoseconds: u32 }
                    now: func() -> datetime;
                }
                interface monotonic-clock {
                    now: func() -> u64;
                }
            }

            package wasi:random@0.2.0 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                }
            }

            package wasi:filesystem@0.2.0 {
                interface types {
                    resource descriptor;
                }
                interface preopens {
                    use types.{descriptor};
                    get-directories: func() -> list<tuple<descriptor, string>>;
                }
            }
        "#,
        generate_all,
    });
}

use stepwell_guest::frontend::{
    About, Diagnostic, Failure, Frontend, Image, Options, Severity, Span, report,
};
use wasi::wasi::cli::environment;
use wasi::wasi::clocks::{monotonic_clock, wall_clock};
use wasi::wasi::filesystem::preopens;
use wasi::wasi::random::random;

struct Probe;

#[allow(unsafe_code, reason = "the exports that the macro generates")]
mod export {
    use super::Probe;

    stepwell_guest::export_frontend!(Probe);
}

impl Frontend for Probe {
    fn about() -> About {
        About {
            name: "wasi",
            version: "0",
            definition_names: &[],
        }
    }

    fn build(_: Options) -> Result<Image, Failure> {
        say("environment", &environment::get_environment());
        say("arguments", &environment::get_arguments());
        say("cwd", &environment::initial_cwd());
        say("directories", &preopens::get_directories().len());
        let wall = wall_clock::now();
        say(
            "time",
            &(wall.seconds, wall.nanoseconds, monotonic_clock::now()),
        );
        say("random", &random::get_random_bytes(4));
        Ok(Image {
            root: None,
            config: Default::default(),
            history: Vec::new(),
            source_date_epoch: None,
        })
    }
}

fn say(what: &str, value: &dyn std::fmt::Debug) {
    report(&Diagnostic {
        severity: Severity::Note,
        code: what.into(),
        message: format!("{value:?}"),
        file: String::new(),
        span: Span {
            line: 0,
            column: 0,
            end_line: 0,
            end_column: 0,
        },
        source: String::new(),
        hint: String::new(),
    });
}
