//! pax extended header records (POSIX.1-2001, pax(1), "pax Extended Header"): `<length> <keyword>=<value>\n`.
//! Only the encoding; which keywords mean what is in `header` (written) and `reader` (read).

use super::Mtime;

/// Keyword prefix of extended attributes, as star introduced it and everybody reads it; the value is binary.
pub const XATTR: &[u8] = b"SCHILY.xattr.";

/// Appends one record to `out`.
pub fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut length = body + digits(body);
    if digits(length) != digits(body) {
        length = body + digits(length);
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Keyword and value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits the body of an extended header into records; `Err` says what is wrong with it.
pub fn records(body: &[u8]) -> Result<Vec<Record<'_>>, &'static str> {
    let mut records = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        // GNU tar and Go tolerate padding with NUL bytes at the end.
        if rest.iter().all(|b| *b == 0) {
            break;
        }
        let (record, tail) = first(rest)?;
        records.push(record);
        rest = tail;
    }
    Ok(records)
}

fn first(rest: &[u8]) -> Result<(Record<'_>, &[u8]), &'static str> {
    let space = rest
        .iter()
        .position(|b| *b == b' ')
        .ok_or("a record has no length")?;
    let length = decimal(&rest[..space]).ok_or("the length of a record is not a number")?;
    let length = usize::try_from(length).map_err(|_| "a record is too long")?;
    if length <= space + 2 || length > rest.len() || rest[length - 1] != b'\n' {
        return Err("the length of a record is wrong");
    }
    let record = &rest[space + 1..length - 1];
    let equals = record
        .iter()
        .position(|b| *b == b'=')
        .ok_or("a record has no `=`")?;
    if equals == 0 {
        return Err("a record has no keyword");
    }
    Ok(((&record[..equals], &record[equals + 1..]), &rest[length..]))
}

/// Reads an unsigned decimal number without sign or spaces.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Writes a time as a decimal fraction; digits that say nothing are left out.
pub fn format_time(time: Mtime) -> String {
    let Mtime { secs, nanos } = time;
    if nanos == 0 {
        return secs.to_string();
    }
    // -1.25 is -2 s and 750,000,000 ns.
    let (sign, whole, fraction) = if secs < 0 {
        ("-", (secs + 1).unsigned_abs(), 1_000_000_000 - nanos)
    } else {
        ("", secs.unsigned_abs(), nanos)
    };
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').to_owned()
}

/// Reads a time; digits after the ninth are cut off.
pub fn parse_time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let secs = i64::try_from(decimal(parts.next()?)?).ok()?;
    let nanos = match parts.next() {
        None | Some(b"") => 0,
        Some(fraction) => nanoseconds(fraction)?,
    };
    Some(match (negative, nanos) {
        (false, nanos) => Mtime { secs, nanos },
        (true, 0) => Mtime::from_secs(-secs),
        (true, nanos) => Mtime {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

fn nanoseconds(fraction: &[u8]) -> Option<u32> {
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| fraction.get(at).map_or(0, |b| u32::from(b - b'0'));
    Some((0..9).fold(0, |nanos, at| nanos * 10 + digit(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        for size in (0..200).chain(900..1100).chain(99_980..100_010) {
            let mut out = Vec::new();
            push(&mut out, b"k", &vec![b'\n'; size]);
            push(&mut out, b"SCHILY.xattr.user.a", b"a=\0b");
            let read = records(&out).unwrap();
            assert_eq!(read.len(), 2);
            assert_eq!(read[0].1.len(), size);
            assert_eq!(
                read[1],
                (&b"SCHILY.xattr.user.a"[..], &b"a=\0b"[..]),
                "{size}"
            );
        }
    }

    #[test]
    fn refuses_broken_records() {
        for bad in [
            "x",
            "5 a=b\n",
            "7 a=b\n",
            "6 a=bx",
            "6 =ab\n",
            "6 abc\n",
            "-6 a=b\n",
            "99999999999999999999 a=b\n",
            "18446744073709551616 a=b\n",
            "3 \n",
            "0 a=b\n",
            " a=b\n",
        ] {
            assert!(records(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_round_trip() {
        for (secs, nanos, text) in [
            (0, 0, "0"),
            (1, 500_000_000, "1.5"),
            (1_700_000_000, 1, "1700000000.000000001"),
            (-1, 0, "-1"),
            (-2, 750_000_000, "-1.25"),
            (-1, 999_999_999, "-0.000000001"),
        ] {
            let time = Mtime { secs, nanos };
            assert_eq!(format_time(time), text);
            assert_eq!(parse_time(text.as_bytes()), Some(time));
        }
        assert_eq!(
            parse_time(b"1.0000000009").unwrap(),
            Mtime::from_secs(1),
            "cut off, not rounded"
        );
        for bad in ["", ".", "1e3", "1.x", "--1", "1.-1", "9223372036854775808"] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
    }
}
