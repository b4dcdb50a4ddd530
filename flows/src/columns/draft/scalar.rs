//! Types for values that are neither objects nor arrays: which of them take all values of a field.

use super::super::fill::fill;
use super::super::json::Text;
use super::super::kind::Kind;
use super::super::time::{Moment, NotATime};
use super::names;
use std::borrow::Cow;
use std::sync::LazyLock;

/// A value that is neither an object nor an array, nor null.
#[derive(Debug)]
pub enum Scalar<'a> {
    Boolean,
    /// The text of a number.
    Number(&'a str),
    /// A string.
    Text(Cow<'a, str>),
}

/// A type, and whether a value looks as if it was meant for it. Other values that its columns take, such as numbers in strings, are left to
/// `String`, which changes nothing.
type Candidate = (&'static str, fn(&Scalar<'_>) -> bool);

/// All of them, the preferred ones first.
const CANDIDATES: [Candidate; 17] = [
    ("Bool", |value| matches!(value, Scalar::Boolean)),
    (TIMES[0], |value| time_digits(value).is_some_and(|digits| digits <= 3)),
    (TIMES[1], |value| time_digits(value).is_some_and(|digits| digits <= 6)),
    (TIMES[2], |value| time_digits(value).is_some_and(|digits| digits <= 9)),
    ("Int64", is_integer),
    ("UInt64", is_integer),
    ("Int128", is_integer),
    ("UInt128", is_integer),
    ("Int256", is_integer),
    ("UInt256", is_integer),
    (MONEY, is_money),
    ("Float64", |value| matches!(value, Scalar::Number(text) if is_float(text))),
    ("UUID", |value| matches!(value, Scalar::Text(text) if text.len() == 36)),
    (ADDRESSES[0], |value| matches!(value, Scalar::Text(_))),
    (ADDRESSES[1], |value| matches!(value, Scalar::Text(_))),
    // Dates of events. Older ones, as of births, may be before 1970 in other messages, where Date32 has them, too.
    ("Date", |value| matches!(value, Scalar::Text(text) if text.len() == 10 && text.starts_with("20"))),
    ("Date32", |value| matches!(value, Scalar::Text(text) if text.len() == 10)),
];

const TIMES: [&str; 3] = ["DateTime64(3, 'UTC')", "DateTime64(6, 'UTC')", "DateTime64(9, 'UTC')"];
const ADDRESSES: [&str; 2] = ["IPv4", "IPv6"];
/// Fourteen digits before the point, and four after it: no currency has more.
const MONEY: &str = "Decimal(18, 4)";

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    CANDIDATES.iter().map(|(name, _)| Kind::of_column(name).expect("each candidate is the name of a type")).collect()
});

/// The years of which numbers are taken for times, in seconds: 2000 to 2099.
const EPOCHS: std::ops::Range<i64> = 946_684_800..4_102_444_800;

/// How many values each candidate takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fits {
    taken: [u64; CANDIDATES.len()],
    has_epochs: bool,
}

impl Fits {
    /// Notes a value: by the code that fills a column of the type.
    pub fn note(&mut self, raw: Text<'_>, value: &Scalar<'_>) {
        for ((taken, (_, is_meant)), kind) in self.taken.iter_mut().zip(CANDIDATES).zip(&*KINDS) {
            *taken += u64::from(is_meant(value) && fill(kind, raw, &mut Vec::new()).is_ok());
        }
        self.has_epochs |= is_epoch(value);
    }

    /// The preferred type for a field of this name, of those that take at least so many values; and how many it takes.
    pub fn preferred(&self, name: &str, least: u64) -> Option<(&'static str, u64)> {
        let all = CANDIDATES.iter().zip(self.taken).map(|((kind, _), taken)| (*kind, taken));
        let mut fitting = all.filter(|(_, taken)| *taken >= least.max(1));
        fitting.find(|(kind, _)| self.is_named(kind, name))
    }

