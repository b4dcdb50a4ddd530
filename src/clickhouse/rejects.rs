//! Queries about the table `rejected`: counts by reason, positions, and bytes.

use super::ClickHouse;
use super::questions::quoted;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flows::{ErrorKind, Failure, Reason};

/// The chosen rejects: those that match all filters.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The topic's id.
    pub source: String,
    /// Any of these reasons; empty for every one.
    pub reasons: Vec<Reason>,
    /// Any of these positions, (partition, offset); empty for every one.
    pub places: Vec<(i32, i64)>,
    /// Ingested from then on, and before then: milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
}

/// Rejects of one reason.
#[derive(Debug)]
pub struct Count {
    pub reason: String,
    pub rejects: u64,
    /// When the first and the last of them were ingested: milliseconds since the Unix epoch.
    pub first_ms: i64,
    pub last_ms: i64,
}

/// Where a reject stands, and how large it is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
    pub bytes: u64,
}

/// A row of `rejected`.
#[derive(Debug)]
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    pub reason: String,
    pub detail: String,
    pub ingested_ms: i64,
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
    /// In their order; a value may be absent.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Kafka's timestamp: milliseconds since the Unix epoch. None for a row from before that was kept.
    pub timestamp_ms: Option<i64>,
}

/// Rejects of other sources than the one that was asked about.
#[derive(Debug, PartialEq, Eq)]
pub struct Foreign {
    pub rejects: u64,
    /// Their topics, some of them; rows of an earlier version have none.
    pub topics: Vec<String>,
}

impl Choice {
    fn condition(&self) -> String {
        let mut all = vec![format!("_source = {}", quoted(&self.source))];
        if !self.reasons.is_empty() {
            let names: Vec<_> = self.reasons.iter().map(|reason| quoted(reason.as_str())).collect();
            all.push(format!("reason IN ({})", names.join(", ")));
        }
        if !self.places.is_empty() {
            all.push(among(self.places.iter().copied()));
        }
        all.extend(self.since_ms.map(|ms| format!("ingested_at >= fromUnixTimestamp64Milli({ms})")));
        all.extend(self.until_ms.map(|ms| format!("ingested_at < fromUnixTimestamp64Milli({ms})")));
        all.join(" AND ")
    }
}

/// Headers, with our types, whatever those of the table's column are.
const HEADERS: &str = "CAST(headers, 'Array(Tuple(String, Nullable(String)))')";

/// How many other topics are named.
const TOPICS: u32 = 10;

/// Where a row stands, with our types, whatever those of the table's columns are.
const PLACE: &str = "CAST(_partition, 'Int32'), CAST(_offset, 'Int64')";

fn among(places: impl Iterator<Item = (i32, i64)>) -> String {
    let places: Vec<_> = places.map(|(partition, offset)| format!("({partition}, {offset})")).collect();
    format!("(_partition, _offset) IN ({})", places.join(", "))
}

impl ClickHouse {
    fn meant(&self, choice: &Choice) -> String {
        format!("{} AND {}", choice.condition(), self.not_erased(&choice.source))
    }

    /// Leaves out recorded erasures: an erasure deletes these rows next, or was cut short before it could.
    fn not_erased(&self, source: &str) -> String {
        let (table, source) = (self.table("erased"), quoted(source));
        format!("(_partition, _offset) NOT IN (SELECT _partition, _offset FROM {table} WHERE _source = {source})")
    }

    /// How many there are of each reason, the most frequent first.
    pub async fn rejects_by_reason(&self, choice: &Choice) -> Result<Vec<Count>, Failure> {
        let sql = format!(
            "SELECT CAST(reason, 'String'), uniqExact(_partition, _offset) AS rejects, \
             CAST(toUnixTimestamp64Milli(min(ingested_at)), 'Int64'), CAST(toUnixTimestamp64Milli(max(ingested_at)), 'Int64') \
             FROM {} WHERE {} GROUP BY reason ORDER BY rejects DESC, reason",
            self.table("rejected"),
            self.meant(choice)
        );
        let counts: Vec<(String, u64, i64, i64)> = self.all(&sql).await?;
        let count = |(reason, rejects, first_ms, last_ms)| Count { reason, rejects, first_ms, last_ms };
        Ok(counts.into_iter().map(count).collect())
    }

    /// The rows of `rejected` that come from other sources: other topics, or ones that were deleted.
    pub async fn foreign_rejects(&self, source: &str) -> Result<Foreign, Failure> {
        let sql = format!(
            "SELECT count(), arraySort(groupUniqArrayIf({TOPICS})(CAST(topic, 'String'), topic != '')) FROM {} WHERE _source != {}",
            self.table("rejected"),
            quoted(source)
        );
        let (rejects, topics) = self.one(&sql).await?;
        Ok(Foreign { rejects, topics })
    }

    /// The newest `limit` of each reason.
    pub async fn newest_rejects(&self, choice: &Choice, limit: u32) -> Result<Vec<Place>, Failure> {
        self.places(
            choice,
            &format!("ORDER BY reason, max(ingested_at) DESC, _partition, _offset LIMIT {limit} BY reason"),
        )
        .await
    }

    /// The first `limit` behind a position, in the order of positions.
    pub async fn next_rejects(&self, choice: &Choice, after: (i32, i64), limit: u32) -> Result<Vec<Place>, Failure> {
        let (partition, offset) = after;
        self.places(
            choice,
            &format!(
                "HAVING (_partition, _offset) > ({partition}, {offset}) ORDER BY _partition, _offset LIMIT {limit}"
            ),
        )
        .await
    }

