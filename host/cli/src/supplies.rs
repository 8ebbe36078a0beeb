//! `--secret`, `--ssh` and `--ulimit`: what the user gives to RUN steps, checked.  The messages say what is wrong and how
//! to mend it; no message holds anything confidential.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use stepwell_model::mount::Limit;
use stepwell_model::request::SecretValue;

use crate::values::fields;

/// Largest secret, as docker has it.
const LARGEST_SECRET: u64 = 500 << 10;

/// `--secret id=ID[,type=file|env][,src=FILE][,env=VARIABLE]`.
pub fn secret(text: &str) -> Result<(String, SecretValue), String> {
    let wrong = |why: String| format!("--secret `{text}`: {why}");
    let (mut id, mut kind, mut src, mut env) = (None, None, None, None);
    for (key, value) in fields(text)? {
        match key.as_str() {
            "id" => id = Some(value),
            "type" => kind = Some(value),
            "src" | "source" => src = Some(value),
            "env" => env = Some(value),
            other => {
                return Err(wrong(format!(
                    "`{other}` is not a key of it; `id`, `src`, `env` and `type` are"
                )));
            }
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| {
        wrong("it lacks its id; write `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`".to_owned())
    })?;
    match kind.as_deref() {
        None | Some("file") => {}
        // As docker has it, the source is a variable then.
        Some("env") if env.is_none() => env = src.take(),
        Some("env") => {}
        Some(other) => {
            return Err(wrong(format!(
                "`{other}` is not a type of secret; `file` and `env` are"
            )));
        }
    }
    let content = match (src, env) {
        (Some(_), Some(_)) => {
            return Err(wrong(
                "it has a file and a variable; give one of the two".to_owned(),
            ));
        }
        (Some(path), None) => file(&path),
        (None, Some(name)) => variable(&name),
        (None, None) if std::env::var_os(&id).is_some() => variable(&id),
        (None, None) => file(&id),
    };
    let content = content.map_err(wrong)?;
    if content.len() as u64 > LARGEST_SECRET {
        return Err(wrong(format!(
            "it has more than {} kB, which no secret may have",
            LARGEST_SECRET >> 10
        )));
    }
    Ok((id, SecretValue::new(content)))
}

fn variable(name: &str) -> Result<Vec<u8>, String> {
    let value = std::env::var_os(name)
        .ok_or_else(|| format!("the variable `{name}` is not set in this environment"))?;
    Ok(std::os::unix::ffi::OsStringExt::into_vec(value))
}

fn file(path: &str) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_SECRET + 1).read_to_end(&mut content));
    match read {
        Ok(_) => Ok(content),
        Err(error) => Err(format!("`{path}` cannot be read: {error}")),
    }
}

/// `--ssh default`, `--ssh ID`, `--ssh ID=SOCKET`, `--ssh ID=KEYFILE[,KEYFILE…]`: id, socket, and the agent that was started
/// for keys.
pub fn agent(text: &str) -> Result<(String, PathBuf, Option<KeyAgent>), String> {
    let wrong = |why: String| format!("--ssh `{text}`: {why}");
    let (id, place) = match text.split_once('=') {
        Some((id, place)) => (id, Some(place)),
        None => (text, None),
    };
    if id.is_empty() {
        return Err(wrong(
            "it lacks its id; write `default` or `ID=SOCKET`".to_owned(),
        ));
    }
    let places: Vec<PathBuf> = match place.filter(|p| !p.is_empty()) {
        Some(places) => places.split(',').map(PathBuf::from).collect(),
        None => std::env::var_os("SSH_AUTH_SOCK")
            .filter(|v| !v.is_empty())
            .map(|v| vec![PathBuf::from(v)])
            .ok_or_else(|| {
                wrong(
                    "there is no agent: SSH_AUTH_SOCK is not set; start one with `eval $(ssh-agent)` and `ssh-add`, or name the file of a key: `ID=FILE`"
                        .to_owned(),
                )
            })?,
    };
    let unusable =
        |path: &Path, e: std::io::Error| wrong(format!("`{}` cannot be used: {e}", path.display()));
    for place in &places {
        let kind = std::fs::metadata(place)
            .map_err(|e| unusable(place, e))?
            .file_type();
        if !kind.is_socket() {
            let agent = KeyAgent::start(&places).map_err(wrong)?;
            return Ok((id.to_owned(), agent.socket(), Some(agent)));
        }
    }
    let [socket] = &places[..] else {
        return Err(wrong(
            "it has more than one socket; give one, or files of keys".to_owned(),
        ));
    };
    let socket = socket.canonicalize().map_err(|e| unusable(socket, e))?;
    Ok((id.to_owned(), socket, None))
}

/// An agent with keys from files.  It ends with this value; where the process is killed, some seconds later: it goes with a program that
/// reads from this process.
pub struct KeyAgent {
    dir: tempfile::TempDir,
    /// Waits for the end of this process.
    keeper: Child,
    /// Id of the agent, and of its process group.
    agent: u32,
}

/// What the agent lives as long as: says who it is, and waits.
const KEEPER: [&str; 3] = ["sh", "-c", "echo $SSH_AGENT_PID; exec cat >/dev/null"];

