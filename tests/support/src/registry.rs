//! Debian's `docker-registry`, on a free port of the loopback interface.

use std::io::Write as _;
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
    pub fn start(dir: &Path) -> Result<Self, String> {
        let fail = |what: &str, e: std::io::Error| format!("the registry's {what}: {e}");
        std::fs::create_dir_all(dir).map_err(|e| fail("directory", e))?;
        let port = free_port().map_err(|e| fail("port", e))?;
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: '{}'}}\n  delete: {{enabled: true}}\nhttp: {{addr: '127.0.0.1:{port}', secret: none}}\n",
            dir.join("data").display()
        );
        std::fs::File::create(&config)
            .and_then(|mut f| f.write_all(text.as_bytes()))
            .map_err(|e| fail("configuration", e))?;
        let mut command = tool("docker-registry");
        command
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().map_err(|e| fail("start", e))?;
        let registry = Self { process, port };
        registry.wait()?;
        Ok(registry)
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn wait(&self) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the registry did not start within 20 s".to_owned())
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
