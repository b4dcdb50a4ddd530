//! Dates and times, from texts and from numbers of an epoch.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

/// Why a value is not a time that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotATime {
    /// The text is no time.
    Text,
    /// The text has no zone, and the column gives none, or one without firm rules at that time.
    NoZone,
    /// The size of the number does not say whether it counts seconds, milli-, micro- or nanoseconds.
    NoUnit,
}

/// A moment: seconds since the Unix epoch, and the nanoseconds behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    seconds: i64,
    nanos: u32,
}

/// The years that ClickHouse's `Date32` and `DateTime64` hold.
const YEARS: std::ops::RangeInclusive<i64> = -2_208_988_800..=10_413_791_999;

/// The years whose local times every edition of the zones' rules agrees about: 1970 to 2099.
const RULED: std::ops::Range<i64> = 0..4_102_444_800;

impl Moment {
    /// Reads RFC 3339, also with a space in place of the T and without seconds. Without a zone of its own, the text is of `zone`.
    pub fn of_text(text: &str, zone: Option<Tz>) -> Result<Self, NotATime> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && [10, 13, 16, 19].contains(&text.len()) {
            return Self::of_number(text);
        }
        let (date, rest) = split_date(text).ok_or(NotATime::Text)?;
        let (time, offset) = clock(rest).ok_or(NotATime::Text)?;
        let day = i64::from(date.signed_duration_since(NaiveDate::default()).num_days() as i32) * 86_400;
        let local = Self { seconds: day + time.seconds, nanos: time.nanos };
        match (offset, zone) {
            (Some(offset), _) => Ok(Self { seconds: local.seconds - offset, ..local }),
            (None, Some(Tz::UTC)) => Ok(local),
            // Before and after, one edition of the zones' rules says this and the next one that.
            (None, Some(_)) if !RULED.contains(&local.seconds) => Err(NotATime::NoZone),
            (None, Some(zone)) => {
                let naive: NaiveDateTime =
                    DateTime::from_timestamp(local.seconds, 0).ok_or(NotATime::Text)?.naive_utc();
                // An hour that a clock shows twice is the first one; one that it skips does not exist.
                let offset = zone.offset_from_local_datetime(&naive).earliest().ok_or(NotATime::Text)?;
                Ok(Self { seconds: local.seconds - i64::from(offset.fix().local_minus_utc()), ..local })
            }
            (None, None) => Err(NotATime::NoZone),
        }
    }

    /// Reads a number of an epoch. Its size says what it counts: the windows of seconds, milli-, micro- and nanoseconds from 1973 to 2299 do
    /// not touch each other.
    pub fn of_number(text: &str) -> Result<Self, NotATime> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let (whole, is_digits) = (whole.parse::<i64>(), fraction.bytes().all(|byte| byte.is_ascii_digit()));
        let (Ok(whole), true) = (whole, is_digits) else { return Err(NotATime::Text) };
        let unit = [1, 1_000, 1_000_000, 1_000_000_000].into_iter();
        let unit = unit.rev().find(|unit| (100_000_000 * unit..).contains(&whole)).ok_or(NotATime::NoUnit)?;
        if whole / unit > *YEARS.end() {
            return Err(NotATime::NoUnit);
        }
        let nanos = (whole % unit) * (1_000_000_000 / unit);
        // A fraction counts for seconds only.
        let behind = if unit == 1 { fraction_nanos(fraction) } else { 0 };
        Ok(Self { seconds: whole / unit, nanos: nanos as u32 + behind })
    }

    /// In seconds; none outside the years that a `DateTime` holds.
    pub fn seconds(self) -> Option<u32> {
        self.seconds.try_into().ok()
    }

    /// In units of 10^-`digits` seconds; none outside the years that a `DateTime64` of so many digits holds.
    pub fn ticks(self, digits: u32) -> Option<i64> {
        if !YEARS.contains(&self.seconds) {
            return None;
        }
        let ticks = self.seconds.checked_mul(10i64.pow(digits))?;
        ticks.checked_add((self.nanos / 10u32.pow(9 - digits.min(9))).into())
    }
}

