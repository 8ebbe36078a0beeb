//! Debian's `docker-registry`, on a free port of the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::cmd::tool;

/// A running registry; it ends with this value.
pub struct Registry {
    process: Child,
    port: u16,
}

impl Registry {
    /// Starts a registry that keeps its content in `dir`.
    ///
    /// A free port may be taken by somebody else before the registry listens on it, a registry of another test too: then it
    /// ends, and the next port is tried.
    pub fn start(dir: &Path) -> Result<Self, String> {
        let fail = |what: &str, e: std::io::Error| format!("the registry's {what}: {e}");
        std::fs::create_dir_all(dir).map_err(|e| fail("directory", e))?;
        for _ in 0..5 {
            let port = free_port().map_err(|e| fail("port", e))?;
            let config = dir.join("config.yml");
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: '{}'}}\n  delete: {{enabled: true}}\nhttp: {{addr: '127.0.0.1:{port}', secret: none, headers: {{X-Registry-Directory: ['{}']}}}}\n",
                dir.join("data").display(),
                dir.display()
            );
            std::fs::write(&config, text).map_err(|e| fail("configuration", e))?;
            let mut command = tool("docker-registry");
            command
                .arg("serve")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let process = command.spawn().map_err(|e| fail("start", e))?;
            let mut registry = Self { process, port };
            if registry.answers(dir)? {
                return Ok(registry);
            }
        }
        Err("the registry did not find a port".to_owned())
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Waits until this very registry answers; false where it ended, as it does where its port is another's.
    fn answers(&mut self, dir: &Path) -> Result<bool, String> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let ended = self.process.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() {
                return Ok(false);
            }
            if self
                .head()
                .is_ok_and(|h| h.contains(&format!(": {}\r\n", dir.display())))
            {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the registry did not start within 20 s".to_owned())
    }

    /// What whoever listens on the port answers to a ping.
    fn head(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Finds a port of the loopback interface that is free now.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
