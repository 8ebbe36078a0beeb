//! Files behind web addresses.
//!
//! A file is kept under its address, with what the server called the version (`ETag`, `Last-Modified`): the next build asks
//! whether it still is that one.  It is written down only when all of it came and is what it has to be.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::time::Duration;

use stepwell_image::layer::{Entry, Kind, Mtime};
use stepwell_model::op::HttpOp;
use stepwell_model::{Digest, Hasher, remote};
use stepwell_registry::{Download, Fetch, FetchAuth, Fetched, RegistryError, Validators};
use stepwell_store::Layer;

use super::{Found, Material, RemoteError, Remotes, TIME, Tell};

/// Largest file that is fetched: ends a body without end before the disk does.
const LARGEST: u64 = 64 << 30;
/// How often it is looked whether the build was given up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Permission bits of a fetched file, as docker has them.
const MODE: u32 = 0o600;

/// Names of what a record keeps besides the layer.
const ETAG: &str = "etag";
const LAST_MODIFIED: &str = "last-modified";
const DIGEST: &str = "digest";

/// A file that came, whole.
struct Came {
    file: File,
    size: u64,
    digest: Digest,
    modified: Option<i64>,
    validators: Validators,
}

impl Remotes<'_> {
    /// Says what a file is.  One whose digest is given is not asked about.
    pub(super) fn identify_file(&self, op: &HttpOp, tell: Tell<'_>) -> Result<Found, RemoteError> {
        let Some(checksum) = op.checksum else {
            return self.fetch_file(op, tell);
        };
        let kept = self.kept(op).filter(|(digest, ..)| *digest == checksum);
        Ok(Found {
            identity: identity(&op.name, checksum),
            layer: kept.map(|(_, _, layer)| layer),
            fetched: false,
            resolved: None,
            material: Material::file(&op.url, &checksum),
        })
    }

    /// Says when a file was last changed, where its server says so.  It is fetched unless it is here.
    pub fn file_time(&self, op: &HttpOp) -> Result<Option<i64>, RemoteError> {
        self.file(op, &|_, _| ())?;
        Ok(self.time(&self.address(op)))
    }

    /// What is kept of an address: digest, version, layer.
    fn kept(&self, op: &HttpOp) -> Option<(Digest, Validators, Layer)> {
        let (record, layer) = self.record(&self.address(op))?;
        let digest = record.extra.get(DIGEST)?.parse().ok()?;
        let validators = Validators {
            etag: record.extra.get(ETAG).cloned(),
            last_modified: record.extra.get(LAST_MODIFIED).cloned(),
        };
        Some((digest, validators, layer))
    }

    /// Key of the record of an address.
    fn address(&self, op: &HttpOp) -> Digest {
        let mut hasher = self.hasher("stepwell.http.v2");
        hasher.field(op.url.as_bytes());
        hasher.field(op.name.as_bytes());
        hasher.finish()
    }

    /// Fetches a file, or finds that it is what it was.
    pub(super) fn fetch_file(&self, op: &HttpOp, tell: Tell<'_>) -> Result<Found, RemoteError> {
        let kept = self
            .kept(op)
            // What is not what it has to be is not asked about: another answer is wanted.
            .filter(|(digest, ..)| op.checksum.is_none_or(|c| c == *digest));
        let known = kept.as_ref().map(|(_, v, _)| v.clone()).unwrap_or_default();
        let came = self.download(op, known, tell)?;
        if let Some(came) = came {
            return self.keep_file(op, came);
        }
        let (digest, _, layer) = kept.expect("only what is kept can be unchanged");
        Ok(Found {
            identity: identity(&op.name, digest),
            layer: Some(layer),
            fetched: false,
            resolved: None,
            material: Material::file(&op.url, &digest),
        })
    }

    /// Checks a file that came, and keeps it.
    fn keep_file(&self, op: &HttpOp, mut came: Came) -> Result<Found, RemoteError> {
        if let Some(expected) = op.checksum.filter(|c| *c != came.digest) {
            return Err(RemoteError::Checksum {
                address: remote::redact(&op.url),
                expected,
                found: came.digest,
            });
        }
        let layer = self.layer_of(op, &mut came)?;
        let extra = [
            (DIGEST, Some(came.digest.to_string())),
            (ETAG, came.validators.etag),
            (LAST_MODIFIED, came.validators.last_modified),
            (TIME, came.modified.map(|secs| secs.to_string())),
        ];
        let summary = format!("fetch {}", remote::redact(&op.url));
        self.keep(&self.address(op), summary, layer, &extra)?;
        Ok(Found {
            identity: identity(&op.name, came.digest),
            layer: Some(layer),
            fetched: true,
            resolved: None,
            material: Material::file(&op.url, &came.digest),
        })
    }

    fn layer_of(&self, op: &HttpOp, came: &mut Came) -> Result<Layer, RemoteError> {
        let entry = Entry {
            path: op.name.clone().into_bytes(),
            kind: Kind::File { size: came.size },
            mode: MODE,
            uid: 0,
            gid: 0,
            mtime: Mtime {
                secs: came.modified.unwrap_or(0),
                nanos: 0,
            },
            xattrs: Default::default(),
            sparse: None,
        };
        let mut sink = self.store.layer_sink(self.layer_options())?;
        let content: Option<&mut dyn std::io::Read> = match came.size {
            0 => None,
            _ => Some(&mut came.file),
        };
        sink.add(&entry, content)?;
        Ok(sink.finish()?)
    }

    /// Downloads a file, more than once where that may help; nothing where it is what it was.
    fn download(
        &self,
        op: &HttpOp,
        known: Validators,
        tell: Tell<'_>,
    ) -> Result<Option<Came>, RemoteError> {
        let fetch = Fetch {
            url: op.url.clone(),
            known,
            auth: self.file_credentials(&op.url)?,
            limit: LARGEST,
        };
        let mut tried = 0;
        loop {
            tried += 1;
            let failed = match self.attempt(op, &fetch, tell) {
                Err(RemoteError::Fetch { source, .. }) => source,
                other => return other,
            };
            let wait = self.registry.wait_to_fetch(tried, failed);
            self.until_given_up(async { wait.await.map_err(|source| fetching(op, source)) })?;
        }
    }

    fn attempt(
        &self,
        op: &HttpOp,
        fetch: &Fetch,
        tell: Tell<'_>,
    ) -> Result<Option<Came>, RemoteError> {
        self.until_given_up(async {
            match self.registry.fetch_file(fetch).await {
                Ok(Fetched::Unchanged) => Ok(None),
                Ok(Fetched::Body(body)) => self.receive(op, body, tell).await.map(Some),
                Err(source) => Err(fetching(op, source)),
            }
        })
    }

    /// Works on something as long as the build goes on, whatever it waits for.
    fn until_given_up<T>(
        &self,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let given_up = async {
            while !self.cancel.is_cancelled() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                done = work => done,
                () = given_up => Err(RemoteError::Interrupted),
            }
        })
    }

    /// Writes a body to a file that has no name, so that nothing of it is left whatever happens.
    async fn receive(
        &self,
        op: &HttpOp,
        mut body: Download,
        tell: Tell<'_>,
    ) -> Result<Came, RemoteError> {
        let keeping = |source| RemoteError::Keep {
            address: remote::redact(&op.url),
            source,
        };
        let (total, mut size, mut hasher) = (body.length(), 0, Hasher::new());
        let mut file = self.store.nameless_file()?;
        while let Some(piece) = body.chunk().await.map_err(|e| fetching(op, e))? {
            hasher.update(&piece);
            file.write_all(&piece).map_err(keeping)?;
            size += piece.len() as u64;
            tell(size, total);
        }
        file.rewind().map_err(keeping)?;
        Ok(Came {
            file,
            size,
            digest: hasher.finish(),
            modified: body.modified(),
            validators: body.validators(),
        })
    }

    /// Credentials that the user gave for the host of an address (BuildKit's names of secrets).
    fn file_credentials(&self, url: &str) -> Result<FetchAuth, RemoteError> {
        let host = remote::host(url).unwrap_or("");
        let name = host.split(':').next().unwrap_or("");
        let header = format!("HTTP_AUTH_HEADER_{name}");
        if let Some(value) = self.secret(&header) {
            return super::credentials::of_header(value).map_err(|why| RemoteError::Credentials {
                id: header,
                address: remote::redact(url),
                why,
            });
        }
        let token = format!("HTTP_AUTH_TOKEN_{name}");
        Ok(match self.secret(&token) {
            Some(value) => FetchAuth::Bearer(String::from_utf8_lossy(value).into_owned()),
            None => FetchAuth::Anonymous,
        })
    }
}

fn fetching(op: &HttpOp, source: RegistryError) -> RemoteError {
    RemoteError::Fetch {
        address: remote::redact(&op.url),
        source,
    }
}

/// What a file is: its name and its content.  The time of its last change does not count, as that of other files does not.
fn identity(name: &str, digest: Digest) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field(b"stepwell.http-file.v1");
    hasher.field(name.as_bytes());
    hasher.field(digest.as_bytes());
    hasher.finish()
}
