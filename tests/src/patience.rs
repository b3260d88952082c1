//! How long the lab waits for what must happen: `GUARD_TEST_PATIENCE` times as long as on a machine of today.
//!
//! An emulated processor is some ten times slower. The deadlines are stretched there, never the claims: what must
//! not happen is still looked for, and what must happen still has to.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// For what takes a moment, and what must happen in the end.
const WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// A factor above this would be a mistake.
const MOST: u32 = 100;

/// The factor: 1 unless `GUARD_TEST_PATIENCE` has a whole number from 1 to 100.
pub fn factor() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| parse(std::env::var("GUARD_TEST_PATIENCE").ok().as_deref()))
}

/// A deadline, as long as it has to be here.
pub fn patient(usual: Duration) -> Duration {
    usual * factor()
}

/// Looks until it succeeds, and gives what it found.
///
/// # Errors
/// What the last look gave, after half a minute.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patient(WITHIN);
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => return Err(error.context(format!("never: {what}"))),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn parse(text: Option<&str>) -> u32 {
    text.and_then(|text| text.parse().ok())
        .filter(|factor| (1..=MOST).contains(factor))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_a_sensible_factor_counts() {
        assert_eq!(parse(Some("10")), 10);
        assert_eq!(
            [None, Some("0"), Some("-3"), Some("ten"), Some("1000000")].map(parse),
            [1; 5]
        );
    }
}
