//! Queries about stored offsets.

use super::answer::{self, Columns};
use super::{ClickHouse, RESPONSE_TIMEOUT, failure, settings};
use clickhouse::query::Query;
use flows::{ErrorKind, Failure, OffsetRange, OffsetRanges};
use std::collections::BTreeMap;

/// The number of offsets in one question: it bounds the memory, here and in ClickHouse.
pub const WINDOW: usize = 1_000_000;

/// The counts of a range of offsets.
#[derive(Clone, Copy, Debug)]
pub struct Census {
    /// Rows in `events` and `rejected`.
    pub rows: u64,
    /// Different offsets of these rows.
    pub stored: u64,
    /// Offsets that were erased.
    pub erased: u64,
}

impl ClickHouse {
    /// Sends a trivial query, to see that the server answers and accepts the user.
    pub async fn ping(&self) -> Result<(), Failure> {
        let (_,): (u8,) = self.one("SELECT 1").await?;
        Ok(())
    }

    /// The server's version.
    pub async fn version(&self) -> Result<String, Failure> {
        let (version,) = self.one("SELECT version()").await?;
        Ok(version)
    }

    /// Which offsets of these ranges are stored, in `events` or `rejected`, or erased: for each partition that has any.
    pub async fn stored(
        &self,
        source: &str,
        ranges: &[(i32, OffsetRange)],
    ) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        let Some(wanted) = ranges.iter().map(|&(partition, range)| within(partition, range)).reduce(either) else {
            return Ok(BTreeMap::new());
        };
        let positions = format!("SELECT DISTINCT of_partition, at_offset FROM ({})", self.settled(&wanted));
        self.stored_ranges(source, &positions).await
    }

    /// The offsets of these partitions that are stored or erased, each from the given one on. For most partitions there
    /// are none, so one question about all of them comes first. For the others, windows of any number are queried.
    pub async fn stored_from(
        &self,
        source: &str,
        starts: &[(i32, i64)],
    ) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        let from = |&(partition, first): &(i32, i64)| format!("(_partition = {partition} AND _offset >= {first})");
        let Some(wanted) = starts.iter().map(from).reduce(either) else { return Ok(BTreeMap::new()) };
        let settled = self.settled(&wanted);
        let sql =
            format!("SELECT of_partition, min(at_offset), max(at_offset) + 1 FROM ({settled}) GROUP BY of_partition");
        let extents: Vec<(i32, i64, i64)> = self.fetch_all(self.of(source, &sql)).await?;
        let windows =
            |(partition, first, next)| OffsetRange::new(first, next).windows(WINDOW).map(move |it| (partition, it));
        let mut windows = extents.into_iter().flat_map(windows).peekable();
        let mut stored: BTreeMap<i32, Vec<OffsetRange>> = BTreeMap::new();
        while windows.peek().is_some() {
            let mut room = WINDOW as u64;
            let fits =
                || windows.next_if(|(_, window)| window.len() <= room).inspect(|(_, window)| room -= window.len());
            let together: Vec<_> = std::iter::from_fn(fits).collect();
            for (partition, stored_ranges) in self.stored(source, &together).await? {
                stored.entry(partition).or_default().extend(stored_ranges.ranges());
            }
        }
        Ok(stored.into_iter().map(|(partition, ranges)| (partition, OffsetRanges::new(ranges))).collect())
    }

    /// Which offsets of `range` are stored more than once, in `events`, in `rejected`, or in both.
    pub async fn doubled(&self, source: &str, partition: i32, range: OffsetRange) -> Result<OffsetRanges, Failure> {
        let rows = self.rows(&within(partition, range));
        let twice =
            format!("SELECT of_partition, at_offset FROM ({rows}) GROUP BY of_partition, at_offset HAVING count() > 1");
        Ok(self.stored_ranges(source, &twice).await?.remove(&partition).unwrap_or_default())
    }

    /// The offsets of `range` that are erased, but stored.
    pub async fn erased_and_stored(
        &self,
        source: &str,
        partition: i32,
        range: OffsetRange,
    ) -> Result<OffsetRanges, Failure> {
        let wanted = within(partition, range);
        let (rows, erased) = (self.rows(&wanted), self.positions("erased", &wanted));
        let both = format!(
            "SELECT DISTINCT of_partition, at_offset FROM ({rows}) WHERE at_offset IN (SELECT at_offset FROM ({erased}))"
        );
        Ok(self.stored_ranges(source, &both).await?.remove(&partition).unwrap_or_default())
    }

    /// Counts what there is of `range`: one pass that mostly says that all is well.
    pub async fn census(&self, source: &str, partition: i32, range: OffsetRange) -> Result<Census, Failure> {
        let wanted = within(partition, range);
        let (rows, erased) = (self.rows(&wanted), self.positions("erased", &wanted));
        let sql = format!(
            "SELECT countIf(NOT gone), uniqExactIf(at_offset, NOT gone), uniqExactIf(at_offset, gone) FROM \
             (SELECT at_offset, false AS gone FROM ({rows}) UNION ALL SELECT at_offset, true FROM ({erased}))"
        );
        let (rows, stored, erased) = self.fetch_one(self.of(source, &sql)).await?;
        Ok(Census { rows, stored, erased })
    }

    /// The checksums of the stored or erased offsets of `range`: a quick comparison of many offsets.
    pub async fn sums(&self, source: &str, partition: i32, range: OffsetRange) -> Result<Sums, Failure> {
        let settled = self.settled(&within(partition, range));
        let sql = format!("SELECT count(), sum(at_offset), toInt64(groupBitXor(at_offset)) FROM ({settled})");
        let (rows, sum, xor) = self.fetch_one(self.of(source, &sql)).await?;
        Ok(Sums { rows, sum, xor })
    }

    /// When the row at this offset was inserted, if there is one: milliseconds since the Unix epoch.
    pub async fn ingested_ms(&self, source: &str, partition: i32, offset: i64) -> Result<Option<i64>, Failure> {
        let at = within(partition, OffsetRange::new(offset, offset + 1));
        let of = |table: &str| {
            let table = self.table(table);
            format!("SELECT ingested_at FROM {table} WHERE _source = {{source:String}} AND ({at})")
        };
        let sql = format!(
            "SELECT count(), CAST(ifNull(max(toUnixTimestamp64Milli(ingested_at)), 0), 'Int64') FROM ({} UNION ALL {})",
            of("events"),
            of("rejected")
        );
        let (count, ms): (u64, i64) = self.fetch_one(self.of(source, &sql)).await?;
        Ok((count > 0).then_some(ms))
    }

    /// `of_partition` and `at_offset` of every row of a source that meets a condition, as often as it is stored; with our types,
    /// whatever those of the table's columns are. To be asked with [`of`](Self::of).
    fn rows(&self, condition: &str) -> String {
        format!("{} UNION ALL {}", self.positions("events", condition), self.positions("rejected", condition))
    }

    /// Partition and offset of everything that must not be inserted again: of every row, and of every one that was erased.
    ///
    /// `erased` comes last. An erasure writes there first and deletes afterwards, and ClickHouse looks at the tables in the order
    /// in which they stand here; so a row that is deleted between two of these looks is found by the later one.
    fn settled(&self, condition: &str) -> String {
        format!("{} UNION ALL {}", self.rows(condition), self.positions("erased", condition))
    }

    /// The second reason for which an insert refuses itself: a row is stored at this position in its table, or it was
    /// and is erased (in this order, as in [`settled`](Self::settled)). A set costs the server half as much as a scalar
    /// subquery.
    pub(super) fn is_stored(&self, table: &str, source: &str, partition: i32, offset: i64) -> String {
        let at = format!("_source = {} AND _partition = {partition} AND _offset = {offset}", quoted(source));
        let rows = |table: &str| format!("SELECT 1 FROM {} WHERE {at}", self.table(table));
        format!("1 IN ({} UNION ALL {})", rows(table), rows("erased"))
    }

    fn positions(&self, table: &str, condition: &str) -> String {
        let table = self.table(table);
        format!(
            "SELECT CAST(_partition, 'Int32') AS of_partition, CAST(_offset, 'Int64') AS at_offset \
             FROM {table} WHERE _source = {{source:String}} AND ({condition})"
        )
    }

    /// A question about rows of this source.
    pub(super) fn of(&self, source: &str, sql: &str) -> Query {
        self.query(sql).param("source", source)
    }

    /// The stored ranges of a set of positions: consecutive offsets of a partition have the same difference to their rank.
    async fn stored_ranges(&self, source: &str, positions: &str) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        let sql = format!(
            "SELECT of_partition, min(at_offset), max(at_offset) + 1 FROM (SELECT of_partition, at_offset, \
             at_offset - row_number() OVER (PARTITION BY of_partition ORDER BY at_offset) AS run FROM ({positions})) \
             GROUP BY of_partition, run"
        );
        let found: Vec<(i32, i64, i64)> = self.fetch_all(self.of(source, &sql)).await?;
        let mut ranges: BTreeMap<i32, Vec<OffsetRange>> = BTreeMap::new();
        for (partition, first, next) in found {
            ranges.entry(partition).or_default().push(OffsetRange::new(first, next));
        }
        Ok(ranges.into_iter().map(|(partition, ranges)| (partition, OffsetRanges::new(ranges))).collect())
    }

    /// A statement, with the settings of questions, to which parameters can be given.
    pub(super) fn query(&self, sql: &str) -> Query {
        settings::with(&self.client, &self.settings.questions()).query_raw(sql)
    }

    /// A question without parameters that has one row for an answer.
    pub(super) async fn one<A: Columns>(&self, sql: &str) -> Result<A, Failure> {
        self.fetch_one(self.query(sql)).await
    }

    /// A question without parameters that has any number of rows for an answer.
    pub async fn all<A: Columns>(&self, sql: &str) -> Result<Vec<A>, Failure> {
        self.fetch_all(self.query(sql)).await
    }

    /// A statement without parameters and without an answer.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Failure> {
        self.execute(self.query(sql)).await
    }

    /// The answer of one row.
    pub(super) async fn fetch_one<A: Columns>(&self, question: Query) -> Result<A, Failure> {
        self.in_time(self.rows_of(question)).await.and_then(only)
    }

    /// All rows of an answer.
    ///
    /// # Errors
    /// The unexpected row, and the reason.
    pub(super) async fn fetch_all<A: Columns>(&self, question: Query) -> Result<Vec<A>, Failure> {
        self.in_time(self.rows_of(question)).await
    }

    /// The answer of one row, however long it takes.
    pub(super) async fn wait_for_one<A: Columns>(&self, question: Query) -> Result<A, Failure> {
        self.rows_of(question).await.and_then(only)
    }

    /// All rows of an answer, however long it takes.
    pub(super) async fn wait_for_all<A: Columns>(&self, question: Query) -> Result<Vec<A>, Failure> {
        self.rows_of(question).await
    }

    /// Runs a statement that has no answer.
    pub(super) async fn execute(&self, statement: Query) -> Result<(), Failure> {
        self.in_time(self.wait_for(statement)).await
    }

    /// Runs a statement that has no answer, however long it takes.
    pub(super) async fn wait_for(&self, statement: Query) -> Result<(), Failure> {
        statement.execute().await.map_err(|error| self.explained(&error))
    }

    async fn rows_of<A: Columns>(&self, question: Query) -> Result<Vec<A>, Failure> {
        let answer = async { question.fetch_bytes(answer::FORMAT)?.collect().await };
        let body = answer.await.map_err(|error| self.explained(&error))?;
        answer::rows(&body).map_err(|why| failure::misunderstood(&why))
    }

    fn explained(&self, error: &clickhouse::error::Error) -> Failure {
        self.endpoint.discreet(self.settings.explained(failure::asked(error)))
    }

    async fn in_time<A>(&self, question: impl Future<Output = Result<A, Failure>>) -> Result<A, Failure> {
        match tokio::time::timeout(RESPONSE_TIMEOUT, question).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure {
                kind: ErrorKind::Transient,
                ended: false,
                message: format!("no answer to a question within {} s", RESPONSE_TIMEOUT.as_secs()),
            }),
        }
    }
}

