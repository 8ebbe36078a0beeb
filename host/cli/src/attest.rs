//! `--provenance`, `--attest` and `--sbom`, with the meanings that buildx gives them; but nothing is attested unless asked for.

use stepwell_model::request::{Output, Provenance, ProvenanceMode};

use crate::args::BuildArgs;
use crate::values::fields;

/// Variable that says how much of the provenance the metadata file has, as with buildx.
const TOLD: &str = "BUILDX_METADATA_PROVENANCE";

/// What is said of images beside them; nothing where that was not asked for.
pub fn provenance(args: &BuildArgs, outputs: &[Output]) -> Result<Option<Provenance>, String> {
    if let Some(text) = args.sbom.as_deref().filter(|t| !is_off(t)) {
        return Err(no_sbom(&format!("--sbom={text}")));
    }
    let mut wanted = None;
    for text in &args.attests {
        let flag = format!("--attest `{text}`");
        let mut fields = fields(text)?;
        let at = fields.iter().position(|(key, _)| key == "type");
        let kind = at.map(|at| fields.remove(at).1);
        match kind.as_deref() {
            Some("provenance") => wanted = parameters(&flag, &fields)?,
            Some("sbom") if fields.iter().any(|(k, v)| k == "disabled" && v == "true") => {}
            Some("sbom") => return Err(no_sbom(&flag)),
            Some(other) => {
                return Err(format!(
                    "{flag}: `{other}` is not a type of attestation; `provenance` is"
                ));
            }
            None => {
                return Err(format!(
                    "{flag}: it has no `type=`; write `type=provenance`"
                ));
            }
        }
    }
    if let Some(text) = &args.provenance {
        let flag = format!("--provenance `{text}`");
        wanted = match text.as_str() {
            "true" | "1" | "" => Some(Provenance::default()),
            text if is_off(text) => None,
            text => parameters(&flag, &fields(text)?)?,
        };
    }
    if wanted.is_some() {
        for output in outputs {
            holds(output)?;
        }
    }
    Ok(wanted)
}

/// How much of the provenance is told to the user.
pub fn told(args: &BuildArgs) -> Result<Option<ProvenanceMode>, String> {
    if args.metadata_file.is_none() {
        return Ok(None);
    }
    match std::env::var(TOLD).unwrap_or_default().as_str() {
        "" | "min" | "true" => Ok(Some(ProvenanceMode::Min)),
        "max" => Ok(Some(ProvenanceMode::Max)),
        "disabled" | "false" => Ok(None),
        other => Err(format!(
            "{TOLD}: `{other}` is not known; `min`, `max` and `disabled` are"
        )),
    }
}

fn is_off(text: &str) -> bool {
    matches!(text, "false" | "0" | "disabled=true" | "disabled")
}

fn no_sbom(flag: &str) -> String {
    format!(
        "{flag}: lists of what is in an image (SBOMs) are not made here; run a scanner (syft, trivy) on the image, or on `--output type=local`"
    )
}

/// Reads the parameters of a provenance attestation.
fn parameters(flag: &str, fields: &[(String, String)]) -> Result<Option<Provenance>, String> {
    let mut provenance = Provenance::default();
    let mut disabled = false;
    for (key, value) in fields {
        let flagged = || match value.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(format!("{flag}: `{key}` is true or false, not `{other}`")),
        };
        match key.as_str() {
            "mode" => {
                provenance.mode = match value.as_str() {
                    "min" => ProvenanceMode::Min,
                    "max" => ProvenanceMode::Max,
                    other => {
                        return Err(format!(
                            "{flag}: `{other}` is not a mode; `min` and `max` are"
                        ));
                    }
                }
            }
            "builder-id" => provenance.builder_id = Some(value.clone()).filter(|v| !v.is_empty()),
            "reproducible" => provenance.reproducible = flagged()?,
            "disabled" => disabled = flagged()?,
            // It says where BuildKit puts the provenance of files; here it goes beside images only.
            "inline-only" => drop(flagged()?),
            "version" if value == "v1" => {}
            "version" => {
                return Err(format!(
                    "{flag}: SLSA's version `{value}` is not written here; `v1` is"
                ));
            }
            other => {
                return Err(format!(
                    "{flag}: `{other}` is not a key of it; `mode`, `builder-id`, `reproducible`, `version` and `disabled` are"
                ));
            }
        }
    }
    Ok((!disabled).then_some(provenance))
}