impl KeyAgent {
    /// Starts the `ssh-agent` program and gives it keys, which have to be free of passphrases: nobody is asked.
    fn start(keys: &[PathBuf]) -> Result<Self, String> {
        let dir = tempfile::Builder::new()
            .prefix("stepwell-agent-")
            .tempdir()
            .map_err(|e| format!("there is no place for an agent's socket: {e}"))?;
        let needs = |name: &str, e: std::io::Error| {
            format!(
                "keys are held by an agent, and `{name}` cannot be run: {e}; install it (openssh-client), or name the socket of an agent"
            )
        };
        let mut keeper = Command::new("ssh-agent")
            .arg("-a")
            .arg(dir.path().join("agent"))
            .args(KEEPER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // What interrupts the build is for the build to hear, which ends the agent when it is done.
            .process_group(0)
            .spawn()
            .map_err(|e| needs("ssh-agent", e))?;
        let mut line = String::new();
        if let Some(said) = keeper.stdout.take() {
            let _ = BufReader::new(said).read_line(&mut line);
        }
        let agent = line.trim().parse().map_err(|_| {
            let _ = keeper.kill();
            let _ = keeper.wait();
            "`ssh-agent` does not start".to_owned()
        })?;
        let this = Self { dir, keeper, agent };
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg("--")
            .args(keys)
            .env("SSH_AUTH_SOCK", this.socket())
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env_remove("DISPLAY")
            .process_group(0)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| needs("ssh-add", e))?;
        match added.status.success() {
            true => Ok(this),
            false => Err(refused(&String::from_utf8_lossy(&added.stderr))),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        let _ = stepwell_sys::group::kill(self.agent);
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Says that a key is not taken, with what `ssh-add` says of it.
fn refused(said: &str) -> String {
    let said: Vec<&str> = said
        .lines()
        .map(|l| l.trim_matches(|c: char| c == '@' || c.is_whitespace()))
        .filter(|l| !l.is_empty())
        .collect();
    format!(
        "`ssh-add` does not take the key: {}; it has to be a private key of this user alone (chmod 600) and without a passphrase, else add it to an agent",
        said.join("; ")
    )
}

/// `--ulimit NAME=SOFT[:HARD]`.
pub fn limit(text: &str) -> Result<Limit, String> {
    let wrong = |why: String| format!("--ulimit `{text}`: {why}");
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| wrong("it must have the form NAME=SOFT[:HARD]".to_owned()))?;
    if !Limit::NAMES.contains(&name) {
        return Err(wrong(format!(
            "`{name}` is not a limit; there are {}",
            Limit::NAMES.join(", ")
        )));
    }
    if name == "rttime" {
        return Err(wrong("steps have no such limit of their own".to_owned()));
    }
    let number = |value: &str| match value {
        "-1" | "unlimited" => Ok(None),
        value => value
            .parse()
            .map(Some)
            .map_err(|_| wrong(format!("`{value}` is not a number"))),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err(wrong("the soft limit is above the hard one".to_owned()));
    }
    Ok(Limit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_from_files_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "hush").unwrap();
        let read = |text: String| secret(&text).map(|(id, s)| (id, s.reveal().to_vec()));
        let file = path.display();
        for text in [
            format!("id=t,src={file}"),
            format!("type=file,id=t,source={file}"),
            format!("\"id=t\",\"src={file}\""),
        ] {
            assert_eq!(
                read(text.clone()),
                Ok(("t".into(), b"hush".to_vec())),
                "{text}"
            );
        }
        let home = std::env::var("PATH").unwrap().into_bytes();
        for text in ["id=t,env=PATH", "id=t,type=env,src=PATH"] {
            assert_eq!(read(text.into()), Ok(("t".into(), home.clone())), "{text}");
        }
        assert_eq!(read("id=PATH".into()), Ok(("PATH".into(), home)));
    }

    #[test]
    fn wrong_secrets_say_what_is_wrong() {
        for (text, part) in [
            ("src=/x", "lacks its id"),
            ("id=", "lacks its id"),
            ("id=a,srk=/x", "`srk` is not a key"),
            ("id=a,type=vault", "`vault` is not a type"),
            ("id=a,src=/x,env=Y", "a file and a variable"),
            ("id=a,src=/nonesuch", "`/nonesuch` cannot be read"),
            (
                "id=a,env=NONESUCH_VARIABLE",
                "`NONESUCH_VARIABLE` is not set",
            ),
            ("id=a,src=/dev/zero", "more than 500 kB"),
        ] {
            let error = secret(text).unwrap_err();
            assert!(
                error.contains(part) && error.starts_with("--secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn wrong_agents_and_limits_say_what_is_wrong() {
        for (text, part) in [
            ("=x", "lacks its id"),
            ("a=/nonesuch", "cannot be used"),
            ("a=/etc/passwd", "`ssh-add` does not take the key"),
        ] {
            let error = agent(text).map(|(id, ..)| id).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("nofile", "the form NAME=SOFT[:HARD]"),
            ("files=1", "`files` is not a limit"),
            ("nofile=x", "`x` is not a number"),
            ("nofile=2:1", "above the hard one"),
            ("nofile=-1:1", "above the hard one"),
            ("rttime=1", "no such limit"),
        ] {
            assert!(limit(text).unwrap_err().contains(part), "{text}");
        }
        let both = |text: &str| limit(text).map(|l| (l.soft, l.hard));
        assert_eq!(both("nofile=1:2"), Ok((Some(1), Some(2))));
        assert_eq!(both("core=-1"), Ok((None, None)));
    }
}
