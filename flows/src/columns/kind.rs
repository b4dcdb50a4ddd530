//! The types of ClickHouse's columns, read from their names.
//!
//! Types: <https://clickhouse.com/docs/sql-reference/data-types>.

use chrono_tz::Tz;

/// The type of a column, as far as it decides how a value is encoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Bool,
    Integer {
        bytes: usize,
        is_signed: bool,
    },
    Float32,
    Float64,
    String,
    FixedString(usize),
    Decimal {
        bytes: usize,
        precision: u32,
        scale: u32,
    },
    Date,
    Date32,
    /// The zone of texts that have none; without one, such texts are refused.
    DateTime(Option<Tz>),
    /// The digits of a second's fraction, and the zone.
    DateTime64(u32, Option<Tz>),
    Uuid,
    Ipv4,
    Ipv6,
    Enum {
        bytes: usize,
        values: Vec<(String, i16)>,
    },
    Nullable(Box<Kind>),
    Array(Box<Kind>),
    Map(Box<Kind>, Box<Kind>),
    /// Its elements, with their names if they have any.
    Tuple(Vec<(Option<String>, Kind)>),
    /// The text of an object, which the server reads.
    Json,
    /// Types, each with the number that stands before its values, in the order in which a value is tried with them.
    Variant(Vec<(u8, Kind)>),
    /// The text of any value, which the server reads.
    Dynamic,
}

/// Why values of a type cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("values of the type {0} cannot be filled from JSON")]
pub struct Unfillable(String);

impl Kind {
    /// Reads the name of a column's type as `system.columns` has it.
    ///
    /// # Errors
    /// [`Unfillable`] if it is a type, or contains one, that no JSON value is brought into.
    pub fn of_column(name: &str) -> Result<Self, Unfillable> {
        if is_dynamic(name) { Ok(Self::Dynamic) } else { Self::parse(name) }
    }

    /// Reads the name of a type.
    ///
    /// # Errors
    /// [`Unfillable`] if it is a type, or contains one, that no JSON value is brought into.
    fn parse(name: &str) -> Result<Self, Unfillable> {
        let unfillable = || Unfillable(name.to_owned());
        let name = name.trim();
        let (base, inner) = match name.split_once('(') {
            Some((base, rest)) => (base, Some(rest.strip_suffix(')').ok_or_else(unfillable)?)),
            None => (name, None),
        };
        let args = inner.map(split).unwrap_or_default();
        let nth = |at: usize| args.get(at).copied().ok_or_else(unfillable);
        let number = |at: usize| nth(at)?.parse::<u32>().map_err(|_| unfillable());
        let of = |at: usize| Self::parse(nth(at)?).map(Box::new);
        let zone =
            |at: usize| args.get(at).map(|text| text.trim_matches('\'').parse().map_err(|_| unfillable())).transpose();
        Ok(match base {
            "Bool" => Self::Bool,
            "Float32" => Self::Float32,
            "Float64" => Self::Float64,
            "String" => Self::String,
            "FixedString" => Self::FixedString(number(0)? as usize),
            "Decimal" => decimal(number(0)?, number(1)?).ok_or_else(unfillable)?,
            "Date" => Self::Date,
            "Date32" => Self::Date32,
            "DateTime" => Self::DateTime(zone(0)?),
            "DateTime64" => Self::DateTime64(number(0)?, zone(1)?),
            "UUID" => Self::Uuid,
            "IPv4" => Self::Ipv4,
            "IPv6" => Self::Ipv6,
            "Enum8" => Self::Enum { bytes: 1, values: values(&args).ok_or_else(unfillable)? },
            "Enum16" => Self::Enum { bytes: 2, values: values(&args).ok_or_else(unfillable)? },
            "LowCardinality" => *of(0)?,
            // The function only matters when rows merge.
            "SimpleAggregateFunction" => *of(1)?,
            "Nullable" => Self::Nullable(of(0)?),
            "Array" => Self::Array(of(0)?),
            "Map" => Self::Map(of(0)?, of(1)?),
            "Tuple" => Self::Tuple(elements(&args)?),
            "Nested" => Self::Array(Box::new(Self::Tuple(elements(&args)?))),
            "Point" => Self::Tuple(vec![(None, Self::Float64), (None, Self::Float64)]),
            "Ring" | "LineString" => Self::Array(Box::new(Self::parse("Point")?)),
            "Polygon" | "MultiLineString" => Self::Array(Box::new(Self::parse("Ring")?)),
            "MultiPolygon" => Self::Array(Box::new(Self::parse("Polygon")?)),
            "JSON" => Self::Json,
            "Variant" => Self::Variant(variants(&args)?),
            _ => integer(base).ok_or_else(unfillable)?,
        })
    }

