//! What a limit counts: dollars, tokens or calls; and what one call takes of each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::money::Pico;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Pico-dollars.
    #[default]
    Usd,
    /// Tokens, read and written, cached ones too.
    Tokens,
    /// Calls that reached a provider.
    Calls,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Self; 3] = [Self::Usd, Self::Tokens, Self::Calls];

    /// Name in the configuration, in messages and in `ledger.db`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Usd => "usd",
            Self::Tokens => "tokens",
            Self::Calls => "calls",
        }
    }
}

/// So many of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Of what; dollars in pico-dollars.
    pub unit: Unit,
    /// How many.
    pub count: u64,
}

impl Amount {
    /// Money.
    pub const fn usd(amount: Pico) -> Self {
        Self {
            unit: Unit::Usd,
            count: amount.0,
        }
    }

    /// None of a unit.
    pub const fn none(unit: Unit) -> Self {
        Self { unit, count: 0 }
    }

    /// As many of the same unit.
    #[must_use]
    pub const fn with(self, count: u64) -> Self {
        Self {
            unit: self.unit,
            count,
        }
    }

    /// So many parts per million, rounded down.
    #[must_use]
    pub fn part(self, ppm: u32) -> Self {
        self.with(Pico(self.count).part(ppm).0)
    }

    /// The money, if it is money.
    pub fn money(self) -> Option<Pico> {
        (self.unit == Unit::Usd).then_some(Pico(self.count))
    }
}

impl From<Pico> for Amount {
    fn from(amount: Pico) -> Self {
        Self::usd(amount)
    }
}

/// `$20.00`, `2000000 tokens`, `1 call`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.unit, self.count) {
            (Unit::Usd, count) => Pico(count).fmt(f),
            (Unit::Tokens, 1) => f.write_str("1 token"),
            (Unit::Calls, 1) => f.write_str("1 call"),
            (unit, count) => write!(f, "{count} {}", unit.label()),
        }
    }
}

/// What one call takes, in every unit. The journal's first format knew money alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "Pico")]
pub struct Amounts {
    /// Money.
    pub usd: Pico,
    /// Tokens.
    pub tokens: u64,
    /// Calls.
    pub calls: u64,
}

impl Amounts {
    /// Nothing.
    pub const ZERO: Self = Self {
        usd: Pico::ZERO,
        tokens: 0,
        calls: 0,
    };

    /// How many of a unit.
    pub const fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Usd => self.usd.0,
            Unit::Tokens => self.tokens,
            Unit::Calls => self.calls,
        }
    }

    /// Each at most `most`.
    #[must_use]
    pub(super) fn at_most(self, most: u64) -> Self {
        Self {
            usd: Pico(self.usd.0.min(most)),
            tokens: self.tokens.min(most),
            calls: self.calls.min(most),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            usd: Pico(self.usd.0.saturating_add(other.usd.0)),
            tokens: self.tokens.saturating_add(other.tokens),
            calls: self.calls.saturating_add(other.calls),
        }
    }

    /// Whether it is more than `other` in any unit.
    pub fn exceeds(&self, other: &Self) -> bool {
        Unit::ALL.iter().any(|unit| self.of(*unit) > other.of(*unit))
    }
}

impl From<Pico> for Amounts {
    fn from(usd: Pico) -> Self {
        Self { usd, ..Self::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_amount_names_its_unit() {
        let shown = |unit, count| Amount { unit, count }.to_string();
        assert_eq!(shown(Unit::Usd, 50_000_000_000), "$0.05");
        assert_eq!(shown(Unit::Tokens, 2_000_000), "2000000 tokens");
        assert_eq!(shown(Unit::Calls, 1), "1 call");
    }
}
