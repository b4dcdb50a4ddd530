//! Test values for column types: for each expected type, values that another type has to keep.

use super::questions::quoted;
use flows::{EventType, Reason};

/// A question whose answer are the values of the expected type that do not come back from `found` as they were; of a column that
/// rows are found by, also those that compare in another way.
pub fn round_trip(column: &str, expected: &str, found: &str) -> String {
    let plain = expected.strip_prefix("LowCardinality(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(expected);
    let (plain, found) = (quoted(plain), quoted(found));
    let stored = format!("CAST(value, {found})");
    let differs = match comparison(column) {
        Some(comparison) => format!(" OR ifNull(({stored} {comparison}) != (value {comparison}), true)"),
        None => String::new(),
    };
    format!(
        "SELECT toString(value) FROM (SELECT CAST(arrayJoin({}), {plain}) AS value) \
         WHERE ifNull(CAST({stored}, {plain}) != value, isNotNull(value) OR isNotNull({stored})){differs} \
         LIMIT 1 SETTINGS allow_suspicious_low_cardinality_types = 1",
        values(column, expected)
    )
}

/// How rows are found by the column.
fn comparison(column: &str) -> Option<&'static str> {
    match column {
        "_source" => Some("= 'clicks'"),
        "_partition" | "_offset" => Some("< 10"),
        _ => None,
    }
}

/// An array of critical values: the extremes, and values that look like something else.
fn values(column: &str, expected: &str) -> String {
    let names = |names: Vec<&str>| format!("[{}]", names.into_iter().map(quoted).collect::<Vec<_>>().join(", "));
    match (column, expected) {
        ("event_type", _) => names(EventType::ALL.map(EventType::as_str).to_vec()),
        ("reason", _) => names(Reason::ALL.map(Reason::as_str).to_vec()),
        (_, "UUID") => names(vec![
            "00000000-0000-0000-0000-000000000000",
            "5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ]),
        ("headers", _) => "[[], [('', NULL), ('', '')], [('b', unhex('ff00')), ('a', 'x'), ('b', NULL)]]".into(),
        (_, "Nullable(DateTime64(3, 'UTC'))") => "[NULL, toDateTime64('1970-01-01 00:00:00.001', 3, 'UTC'), toDateTime64('2299-12-31 23:59:59.999', 3, 'UTC')]".into(),
        (_, "Decimal(10, 2)") => "arrayConcat(arrayMap(cents -> toString(toDecimal64(cents, 2) / 100), range(1000)), ['99999999.99'])".into(),
        (_, "DateTime64(3, 'UTC')") => "arrayConcat(arrayMap(ms -> fromUnixTimestamp64Milli(ms, 'UTC'), range(1705329000000, 1705329001000)), \
             arrayMap(second -> toDateTime64(second, 3, 'UTC'), ['1900-01-01 00:00:00.000', '2299-12-31 23:59:59.999']))"
            .into(),
        (_, "Int32") => "[0, 9, 10, 100, 2147483647]".into(),
        (_, "Int64") => "[0, 9, 10, 100, 9223372036854775807]".into(),
        _ => format!(
            "arrayConcat({}, [unhex('00'), unhex('ff00'), repeat('x', 1000)])",
            names(vec!["", "clicks", "0", "05", "1e3", "-1", "null", "[1]", r#"{"a": 1}"#, "2024-01-15", "é", " "])
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{erase, rows};
    use super::*;
    use flows::Table;

    #[test]
    fn each_type_is_tried_with_the_ends_of_what_is_sent() {
        for (column, expected, ends) in [
            ("price", "Decimal(10, 2)", "'99999999.99'"),
            ("timestamp", "DateTime64(3, 'UTC')", "2299-12-31 23:59:59.999"),
            ("_offset", "Int64", "9223372036854775807"),
            ("_partition", "Int32", "2147483647"),
            ("event_id", "UUID", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
            ("user_id", "String", "unhex('ff00')"),
            ("headers", "Array(Tuple(name String, value Nullable(String)))", "('b', NULL)"),
            ("timestamp", "Nullable(DateTime64(3, 'UTC'))", "[NULL, "),
        ] {
            assert!(round_trip(column, expected, "x").contains(ends), "{column}");
        }
        for (kind, column) in [("'purchase'", "event_type"), ("'null_payload'", "reason")] {
            assert!(round_trip(column, "LowCardinality(String)", "x").contains(kind), "every name of {column}");
        }
    }

    /// Rows are found again by these: a type that sorts in another way would have them look as if they were not there.
    #[test]
    fn a_column_by_which_rows_are_found_also_has_to_compare_alike() {
        let columns = [rows::columns(Table::Events), rows::columns(Table::Rejected), &erase::COLUMNS].concat();
        for (column, expected) in columns {
            let sql = round_trip(column, expected, "Some'Type");
            let is_position = rows::POSITION.iter().any(|(name, _)| *name == column);
            assert_eq!(sql.contains(" OR ifNull(("), is_position, "{column}: {sql}");
            assert!(sql.contains(r"CAST(value, 'Some\'Type')"), "{sql}");
            assert!(!sql.contains("CAST(arrayJoin(LowCardinality"), "{sql}");
        }
    }
}
