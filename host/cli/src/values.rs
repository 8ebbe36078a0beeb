//! Values of flags: sizes, durations, `key=value` lists.

use std::time::Duration;

/// Parses a size: a number with an optional unit (`b`, `k`, `m`, `g`, `t`, each also as `kb`, `KiB`; powers of 1024,
/// as docker reads them).
pub fn size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match lower[digits.len()..]
        .trim_end_matches('b')
        .trim_end_matches('i')
    {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => {
            return Err(format!(
                "`{text}` is not a size: expected a number and a unit, for example `512mb`"
            ));
        }
    };
    let number: f64 = digits.trim().parse().map_err(|_| {
        format!("`{text}` is not a size: expected a number and a unit, for example `512mb`")
    })?;
    if !(0.0..1e18).contains(&(number * factor as f64)) {
        return Err(format!("`{text}` is out of range"));
    }
    Ok((number * factor as f64) as u64)
}

/// Parses a duration as Go writes it: `90s`, `1h30m`, `250ms`; a bare number means seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad =
        || format!("`{text}` is not a duration: expected for example `90s`, `10m` or `1h30m`");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|e| *e > 0)
            .ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
        rest = &rest[end..];
    }
    if text.is_empty() {
        Err(bad())
    } else {
        Duration::try_from_secs_f64(total).map_err(|_| bad())
    }
}

/// Splits `NAME=VALUE`.
pub fn pair<'a>(flag: &str, text: &'a str) -> Result<(&'a str, &'a str), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name, value)),
        _ => Err(format!("`{flag} {text}` must have the form NAME=VALUE")),
    }
}

/// Splits `key=value,key=value`, where a field may be quoted as in a CSV file: `"name=a,b",push=true`.
pub fn fields(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(format!("`{text}` has a quote that is not closed"));
    }
    fields.push(field);
    Ok(fields
        .into_iter()
        .map(|f| match f.split_once('=') {
            Some((k, v)) => (k.trim().to_ascii_lowercase(), v.to_owned()),
            None => (f.trim().to_ascii_lowercase(), String::new()),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", 0),
            ("12", 12),
            ("1k", 1024),
            ("1.5kb", 1536),
            ("2MiB", 2 << 20),
            ("3GB", 3 << 30),
        ] {
            assert_eq!(size(text), Ok(want), "{text}");
        }
        for bad in ["", "x", "1x", "-1", "1e99"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("5", 5_000),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1.5s", 1_500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(want)), "{text}");
        }
        for bad in ["", "s", "5x", "1h30", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quoted_fields() {
        let got = fields("type=image,\"name=a,b\",push=true").unwrap();
        assert_eq!(
            got,
            [("type", "image"), ("name", "a,b"), ("push", "true")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert!(fields("\"a").is_err());
    }
}
