//! A real registry on a free loopback port, with its storage in a temporary directory.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `tester` with the password `s3cret`, hashed with bcrypt.
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

pub struct DockerRegistry {
    child: Child,
    pub authority: String,
    pub dir: tempfile::TempDir,
}

impl DockerRegistry {
    /// For everybody, in plain HTTP.
    pub fn open() -> Self {
        Self::start("", |_| ())
    }

    /// For `tester` with the password `s3cret` only.
    pub fn with_password() -> Self {
        Self::start(
            "auth:\n  htpasswd:\n    realm: test\n    path: DIR/htpasswd\n",
            |dir| {
                std::fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
            },
        )
    }

    /// With the certificate `cert.pem` and the key `key.pem` that `prepare` makes in the directory.
    pub fn with_tls(prepare: impl FnOnce(&Path)) -> Self {
        Self::start(
            "  tls:\n    certificate: DIR/cert.pem\n    key: DIR/key.pem\n",
            prepare,
        )
    }

    fn start(more: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: DIR/storage\n\
             http:\n  addr: 127.0.0.1:0\n{more}"
        );
        let config = config.replace("DIR", dir.path().to_str().unwrap());
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`docker-registry` is needed for this test (Debian: apt-get install docker-registry)");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let authority = loop {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("docker-registry ended: {said}"))
                .unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ',', ' ']).next().unwrap().to_owned();
            }
            said.push_str(&line);
        };
        // Somebody has to read on, or the registry blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            authority,
            dir,
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
