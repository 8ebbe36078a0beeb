//! Repositories behind ssh: a real sshd on loopback and a real agent, both the ordinary user's.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stepwell_integration_tests::children::{wait_until, within};
use stepwell_integration_tests::{Ran, World, ran};
use stepwell_test_support::cmd::{run, tool};
use stepwell_test_support::{is_root, not_run, tools, user};

use crate::faults::processes_with;
use crate::repository::{ANYBODYS, Daemon, Repositories, as_inetd};
use crate::{content, is_not_in_store};

/// A world with a server of repositories, a key that it takes, and an agent that has it.
struct Ssh {
    world: World,
    all: Repositories,
    daemon: Daemon,
    agent: Child,
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// Makes a key of the ordinary user.
fn key(path: &Path) {
    let mut make = tool("ssh-keygen");
    make.args(["-q", "-t", "ed25519", "-N", "", "-C", "of a test", "-f"])
        .arg(path);
    run(&mut user::ordinary(make)).expect("a key");
}

impl Ssh {
    /// None where git finds no `ssh`: programs that set-up only unpacked are not among those that a build looks for.
    fn new() -> Option<Self> {
        let is_there = |dir: &str| Path::new(dir).join("ssh").is_file();
        if !["/usr/local/bin", "/usr/bin", "/bin"]
            .into_iter()
            .any(is_there)
        {
            not_run("`ssh` is not installed on this machine");
            return None;
        }
        let (world, all) = (World::new(), Repositories::new());
        all.init("a");
        all.write("a", "x", "one");
        all.commit("a");
        let dir = world.path("ssh");
        std::fs::create_dir_all(dir.join("home/.ssh")).expect("directories");
        world.give();
        for name in ["host-key", "key", "other-key"] {
            key(&dir.join(name));
        }
        let settings: String = ANYBODYS
            .iter()
            .map(|(name, value)| format!(" {name}={value}"))
            .collect();
        let at = dir.display();
        let config = format!(
            "HostKey {at}/host-key\nPidFile none\nAuthorizedKeysFile {at}/key.pub\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv{settings}\n"
        );
        std::fs::write(dir.join("config"), config).expect("the configuration");
        // It wants its own whole name.
        let (program, libraries) = tools::reachable("sshd", &dir).expect("sshd");
        let daemon = Daemon::with({
            let config = dir.join("config");
            move |client| {
                let mut sshd = Command::new(&program);
                sshd.args(["-i", "-f"]).arg(&config);
                sshd.envs(libraries.iter().map(|path| ("LD_LIBRARY_PATH", path)));
                as_inetd(user::ordinary(sshd), &client);
            }
        });
        let mut agent = tool("ssh-agent");
        agent.args(["-D", "-a"]).arg(dir.join("agent"));
        let agent = user::ordinary(agent).stdout(Stdio::null()).spawn();
        let ssh = Self {
            agent: agent.expect("the agent"),
            world,
            all,
            daemon,
        };
        // It is there before anybody listens on it.
        wait_until("the agent", || {
            UnixStream::connect(ssh.path("agent")).is_ok()
        });
        let mut load = tool("ssh-add");
        load.arg("-q")
            .arg(ssh.path("key"))
            .env("SSH_AUTH_SOCK", ssh.path("agent"));
        run(&mut user::ordinary(load)).expect("the key is in the agent");
        ssh.add("ADD", "#main");
        Some(ssh)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path("ssh").join(name)
    }

    fn url(&self, name: &str) -> String {
        let name_of_user = match is_root() {
            true => user::NAME.to_owned(),
            false => std::env::var("USER").unwrap_or_default(),
        };
        let path = self.all.path(name);
        let port = self.daemon.port();
        format!("ssh://{name_of_user}@127.0.0.1:{port}{}", path.display())
    }

    fn add(&self, instruction: &str, what: &str) {
        self.world.dockerfile(&format!(
            "FROM @BUSYBOX@\n{instruction} {}{what} /d/\nRUN echo ran-$(cat /d/x)\n",
            self.url("a")
        ));
    }

    /// Has the user know the host by a key.
    fn know(&self, file: &str, key: &str) {
        let key = std::fs::read_to_string(self.path(key)).expect("a key");
        let key: Vec<&str> = key.split(' ').take(2).collect();
        let line = format!("[127.0.0.1]:{} {}\n", self.daemon.port(), key.join(" "));
        std::fs::write(self.path(file), line).expect("a file");
    }

    /// A build with the home directory of the test.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.build_command(args);
        command
            .env("HOME", self.path("home"))
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("SSH_KNOWN_HOSTS");
        command
    }

    fn build(&self, args: &[&str]) -> Ran {
        ran(&mut self.command(args))
    }