/// Days since 1970-01-01 of a date such as `2024-01-15`, of the years 1900 to 2299.
pub fn days(text: &str) -> Option<i32> {
    let (date, rest) = split_date(text)?;
    let days = date.signed_duration_since(NaiveDate::default()).num_days() as i32;
    (rest.is_empty() && YEARS.contains(&(i64::from(days) * 86_400))).then_some(days)
}

/// `2024-01-15`, and what follows.
fn split_date(text: &str) -> Option<(NaiveDate, &str)> {
    let bytes = text.as_bytes();
    let number = |at: usize, digits| number(bytes, at, digits);
    let is_dash = |at| bytes.get(at) == Some(&b'-');
    if !is_dash(4) || !is_dash(7) {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(number(0, 4)? as i32, number(5, 2)?, number(8, 2)?)?;
    Some((date, &text[10..]))
}

/// `T14:30:00.123Z` or ` 14:30:00+09:00`: the time of the day, and the seconds that its zone is east of Greenwich, if it has one.
fn clock(text: &str) -> Option<(Moment, Option<i64>)> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Some((Moment { seconds: 0, nanos: 0 }, None));
    }
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    if !is(0, b"Tt ") || !is(3, b":") {
        return None;
    }
    let (hours, minutes) = (number(bytes, 1, 2)?, number(bytes, 4, 2)?);
    let (mut seconds, mut nanos, mut at) = (0, 0, 6);
    if is(6, b":") {
        seconds = number(bytes, 7, 2)?;
        at = 9;
        if is(9, b".,") {
            let digits = bytes[10..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            nanos = fraction_nanos(&text[10..10 + digits]);
            at = 10 + digits;
            if digits == 0 {
                return None;
            }
        }
    }
    // A leap second is the first one of the next minute.
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let offset = match &bytes[at..] {
        [] => None,
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), zone @ ..] => {
            let minutes_at = if zone.get(2) == Some(&b':') { 3 } else { 2 };
            let minutes = if zone.len() == 2 { 0 } else { number(zone, minutes_at, 2)? };
            let hours = number(zone, 0, 2)?;
            if ![2, minutes_at + 2].contains(&zone.len()) || hours > 23 || minutes > 59 {
                return None;
            }
            let east = i64::from(hours * 3_600 + minutes * 60);
            Some(if *sign == b'-' { -east } else { east })
        }
        _ => return None,
    };
    Some((Moment { seconds: i64::from(hours * 3_600 + minutes * 60 + seconds), nanos }, offset))
}

/// So many digits as a number.
fn number(bytes: &[u8], at: usize, digits: usize) -> Option<u32> {
    bytes
        .get(at..at + digits)?
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
}

