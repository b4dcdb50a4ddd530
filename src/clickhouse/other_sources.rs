//! The same events under two sources: what a topic leaves behind that was read twice, under two ids.

use super::ClickHouse;
use super::questions::{either, within};
use flows::{Failure, OffsetRange};

/// Other sources that are named.
const NAMED: usize = 10;

impl ClickHouse {
    /// For each partition with events in these ranges, the first and the last of their offsets.
    ///
    /// # Errors
    /// When ClickHouse does not answer.
    pub async fn extents(
        &self,
        source: &str,
        ranges: &[(i32, OffsetRange)],
    ) -> Result<Vec<(i32, OffsetRange)>, Failure> {
        let Some(wanted) = condition(ranges) else { return Ok(Vec::new()) };
        let events = self.table("events");
        let sql = format!(
            "SELECT CAST(_partition, 'Int32') AS of_partition, CAST(min(_offset), 'Int64'), CAST(max(_offset), 'Int64') \
             FROM {events} WHERE _source = {{source:String}} AND ({wanted}) GROUP BY of_partition ORDER BY of_partition"
        );
        let found: Vec<(i32, i64, i64)> = self.wait_for_all(self.query(&sql).param("source", source)).await?;
        Ok(found.into_iter().map(|(partition, first, last)| (partition, OffsetRange::new(first, last + 1))).collect())
    }

    /// The number of events of these ranges that are stored under other sources, too, by source. For events of the shop, the search goes by
    /// their times, for which their table has an index, so ClickHouse does not read the whole table. Rows of the user's own table are
    /// the same if all that came from the message is the same.
    ///
    /// # Errors
    /// When ClickHouse does not answer.
    pub async fn other_sources(
        &self,
        source: &str,
        ranges: &[(i32, OffsetRange)],
    ) -> Result<Vec<(String, u64)>, Failure> {
        let Some(wanted) = condition(ranges) else { return Ok(Vec::new()) };
        let events = self.table("events");
        let (key, of) = match self.own_table() {
            Some(own) => {
                let hash = format!("sipHash128({})", own.stored_names());
                (hash.clone(), hash)
            }
            None => ("event_type, timestamp, event_id".to_owned(), "event_id".to_owned()),
        };
        let sql = format!(
            "SELECT CAST(_source, 'String') AS other, uniqExact({of}) FROM {events} WHERE _source != {{source:String}} \
             AND ({key}) IN (SELECT {key} FROM {events} WHERE _source = {{source:String}} AND ({wanted})) \
             GROUP BY other ORDER BY other LIMIT {NAMED}"
        );
        self.wait_for_all(self.query(&sql).param("source", source)).await
    }
}

fn condition(ranges: &[(i32, OffsetRange)]) -> Option<String> {
    ranges.iter().map(|&(partition, range)| within(partition, range)).reduce(either)
}

#[cfg(test)]
mod tests {
    use super::super::mock::{Mock, rows};
    use super::*;

    #[tokio::test]
    async fn events_are_looked_for_in_the_ranges_that_were_compared_under_other_sources_only() {
        let mock = Mock::start().await;
        let ranges = [(0, OffsetRange::new(5, 9)), (2, OffsetRange::new(0, 1))];
        let clickhouse = mock.clickhouse();
        mock.expect("GROUP BY of_partition", rows("[0,6,8]"));
        assert_eq!(clickhouse.extents("it's", &ranges).await.unwrap(), [(0, OffsetRange::new(6, 9))]);
        mock.expect("_source != {source:String}", rows("[\"a\",3]\n[\"b\",1]"));
        let found = clickhouse.other_sources("it's", &ranges).await.unwrap();
        assert_eq!(found, [("a".to_owned(), 3), ("b".to_owned(), 1)]);
        for asked in mock.asked() {
            assert_eq!(asked.parameter("source"), "it\\'s", "as a parameter, never in the text");
            assert!(
                asked.sql.contains("(_partition = 0 AND _offset >= 5 AND _offset < 9) OR (_partition = 2"),
                "{}",
                asked.sql
            );
        }
    }

    #[tokio::test]
    async fn nothing_is_asked_about_nothing() {
        let mock = Mock::start().await;
        assert_eq!(mock.clickhouse().extents("a", &[]).await.unwrap(), []);
        assert_eq!(mock.clickhouse().other_sources("a", &[]).await.unwrap(), []);
    }
}
