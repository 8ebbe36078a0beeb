//! Platforms, written `os/architecture[/variant]` (OCI image-spec, image-index.md; names as Go's GOOS and GOARCH).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and a processor architecture.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// GOOS, for example `linux`.
    pub os: String,
    /// GOARCH, for example `amd64`.
    pub architecture: String,
    /// For example `v8`; empty where there is none.
    pub variant: String,
}

/// The text is not `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: expected `os/architecture[/variant]`, for example `linux/amd64`")]
pub struct PlatformError(String);

impl Platform {
    /// Returns the platform that this program runs on.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: String::new(),
        }
    }

    /// Says whether an image for `self` runs where `wanted` is asked for; an empty variant matches any, and
    /// arm64's `v8` is its default.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let variant = |p: &Self| match (p.architecture.as_str(), p.variant.as_str()) {
            ("arm64", "") => "v8".to_owned(),
            (_, v) => v.to_owned(),
        };
        let (have, want) = (variant(self), variant(wanted));
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (have == want || want.is_empty() || have.is_empty())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let bad = || PlatformError(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|p| p.is_empty()) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts[..] {
            [os, arch] => (os, arch, ""),
            [os, arch, variant] => (os, arch, variant),
            _ => return Err(bad()),
        };
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64", v) => ("amd64", v),
            ("aarch64", v) => ("arm64", v),
            ("arm64", "v8") => ("arm64", ""),
            other => other,
        };
        Ok(Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_prints_and_normalises() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/aarch64", "linux/arm64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), want);
        }
        for bad in ["", "linux", "linux/", "a/b/c/d"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_arm_image_does_not_satisfy_amd64() {
        let p = |t: &str| t.parse::<Platform>().unwrap();
        assert!(!p("linux/arm64").satisfies(&p("linux/amd64")));
        assert!(p("linux/arm64/v8").satisfies(&p("linux/arm64")));
        assert!(!p("linux/arm/v6").satisfies(&p("linux/arm/v7")));
    }
}