/// The digits behind the point of a second, in nanoseconds; more than nine are cut off.
fn fraction_nanos(digits: &str) -> u32 {
    let digits = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
    digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(text: &str, zone: Option<Tz>) -> Result<i64, NotATime> {
        Moment::of_text(text, zone).map(|moment| moment.ticks(3).unwrap())
    }

    #[test]
    fn a_text_with_a_zone_is_one_moment() {
        for (text, expected) in [
            ("2024-01-15T14:30:00Z", 1_705_329_000_000),
            ("2024-01-15T14:30:00.1239999Z", 1_705_329_000_123),
            ("2024-01-15t14:30:00.5+09:00", 1_705_296_600_500),
            ("2024-01-15 14:30:00-0130", 1_705_334_400_000),
            ("2024-01-15T14:30+00", 1_705_329_000_000),
            ("1900-01-01T00:00:00Z", -2_208_988_800_000),
            ("1969-12-31T23:59:59.9995Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("1705329000", 1_705_329_000_000),
            ("1705329000123", 1_705_329_000_123),
        ] {
            assert_eq!(ms(text, None), Ok(expected), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2024-02-30T14:30:00Z",
            "2024-01-15T24:00:00Z",
            "2024-01-15T14:30:61Z",
            "2024-01-15T14:30:00.Z",
            "2024-01-15T14:30:00Z ",
            "2024-01-15T14:30:00 Z",
            "20240115",
            "2024-1-15T14:30:00Z",
            "2024-01-15T14:30:00+9",
            "+2024-01-15",
            "2024-01-15T14:30:00+09:0",
            "2024-01-15Tü4:30:00Z",
        ] {
            assert_eq!(ms(text, None), Err(NotATime::Text), "{text:?}");
        }
    }

    #[test]
    fn a_text_without_a_zone_is_of_the_columns_zone_or_of_none() {
        let berlin = Some(Tz::Europe__Berlin);
        assert_eq!(ms("2024-01-15 14:30:00", None), Err(NotATime::NoZone));
        assert_eq!(ms("2024-01-15", Some(Tz::UTC)), Ok(1_705_276_800_000));
        assert_eq!(ms("2024-01-15T14:30:00", berlin), Ok(1_705_325_400_000));
        assert_eq!(ms("2024-07-15T14:30:00", berlin), Ok(1_721_046_600_000));
        assert_eq!(ms("2024-10-27 02:30:00", berlin), Ok(1_729_989_000_000), "the first of two");
        assert_eq!(ms("2024-03-31 02:30:00", berlin), Err(NotATime::Text), "a clock skips it");
        assert_eq!(ms("2024-01-15T14:30:00Z", berlin), Ok(1_705_329_000_000), "its own zone");
        for text in ["1925-01-01 00:00:00", "2110-07-01 12:00:00"] {
            assert_eq!(ms(text, berlin), Err(NotATime::NoZone), "{text}");
            assert!(ms(text, Some(Tz::UTC)).is_ok());
        }
    }

    #[test]
    fn the_size_of_a_number_says_what_it_counts_or_nothing() {
        for text in ["1705329000.5", "1705329000500", "1705329000500000", "1705329000500000000"] {
            assert_eq!(
                Moment::of_number(text).unwrap(),
                Moment { seconds: 1_705_329_000, nanos: 500_000_000 },
                "{text}"
            );
        }
        for text in
            ["0", "1", "20240115", "20240115143000", "-86400", "99999999999", "99999999999999", "99999999999999999"]
        {
            assert_eq!(Moment::of_number(text), Err(NotATime::NoUnit), "{text}");
        }
        assert_eq!(Moment::of_number("1e9"), Err(NotATime::Text));
    }

    #[test]
    fn a_column_holds_the_years_of_its_type() {
        let moment = |text| Moment::of_text(text, None).unwrap();
        assert_eq!(moment("2106-02-07T06:28:15Z").seconds(), Some(u32::MAX));
        assert_eq!(moment("2106-02-07T06:28:16Z").seconds(), None);
        assert_eq!(moment("1969-12-31T23:59:59Z").seconds(), None);
        assert!(moment("2299-12-31T23:59:59.999Z").ticks(3).is_some());
        assert_eq!(moment("2300-01-01T00:00:00Z").ticks(3), None);
        assert_eq!(moment("2263-01-01T00:00:00Z").ticks(9), None);
        assert_eq!(
            (days("1970-01-02"), days("1900-01-01"), days("2300-01-01"), days("2024-01-15T00:00:00Z")),
            (Some(1), Some(-25_567), None, None)
        );
    }

    proptest! {
        #[test]
        fn a_time_is_the_one_of_chrono(seconds in YEARS, nanos in 0u32..1_000_000_000, east in -86_340i32..86_340) {
            let zone = chrono::FixedOffset::east_opt(east / 60 * 60).unwrap();
            let time = DateTime::from_timestamp(seconds, nanos).unwrap().with_timezone(&zone);
            prop_assert_eq!(Moment::of_text(&time.to_rfc3339(), None), Ok(Moment { seconds, nanos }));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = (Moment::of_text(&text, Some(Tz::Europe__Berlin)), Moment::of_number(&text), days(&text));
        }
    }
}
