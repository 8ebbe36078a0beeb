//! When to try again, and when to give up.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{ErrorKind, RegistryError, Result};
use crate::options::RetryPolicy;

/// Tries of a connection that is refused or a name that is not found: a registry may just be starting, but
/// mostly the address is wrong, and the user should hear of it soon.
const CONNECT_ATTEMPTS: u32 = 4;

/// Told of a failure that is waited out, and how long.
pub type RetryListener = Arc<dyn Fn(&RegistryError, Duration) + Send + Sync>;

/// Counts the tries of one operation.
pub(crate) struct Backoff {
    policy: RetryPolicy,
    listener: Option<RetryListener>,
    tried: u32,
    /// Tries since the last real progress; this is what grows the pause and ends the operation.
    since_progress: u32,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy, listener: Option<RetryListener>) -> Self {
        Self {
            policy,
            listener,
            tried: 0,
            since_progress: 0,
        }
    }

    /// Counts failures of before.
    pub(crate) fn failed_before(&mut self, times: u32) {
        (self.tried, self.since_progress) = (times, times);
    }

    /// Forgets earlier failures, because the transfer has moved a good deal since.
    pub(crate) fn progressed(&mut self) {
        self.since_progress = 0;
    }

    /// Waits before the next try, or gives the error back where another try is of no use.
    pub(crate) async fn pause(&mut self, error: RegistryError) -> Result<()> {
        self.tried += 1;
        self.since_progress += 1;
        match self.delay(&error) {
            Some(delay) => {
                tracing::debug!(%error, ?delay, tries = self.tried, "registry: trying again");
                if let Some(listener) = &self.listener {
                    listener(&error, delay);
                }
                tokio::time::sleep(delay).await;
                Ok(())
            }
            None => Err(error.with_attempts(self.tried)),
        }
    }

    fn delay(&self, error: &RegistryError) -> Option<Duration> {
        let attempts = match error.kind() {
            ErrorKind::Connect { .. } => self.policy.attempts.min(CONNECT_ATTEMPTS),
            _ => self.policy.attempts,
        };
        if !error.is_temporary() || self.since_progress >= attempts {
            return None;
        }
        match error.retry_after() {
            Some(asked) if asked > self.policy.max_retry_after => None,
            Some(asked) => Some(asked.max(self.own_delay())),
            None => Some(self.own_delay()),
        }
    }

    /// Half of the doubled base plus a random part of the other half, so that clients that failed together do
    /// not come back together.
    fn own_delay(&self) -> Duration {
        let doubled = self
            .policy
            .base
            .saturating_mul(1 << (self.since_progress - 1).min(16));
        let half = doubled.min(self.policy.max) / 2;
        half + half.mul_f64(f64::from(random() % 1000) / 1000.0)
    }
}

/// A random number good enough for jitter: the standard library seeds each `RandomState` differently.
fn random() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}

/// Reads a `Retry-After` header (RFC 9110, 10.2.3): seconds, or a date.
pub(crate) fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let value = headers
        .get(reqwest::header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let until = date.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(until).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

    fn status(status: u16, retry_after: Option<u64>) -> RegistryError {
        RegistryError::new(ErrorKind::Status {
            status,
            codes: Vec::new(),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    fn after_failures(n: u32) -> Backoff {
        Backoff {
            policy: RetryPolicy::default(),
            listener: None,
            tried: n,
            since_progress: n,
        }
    }

    #[test]
    fn repeats_only_what_may_pass() {
        for code in [429, 500, 502, 503, 504] {
            assert!(
                after_failures(1).delay(&status(code, None)).is_some(),
                "{code}"
            );
        }
        for code in [400, 401, 403, 404, 405, 409, 416, 501] {
            assert!(
                after_failures(1).delay(&status(code, None)).is_none(),
                "{code}"
            );
        }
        assert!(after_failures(6).delay(&status(503, None)).is_none());
    }

    #[test]
    fn pauses_grow_within_bounds() {
        let policy = RetryPolicy::default();
        for n in 1..6 {
            let whole = (policy.base * 2u32.pow(n - 1)).min(policy.max);
            let pause = after_failures(n).delay(&status(500, None)).unwrap();
            assert!(pause >= whole / 2 && pause <= whole, "{n}: {pause:?}");
        }
    }

    #[test]
    fn waits_as_long_as_the_server_asks_but_not_for_ever() {
        assert!(after_failures(1).delay(&status(429, Some(7))).unwrap() >= Duration::from_secs(7));
        assert!(
            after_failures(1)
                .delay(&status(429, Some(86_400)))
                .is_none()
        );
    }

    #[test]
    fn reads_both_forms_of_retry_after() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            retry_after(&headers)
        };
        assert_eq!(read("3"), Some(Duration::from_secs(3)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(read("Sat, 06 Nov 2094 08:49:37 GMT").unwrap() > Duration::from_secs(1_000_000));
        assert_eq!(read("soon"), None);
    }
}
