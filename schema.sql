-- The tables of clickstream: the one source, applied by `clickstream setup`, by compose and by the tests.
-- Every statement may be run again.

CREATE DATABASE IF NOT EXISTS clickstream;

-- One row for each message of the topic that is an event: this table is the topic, offset by offset. Two messages with one
-- event_id are two rows here. To count each event once, read `events_once`.
CREATE TABLE IF NOT EXISTS clickstream.events
(
    event_id    UUID,
    event_type  LowCardinality(String),
    user_id     String,
    product_id  LowCardinality(String),
    price       Decimal(10, 2),
    timestamp   DateTime64(3, 'UTC'),
    -- Where the row came from: the topic's id (its name where the broker has no ids), partition and offset.
    _source     LowCardinality(String),
    _partition  Int32,
    _offset     Int64,
    -- When it was inserted: one value for all rows of an insert, which is one block, taken just before that is written.
    ingested_at DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC'),
    INDEX times timestamp TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
-- By the time of ingestion, never the event's own: so an insert is always one part, which makes it atomic, and no sender
-- can make a hundred partitions with odd timestamps. For the same reason a TTL goes by ingested_at, and outlasts the
-- topic's retention: PARTITION ... TTL toDateTime(ingested_at) + INTERVAL 1 YEAR
-- What is added is always 0, since no offset is negative. But ClickHouse keeps the range of each column named here in memory,
-- for each part: so the question which offsets are stored opens only parts that may hold them, however many there are.
PARTITION BY toYYYYMM(ingested_at) + (_offset < 0)
-- By position: whether an offset is stored, which each insert asks about its first row, is read out of one granule, whatever else
-- is in the table. What came at about the same time stands together all the same; the index skips the rest.
ORDER BY (_source, _partition, _offset)
-- An acknowledged part survives a power cut.
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- One row for each message that is no event, as it came. It may hold what a person has sent, so it is kept for 90 days only;
-- `audit` counts what has gone with that as expired, and does not put it back. Where this table was made before the TTL was
-- written here: ALTER TABLE clickstream.rejected MODIFY TTL toDateTime(ingested_at) + INTERVAL 90 DAY
CREATE TABLE IF NOT EXISTS clickstream.rejected
(
    key         String,
    payload     String,
    reason      LowCardinality(String),
    detail      String,
    _source     LowCardinality(String),
    _partition  Int32,
    _offset     Int64,
    ingested_at DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ingested_at) + (_offset < 0)
ORDER BY (_source, _partition, _offset)
TTL toDateTime(ingested_at) + INTERVAL 90 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- One row for each position whose row `clickstream erase` has deleted, or is about to delete. It says nothing about the person.
-- For all who ask which offsets are stored, a position that is listed here is: its message is not taken in again.
CREATE TABLE IF NOT EXISTS clickstream.erased
(
    _source     LowCardinality(String),
    _partition  Int32,
    _offset     Int64,
    reason      LowCardinality(String),
    erased_at   DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (_source, _partition, _offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- One row for each partition, after merges: its newest lease. Each insert of `ingest` carries the tokens of its partitions, and refuses
-- itself where one of them is not the newest here. `role` is `ingest` or `heal`; the greatest `newest` counts, by epoch, then by token.
-- If this table is emptied, every member opens new leases.
CREATE TABLE IF NOT EXISTS clickstream.leases
(
    source      LowCardinality(String),
    role        LowCardinality(String),
    partition   Int32,
    newest      SimpleAggregateFunction(max, Tuple(epoch UInt64, token UUID, `group` String, owner String, opened_at DateTime64(3, 'UTC')))
)
ENGINE = AggregatingMergeTree
ORDER BY (source, role, partition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

-- Each event once, by its event_id: the first of its messages.
CREATE VIEW IF NOT EXISTS clickstream.events_once AS
SELECT event_id, event_type, user_id, product_id, price, timestamp, ingested_at
FROM clickstream.events
ORDER BY _source, _partition, _offset
LIMIT 1 BY event_id;
