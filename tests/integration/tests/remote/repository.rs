//! Repositories for tests, and servers of them on loopback: git's own protocol (`git daemon`), and plain files over http.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use stepwell_integration_tests::proxy::{Asked, Tamper};
use stepwell_test_support::cmd::run;
use tempfile::TempDir;

/// Repositories in a directory of their own.
pub struct Repositories {
    dir: TempDir,
}

impl Repositories {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("stepwell-git-")
            .tempdir_in("/var/tmp")
            .expect("a directory for repositories");
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes an empty repository with the branch `main`.
    pub fn init(&self, name: &str) {
        std::fs::create_dir(self.path(name)).expect("a directory");
        self.git(name, &["init", "--quiet", "--initial-branch=main"]);
    }

    /// Writes a file of a work tree.
    pub fn write(&self, name: &str, path: &str, content: &str) {
        let path = self.path(name).join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }

    /// Commits everything that is in the work tree, and returns the commit's id.
    pub fn commit(&self, name: &str) -> String {
        self.git(name, &["add", "--all"]);
        self.git(name, &["commit", "--quiet", "--allow-empty", "--message=x"]);
        self.git(name, &["update-server-info"]);
        self.git(name, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Runs git in a repository.
    pub fn git(&self, name: &str, args: &[&str]) -> String {
        git(&self.path(name), args)
    }

    /// What a server of plain files answers.
    pub fn answer(&self, asked: &Asked) -> Tamper {
        let target = asked.target.split('?').next().unwrap_or("");
        let path = target.trim_start_matches('/').replace(".git/", "/.git/");
        match std::fs::read(self.path(&path)) {
            Ok(bytes) => Tamper::Answer(200, vec![], bytes),
            Err(_) => Tamper::Answer(404, vec![], vec![]),
        }
    }
}

/// Runs git in a directory, with nobody's configuration.
pub fn git(directory: &Path, args: &[&str]) -> String {
    run(Command::new("git")
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "a")
        .env("GIT_AUTHOR_EMAIL", "a@example.org")
        .env("GIT_AUTHOR_DATE", "1000000000 +0000")
        .env("GIT_COMMITTER_NAME", "a")
        .env("GIT_COMMITTER_EMAIL", "a@example.org")
        .env("GIT_COMMITTER_DATE", "1000000000 +0000")
        .args(["-c", "safe.directory=*"])
        .args(args))
    .expect("git works")
}

/// A server of git's own protocol; it ends with this value.
pub struct Daemon {
    port: u16,
    ended: Arc<AtomicBool>,
    /// How many connections there were.
    connections: Arc<std::sync::atomic::AtomicUsize>,
    listener: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Serves all repositories of a directory.
    pub fn start(repositories: &Repositories) -> Self {
        let base = repositories.dir.path().to_owned();
        Self::with(move |client| serve(client, &base))
    }

    /// Hands over each connection.
    pub fn with(serve: impl Fn(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("the port").port();
        let (ended, connections) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let listening = std::thread::spawn({
            let (ended, connections) = (ended.clone(), Arc::clone(&connections));
            move || {
                for client in listener.incoming().flatten() {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let connections: &std::sync::atomic::AtomicUsize = &connections;
                    connections.fetch_add(1, Ordering::SeqCst);
                    serve(client);
                }
            }
        });
        Self {
            port,
            ended,
            connections,
            listener: Some(listening),
        }
    }

    /// Address of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener up.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// One connection is one process, as inetd does it.
fn serve(client: TcpStream, base: &Path) {
    let mut daemon = Command::new("git");
    daemon
        .envs(ANYBODYS)
        .args(["daemon", "--inetd", "--export-all"])
        .arg(format!("--base-path={}", base.display()));
    as_inetd(daemon, &client);
}

/// Environment in which git reads repositories of other users, and nobody's configuration.
pub const ANYBODYS: [(&str, &str); 5] = [
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_COUNT", "1"),
    ("GIT_CONFIG_KEY_0", "safe.directory"),
    ("GIT_CONFIG_VALUE_0", "*"),
];

/// Runs a program with a connection as its input and output.
pub fn as_inetd(mut program: Command, client: &TcpStream) {
    let socket = |s: &TcpStream| -> Stdio {
        std::os::fd::OwnedFd::from(s.try_clone().expect("a handle")).into()
    };
    program
        .stdin(socket(client))
        .stdout(socket(client))
        .stderr(Stdio::null());
    if let Ok(mut daemon) = program.spawn() {
        std::thread::spawn(move || daemon.wait());
    }
}
