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

/// `90m`, `24h`, `7d`, `2w`.
pub(super) fn time(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("{text:?} is no time: write a number and m, h, d or w, for example 24h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number: i64 = text
        .strip_suffix(unit)
        .and_then(|number| number.parse().ok())
        .filter(|number| *number > 0)
        .ok_or_else(wrong)?;
    let minutes: i64 = match unit {
        'm' => 1,
        'h' => 60,
        'd' => 24 * 60,
        'w' => 7 * 24 * 60,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(minutes)
        .and_then(|minutes| minutes.checked_mul(60))
        .map(SignedDuration::from_secs)
        .ok_or_else(wrong)
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

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(time("90m"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(time("2w"), Ok(SignedDuration::from_hours(336)));
        for text in ["", "7", "d", "-1d", "0h", "7 days", "9999999999999999999d", "1y"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
