//! Windows: calendar ones in a named time zone, daylight saving included, and rolling ones.

use std::borrow::Cow;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A rolling window is counted in this many buckets: what was spent counts for at least the window's length and at most
/// one sixtieth longer.
pub const BUCKETS: i64 = 60;

/// Over which time a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    /// One life of the agent's cgroup (or of the session inside it).
    Run,
    /// A calendar hour in the host's time zone.
    Hour,
    /// A calendar day.
    Day,
    /// A calendar week, from Monday.
    Week,
    /// A calendar month.
    Month,
    /// The last so many minutes, at every moment.
    Rolling(u32),
}

impl Window {
    /// Every kind but the rolling ones.
    pub const CALENDAR: [Self; 5] = [Self::Run, Self::Hour, Self::Day, Self::Week, Self::Month];
    /// Longest rolling window in minutes: 90 days.
    pub const LONGEST_ROLLING: u32 = 90 * 24 * 60;

    /// Name in configuration, messages and metrics: `day`, `rolling:5h`.
    pub fn label(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Run => "run",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Rolling(minutes) => return Cow::Owned(format!("rolling:{}", length(minutes))),
        })
    }

    /// For a sentence: `this day`, `in any 5h`.
    pub fn per(self) -> String {
        match self {
            Self::Rolling(minutes) => format!("in any {}", length(minutes)),
            other => format!("this {}", other.label()),
        }
    }

    /// Reads a label.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(length) = text.strip_prefix("rolling:") {
            return minutes(length).map(Self::Rolling);
        }
        Self::CALENDAR.into_iter().find(|window| window.label() == text)
    }

    /// Length and bucket of a rolling window in microseconds.
    pub(super) fn rolling(self) -> Option<(i64, i64)> {
        match self {
            Self::Rolling(minutes) => {
                let length = i64::from(minutes) * 60_000_000;
                Some((length, length / BUCKETS))
            }
            Self::Run | Self::Hour | Self::Day | Self::Week | Self::Month => None,
        }
    }
}

fn length(minutes: u32) -> String {
    for (unit, size) in [("d", 24 * 60), ("h", 60)] {
        if minutes.is_multiple_of(size) {
            return format!("{}{unit}", minutes / size);
        }
    }
    format!("{minutes}m")
}

/// Minutes in `90m`, `5h`, `7d`; none when it is something else, nothing, or longer than 90 days.
fn minutes(text: &str) -> Option<u32> {
    let (number, size) = [("m", 1), ("h", 60), ("d", 24 * 60)]
        .into_iter()
        .find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)))?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let minutes = number.parse::<u32>().ok()?.checked_mul(size)?;
    (1..=Window::LONGEST_ROLLING)
        .contains(&minutes)
        .then_some(minutes)
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label())
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("no such window"))
    }
}

/// When a window begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First instant.
    pub starts: Timestamp,
    /// First instant of the next window.
    pub ends: Timestamp,
}

/// The calendar window of a kind that contains an instant; `None` for a run and a rolling window, which no calendar
/// bounds. Fails only near the ends of the representable calendar (years -9999 and 9999).
///
/// A day is as long as the zone makes it (23 to 25 hours at most changes). An hour is always 3,600 seconds and begins
/// at minute 0 of the offset in force, so the hour that daylight saving repeats is two windows.
pub fn bounds(window: Window, at: Timestamp, tz: &TimeZone) -> Result<Option<Bounds>, jiff::Error> {
    let local = tz.to_datetime(at);
    let date = local.date();
    let (first, next) = match window {
        Window::Run | Window::Rolling(_) => return Ok(None),
        Window::Hour => return hour(at, tz).map(Some),
        Window::Day => (date, date.tomorrow()?),
        Window::Week => {
            let monday = date.checked_sub(i64::from(date.weekday().since(Weekday::Monday)).days())?;
            (monday, monday.checked_add(7.days())?)
        }
        Window::Month => (
            date.first_of_month(),
            date.first_of_month().checked_add(1.month())?,
        ),
    };
    Ok(Some(Bounds {
        starts: midnight(first, tz)?,
        ends: midnight(next, tz)?,
    }))
}

/// The first instant of a date. Where daylight saving skips midnight that is the first instant after the gap.
fn midnight(date: Date, tz: &TimeZone) -> Result<Timestamp, jiff::Error> {
    Ok(date.to_zoned(tz.clone())?.timestamp())
}

