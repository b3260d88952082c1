//! Numbers and texts for people, the same in every command.

use jiff::SignedDuration;

use crate::ledger::{Amount, Unit};
use crate::money::{PICO_PER_USD, Pico};

/// A text of at most this many characters; a cut one ends in an ellipsis.
pub(super) fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Dollars with so many decimals, rounded up: spending never looks smaller than it is.
pub(super) fn dollars(amount: Pico, decimals: u32) -> String {
    let parts = 10_u64.pow(decimals);
    let counted = amount.0.div_ceil(PICO_PER_USD / parts);
    let width = decimals as usize;
    format!("${}.{:0width$}", thousands(counted / parts), counted % parts)
}

/// Dollars with so many decimals; tokens and calls in short, and `unit` behind them, if it is asked for.
pub(super) fn amount(amount: Amount, decimals: u32, unit: bool) -> String {
    match amount.unit {
        Unit::Usd => dollars(Pico(amount.count), decimals),
        Unit::Tokens | Unit::Calls if !unit => short(amount.count),
        Unit::Tokens | Unit::Calls => format!("{} {}", short(amount.count), amount.unit.label()),
    }
}

/// A number of at most six characters, rounded up from ten thousand on: `9,999`, `12k`, `1.25M`.
pub(super) fn short(number: u64) -> String {
    let (size, letter) = match number {
        0..10_000 => return thousands(number),
        10_000..1_000_000 => (1_000, 'k'),
        1_000_000..1_000_000_000 => (1_000_000, 'M'),
        _ => (1_000_000_000, 'G'),
    };
    let hundredths = number.div_ceil(size / 100);
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{letter}")
}

/// A number with its thousands apart.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The two largest units: `4 h 12 min`.
pub(super) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Pico {
        Pico::from_usd_text(text).unwrap()
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(dollars(Pico(1), 2), "$0.01");
        assert_eq!(dollars(usd("1234567.891"), 2), "$1,234,567.90");
        assert_eq!(dollars(usd("0.046"), 4), "$0.0460");
        for (number, shown) in [
            (9_999, "9,999"),
            (12_000, "12k"),
            (999_999, "1000k"),
            (1_250_000, "1.25M"),
            (2_000_001, "2.01M"),
            (20_000_000_000, "20G"),
        ] {
            assert_eq!(short(number), shown);
        }
        assert_eq!(span(SignedDuration::from_secs(90_000)), "1 d 1 h");
        assert_eq!(span(SignedDuration::from_secs(-5)), "0 s");
    }
}
