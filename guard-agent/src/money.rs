//! Money: integer pico-dollars.
//!
//! One US dollar is 10^12 pico-dollars. Provider prices are quoted per million tokens with at most six
//! decimals, which is a whole number of pico-dollars per token, so nothing is ever rounded on the way in.
//! `u64` holds 18.4 million dollars; arithmetic that would leave it is an error, never a wrap.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Pico-dollars in one US dollar.
pub const PICO_PER_USD: u64 = 1_000_000_000_000;

/// An amount of money in pico-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pico(pub u64);

impl Pico {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `self + other`, or `None` beyond 18.4 million dollars.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// `self - other`, or `None` when `other` is larger.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// `self - other`, at least nothing.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self * count`, or `None` beyond 18.4 million dollars.
    pub fn checked_mul(self, count: u64) -> Option<Self> {
        self.0.checked_mul(count).map(Self)
    }

    /// So many parts per million of the amount, rounded down.
    pub fn part(self, ppm: u32) -> Self {
        let part = u128::from(self.0) * u128::from(ppm) / 1_000_000;
        Self(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// So many parts per million of the amount, rounded up; `None` beyond 18.4 million dollars.
    pub fn scaled_up(self, ppm: u32) -> Option<Self> {
        let scaled = (u128::from(self.0) * u128::from(ppm)).div_ceil(1_000_000);
        u64::try_from(scaled).ok().map(Self)
    }

    /// Reads a decimal dollar amount such as `10`, `0.05` or `1.0`; at most twelve decimals.
    pub fn from_usd_text(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 12 {
            return None;
        }
        let whole = whole.parse::<u64>().ok()?.checked_mul(PICO_PER_USD)?;
        let fraction = format!("{fraction:0<12}").parse::<u64>().ok()?;
        whole.checked_add(fraction).map(Self)
    }
}

/// Dollars with as many decimals as the amount needs, at least two: `$0.05`, `$0.000123`.
impl fmt::Display for Pico {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:012}", self.0 % PICO_PER_USD);
        let kept = fraction.trim_end_matches('0').len().max(2);
        write!(
            f,
            "${}.{}",
            self.0 / PICO_PER_USD,
            fraction.get(..kept).unwrap_or("00")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_dollars_exactly() {
        for (text, pico, shown) in [
            ("1", PICO_PER_USD, "$1.00"),
            ("0.05", 50_000_000_000, "$0.05"),
            ("20.0", 20 * PICO_PER_USD, "$20.00"),
            ("0.000123", 123_000_000, "$0.000123"),
        ] {
            let amount = Pico::from_usd_text(text).unwrap();
            assert_eq!(amount, Pico(pico), "{text}");
            assert_eq!(amount.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_an_amount() {
        for text in [
            "",
            ".",
            ".5",
            "-1",
            "1e3",
            "1.0000000000001",
            "99999999999",
            "1,5",
            " 1",
        ] {
            assert_eq!(Pico::from_usd_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn never_wraps() {
        assert_eq!(Pico(u64::MAX).checked_add(Pico(1)), None);
        assert_eq!(Pico(u64::MAX).checked_mul(2), None);
        assert_eq!(Pico(1).checked_sub(Pico(2)), None);
    }
}