    /// Whether the name agrees, for types that values may look like by chance.
    fn is_named(&self, kind: &str, name: &str) -> bool {
        match kind {
            MONEY => names::is_money(name),
            _ if TIMES.contains(&kind) => !self.has_epochs || names::is_time(name),
            _ if ADDRESSES.contains(&kind) => names::is_address(name),
            _ => true,
        }
    }
}

/// Whether a text is a time without a zone, which no column takes unless its type has one.
pub fn is_naive_time(text: &str) -> bool {
    text.len() > 10 && Moment::of_text(text, None) == Err(NotATime::NoZone)
}

/// Whether a double holds all digits of a number.
pub fn is_float(text: &str) -> bool {
    let is_exact_integer = |float: f64| float.abs() < 9_007_199_254_740_992.0;
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.trim_start_matches(['-', '0', '.']);
    let significant = digits.trim_end_matches(['0', '.']).bytes().filter(u8::is_ascii_digit).count();
    match text.parse::<f64>() {
        Ok(float) if !float.is_finite() || (float == 0.0 && significant > 0) => false,
        Ok(float) if !text.contains(['.', 'e', 'E']) => is_exact_integer(float),
        Ok(_) => significant <= 17,
        Err(_) => false,
    }
}

pub fn is_integer_text(text: &str) -> bool {
    !text.contains(['.', 'e', 'E'])
}

fn is_integer(value: &Scalar<'_>) -> bool {
    matches!(value, Scalar::Number(text) if is_integer_text(text))
}

fn is_money(value: &Scalar<'_>) -> bool {
    let Scalar::Number(text) = value else { return false };
    text.split_once('.').is_none_or(|(_, fraction)| fraction.len() <= 4) && !text.contains(['e', 'E'])
}

/// The digits of a second that a time has, if the value is one.
fn time_digits(value: &Scalar<'_>) -> Option<usize> {
    match value {
        Scalar::Number(text) => epoch_digits(text),
        Scalar::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => epoch_digits(text),
        // The column's zone is for none of them: what a text without a zone means is not to be guessed.
        Scalar::Text(text) => {
            Moment::of_text(text, None).ok()?;
            let fraction = text.split_once(['.', ',']).map_or("", |(_, fraction)| fraction);
            Some(fraction.bytes().take_while(u8::is_ascii_digit).count())
        }
        Scalar::Boolean => None,
    }
}

/// The digits of a second that a number of an epoch has.
fn epoch_digits(text: &str) -> Option<usize> {
    let seconds = Moment::of_number(text).ok()?.ticks(0)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = match whole.len() {
        ..=11 => fraction.len(),
        // The column would cut the digits after the point.
        _ if !fraction.is_empty() => return None,
        12..=14 => 3,
        15..=17 => 6,
        _ => 9,
    };
    EPOCHS.contains(&seconds).then_some(digits)
}

