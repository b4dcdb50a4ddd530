//! Macros in a panel's SQL, expanded as Grafana's ClickHouse plugin does (its documentation: "Macros"), so that one dashboard
//! means the same in Grafana and here.

use std::borrow::Cow;

/// The range of a request, in milliseconds since the Unix epoch, the width of its buckets, and its topic; without one, all topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<'a> {
    pub from_ms: i64,
    pub to_ms: i64,
    pub interval_ms: i64,
    pub topic: Option<&'a str>,
}

/// Whether this may be the `_source` of a row: a topic's name or its id. Neither can end a literal in SQL.
pub fn is_topic(text: &str) -> bool {
    (1..=249).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The macros that are known here.
#[cfg(test)]
pub const MACROS: [&str; 10] = [
    "fromTime",
    "toTime",
    "fromTime_ms",
    "toTime_ms",
    "timeFilter",
    "timeFilter_ms",
    "timeInterval",
    "timeInterval_ms",
    "interval_s",
    "conditionalAll",
];

/// Replaces all macros.
///
/// # Errors
/// The name of a macro that is not known, or that lacks its argument.
pub fn expand(sql: &str, range: Range) -> Result<String, String> {
    let mut out = String::with_capacity(sql.len() + 128);
    let mut rest = sql;
    while let Some(at) = rest.find("$__") {
        out.push_str(&rest[..at]);
        rest = &rest[at + 3..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = &rest[..end];
        rest = &rest[end..];
        let argument = argument(&mut rest);
        out.push_str(&one(name, argument, range)?);
    }
    out.push_str(rest);
    Ok(out)
}

/// Takes `(…)` off the front, with what stands between the matching parentheses.
fn argument<'s>(rest: &mut &'s str) -> Option<&'s str> {
    let inside = rest.strip_prefix('(')?;
    let mut depth = 1;
    for (at, c) in inside.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            *rest = &inside[at + 1..];
            return Some(inside[..at].trim());
        }
    }
    None
}

fn one(name: &str, argument: Option<&str>, range: Range) -> Result<Cow<'static, str>, String> {
    let Range { from_ms, to_ms, interval_ms, topic } = range;
    let seconds = |ms: i64| format!("toDateTime({})", ms.div_euclid(1_000));
    let millis = |ms: i64| format!("fromUnixTimestamp64Milli({ms})");
    let column = || argument.filter(|text| !text.is_empty()).ok_or(format!("$__{name} needs one argument"));
    let between = |column: &str, from: String, to: String| format!("{column} >= {from} AND {column} <= {to}");
    Ok(Cow::Owned(match name {
        "fromTime" => seconds(from_ms),
        "toTime" => seconds(to_ms),
        "fromTime_ms" => millis(from_ms),
        "toTime_ms" => millis(to_ms),
        "timeFilter" => between(column()?, seconds(from_ms), seconds(to_ms)),
        "timeFilter_ms" => between(column()?, millis(from_ms), millis(to_ms)),
        "timeInterval" => {
            format!("toStartOfInterval(toDateTime({}), INTERVAL {} second)", column()?, (interval_ms / 1_000).max(1))
        }
        "timeInterval_ms" => {
            format!("toStartOfInterval(toDateTime64({}, 3), INTERVAL {} millisecond)", column()?, interval_ms.max(1))
        }
        // The plugin puts the condition in if the variable has a value other than "All".
        "conditionalAll" => {
            let condition = column()?.strip_suffix("$topic").map(|text| text.trim_end().trim_end_matches(','));
            let condition = condition.ok_or("$__conditionalAll needs a condition, and $topic")?;
            topic.map_or("1=1".into(), |topic| condition.replace("${topic:singlequote}", &format!("'{topic}'")))
        }
        "interval_s" => (interval_ms / 1_000).max(1).to_string(),
        _ => return Err(format!("the macro $__{name} is not known here")),
    }))
}