    fn agent(&self) -> String {
        format!("--ssh=default={}", self.path("agent").display())
    }
}

#[test]
fn a_repository_behind_ssh_is_fetched_with_the_agent_alone() {
    let Some(ssh) = Ssh::new() else { return };
    // A submodule of it as well.
    ssh.all.init("inner");
    ssh.all.write("inner", "y", "inner");
    let inner = ssh.all.commit("inner");
    let modules = "[submodule \"i\"]\n\tpath = inner\n\turl = ../inner\n";
    ssh.all.write("a", ".gitmodules", modules);
    let link = format!("160000,{inner},inner");
    ssh.all.git("a", &["add", ".gitmodules"]);
    ssh.all
        .git("a", &["update-index", "--add", "--cacheinfo", &link]);
    ssh.all.git("a", &["commit", "--quiet", "--message=m"]);

    ssh.build(&[])
        .failed_with(65, &["over ssh", "`--ssh default`", "Dockerfile:2"]);
    let agent = ssh.agent();
    // Nobody said who the host is.
    let port = format!("ssh-keyscan -p {} 127.0.0.1", ssh.daemon.port());
    let before = ssh.daemon.connections();
    ssh.build(&[&agent]).failed_with(
        65,
        &["is not known", &port, "SSH_KNOWN_HOSTS", "Dockerfile:2"],
    );
    assert!(ssh.daemon.connections() > before);

    ssh.know("home/.ssh/known_hosts", "host-key.pub");
    let out = ssh.world.path("result.tar");
    let output = format!("--output=type=tar,dest={}", out.display());
    let built = ssh.build(&[&agent, &output]);
    assert_eq!(built.code, Some(0), "{}", built.err);
    assert!(built.err.contains("ran-one"), "{}", built.err);
    let tar = std::fs::read(&out).unwrap();
    let files = stepwell_integration_tests::archive::entries(&tar);
    let files = files.into_iter().map(|e| (e.path.clone(), e)).collect();
    assert_eq!(content(&files, "d/inner/y"), "inner");
    // Nothing changed: it is asked about, and nothing is fetched.
    let before = ssh.daemon.connections();
    let again = ssh.build(&[&agent]);
    assert_eq!((again.code, again.steps().0), (Some(0), 0), "{}", again.err);
    assert_eq!(ssh.daemon.connections(), before + 1);
    // Nothing of it is kept, or told.
    let socket = ssh.path("agent").display().to_string();
    let known = std::fs::read_to_string(ssh.path("host-key.pub")).unwrap();
    let known = known.split(' ').nth(1).unwrap();
    for text in [&socket, known] {
        is_not_in_store(&ssh.world, text);
        assert!(!built.err.contains(text), "{}", built.err);
    }
}

#[test]
fn a_host_with_another_key_is_not_spoken_to() {
    let Some(ssh) = Ssh::new() else { return };
    ssh.know("home/.ssh/known_hosts", "other-key.pub");
    let port = format!("ssh-keygen -R '[127.0.0.1]:{}'", ssh.daemon.port());
    ssh.build(&[&ssh.agent()])
        .failed_with(65, &["is not the one that is known", &port, "Dockerfile:2"]);
    // Where the right one is named for this build, that counts alone.
    ssh.know("hosts", "host-key.pub");
    let mut command = ssh.command(&[&ssh.agent()]);
    command.env("SSH_KNOWN_HOSTS", ssh.path("hosts"));
    let built = ran(&mut command);
    assert_eq!(built.code, Some(0), "{}", built.err);
    let mut command = ssh.command(&[&ssh.agent(), "--no-cache"]);
    command.env("SSH_KNOWN_HOSTS", "/nonesuch/hosts");
    ran(&mut command).failed_with(65, &["/nonesuch/hosts", "SSH_KNOWN_HOSTS"]);
}

/// Asserts that the agents of builds are gone, or about to be: by themselves they would be ten seconds later.
#[track_caller]
fn no_agent_stays() {
    let gone = within(Duration::from_secs(5), || {
        processes_with("stepwell-agent-").is_empty()
    });
    assert!(gone, "{:?}", processes_with("stepwell-agent-"));
}

#[test]
fn keys_in_files_are_given_to_an_agent_of_the_builds_own() {
    let Some(ssh) = Ssh::new() else { return };
    ssh.know("home/.ssh/known_hosts", "host-key.pub");
    let key = |name: &str| format!("--ssh=default={}", ssh.path(name).display());
    ssh.build(&[&key("other-key")])
        .failed_with(65, &["Permission denied", "`ssh-add -l`", "Dockerfile:2"]);
    let both = format!("{},{}", key("other-key"), ssh.path("key").display());
    for given in [key("key"), both] {
        let built = ssh.build(&[&given, "--no-cache"]);
        assert_eq!(built.code, Some(0), "{}", built.err);
    }
    let secret = std::fs::read_to_string(ssh.path("key")).unwrap();
    is_not_in_store(&ssh.world, secret.lines().nth(2).unwrap());
    no_agent_stays();
    let mut protect = tool("ssh-keygen");
    protect
        .args(["-q", "-p", "-P", "", "-N", "long enough", "-f"])
        .arg(ssh.path("other-key"));
    run(&mut user::ordinary(protect)).unwrap();
    ssh.build(&[&key("other-key")])
        .failed_with(64, &["`ssh-add` does not take the key", "passphrase"]);
    no_agent_stays();
}

