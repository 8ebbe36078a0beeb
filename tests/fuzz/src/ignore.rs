//! Any patterns on any path: no panic, and time in proportion to both.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepwell_patterns::IgnoreSet;

fuzz_target!(|data: &[u8]| {
    let at = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (text, path) = (String::from_utf8_lossy(&data[..at]), data.get(at + 1..).unwrap_or_default());
    let Ok(set) = IgnoreSet::new(IgnoreSet::parse(&text)) else { return };
    if !set.matches(path) {
        return;
    }
    // What lies below what is left out is left out too, unless something is taken back.
    let below = [path, b"/below"].concat();
    assert!(set.has_exceptions() || path.ends_with(b"/") || path.is_empty() || set.matches(&below));
});