/// The width of a bucket as Grafana chooses it: the range over the panel's width in pixels, rounded to a plain number, and
/// not below the panel's minimum.
pub fn interval_ms(range_ms: i64, width: i64, least_ms: i64) -> i64 {
    /// A value up to the first number is rounded to the second.
    const STEPS: [(i64, i64); 28] = [
        (10, 1),
        (15, 10),
        (35, 20),
        (75, 50),
        (150, 100),
        (350, 200),
        (750, 500),
        (1_500, 1_000),
        (3_500, 2_000),
        (7_500, 5_000),
        (12_500, 10_000),
        (17_500, 15_000),
        (25_000, 20_000),
        (45_000, 30_000),
        (90_000, 60_000),
        (210_000, 120_000),
        (450_000, 300_000),
        (750_000, 600_000),
        (1_050_000, 900_000),
        (1_500_000, 1_200_000),
        (2_700_000, 1_800_000),
        (5_400_000, 3_600_000),
        (9_000_000, 7_200_000),
        (16_200_000, 10_800_000),
        (32_400_000, 21_600_000),
        (86_400_000, 43_200_000),
        (604_800_000, 86_400_000),
        (i64::MAX, 604_800_000),
    ];
    let raw = range_ms / width.max(1);
    let rounded = STEPS.iter().find(|(below, _)| raw < *below).map_or(604_800_000, |(_, step)| *step);
    rounded.max(least_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range<'_> =
        Range { from_ms: 1_700_000_000_500, to_ms: 1_700_000_900_999, interval_ms: 5_000, topic: None };

    #[test]
    fn each_macro_is_expanded_as_the_plugin_does() {
        for (sql, expected) in [
            ("$__fromTime", "toDateTime(1700000000)"),
            ("$__toTime", "toDateTime(1700000900)"),
            ("$__fromTime_ms", "fromUnixTimestamp64Milli(1700000000500)"),
            ("$__toTime_ms", "fromUnixTimestamp64Milli(1700000900999)"),
            ("$__timeFilter(t)", "t >= toDateTime(1700000000) AND t <= toDateTime(1700000900)"),
            (
                "$__timeFilter_ms(t)",
                "t >= fromUnixTimestamp64Milli(1700000000500) AND t <= fromUnixTimestamp64Milli(1700000900999)",
            ),
            ("$__timeInterval(t)", "toStartOfInterval(toDateTime(t), INTERVAL 5 second)"),
            ("$__timeInterval_ms(t)", "toStartOfInterval(toDateTime64(t, 3), INTERVAL 5000 millisecond)"),
            ("count() / $__interval_s AS r", "count() / 5 AS r"),
            ("$__timeInterval(f(a, b)) x", "toStartOfInterval(toDateTime(f(a, b)), INTERVAL 5 second) x"),
        ] {
            assert_eq!(expand(sql, RANGE).as_deref(), Ok(expected), "{sql}");
        }
        assert!(MACROS.iter().all(|name| expand(&format!("$__{name}(t, $topic)"), RANGE).is_ok()));
    }

    #[test]
    fn a_chosen_topic_is_a_condition_and_all_topics_are_none() {
        let sql = "WHERE $__conditionalAll(_source IN (${topic:singlequote}), $topic) LIMIT 1";
        assert_eq!(expand(sql, RANGE).as_deref(), Ok("WHERE 1=1 LIMIT 1"));
        let one = Range { topic: Some("shop.v1"), ..RANGE };
        assert_eq!(expand(sql, one).as_deref(), Ok("WHERE _source IN ('shop.v1') LIMIT 1"));
    }

    #[test]
    fn a_topic_cannot_end_its_literal() {
        assert!(["a", "shop.v1_x-2", "q3uXbXyPS_yvWvTQEfEJ0w"].iter().all(|text| is_topic(text)));
        for text in ["", "a'b", "a\\", "a b", "ä", "$__fromTime", &"x".repeat(250)] {
            assert!(!is_topic(text), "{text}");
        }
    }

    #[test]
    fn an_unknown_macro_is_refused() {
        assert_eq!(expand("$__rateInterval", RANGE).unwrap_err(), "the macro $__rateInterval is not known here");
        assert_eq!(expand("$__timeFilter", RANGE).unwrap_err(), "$__timeFilter needs one argument");
    }

    #[test]
    fn an_interval_under_a_second_is_a_second() {
        assert_eq!(expand("$__interval_s", Range { interval_ms: 200, ..RANGE }).as_deref(), Ok("1"));
    }

    #[test]
    fn intervals_are_the_round_ones_of_grafana() {
        let of = |range_s: i64, width| interval_ms(range_s * 1_000, width, 1_000);
        assert_eq!((of(900, 1_000), of(3_600, 1_000), of(86_400, 1_000)), (1_000, 5_000, 60_000));
        assert_eq!(interval_ms(900_000, 1_000, 5_000), 5_000);
    }
}
