//! Takes out of what is told what is nobody's business.

use serde_json::Value;
use stepwell_model::remote;
use stepwell_model::request::SecretValue;

/// What stands for something confidential.
const MASK: &str = "***";
/// Shortest secret that is looked for: shorter ones are in everything.
const SHORTEST: usize = 4;

/// Takes the values of secrets out of all texts: they may have been given as arguments, too.
pub fn of_secrets(value: &mut Value, secrets: &[(String, SecretValue)]) {
    let texts: Vec<&str> = secrets
        .iter()
        .filter_map(|(_, secret)| std::str::from_utf8(secret.reveal()).ok())
        .map(str::trim)
        .filter(|text| text.len() >= SHORTEST)
        .collect();
    if !texts.is_empty() {
        mask(value, &texts);
    }
}

fn mask(value: &mut Value, secrets: &[&str]) {
    match value {
        Value::String(text) => {
            for secret in secrets {
                if text.contains(secret) {
                    *text = text.replace(secret, MASK);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| mask(v, secrets)),
        Value::Object(map) => {
            let all = std::mem::take(map);
            for (mut key, mut value) in all {
                for secret in secrets {
                    key = key.replace(secret, MASK);
                }
                mask(&mut value, secrets);
                map.insert(key, value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Takes user and password out of a value that is an address (of a proxy, most often).
pub fn of_user(value: &str) -> String {
    match remote::userinfo(value) {
        Some(_) => remote::without_user(value),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_taken_out_wherever_it_is() {
        let secret = |text: &str| ("t".to_owned(), SecretValue::new(text.into()));
        let mut value = json!({"a": ["x hush-token y", 7], "hush-token": {"b": "ab"}});
        of_secrets(&mut value, &[secret("hush-token\n"), secret("ab")]);
        assert_eq!(value, json!({"a": ["x *** y", 7], "***": {"b": "ab"}}));
        assert_eq!(of_user("http://u:p@proxy:3128"), "http://proxy:3128");
        assert_eq!(of_user("a@b"), "a@b");
    }
}