/// Refuses an output in which nothing can be said of an image.
fn holds(output: &Output) -> Result<(), String> {
    let (image, name) = match output {
        Output::Image { image, .. } => (image, "image"),
        Output::Oci { image, .. } => (image, "oci"),
        Output::Docker { .. } => {
            return Err(
                "--provenance: an archive for `docker load` holds one image and nothing beside it; write `type=oci`, or leave `--provenance` out: `--metadata-file` has it, too"
                    .to_owned(),
            );
        }
        Output::Local { .. } | Output::Tar { .. } => {
            return Err(
                "--provenance: files have nothing beside them; leave it out: `--metadata-file` has it"
                    .to_owned(),
            );
        }
    };
    if image.docker_media_types {
        return Err(format!(
            "--provenance: docker's media types have no place for it; leave `oci-mediatypes=false` of `type={name}` out"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::output;

    fn asked(flags: &[&str], outputs: &[&str]) -> Result<Option<Provenance>, String> {
        let all = ["stepwell", "build", "."].iter().chain(flags);
        let Command::Build(args) = Cli::try_parse_from(all).unwrap().command else {
            panic!("a build");
        };
        let outputs: Vec<_> = outputs.iter().map(|o| output::parse(o).unwrap()).collect();
        provenance(&args, &outputs)
    }

    #[test]
    fn flags_mean_what_they_mean_to_buildx() {
        let min = Provenance::default();
        let max = Provenance {
            mode: ProvenanceMode::Max,
            ..min.clone()
        };
        for (flags, want) in [
            (&[][..], None),
            (&["--provenance"], Some(&min)),
            (&["--provenance=true"], Some(&min)),
            (&["--provenance=false", "--sbom=false"], None),
            (&["--provenance=mode=max"], Some(&max)),
            (
                &["--attest=type=provenance,mode=max,version=v1"],
                Some(&max),
            ),
            (&["--attest=type=provenance,disabled=true"], None),
            // The short one wins, as it stands for the last word.
            (&["--attest=type=provenance", "--provenance=false"], None),
        ] {
            assert_eq!(
                asked(flags, &["type=oci,dest=x"]).unwrap().as_ref(),
                want,
                "{flags:?}"
            );
        }
        let id = asked(
            &["--provenance=builder-id=https://b/1,reproducible=true"],
            &[],
        );
        let id = id.unwrap().unwrap();
        assert_eq!(id.builder_id.as_deref(), Some("https://b/1"));
        assert!(id.reproducible);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        for (flag, output, part) in [
            ("--sbom", "type=oci", "run a scanner"),
            ("--attest=type=sbom", "type=oci", "run a scanner"),
            ("--attest=type=x", "type=oci", "`x` is not a type"),
            ("--attest=mode=max", "type=oci", "no `type=`"),
            ("--provenance=mode=all", "type=oci", "`all` is not a mode"),
            (
                "--provenance=version=v0.2",
                "type=oci",
                "`v0.2` is not written",
            ),
            ("--provenance=mod=max", "type=oci", "`mod` is not a key"),
            ("--provenance", "type=docker", "write `type=oci`"),
            (
                "--provenance",
                "type=local,dest=x",
                "`--metadata-file` has it",
            ),
            (
                "--provenance",
                "type=image,oci-mediatypes=false",
                "leave `oci-mediatypes=false`",
            ),
        ] {
            let error = asked(&[flag], &[output]).unwrap_err();
            assert!(error.contains(part), "{flag}: {error}");
        }
    }
}
