//! Credentials as secrets have them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stepwell_registry::FetchAuth;

/// Reads the value of an `Authorization` header.
pub(super) fn of_header(value: &[u8]) -> Result<FetchAuth, &'static str> {
    let text = std::str::from_utf8(value).map_err(|_| "it is not text")?;
    let (scheme, rest) = text
        .split_once(' ')
        .ok_or("it is not `Basic …` or `Bearer …`")?;
    let rest = rest.trim();
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Ok(FetchAuth::Bearer(rest.to_owned())),
        "basic" => {
            let pair = STANDARD
                .decode(rest)
                .ok()
                .and_then(|b| String::from_utf8(b).ok());
            let pair = pair.ok_or("what follows `Basic` is not base64 of text")?;
            let (user, password) = pair
                .split_once(':')
                .ok_or("what follows `Basic` is not `user:password`")?;
            Ok(FetchAuth::Basic(user.to_owned(), password.to_owned()))
        }
        _ => Err("its scheme is neither `Basic` nor `Bearer`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_both_schemes_are_understood() {
        assert_eq!(
            of_header(b"basic dTpwOnc="),
            Ok(FetchAuth::Basic("u".into(), "p:w".into()))
        );
        assert_eq!(of_header(b"Bearer  t "), Ok(FetchAuth::Bearer("t".into())));
        for bad in [&b"t"[..], b"Basic ?", b"Basic dQ==", b"Digest x", b"\xff x"] {
            assert!(of_header(bad).is_err());
        }
    }
}
