//! Runs credential helpers: `docker-credential-<name> get`, the server on standard input, JSON on standard
//! output (docker-credential-helpers).

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::config::Login;
use crate::error::{ErrorKind, RegistryError, Result};
use crate::text;

/// A helper may ask a cloud's API, but not a person.
const HELPER_TIME: Duration = Duration::from_secs(60);

/// What helpers say when they know nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The user name that stands for an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks `helper` for the login of `server`; it is killed when it takes too long.
pub(crate) async fn ask(helper: &str, server: &str) -> Result<Option<Login>> {
    let failed = |why: String| {
        let (helper, server) = (helper.to_owned(), server.to_owned());
        RegistryError::new(ErrorKind::CredentialHelper {
            helper,
            server,
            why,
        })
    };
    if helper.contains('/') {
        return Err(failed("its name must not have a `/`".to_owned()));
    }
    let output = match tokio::time::timeout(HELPER_TIME, run(helper, server)).await {
        Ok(output) => output.map_err(|e| failed(format!("it cannot be run: {e}")))?,
        Err(_) => {
            return Err(failed(format!(
                "no answer within {} s",
                HELPER_TIME.as_secs()
            )));
        }
    };
    if output.status.success() {
        // What is wrong with the answer is not shown: the answer is a secret.
        let answer = serde_json::from_slice(&output.stdout);
        return answer
            .map(login)
            .map_err(|_| failed("its answer is not what a helper's should be".to_owned()));
    }
    let said =
        [output.stdout, output.stderr].map(|text| text::clean(&String::from_utf8_lossy(&text)));
    match said {
        [stdout, _] if stdout == NOT_FOUND => Ok(None),
        // Helpers report on either, and standard output could hold half a secret.
        [stdout, stderr] if stderr.is_empty() => {
            Err(failed(format!("{}: {stdout}", output.status)))
        }
        [_, stderr] => Err(failed(format!("{}: {stderr}", output.status))),
    }
}

async fn run(helper: &str, server: &str) -> std::io::Result<std::process::Output> {
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that fails at once does not read the question; its own words say why.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    child.wait_with_output().await
}

fn login(answer: Answer) -> Option<Login> {
    let Answer {
        username: user,
        secret: password,
    } = answer;
    match user.as_str() {
        _ if password.is_empty() => None,
        TOKEN_USER => Some(Login::IdentityToken(password)),
        _ => Some(Login::Password { user, password }),
    }
}
