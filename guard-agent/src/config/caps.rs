//! `caps = { output_tokens = 8192, run_timeout = "2h", … }` of an agent.

use std::time::Duration;

use super::Caps;
use super::loops::bounded;
use super::read::Section;

/// Reads the caps of an agent.
pub(super) fn read(section: &Section<'_, '_>) -> Caps {
    let in_flight = section.positive("in_flight");
    let narrow = in_flight.and_then(|calls| u32::try_from(calls).ok());
    if in_flight.is_some() && narrow.is_none() {
        let fix = "write a number below 4 thousand million";
        section
            .reader
            .error(&section.place("in_flight"), "`in_flight` is too large", fix);
    }
    Caps {
        output_tokens: section.positive("output_tokens"),
        input_bytes: section.positive("input_bytes"),
        in_flight: narrow,
        run_timeout: timeout(section),
        requests_per_minute: bounded(section, "requests_per_minute", 1, 1_000_000),
        tokens_per_minute: section.positive("tokens_per_minute"),
    }
}

fn timeout(section: &Section<'_, '_>) -> Option<Duration> {
    let text = section.string("run_timeout")?;
    let parsed = duration(text.get_ref());
    if parsed.is_none() {
        section.reader.error(
            &text.span(),
            format!("`run_timeout` is not a duration: {:?}", text.get_ref()),
            "write a number above 0 and s, m, h or d, for example \"90m\" or \"2h\"",
        );
    }
    parsed
}

/// `90s`, `15m`, `2h`, `1d`.
fn duration(text: &str) -> Option<Duration> {
    let split = text.len().checked_sub(1)?;
    let (number, unit) = (text.get(..split)?, text.get(split..)?);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    let number: u64 = number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| number.parse().ok())??;
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds > 0)?;
    // A hundred years: what is added to a time later must not overflow.
    (seconds <= 100 * 366 * 24 * 60 * 60).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_or_refused() {
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Some(Duration::from_secs(7200)));
        for bad in [
            "",
            "h",
            "2",
            "0s",
            "-1s",
            "+1s",
            "1.5h",
            "2 h",
            "2hh",
            "2µ",
            "99999999999d",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