fn is_epoch(value: &Scalar<'_>) -> bool {
    match value {
        Scalar::Boolean => false,
        Scalar::Number(_) => true,
        Scalar::Text(text) => text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::json;
    use super::*;

    fn preferred(name: &str, values: &[&str]) -> Option<&'static str> {
        let mut fits = Fits::default();
        for value in values {
            let scalar = match value.as_bytes()[0] {
                b'"' => Scalar::Text(json::string(value).unwrap()),
                b't' | b'f' => Scalar::Boolean,
                _ => Scalar::Number(value),
            };
            fits.note(value, &scalar);
        }
        fits.preferred(name, values.len() as u64).map(|(kind, _)| kind)
    }

    #[test]
    fn the_type_of_a_field_takes_all_of_its_values() {
        for (name, values, expected) in [
            ("x", &["true", "false"][..], Some("Bool")),
            ("x", &["true", "1"], None),
            ("x", &["0", "-9223372036854775808"], Some("Int64")),
            ("x", &["18446744073709551615", "0"], Some("UInt64")),
            ("x", &["18446744073709551615", "-1"], Some("Int128")),
            ("x", &["1000000000000000000000000000000000000000"], Some("Int256")),
            ("x", &[&"9".repeat(78)], None),
            ("x", &["1", "0.5", "1e300"], Some("Float64")),
            ("x", &["0.5", "9007199254740993"], None),
            ("x", &["0.12345678901234567890"], None),
            ("x", &["1e999"], None),
            ("x", &["1e-999"], None),
            ("x", &["12.50"], Some("Float64")),
            ("unit_price", &["12.50", "7", "-0.0001"], Some("Decimal(18, 4)")),
            ("unit_price", &["12.50", "1e2"], Some("Float64")),
            ("unit_price", &["12.50", "0.00001"], Some("Float64")),
            ("unit_price", &["123456789012345.5"], Some("Float64")),
            ("x", &["\"7\""], None),
        ] {
            assert_eq!(preferred(name, values), expected, "{name}: {values:?}");
        }
    }

    #[test]
    fn a_text_is_a_time_a_date_an_address_or_a_uuid_only_if_all_of_them_are() {
        for (name, values, expected) in [
            ("x", &["\"2024-01-15T14:30:00Z\"", "\"2024-01-15 14:30:00.123+02:00\""][..], Some(TIMES[0])),
            ("x", &["\"2024-01-15T14:30:00.123456Z\""], Some(TIMES[1])),
            ("x", &["\"2024-01-15T14:30:00.123456789Z\""], Some(TIMES[2])),
            ("x", &["\"2024-01-15T14:30:00.1234567891Z\""], None),
            ("x", &["\"2290-01-15T14:30:00.123456789Z\""], None),
            ("x", &["\"2024-01-15T14:30:00\""], None),
            ("x", &["\"2024-01-15T14:30:00Z\"", "\"2024-01-15\""], None),
            ("x", &["\"2024-01-15\"", "\"2099-12-31\""], Some("Date")),
            ("x", &["\"2024-01-15\"", "\"1950-12-31\""], Some("Date32")),
            ("x", &["\"2024-01-15\"", "\"1850-12-31\""], None),
            ("id", &["\"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10\""], Some("UUID")),
            ("id", &["\"5b0e4d5e8f634b3f9b396f4f1f2b7a10\""], None),
            ("ip", &["\"127.0.0.1\""], Some("IPv4")),
            ("ip", &["\"127.0.0.1\"", "\"::1\""], Some("IPv6")),
            ("app_version", &["\"10.0.1.2\""], None),
            ("id", &["\"\"", "\"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10\""], None),
        ] {
            assert_eq!(preferred(name, values), expected, "{name}: {values:?}");
        }
    }

    #[test]
    fn a_number_is_a_time_only_if_the_fields_name_says_so() {
        for (name, values, expected) in [
            ("created_at", &["1705329000"][..], Some(TIMES[0])),
            ("created_at", &["1705329000.25", "1705329000123"], Some(TIMES[0])),
            ("created_at", &["1705329000.2512"], Some(TIMES[1])),
            ("created_at", &["1705329000123.5"], Some("Float64")),
            ("ts", &["1705329000123456"], Some(TIMES[1])),
            ("ts", &["\"1705329000123456789\""], Some(TIMES[2])),
            ("ts", &["\"2024-01-15T14:30:00Z\"", "1705329000"], Some(TIMES[0])),
            ("value", &["\"2024-01-15T14:30:00Z\"", "1705329000"], None),
            ("value", &["1705329000"], Some("Int64")),
            ("value", &["\"1705329000\""], None),
            ("time", &["12"], Some("Int64")),
            ("time", &["1705329000", "0"], Some("Int64")),
            ("time", &["9007199254"], Some("Int64")),
        ] {
            assert_eq!(preferred(name, values), expected, "{name}: {values:?}");
        }
    }
}