/// The row of an answer that has one.
fn only<A>(mut rows: Vec<A>) -> Result<A, Failure> {
    match (rows.pop(), rows.is_empty()) {
        (Some(row), true) => Ok(row),
        _ => Err(failure::misunderstood("one row was asked for")),
    }
}

/// The number of rows, the sum of their offsets, and their exclusive or.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    pub rows: u64,
    sum: i64,
    xor: i64,
}

impl Sums {
    /// Whether each offset of `range` is stored once. Doubled rows, and missing ones beside them, would go unnoticed
    /// only if both checksums matched.
    pub fn is_each_once(&self, range: OffsetRange) -> bool {
        let (first, last) = (i128::from(range.first), i128::from(range.next) - 1);
        // ClickHouse's sums wrap around, too.
        let sum = ((first + last) * i128::from(range.len()) / 2) as i64;
        let up_to = |last: i64| match last & 3 {
            0 => last,
            1 => 1,
            2 => last + 1,
            _ => 0,
        };
        *self == Self { rows: range.len(), sum, xor: up_to(range.next - 1) ^ up_to(range.first - 1) }
    }
}

/// The condition for a row to be of this range.
pub(super) fn within(partition: i32, OffsetRange { first, next }: OffsetRange) -> String {
    format!("(_partition = {partition} AND _offset >= {first} AND _offset < {next})")
}

pub(super) fn either(one: String, other: String) -> String {
    one + " OR " + &other
}

/// A string literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn sums_tell_offsets_that_are_each_there_once(
            first in 0i64..1_000_000, len in 1i64..50, from in 0i64..50, to in 0i64..50,
        ) {
            let range = OffsetRange::new(first, first + len);
            let sums = |offsets: &[i64]| Sums {
                rows: offsets.len() as u64,
                sum: offsets.iter().sum(),
                xor: offsets.iter().fold(0, |xor, offset| xor ^ offset),
            };
            let mut offsets: Vec<_> = (range.first..range.next).collect();
            proptest::prop_assert!(sums(&offsets).is_each_once(range));
            // One stands twice, and another one not at all.
            let (from, to) = ((from % len) as usize, (to % len) as usize);
            offsets[from] = offsets[to];
            proptest::prop_assert_eq!(sums(&offsets).is_each_once(range), from == to);
            offsets.swap_remove(0);
            proptest::prop_assert!(!sums(&offsets).is_each_once(range));
        }
    }

    #[test]
    fn a_quote_does_not_end_a_literal() {
        assert_eq!(quoted(r"it's a \ group"), r"'it\'s a \\ group'");
    }
}