    async fn places(&self, choice: &Choice, which: &str) -> Result<Vec<Place>, Failure> {
        let sql = format!(
            "SELECT {PLACE}, CAST(any(length(key) + length(payload) + length(detail) + \
             arraySum(header -> length(header.1) + ifNull(length(header.2), 0), {HEADERS})), 'UInt64') FROM {} WHERE {} \
             GROUP BY reason, _partition, _offset {which}",
            self.table("rejected"),
            self.meant(choice)
        );
        let places: Vec<(i32, i64, u64)> = self.all(&sql).await?;
        Ok(places.into_iter().map(|(partition, offset, bytes)| Place { partition, offset, bytes }).collect())
    }

    /// The rows at these positions that were not erased, in their order; of each text no more than the first `bytes`.
    pub async fn rejects_at(&self, source: &str, places: &[Place], bytes: u64) -> Result<Vec<Row>, Failure> {
        let beginning = |text: &str| format!("base64Encode(substring({text}, 1, {bytes}))");
        let head = |column: &str| beginning(&format!("CAST({column}, 'String')"));
        let sql = format!(
            "SELECT {PLACE}, CAST(reason, 'String'), CAST(detail, 'String'), \
             CAST(toUnixTimestamp64Milli(ingested_at), 'Int64'), {}, {}, \
             arrayMap(header -> ({}, {}), {HEADERS}), \
             CAST(toUnixTimestamp64Milli(timestamp), 'Nullable(Int64)') FROM {} \
             WHERE _source = {} AND {} AND {} LIMIT 1 BY _partition, _offset",
            head("key"),
            head("payload"),
            beginning("header.1"),
            beginning("header.2"),
            self.table("rejected"),
            quoted(source),
            among(places.iter().map(|place| (place.partition, place.offset))),
            self.not_erased(source)
        );
        let rows: Vec<Encoded> = self.all(&sql).await?;
        let mut rows = rows.into_iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let rank = |row: &Row| places.iter().position(|at| (at.partition, at.offset) == (row.partition, row.offset));
        rows.sort_by_cached_key(rank);
        Ok(rows)
    }
}

type Encoded = (i32, i64, String, String, i64, String, String, Vec<(String, Option<String>)>, Option<i64>);

fn row(encoded: Encoded) -> Result<Row, Failure> {
    let (partition, offset, reason, detail, ingested_ms, key, payload, headers, timestamp_ms) = encoded;
    let bytes = |text: String| {
        BASE64_STANDARD.decode(text).map_err(|error| Failure {
            kind: ErrorKind::Permanent,
            ended: true,
            message: format!("ClickHouse gives base64 that is none: {error}"),
        })
    };
    let header = |(name, value): (String, Option<String>)| {
        // The beginning of a name may end within a letter.
        let name = String::from_utf8_lossy(&bytes(name)?).into_owned();
        Ok((name, value.map(bytes).transpose()?))
    };
    let headers = headers.into_iter().map(header).collect::<Result<_, Failure>>()?;
    let (key, payload) = (bytes(key)?, bytes(payload)?);
    Ok(Row { partition, offset, reason, detail, ingested_ms, key, payload, headers, timestamp_ms })
}

#[cfg(test)]
mod tests {
    use super::super::mock::{Mock, rows};
    use super::*;

    #[test]
    fn a_choice_is_everything_that_is_said_and_nothing_that_is_not() {
        let all = Choice { source: "it's".into(), ..Choice::default() };
        assert_eq!(all.condition(), r"_source = 'it\'s'");
        let some = Choice {
            reasons: vec![Reason::NullPayload],
            places: vec![(0, 5), (1, 7)],
            since_ms: Some(1),
            until_ms: Some(2),
            ..all
        };
        let condition = some.condition();
        for part in
            ["reason IN ('", "IN ((0, 5), (1, 7))", ">= fromUnixTimestamp64Milli(1)", "< fromUnixTimestamp64Milli(2)"]
        {
            assert!(condition.contains(part), "{condition}");
        }
        assert_eq!(condition.matches(" AND ").count(), 4, "{condition}");
    }

    #[tokio::test]
    async fn rejects_come_in_the_order_in_which_they_are_asked_for_byte_for_byte() {
        let mock = Mock::start().await;
        mock.expect("`rejected`", rows("[0,5,\"r\",\"d\",7,\"\",\"AP8=\",[],null]\n[1,2,\"r\",\"d\",7,\"a2V5\",\"\",[[\"YQ==\",\"AP8=\"],[\"YQ==\",null]],-1]"));
        let place = |partition, offset| Place { partition, offset, bytes: 0 };
        let found = mock.clickhouse().rejects_at("topic", &[place(1, 2), place(0, 5)], 100).await.unwrap();
        let headers = vec![("a".to_owned(), Some(vec![0, 255])), ("a".to_owned(), None)];
        let bytes: Vec<_> =
            found.into_iter().map(|row| (row.partition, row.key, row.payload, row.headers, row.timestamp_ms)).collect();
        assert_eq!(bytes, [(1, b"key".to_vec(), vec![], headers, Some(-1)), (0, vec![], vec![0, 255], vec![], None)]);
        let sql = mock.last().sql;
        assert!(
            sql.contains("NOT IN (SELECT _partition, _offset FROM `shop`.`erased`"),
            "not those that are erased: {sql}"
        );
    }

    #[tokio::test]
    async fn bytes_that_cannot_be_read_are_an_error_and_no_other_bytes() {
        let mock = Mock::start().await;
        mock.expect("`rejected`", rows("[0,5,\"r\",\"d\",7,\"\",\"AP8\",[],null]"));
        let place = Place { partition: 0, offset: 5, bytes: 0 };
        let failure = mock.clickhouse().rejects_at("topic", &[place], 100).await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Permanent, "{failure}");
    }
}
