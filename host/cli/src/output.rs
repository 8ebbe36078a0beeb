//! `--output`: one table row for each exporter and for each of its keys.

use std::path::PathBuf;

use stepwell_model::request::{Compression, ImageOptions, Output};

use crate::values::fields;

/// An exporter: its name, the keys it takes besides those of images, whether it takes those, and how it is made.
struct Exporter {
    name: &'static str,
    keys: &'static [&'static str],
    image_keys: bool,
    make: fn(Fields) -> Result<Output, String>,
}

const EXPORTERS: &[Exporter] = &[
    Exporter {
        name: "image",
        keys: &["push"],
        image_keys: true,
        make: |mut f| {
            Ok(Output::Image {
                push: f.flag("push", false)?,
                image: f.image()?,
            })
        },
    },
    Exporter {
        name: "registry",
        keys: &["push"],
        image_keys: true,
        make: |mut f| {
            Ok(Output::Image {
                push: f.flag("push", true)?,
                image: f.image()?,
            })
        },
    },
    Exporter {
        name: "oci",
        keys: &["dest", "tar"],
        image_keys: true,
        make: oci,
    },
    Exporter {
        name: "docker",
        keys: &["dest"],
        image_keys: true,
        make: |mut f| {
            Ok(Output::Docker {
                dest: f.dest(),
                image: ImageOptions {
                    docker_media_types: true,
                    ..f.image()?
                },
            })
        },
    },
    Exporter {
        name: "local",
        keys: &["dest"],
        image_keys: false,
        make: |mut f| {
            Ok(Output::Local {
                dest: f.dest().ok_or("`type=local` needs `dest=DIR`")?,
            })
        },
    },
    Exporter {
        name: "tar",
        keys: &["dest"],
        image_keys: false,
        make: |mut f| Ok(Output::Tar { dest: f.dest() }),
    },
];

const IMAGE_KEYS: &[&str] = &[
    "name",
    "compression",
    "compression-level",
    "oci-mediatypes",
    "annotation.*",
];

/// Parses the value of one `--output`.  A bare path means `type=local`, `-` means `type=tar` to standard output.
pub fn parse(text: &str) -> Result<Output, String> {
    if text == "-" {
        return Ok(Output::Tar { dest: None });
    }
    let all = fields(text).map_err(|e| format!("--output: {e}"))?;
    if let [(path, value)] = &all[..]
        && value.is_empty()
        && !text.contains('=')
    {
        let _ = path;
        return Ok(Output::Local {
            dest: PathBuf::from(text),
        });
    }
    let kind = all
        .iter()
        .find(|(k, _)| k == "type")
        .map(|(_, v)| v.clone())
        .ok_or_else(|| format!("--output `{text}` has no `type=`; known are {}", known()))?;
    let exporter = EXPORTERS
        .iter()
        .find(|e| e.name == kind)
        .ok_or_else(|| format!("--output type `{kind}` is not known; known are {}", known()))?;
    let fields = Fields(all.into_iter().filter(|(k, _)| k != "type").collect());
    fields
        .check(exporter)
        .and_then(|()| (exporter.make)(fields))
        .map_err(|e| format!("--output `{text}`: {e}"))
}

fn known() -> String {
    EXPORTERS
        .iter()
        .map(|e| format!("`{}`", e.name))
        .collect::<Vec<_>>()
        .join(", ")
}

fn oci(mut f: Fields) -> Result<Output, String> {
    let tar = f.flag("tar", true)?;
    let dest = f.dest();
    if !tar && dest.is_none() {
        return Err("a directory (`tar=false`) needs `dest=DIR`".to_owned());
    }
    Ok(Output::Oci {
        dest,
        tar,
        image: f.image()?,
    })
}

struct Fields(Vec<(String, String)>);

impl Fields {
    fn check(&self, exporter: &Exporter) -> Result<(), String> {
        let image_keys = if exporter.image_keys { IMAGE_KEYS } else { &[] };
        let fits = |key: &str, known: &str| {
            known
                .strip_suffix('*')
                .map_or(key == known, |prefix| key.starts_with(prefix))
        };
        for (key, _) in &self.0 {
            if !exporter
                .keys
                .iter()
                .chain(image_keys)
                .any(|known| fits(key, known))
            {
                let keys = exporter
                    .keys
                    .iter()
                    .chain(image_keys)
                    .map(|k| format!("`{k}`"))
                    .collect::<Vec<_>>()
                    .join(", ");
                return Err(format!(
                    "`type={}` does not know `{key}`; it knows {keys}",
                    exporter.name
                ));
            }
        }
        Ok(())
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.remove(at).1)
    }

    fn dest(&mut self) -> Option<PathBuf> {
        self.take("dest")
            .filter(|d| d != "-" && !d.is_empty())
            .map(PathBuf::from)
    }

    fn flag(&mut self, key: &str, default: bool) -> Result<bool, String> {
        match self.take(key).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("`{key}={other}`: expected `true` or `false`")),
        }
    }

    fn image(&mut self) -> Result<ImageOptions, String> {
        let names = self
            .take("name")
            .map(|n| {
                n.split(',')
                    .filter(|n| !n.is_empty())
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default();
        let compression = match self.take("compression").as_deref() {
            None | Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("uncompressed") => Compression::Uncompressed,
            Some(other) => {
                return Err(format!(
                    "`compression={other}`: expected `gzip`, `zstd` or `uncompressed`"
                ));
            }
        };
        let level = self
            .take("compression-level")
            .map(|t| {
                t.parse::<i32>()
                    .map_err(|_| format!("`compression-level={t}` is not a number"))
            })
            .transpose()?;
        let range = if compression == Compression::Zstd {
            0..=22
        } else {
            0..=9
        };
        if let Some(level) = level.filter(|l| !range.contains(l)) {
            return Err(format!(
                "`compression-level={level}` is out of range: {} to {}",
                range.start(),
                range.end()
            ));
        }
        let docker_media_types = !self.flag("oci-mediatypes", true)?;
        let annotations = self
            .0
            .iter()
            .filter_map(|(k, v)| Some((k.strip_prefix("annotation.")?.to_owned(), v.clone())))
            .collect();
        Ok(ImageOptions {
            names,
            compression,
            level,
            docker_media_types,
            annotations,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ones() {
        assert_eq!(parse("out").unwrap(), Output::Local { dest: "out".into() });
        assert_eq!(parse("-").unwrap(), Output::Tar { dest: None });
        assert!(
            matches!(parse("type=image,push=true,name=a").unwrap(), Output::Image { push: true, image } if image.names == ["a"])
        );
        assert!(
            matches!(parse("type=oci,dest=x,tar=false,compression=zstd,compression-level=19").unwrap(),
            Output::Oci { tar: false, image, .. } if image.compression == Compression::Zstd && image.level == Some(19))
        );
        assert!(matches!(
            parse("type=docker,dest=-").unwrap(),
            Output::Docker { dest: None, .. }
        ));
        assert!(
            matches!(parse("type=image,annotation.a.b=c").unwrap(), Output::Image { image, .. } if image.annotations == [("a.b".into(), "c".into())])
        );
    }

    #[test]
    fn mistakes_name_the_key() {
        for (text, part) in [
            ("type=x", "`x` is not known"),
            ("dest=x", "no `type=`"),
            ("type=local", "needs `dest=DIR`"),
            ("type=oci,tar=false", "needs `dest=DIR`"),
            ("type=image,dst=x", "does not know `dst`"),
            ("type=image,compression=lz4", "compression=lz4"),
            ("type=image,compression-level=10", "out of range"),
            ("type=image,push=yes", "expected `true` or `false`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
