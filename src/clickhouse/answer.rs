//! Answers to questions, as rows of the types that were asked for.
//!
//! They come as JSON, a line for each row, and not in one of ClickHouse's binary formats: the client library believes the lengths and
//! counts that stand in those, and an answer that is not ClickHouse's can end the process there.

use serde::de::DeserializeOwned;

/// The format of answers: each row is an array on a line of its own.
pub const FORMAT: &str = "JSONCompactEachRow";

/// The columns of a row. A single one is a tuple, too.
pub trait Columns: DeserializeOwned {}

macro_rules! columns {
    ($($column:ident)+) => {
        impl<$($column: DeserializeOwned),+> Columns for ($($column,)+) {}
    };
}

columns!(A);
columns!(A B);
columns!(A B C);
columns!(A B C D);
columns!(A B C D E);
columns!(A B C D E F G H I);

/// All rows of an answer.
///
/// # Errors
/// The unexpected row, and the reason.
pub fn rows<A: Columns>(body: &[u8]) -> Result<Vec<A>, String> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let row = |(nth, line)| serde_json::from_slice(line).map_err(|error| format!("row {nth}: {error}"));
    (1..).zip(lines).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn rows_come_as_they_were_asked_for() {
        let body = b"[1,-9223372036854775808,\"it's \\u0000 \xc3\xa9\\n\"]\n[2,9223372036854775807,\"\"]\n";
        let expected = vec![(1, i64::MIN, "it's \0 \u{e9}\n".to_owned()), (2, i64::MAX, String::new())];
        assert_eq!(rows::<(u8, i64, String)>(body), Ok(expected));
        assert_eq!(rows::<(u64,)>(b"[18446744073709551615]\n"), Ok(vec![(u64::MAX,)]));
        assert_eq!(rows::<(u64,)>(b""), Ok(vec![]));
    }

    #[test]
    fn an_unexpected_answer_is_an_error() {
        for body in
            ["[1.5]", "[-1]", "[\"1\"]", "[null]", "[1,2]", "[]", "1", "{\"n\":1}", "[1", "[1]\n[2", "\u{80}\u{80}@"]
        {
            assert!(rows::<(u64,)>(body.as_bytes()).is_err(), "{body}");
        }
    }
}
