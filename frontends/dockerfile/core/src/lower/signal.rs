//! Names and numbers of signals (signal(7)).

use crate::diagnostic::did_you_mean;

const NAMES: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Says whether a text is a signal: a number, or a name with or without `SIG`, in any case.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time =
        |rest: &str, most: u32| (1..=most).any(|number| rest == number.to_string().as_str());
    NAMES.contains(&name)
        || name
            .strip_prefix("RTMIN+")
            .is_some_and(|rest| real_time(rest, 15))
        || name
            .strip_prefix("RTMAX-")
            .is_some_and(|rest| real_time(rest, 14))
}

/// Returns a hint for a text that is none.
pub(super) fn hint(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    match did_you_mean(
        upper.strip_prefix("SIG").unwrap_or(&upper),
        NAMES.iter().copied(),
    ) {
        near if near.is_empty() => "write a name such as `SIGTERM`, or a number".to_owned(),
        near => near.replacen('`', "`SIG", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for good in [
            "SIGTERM",
            "term",
            "sigkill",
            "9",
            "64",
            "SIGRTMIN+3",
            "RTMAX-2",
        ] {
            assert!(is_signal(good), "{good}");
        }
        for bad in [
            "",
            "0",
            "SIGTREM",
            "SIGRTMIN+99",
            "RTMAX-15",
            "RTMIN+01",
            "SIGSIGTERM",
            "x",
        ] {
            assert!(!is_signal(bad), "{bad}");
        }
        assert_eq!(hint("SIGTREM"), "did you mean `SIGTERM`?");
    }
}
