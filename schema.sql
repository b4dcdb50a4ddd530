-- The tables of clickstream. `clickstream setup`, Compose and the tests apply this file. Every statement may be run again.

CREATE DATABASE IF NOT EXISTS clickstream;

-- One row for each message of the topic that is an event, offset by offset. Two messages with one event_id are two rows. To count each event
-- once, read `events_once`.
CREATE TABLE IF NOT EXISTS clickstream.events
(
    event_id    UUID,
    event_type  LowCardinality(String),
    user_id     String,
    product_id  LowCardinality(String),
    price       Decimal(10, 2),
    timestamp   DateTime64(3, 'UTC'),
    -- The position of the row's message: the topic's id (or its name, if the broker has no ids), partition and offset.
    _source     LowCardinality(String),
    _partition  Int32,
    _offset     Int64,
    -- The time of the insert: one value for all its rows, which are one block, taken just before ClickHouse writes it.
    ingested_at DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC'),
    INDEX times timestamp TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
-- By the time of ingestion, never by the event's own. So an insert is always one part, which makes it atomic, and a sender with odd timestamps
-- cannot make a hundred partitions. For the same reason a TTL uses ingested_at. It has to outlast the topic's retention:
-- PARTITION ... TTL toDateTime(ingested_at) + INTERVAL 1 YEAR
-- The second term is always 0, since no offset is negative. But ClickHouse keeps the range of each column in this key in memory, for each
-- part. So the question which offsets are stored opens only parts that may hold them, in a table of any size.
PARTITION BY toYYYYMM(ingested_at) + (_offset < 0)
-- By position: each insert asks whether its first row is stored, and ClickHouse reads one granule for that, in a table of any size. Rows of
-- about the same time are still close together, and the index on `timestamp` skips the others.
ORDER BY (_source, _partition, _offset)
-- An acknowledged part survives a power cut.
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- One row for each message that is not an event, byte for byte, with its headers and Kafka's timestamp. It may hold personal data, so the TTL keeps it for 90 days only. `audit` counts
-- the deleted rows as expired, and does not restore them. For a table from before this TTL:
-- ALTER TABLE clickstream.rejected MODIFY TTL toDateTime(ingested_at) + INTERVAL 90 DAY
CREATE TABLE IF NOT EXISTS clickstream.rejected
(
    key         String,
    payload     String,
    headers     Array(Tuple(name String, value Nullable(String))),
    timestamp   Nullable(DateTime64(3, 'UTC')),
    reason      LowCardinality(String),
    detail      String,
    topic       LowCardinality(String),
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

-- For a table from before these columns: `setup` runs a statement only where its column is missing.
ALTER TABLE clickstream.rejected ADD COLUMN IF NOT EXISTS headers Array(Tuple(name String, value Nullable(String))) AFTER payload;
ALTER TABLE clickstream.rejected ADD COLUMN IF NOT EXISTS timestamp Nullable(DateTime64(3, 'UTC')) AFTER headers;
ALTER TABLE clickstream.rejected ADD COLUMN IF NOT EXISTS topic LowCardinality(String) AFTER detail;

-- One row for each position whose row `clickstream erase` has deleted, or is about to delete. It holds no personal data. A position in this table
-- counts as stored, so ingesters do not store its message again.
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
-- itself if one of them is not the newest in this table. `role` is `ingest` or `heal`; the greatest `newest` counts, by epoch, then by token.
-- If this table is emptied, every member opens a new lease.
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
