//! Any bytes as a Dockerfile, built and checked on a host in memory: no panic, an answer, soon.
#![no_main]

use dockerfile_core::lower::host::{
    Call, Host, ImageConfig, Platform, ReadError, Request, ResolveError, ResolvedImage, Vertex, VertexId,
};
use libfuzzer_sys::fuzz_target;

/// Knows every image; the ignore file is what stands behind the first NUL byte of the input.
struct Memory<'a> {
    vertices: u32,
    ignore: &'a [u8],
}

impl Host for Memory<'_> {
    fn read(&mut self, _: &str, path: &str, _: u64) -> Result<Vec<u8>, ReadError> {
        match path {
            ".dockerignore" if !self.ignore.is_empty() => Ok(self.ignore.to_vec()),
            _ => Err(ReadError::NotFound),
        }
    }

    fn resolve(&mut self, reference: &str, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        // Triggers come from hostile images: the reference is one.
        let config = ImageConfig {
            on_build: vec![format!("RUN {reference}"), format!("COPY --from={reference} a /")],
            ..ImageConfig::default()
        };
        Ok(ResolvedImage {
            reference: reference.to_owned(),
            digest: "sha256:0".to_owned(),
            platform: platform.clone(),
            config,
        })
    }

    fn add(&mut self, _: Vertex) -> Result<VertexId, String> {
        self.vertices += 1;
        match self.vertices > 20_000 {
            true => Err("full".to_owned()),
            false => Ok(VertexId(self.vertices - 1)),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (content, ignore) = match data.iter().position(|b| *b == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let platform = Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        variant: String::new(),
    };
    for call in [Call::Build, Call::Check] {
        let request = Request {
            call,
            file: "Dockerfile".to_owned(),
            content: content.to_vec(),
            target_platform: platform.clone(),
            build_platform: platform.clone(),
            ..Request::default()
        };
        let _ = dockerfile_core::build(&request, &mut Memory { vertices: 0, ignore });
        let _ = dockerfile_core::inspect::targets(&request);
        let _ = dockerfile_core::inspect::outline(&request);
    }
});
