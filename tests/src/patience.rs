//! How long the lab waits for what must happen: `GUARD_TEST_PATIENCE` times as long as on a machine of today.
//!
//! An emulated processor is some ten times slower. The deadlines are stretched there, never the claims: what must
//! not happen is still looked for, and what must happen still has to.

use std::sync::OnceLock;
use std::time::Duration;

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
