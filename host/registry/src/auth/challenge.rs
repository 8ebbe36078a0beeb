//! Reads `WWW-Authenticate` (RFC 9110, 11.6.1; the bearer parameters by distribution's token specification).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// What a server wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token of another server.
    Bearer(Bearer),
}

/// Where a token is to be had, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) realm: String,
    pub(crate) service: Option<String>,
    pub(crate) scopes: Vec<String>,
}

/// Returns the best challenge of an answer: a bearer token before a password.
pub(crate) fn best(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let found: Vec<Challenge> = values.flat_map(parse).collect();
    let bearer = found.iter().find(|c| matches!(c, Challenge::Bearer(_)));
    bearer.or(found.first()).cloned()
}

fn parse(value: &str) -> Vec<Challenge> {
    let challenges = http_auth::parse_challenges(value).unwrap_or_default();
    challenges.iter().filter_map(known).collect()
}

fn known(challenge: &http_auth::ChallengeRef<'_>) -> Option<Challenge> {
    let param = |name: &str| {
        let mut params = challenge.params.iter();
        params
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_unescaped())
    };
    if challenge.scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !challenge.scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let scopes = param("scope")
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    Some(Challenge::Bearer(Bearer {
        realm: param("realm")?,
        service: param("service"),
        scopes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn best_of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        best(&headers)
    }

    #[test]
    fn reads_what_registries_send() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull""#;
        let Some(Challenge::Bearer(bearer)) = best_of(&[hub]) else {
            panic!()
        };
        assert_eq!(bearer.realm, "https://auth.docker.io/token");
        assert_eq!(bearer.service.as_deref(), Some("registry.docker.io"));
        assert_eq!(bearer.scopes, ["repository:library/debian:pull"]);
        assert_eq!(
            best_of(&[r#"Basic realm="Registry""#]),
            Some(Challenge::Basic)
        );
    }

    #[test]
    fn prefers_the_token_and_ignores_the_unknown() {
        let both = best_of(&[
            r#"Basic realm="a""#,
            r#"BEARER REALM="https://b/t", error="invalid_token""#,
        ]);
        assert!(
            matches!(both, Some(Challenge::Bearer(b)) if b.realm == "https://b/t" && b.scopes.is_empty())
        );
        for nothing in [
            &[][..],
            &["Negotiate"],
            &["Bearer service=x"],
            &["\"\"\",,="],
        ] {
            assert_eq!(best_of(nothing), None);
        }
    }
}
