//! What the environment and the home directory say: where the store is, credentials, certificates, proxies.

use std::path::PathBuf;

use stepwell_build::{Proxy, RegistryOptions};
use stepwell_sys::namespace::Entered;
use stepwell_sys::subordinate::SubordinateIds;

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

fn home() -> PathBuf {
    var("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

/// Directory of the store: what was asked for, else the user's data directory, else the system's for root.
pub fn store_root(asked: Option<&PathBuf>, root: bool) -> PathBuf {
    if let Some(root) = asked
        .cloned()
        .or_else(|| var("STEPWELL_ROOT").map(PathBuf::from))
    {
        return root;
    }
    match var("XDG_DATA_HOME") {
        Some(data) => PathBuf::from(data).join("stepwell"),
        None if root => PathBuf::from("/var/lib/stepwell"),
        None => home().join(".local/share/stepwell"),
    }
}

/// Directories that programs are looked for in.
pub fn program_path() -> Vec<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/bin".into(), "/bin".into()])
        .collect()
}

/// Puts this process into a user namespace, with subordinate ids where they are to be had.  Before any thread starts: a
/// process with threads cannot enter one.
pub fn enter_user_namespace() -> Entered {
    let subordinate = SubordinateIds::find(&users(), &program_path());
    stepwell_sys::namespace::enter_user_namespace(subordinate.as_ref())
}

/// Name and number of the caller, as `/etc/subuid` may have them.
pub fn users() -> Vec<String> {
    let uid = std::fs::metadata("/proc/self")
        .map(|m| std::os::unix::fs::MetadataExt::uid(&m))
        .unwrap_or(0)
        .to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| f.get(2) == Some(&&uid[..]))
        .map(|f| f[0].to_owned());
    name.into_iter().chain([uid]).collect()
}

/// Files with the keys of hosts that are spoken to over ssh: those that SSH_KNOWN_HOSTS lists (as Kaniko has it), else
/// those of the user and of the machine that there are.
pub fn known_hosts() -> Vec<PathBuf> {
    // Some have the keys themselves in a variable of this name, which is no list of files.
    let is_list = |list: &Vec<PathBuf>| list.iter().all(|path| path.is_absolute());
    let listed = std::env::var_os("SSH_KNOWN_HOSTS").filter(|v| !v.is_empty());
    if let Some(list) = listed
        .map(|v| std::env::split_paths(&v).collect())
        .filter(is_list)
    {
        return list;
    }
    let usual = [
        home().join(".ssh/known_hosts"),
        PathBuf::from("/etc/ssh/ssh_known_hosts"),
    ];
    usual.into_iter().filter(|path| path.is_file()).collect()
}

/// How registries are spoken to.
pub fn registry(insecure: &[String]) -> RegistryOptions {
    let docker = var("DOCKER_CONFIG")
        .map_or_else(|| home().join(".docker"), PathBuf::from)
        .join("config.json");
    let containers = var("REGISTRY_AUTH_FILE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(var("XDG_RUNTIME_DIR")?).join("containers/auth.json")));
    let either = |lower: &str, upper: &str| var(lower).or_else(|| var(upper));
    RegistryOptions {
        plain_http: insecure.to_vec(),
        system_ca: ["SSL_CERT_FILE", "SSL_CERT_DIR"]
            .iter()
            .filter_map(|n| var(n).map(PathBuf::from))
            .collect(),
        credential_files: std::iter::once(docker).chain(containers).collect(),
        proxy: Proxy {
            http: var("http_proxy"),
            https: either("https_proxy", "HTTPS_PROXY"),
            no_proxy: either("no_proxy", "NO_PROXY"),
        },
        ..RegistryOptions::default()
    }
}