    /// The value that a message has to bring, for people.
    pub fn expected(&self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Integer { bytes, is_signed: true } => format!("an integer of {} bits", bytes * 8),
            Self::Integer { bytes, is_signed: false } => format!("an integer of {} bits, not negative", bytes * 8),
            Self::Float32 | Self::Float64 => "a number".into(),
            Self::String => "a string".into(),
            Self::FixedString(bytes) => format!("a string of at most {bytes} bytes"),
            Self::Decimal { precision, scale, .. } => {
                format!("a number of at most {} digits before the point", precision - scale)
            }
            Self::Date => "a date from 1970-01-01 to 2149-06-06, as \"2024-01-15\"".into(),
            Self::Date32 => "a date of the years 1900 to 2299, as \"2024-01-15\"".into(),
            Self::DateTime(zone) => time("1970 to 2105", zone.as_ref()),
            Self::DateTime64(digits, zone) => {
                time(if *digits > 8 { "1900 to 2262" } else { "1900 to 2299" }, zone.as_ref())
            }
            Self::Uuid => "a UUID in a string".into(),
            Self::Ipv4 => "an IPv4 address in a string".into(),
            Self::Ipv6 => "an IP address in a string".into(),
            Self::Enum { values, .. } if values.len() <= 5 => {
                let names: Vec<_> = values.iter().map(|(name, _)| name.as_str()).collect();
                format!("one of {}", names.join(", "))
            }
            Self::Enum { values, .. } => format!("one of the {} names of the enum", values.len()),
            Self::Nullable(inner) => format!("{}, or null", inner.expected()),
            Self::Dynamic => "a value".into(),
            Self::Variant(variants) => {
                let each: Vec<_> = variants.iter().map(|(_, kind)| kind.expected()).collect();
                format!("{}, or null", each.join(", or "))
            }
            Self::Array(_) => "an array".into(),
            Self::Map(..) | Self::Json => "an object".into(),
            Self::Tuple(elements) if elements.iter().all(|(name, _)| name.is_some()) => "an object".into(),
            Self::Tuple(elements) => format!("an array of {} values", elements.len()),
        }
    }
}

impl Kind {
    /// The type without the null that it may take.
    pub fn not_null(&self) -> &Self {
        match self {
            Self::Nullable(inner) => inner,
            other => other,
        }
    }

    /// Whether null is one of its values.
    pub const fn takes_null(&self) -> bool {
        matches!(self, Self::Nullable(_) | Self::Variant(_) | Self::Dynamic)
    }