#[test]
fn a_context_behind_ssh_is_fetched_with_the_users_own_agent() {
    let Some(ssh) = Ssh::new() else { return };
    ssh.know("home/.ssh/known_hosts", "host-key.pub");
    ssh.all.write("a", "Dockerfile", "FROM scratch\nCOPY . /\n");
    ssh.all.commit("a");
    let url = ssh.url("a");
    let build = |socket: Option<&Path>, args: &[&str]| {
        // The last argument of a build is its context.
        let mut command = ssh.command(args);
        let all: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut own = Command::new(command.get_program());
        own.args(&all[..all.len() - 1]).arg(&url);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => own.env(name, value),
                None => own.env_remove(name),
            };
        }
        own.envs(socket.map(|s| ("SSH_AUTH_SOCK", s)));
        command = own;
        ran(&mut command)
    };
    let built = build(Some(&ssh.path("agent")), &[]);
    assert_eq!(built.code, Some(0), "{}", built.err);
    build(None, &[]).failed_with(65, &["`--ssh default`"]);
    // What is in a Dockerfile is not for the user's own agent: somebody else may have written it.
    let mut command = ssh.command(&[]);
    command.env("SSH_AUTH_SOCK", ssh.path("agent"));
    ran(&mut command).failed_with(65, &["`--ssh default`", "Dockerfile:2"]);
}

#[test]
fn an_address_is_no_option_of_a_program() {
    let Some(ssh) = Ssh::new() else { return };
    let evil = ssh.path("evil");
    for address in [
        format!("ssh://-oProxyCommand=touch%20{}@h/x", evil.display()),
        "ssh://g@-oProxyCommand=x/x".to_owned(),
        "g@h:-oProxyCommand=x".to_owned(),
    ] {
        ssh.world
            .dockerfile(&format!("FROM @BUSYBOX@\nADD {address} /d/\n"));
        ssh.build(&[&ssh.agent()])
            .failed_with(65, &["Dockerfile:2"]);
    }
    // git would take this one to its shell if its words were not kept apart.
    ssh.add("ADD", "$(touch%20evil)#main");
    ssh.know("home/.ssh/known_hosts", "host-key.pub");
    ssh.build(&[&ssh.agent()])
        .failed_with(65, &["Dockerfile:2"]);
    assert!(!evil.exists());
}

#[test]
fn a_submodule_leads_to_ssh_only_where_an_agent_was_given() {
    let Some(ssh) = Ssh::new() else { return };
    ssh.know("home/.ssh/known_hosts", "host-key.pub");
    ssh.all.init("inner");
    ssh.all.write("inner", "y", "inner");
    let inner = ssh.all.commit("inner");
    let url = ssh.url("inner");
    let modules = format!("[submodule \"i\"]\n\tpath = inner\n\turl = {url}\n");
    ssh.all.write("a", ".gitmodules", &modules);
    ssh.all.git("a", &["add", ".gitmodules"]);
    let link = format!("160000,{inner},inner");
    ssh.all
        .git("a", &["update-index", "--add", "--cacheinfo", &link]);
    ssh.all.git("a", &["commit", "--quiet", "--message=m"]);
    let plain = Daemon::start(&ssh.all);
    ssh.world.dockerfile(&format!(
        "FROM @BUSYBOX@\nADD {}#main /d/\nRUN echo ran-$(cat /d/inner/y)\n",
        plain.url("a")
    ));
    let before = ssh.daemon.connections();
    let mut command = ssh.command(&[]);
    // An agent that nobody gave to this build is none of its business.
    command.env("SSH_AUTH_SOCK", ssh.path("agent"));
    let ran = ran(&mut command);
    assert_ne!(ran.code, Some(0), "{}", ran.err);
    for part in ["transport 'ssh' not allowed", "add `--ssh default`"] {
        assert!(ran.err.contains(part), "{}", ran.err);
    }
    assert_eq!(ssh.daemon.connections(), before);
    let built = ssh.build(&[&ssh.agent()]);
    assert_eq!(built.code, Some(0), "{}", built.err);
    assert!(built.err.contains("ran-inner"), "{}", built.err);
}
