//! Fetches bearer tokens: `GET realm` anonymously or with user and password, `POST realm` with an identity
//! token (distribution's token and OAuth2 specifications).

use std::time::{Duration, Instant};

use oci_distribution::secrets::RegistryAuth;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use super::Identity;
use super::challenge::Bearer;
use super::config::Login;
use super::scope::Scopes;
use crate::endpoint::{Host, is_loopback};
use crate::error::{ErrorKind, RegistryError, Result};
use crate::text;
use crate::transport::{Payload, Request, Transport};

const CLIENT_ID: &str = "stepwell";

/// The lifetime of a token that names none (token specification).
const DEFAULT_LIFETIME: u64 = 60;

/// No token is kept longer than this, whatever its server says.
const LONGEST_LIFETIME: u64 = 24 * 60 * 60;

/// Tokens of cloud registries carry whole policies, but none comes near this.
const ANSWER_LIMIT: u64 = 1 << 20;

/// A bearer token.
pub(crate) struct Token {
    pub(crate) value: String,
    expires: Instant,
}

impl Token {
    /// Says whether it can still be used for a request that begins now.
    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() < self.expires
    }
}

/// What is asked of the token server, and as whom.
pub(crate) struct Wanted<'a> {
    pub(crate) bearer: &'a Bearer,
    pub(crate) scopes: &'a Scopes,
    pub(crate) login: Option<&'a Login>,
    pub(crate) identity: &'a Identity,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Fetches a token for `host`.
pub(crate) async fn fetch(
    transport: &Transport,
    host: &Host,
    wanted: &Wanted<'_>,
) -> Result<Token> {
    let realm = realm(host, &wanted.bearer.realm)?;
    let (request, auth) = match wanted.login {
        Some(Login::IdentityToken(token)) => (post(realm, wanted, token), RegistryAuth::Anonymous),
        Some(Login::Password { user, password }) => (
            get(realm, wanted, Some(user)),
            RegistryAuth::Basic(user.clone(), password.clone()),
        ),
        Some(Login::Bearer(_)) | None => (get(realm, wanted, None), RegistryAuth::Anonymous),
    };
    let asked = Instant::now();
    let mut answer = transport.send(&request.target, &auth, &request).await?;
    answer.identity = wanted.identity.clone();
    let body = answer
        .expect(&[200], &host.name)
        .await?
        .bytes(ANSWER_LIMIT)
        .await?;
    let unusable = |what: &str| {
        let kind = ErrorKind::Auth {
            what: format!("the token server's answer {what}"),
        };
        RegistryError::of(&request.method, &request.target, kind)
    };
    let answer: TokenAnswer =
        serde_json::from_slice(&body).map_err(|_| unusable("is not the json it should be"))?;
    let value = [answer.token, answer.access_token]
        .into_iter()
        .flatten()
        .find(|t| !t.is_empty());
    let value = value.ok_or_else(|| unusable("has no token"))?;
    if !value.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(unusable("has a token that no header can carry"));
    }
    Ok(Token {
        value,
        expires: asked + lifetime(answer.expires_in),
    })
}

/// A tenth earlier than the server says, so that a token does not run out on the way.
fn lifetime(seconds: Option<u64>) -> Duration {
    let seconds = seconds.unwrap_or(DEFAULT_LIFETIME).min(LONGEST_LIFETIME);
    Duration::from_secs(seconds).mul_f32(0.9)
}

/// The realm, where a password may be sent to it: not in the clear when the registry itself is not.
fn realm(host: &Host, text: &str) -> Result<Url> {
    let bad = |why: &str| {
        let what = format!(
            "the registry names `{}` as its token server, {why}",
            text::clean(text)
        );
        RegistryError::new(ErrorKind::Auth { what })
    };
    let realm = Url::parse(text).map_err(|_| bad("which is not a url"))?;
    let registry = host.url("/v2/")?;
    match realm.scheme() {
        "https" => Ok(realm),
        "http" if registry.scheme() == "http" || is_loopback(&realm) => Ok(realm),
        "http" => Err(bad("which is not secured by tls")),
        _ => Err(bad("which is not a web server")),
    }
}

fn get(mut realm: Url, wanted: &Wanted<'_>, account: Option<&str>) -> Request {
    {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = &wanted.bearer.service {
            query.append_pair("service", service);
        }
        for scope in wanted.scopes.texts() {
            query.append_pair("scope", &scope);
        }
        if let Some(account) = account {
            query.append_pair("account", account);
        }
        query.append_pair("client_id", CLIENT_ID);
    }
    Request::new(Method::GET, realm)
}

fn post(realm: Url, wanted: &Wanted<'_>, refresh_token: &str) -> Request {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("refresh_token", refresh_token);
    form.append_pair("service", wanted.bearer.service.as_deref().unwrap_or(""));
    form.append_pair("client_id", CLIENT_ID);
    form.append_pair("scope", &wanted.scopes.texts().join(" "));
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    Request {
        method: Method::POST,
        target: realm,
        headers,
        payload: Payload::Bytes(form.finish().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::RegistryOptions;

    #[test]
    fn no_password_goes_out_in_the_clear_unless_the_registry_is() {
        let host = |name: &str| {
            let reference = format!("{name}/a").parse().unwrap();
            Host::of(&reference, &RegistryOptions::default()).unwrap()
        };
        let (secure, plain) = (host("r.example"), host("localhost:5000"));
        assert!(realm(&secure, "https://auth.example/token").is_ok());
        assert!(realm(&secure, "http://127.0.0.1:1/token").is_ok());
        assert!(realm(&plain, "http://auth.example/token").is_ok());
        for bad in ["http://auth.example/token", "file:///etc/passwd", "token"] {
            assert!(realm(&secure, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lifetime_has_a_default_and_an_end() {
        assert_eq!(lifetime(None).as_secs(), 54);
        assert_eq!(lifetime(Some(0)).as_secs(), 0);
        assert!(lifetime(Some(u64::MAX)).as_secs() <= LONGEST_LIFETIME);
    }
}