    /// Appends some value of the type, for a row whose column the server fills.
    pub fn put_any(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nullable(_) => out.push(1),
            Self::Bool | Self::String | Self::Array(_) | Self::Map(..) => out.push(0),
            Self::Json | Self::Dynamic => out.extend_from_slice(b"\x02{}"),
            Self::Variant(_) => out.push(NO_VARIANT),
            Self::Integer { bytes, .. } | Self::Decimal { bytes, .. } | Self::FixedString(bytes) => zeros(*bytes, out),
            Self::Date => zeros(2, out),
            Self::Float32 | Self::Date32 | Self::DateTime(_) | Self::Ipv4 => zeros(4, out),
            Self::Float64 | Self::DateTime64(..) => zeros(8, out),
            Self::Uuid | Self::Ipv6 => zeros(16, out),
            Self::Enum { bytes, values } => {
                let first = values.first().map_or(0, |(_, value)| *value);
                out.extend_from_slice(&first.to_le_bytes()[..*bytes]);
            }
            Self::Tuple(elements) => elements.iter().for_each(|(_, kind)| kind.put_any(out)),
        }
    }

    /// The milliseconds since the Unix epoch of a time that was just appended.
    pub fn read_ms(&self, out: &[u8]) -> Option<i64> {
        match self.not_null() {
            Self::DateTime(_) => Some(i64::from(u32::from_le_bytes(*out.last_chunk()?)) * 1_000),
            Self::DateTime64(digits, _) => {
                let ticks = i128::from(i64::from_le_bytes(*out.last_chunk()?)) * 1_000;
                ticks.div_euclid(10i128.pow(*digits)).try_into().ok()
            }
            _ => None,
        }
    }
}

/// Stands in place of a variant's number where there is no value.
pub const NO_VARIANT: u8 = 255;

/// Whether it is the name of the type Dynamic.
pub fn is_dynamic(name: &str) -> bool {
    name == "Dynamic" || name.starts_with("Dynamic(")
}

/// The types of a variant. Their numbers are those of their names in order; a value is tried first with the types that take the fewest.
fn variants(args: &[&str]) -> Result<Vec<(u8, Kind)>, Unfillable> {
    let mut names = args.to_vec();
    names.sort_unstable();
    let numbered = (0u8..).zip(names).map(|(number, name)| Ok((number, Kind::parse(name)?)));
    let mut variants = numbered.collect::<Result<Vec<_>, _>>()?;
    variants.sort_by_key(|(_, kind)| match kind {
        Kind::Bool => (0, 0),
        Kind::Integer { bytes, is_signed } => (1, bytes * 2 + usize::from(*is_signed)),
        Kind::Decimal { bytes, .. } => (2, *bytes),
        Kind::Float32 => (3, 0),
        Kind::Float64 => (3, 1),
        Kind::Date => (4, 0),
        Kind::Date32 => (4, 1),
        Kind::DateTime(_) => (4, 2),
        Kind::DateTime64(digits, _) => (4, 3 + *digits as usize),
        Kind::FixedString(bytes) => (6, *bytes),
        Kind::Json => (7, 0),
        Kind::String => (8, 0),
        _ => (5, 0),
    });
    Ok(variants)
}

fn zeros(bytes: usize, out: &mut Vec<u8>) {
    out.extend(std::iter::repeat_n(0, bytes));
}

fn time(years: &str, zone: Option<&Tz>) -> String {
    let zone = zone.map_or_else(String::new, |zone| format!(" (without a zone: {zone})"));
    format!("a time of the years {years} in RFC 3339, as \"2024-01-15T14:30:00Z\"{zone}")
}

fn integer(name: &str) -> Option<Kind> {
    let (is_signed, bits) = match name.strip_prefix("UInt") {
        Some(bits) => (false, bits),
        None => (true, name.strip_prefix("Int")?),
    };
    let bits: usize = bits.parse().ok()?;
    [8, 16, 32, 64, 128, 256].contains(&bits).then_some(Kind::Integer { bytes: bits / 8, is_signed })
}

fn decimal(precision: u32, scale: u32) -> Option<Kind> {
    let bytes = match precision {
        1..=9 => 4,
        10..=18 => 8,
        19..=38 => 16,
        39..=76 => 32,
        _ => return None,
    };
    (scale <= precision).then_some(Kind::Decimal { bytes, precision, scale })
}

/// `'name' = 1` of an enum.
fn values(args: &[&str]) -> Option<Vec<(String, i16)>> {
    let value = |arg: &&str| {
        let (name, value) = arg.rsplit_once('=')?;
        let name = name.trim().strip_prefix('\'')?.strip_suffix('\'')?;
        Some((unescaped(name), value.trim().parse().ok()?))
    };
    args.iter().map(value).collect()
}

