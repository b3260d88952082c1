//! JSON numbers as exact amounts: read from their text, never through a binary fraction.

use crate::money::Pico;

/// The text of a JSON number: dollars, a count or a factor.
pub(in crate::llm) struct Dollars<'a>(pub(in crate::llm) &'a str);

impl Dollars<'_> {
    /// In pico-dollars, rounded up to a whole number of them.
    pub(in crate::llm) fn pico(&self) -> Option<Pico> {
        self.scaled(12)
            .and_then(|pico| u64::try_from(pico).ok())
            .map(Pico)
    }

    /// As a whole number.
    pub(super) fn whole(&self) -> Option<u64> {
        self.scaled(0).and_then(|count| u64::try_from(count).ok())
    }

    /// The number times ten to this power, rounded up. `None`: not a number from zero on, or one that is too long.
    fn scaled(&self, power: i32) -> Option<u128> {
        let (number, exponent) = match self.0.split_once(['e', 'E']) {
            Some((number, exponent)) => (
                number,
                exponent
                    .strip_prefix('+')
                    .unwrap_or(exponent)
                    .parse::<i32>()
                    .ok()?,
            ),
            None => (self.0, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || digits.len() > 25 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = digits.parse::<u128>().ok()?;
        let power = exponent
            .checked_sub(i32::try_from(fraction.len()).ok()?)?
            .checked_add(power)?;
        let factor = 10_u128.checked_pow(power.unsigned_abs());
        if power >= 0 {
            return digits.checked_mul(factor?);
        }
        // Beyond what the factor holds, only whether there is anything at all.
        Some(factor.map_or_else(|| u128::from(digits > 0), |factor| digits.div_ceil(factor)))
    }
}

/// A factor of 1 to 10, in parts per million.
pub(super) fn factor(text: &str) -> Option<u32> {
    let ppm = Dollars(text).scaled(6).and_then(|ppm| u32::try_from(ppm).ok())?;
    (1_000_000..=super::super::DEAREST_REGION)
        .contains(&ppm)
        .then_some(ppm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly_and_rounded_up() {
        for (text, pico) in [
            ("1.25e-06", Some(1_250_000)),
            ("1.25E-6", Some(1_250_000)),
            ("0.000003", Some(3_000_000)),
            ("3e-07", Some(300_000)),
            ("5.0000000001e-08", Some(50_001)),
            ("1e-300", Some(1)),
            ("0", Some(0)),
            ("0.0", Some(0)),
            ("10", Some(10_000_000_000_000)),
            ("1e+0", Some(1_000_000_000_000)),
            ("-1", None),
            ("1e300", None),
            ("\"1\"", None),
            ("null", None),
        ] {
            assert_eq!(Dollars(text).pico().map(|pico| pico.0), pico, "{text}");
        }
        assert_eq!(Dollars("256000.0").whole(), Some(256_000));
        assert_eq!(factor("1.1"), Some(1_100_000));
        assert_eq!((factor("0.5"), factor("11")), (None, None));
    }
}
