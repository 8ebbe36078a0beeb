//! Makes what a server sent fit for an error message: no control characters (a terminal would obey them), no
//! secrets of a URL, no novels.

use url::Url;

/// Longest text of a server that is shown, in characters.
const SHOWN: usize = 400;

/// Query parameters whose values are no secret and help to understand a failure.
const HARMLESS: &[&str] = &["digest", "mount", "from", "scope", "service", "n", "last"];

/// Returns `text` on one line, without control characters, cut to a sensible length.
pub(crate) fn clean(text: &str) -> String {
    let visible = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out: String = visible
        .take(SHOWN + 1)
        .collect::<String>()
        .trim()
        .to_owned();
    if out.chars().count() > SHOWN {
        out = out.chars().take(SHOWN).collect();
        out.push('…');
    }
    out
}

/// Returns `url` without user, password, fragment and the values of unknown query parameters: a redirect to a
/// content network carries its signature there.
pub(crate) fn redact(url: &Url) -> String {
    let mut shown = url.clone();
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_fragment(None);
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    shown.set_query(None);
    let mut out = clean(shown.as_str());
    for (n, (key, value)) in pairs.iter().enumerate() {
        let value = if HARMLESS.contains(&key.as_str()) {
            clean(value)
        } else {
            "…".to_owned()
        };
        out.push_str(if n == 0 { "?" } else { "&" });
        out.push_str(&format!("{}={value}", clean(key)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_no_secret() {
        let url =
            Url::parse("https://u:pw@cdn.example/b?digest=sha256:0&X-Amz-Signature=s3cret#frag")
                .unwrap();
        assert_eq!(
            redact(&url),
            "https://cdn.example/b?digest=sha256:0&X-Amz-Signature=…"
        );
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc"), "a [2Jb c");
        assert_eq!(clean(&"x".repeat(1000)).chars().count(), SHOWN + 1);
    }
}