/// The elements of a tuple: `name Type`, or only `Type`.
fn elements(args: &[&str]) -> Result<Vec<(Option<String>, Kind)>, Unfillable> {
    args.iter()
        .map(|arg| {
            let (name, kind) = named(arg);
            Ok((name, Kind::parse(kind)?))
        })
        .collect()
}

fn named(arg: &str) -> (Option<String>, &str) {
    if let Some(rest) = arg.strip_prefix('`')
        && let Some(end) = unquoted_end(rest, '`')
    {
        return (Some(unescaped(&rest[..end])), rest[end + 1..].trim());
    }
    match arg.find([' ', '(']) {
        Some(at) if arg.as_bytes()[at] == b' ' => (Some(arg[..at].to_owned()), arg[at..].trim()),
        _ => (None, arg),
    }
}

/// Where the closing quote is.
fn unquoted_end(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, letter)| {
        let ends = letter == quote && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
        ends.then_some(at)
    })
}

fn unescaped(text: &str) -> String {
    let (mut plain, mut letters) = (String::with_capacity(text.len()), text.chars());
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('0') => '\0',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

/// The arguments of a type, which may hold commas inside of brackets and quotes.
fn split(inner: &str) -> Vec<&str> {
    let (mut args, mut depth, mut quote, mut is_escaped, mut begin) = (Vec::new(), 0, None, false, 0);
    for (at, letter) in inner.char_indices() {
        match (quote, letter) {
            (Some(_), '\\') if !is_escaped => {
                is_escaped = true;
                continue;
            }
            (Some(open), _) if letter == open && !is_escaped => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '`') => quote = Some(letter),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, ',') if depth == 0 => {
                args.push(inner[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
        is_escaped = false;
    }
    let last = inner[begin..].trim();
    args.extend((!last.is_empty()).then_some(last));
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_from_its_name() {
        let text = Box::new(Kind::String);
        for (name, kind) in [
            ("LowCardinality(Nullable(String))", Kind::Nullable(text.clone())),
            ("Decimal(10, 2)", Kind::Decimal { bytes: 8, precision: 10, scale: 2 }),
            ("DateTime64(3, 'UTC')", Kind::DateTime64(3, Some(Tz::UTC))),
            ("DateTime", Kind::DateTime(None)),
            ("DateTime('Europe/Berlin')", Kind::DateTime(Some(Tz::Europe__Berlin))),
            ("UInt256", Kind::Integer { bytes: 32, is_signed: false }),
            ("Map(String, Array(String))", Kind::Map(text.clone(), Box::new(Kind::Array(text.clone())))),
            ("SimpleAggregateFunction(max, Date)", Kind::Date),
            ("JSON(max_dynamic_paths=8, a.b UInt32)", Kind::Json),
            (
                r"Enum8('a, b' = -1, 'it\'s (c' = 2)",
                Kind::Enum { bytes: 1, values: vec![("a, b".into(), -1), ("it's (c".into(), 2)] },
            ),
            (
                "Nested(`odd name` String, n Nullable(UInt8))",
                Kind::Array(Box::new(Kind::Tuple(vec![
                    (Some("odd name".into()), Kind::String),
                    (Some("n".into()), Kind::Nullable(Box::new(Kind::Integer { bytes: 1, is_signed: false }))),
                ]))),
            ),
            (
                "Tuple(Decimal(5, 1), Float64)",
                Kind::Tuple(vec![(None, Kind::Decimal { bytes: 4, precision: 5, scale: 1 }), (None, Kind::Float64)]),
            ),
        ] {
            assert_eq!(Kind::parse(name), Ok(kind), "{name}");
        }
    }

    #[test]
    fn a_type_that_no_json_value_fits_is_refused_by_its_name() {
        for name in [
            "AggregateFunction(uniq, String)",
            "Array(AggregateFunction(sum, UInt8))",
            "IntervalDay",
            "Nothing",
            "Int7",
            "Decimal(77, 0)",
            "Array(Dynamic)",
            "Array(String",
        ] {
            assert!(Kind::parse(name).is_err(), "{name}");
        }
    }
}