fn hour(at: Timestamp, tz: &TimeZone) -> Result<Bounds, jiff::Error> {
    let offset = i64::from(tz.to_offset(at).seconds());
    let local = at.as_second().saturating_add(offset);
    // Truncation is downwards for instants before 1970 as well.
    let starts = Timestamp::from_second(at.as_second().saturating_sub(local.rem_euclid(3600)))?;
    let starts = if starts > at {
        starts.checked_sub(SignedDuration::from_hours(1))?
    } else {
        starts
    };
    Ok(Bounds {
        starts,
        ends: starts.checked_add(SignedDuration::from_hours(1))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_are_read_back_and_lengths_are_bounded() {
        for label in [
            "run",
            "hour",
            "day",
            "week",
            "month",
            "rolling:5h",
            "rolling:90m",
            "rolling:7d",
            "rolling:1m",
        ] {
            assert_eq!(Window::parse(label).unwrap().label(), label);
        }
        assert_eq!(Window::parse("rolling:120m"), Window::parse("rolling:2h"));
        for bad in [
            "",
            "days",
            "rolling",
            "rolling:",
            "rolling:0m",
            "rolling:91d",
            "rolling:5",
            "rolling:-1h",
            "rolling:+1h",
            "rolling:5s",
            "rolling:99999999999d",
        ] {
            assert_eq!(Window::parse(bad), None, "{bad}");
        }
    }

    fn check(zone: &str, window: Window, at: &str, starts: &str, ends: &str) {
        let tz = TimeZone::get(zone).unwrap();
        let found = bounds(window, at.parse().unwrap(), &tz).unwrap().unwrap();
        let expected = Bounds {
            starts: starts.parse().unwrap(),
            ends: ends.parse().unwrap(),
        };
        assert_eq!(found, expected, "{zone} {window:?} {at}");
    }

    #[test]
    fn calendar_windows_in_utc() {
        let at = "2026-11-26T13:45:59.999999Z";
        check(
            "UTC",
            Window::Hour,
            at,
            "2026-11-26T13:00:00Z",
            "2026-11-26T14:00:00Z",
        );
        check(
            "UTC",
            Window::Day,
            at,
            "2026-11-26T00:00:00Z",
            "2026-11-27T00:00:00Z",
        );
        check(
            "UTC",
            Window::Week,
            at,
            "2026-11-23T00:00:00Z",
            "2026-11-30T00:00:00Z",
        );
        check(
            "UTC",
            Window::Month,
            at,
            "2026-11-01T00:00:00Z",
            "2026-12-01T00:00:00Z",
        );
        // The first instant belongs to the new window.
        check(
            "UTC",
            Window::Day,
            "2026-11-27T00:00:00Z",
            "2026-11-27T00:00:00Z",
            "2026-11-28T00:00:00Z",
        );
        let tz = TimeZone::UTC;
        assert_eq!(bounds(Window::Run, at.parse().unwrap(), &tz).unwrap(), None);
    }

    #[test]
    fn a_day_is_as_long_as_the_zone_makes_it() {
        // Berlin: 23 hours on 29 March 2026, 25 hours on 25 October 2026.
        check(
            "Europe/Berlin",
            Window::Day,
            "2026-03-29T12:00:00Z",
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
        );
        check(
            "Europe/Berlin",
            Window::Day,
            "2026-10-25T12:00:00Z",
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
        );
        // Santiago skips midnight: 6 September 2026 begins at 01:00 -03:00.
        check(
            "America/Santiago",
            Window::Day,
            "2026-09-06T12:00:00Z",
            "2026-09-06T04:00:00Z",
            "2026-09-07T03:00:00Z",
        );
        // Apia had no 30 December 2011 at all.
        check(
            "Pacific/Apia",
            Window::Day,
            "2011-12-30T05:00:00Z",
            "2011-12-29T10:00:00Z",
            "2011-12-30T10:00:00Z",
        );
    }

    #[test]
    fn the_repeated_hour_is_two_windows() {
        let zone = "America/New_York";
        // 01:30 EDT, then 01:30 EST, on 1 November 2026.
        check(
            zone,
            Window::Hour,
            "2026-11-01T05:30:00Z",
            "2026-11-01T05:00:00Z",
            "2026-11-01T06:00:00Z",
        );
        check(
            zone,
            Window::Hour,
            "2026-11-01T06:30:00Z",
            "2026-11-01T06:00:00Z",
            "2026-11-01T07:00:00Z",
        );
        // Kathmandu is 5:45 ahead of UTC.
        check(
            "Asia/Kathmandu",
            Window::Hour,
            "2026-11-01T06:30:00Z",
            "2026-11-01T06:15:00Z",
            "2026-11-01T07:15:00Z",
        );
    }

    proptest! {
        /// Zones with odd offsets and odd changes: an instant lies in its window, and windows never go backwards.
        #[test]
        fn an_instant_lies_in_its_window(
            at in 0_i64..4_000_000_000_000_000, later in 0_i64..200_000_000_000,
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe",
                "America/Santiago", "Africa/Casablanca", "Pacific/Chatham",
            ]),
            window in prop::sample::select(vec![Window::Hour, Window::Day, Window::Week, Window::Month]),
        ) {
            let tz = TimeZone::get(zone).unwrap();
            let first = Timestamp::from_microsecond(at).unwrap();
            let second = Timestamp::from_microsecond(at + later).unwrap();
            let a = bounds(window, first, &tz).unwrap().unwrap();
            let b = bounds(window, second, &tz).unwrap().unwrap();
            prop_assert!(a.starts <= first && first < a.ends, "{zone} {window:?} {first} {a:?}");
            prop_assert!(a.starts <= b.starts, "{zone} {window:?} {first} {second}");
        }
    }
}
