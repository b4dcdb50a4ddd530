//! The pipelines of `clickstream`, and the types they are made of.
//!
//! Two expressions are the whole of it. Every other item in this crate is a noun or a verb in them:
//!
//! | pipeline | where | reads as |
//! |---|---|---|
//! | [`produce()`] | `produce.rs` | due times → an event for each → handed to the topic → acknowledged, in order → tallied |
//! | [`ingest()`] | `ingest.rs` | records → batches by rows or time → settled in the sink → committed, in order |
//!
//! **Why nothing is lost.** Only [`settle()`] makes a [`Durable`], and [`Ledger::commit`] takes nothing else, by value.
//! So an offset can be committed only after its rows are stored, once, and in order.
//!
//! **Why nothing is doubled.** An insert refuses itself if another process owns its partitions by now, or if its first
//! row is stored. So after a lost answer the same insert is sent again, and is stored once. A new owner opens a lease
//! ([`open_lease`]), which ends the running inserts of previous owners. Only then it asks which offsets are stored
//! ([`Sink::stored`]).
//!
//! This crate knows neither Kafka nor ClickHouse nor sockets. The outside implements the traits [`Sink`],
//! [`LeaseTable`], [`Offsets`], [`Ownership`] and [`Topic`]; tests implement them with doubles.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backlog;
mod backoff;
mod batch;
mod batch_config;
mod columns;
mod contract;
mod culprits;
mod decode;
mod diagnosis;
mod event;
mod formats;
mod ingest;
mod latency;
mod ledger;
mod member;
mod metrics;
pub mod numbers;
mod offset_range;
mod ownership;
mod pauses;
mod produce;
mod proof;
mod record;
mod refusal;
mod rejects;
mod room;
mod schedule;
mod settle;
mod settling;
mod shoppers;
mod single_writer;
mod sink;
mod stages;
mod store;
mod template;
mod topics;
mod waiting;

pub use backlog::Backlog;
pub use backoff::Backoff;
pub use batch::Batch;
pub use batch_config::BatchConfig;
pub use columns::{
    ColumnDefinition, Columns, Draft, Evolution, Headers, NewColumn, Sample, TableDecoder, UnfillableColumn, is_dynamic,
};
pub use decode::{Consumed, Decode, Header, Shop};
pub use event::{Event, EventType};
pub use ingest::{IngestError, ingest};
pub use latency::{Latencies, OutOfRange, Stage, now};
pub use ledger::{CommitFailed, Ledger, Offsets};
pub use member::{
    AboveEnd, Action, Arrival, Cause, Commit, Ended, Found, Input, Loss, LostMessages, Member, Metadata, NextCommit,
    Notes, Origin, Ours, Outcome, Position, Progress, Start, StartOffsets, TopicIdentity, UNMARKED_LIFETIME,
    cluster_id, start_offset,
};
pub use metrics::Metrics;
pub use offset_range::{OffsetRange, OffsetRanges, OutOfOrder};
pub use ownership::{Claim, LeaseTable, Newest, OpenError, Tokens, open_lease, renew_lease};
pub use pauses::{PAUSED, Pauses};
pub use produce::{Acked, Lost, Receipt, Tally, Topic, produce};
pub use proof::{Proof, SharedProof};
pub use record::{Payload, Permit, Reason, Record, Reject, Row};
pub use rejects::{RejectKind, Rejects};
pub use schedule::{Rate, schedule};
pub use settle::{Durable, settle};
pub use settling::SettleError;
pub use shoppers::{Fault, Faults, Message, Shoppers};
pub use single_writer::{Append, SingleWriter, SingleWriterSink};
pub use sink::{Answer, ErrorKind, Failure, LeaseLost, Ownership, ReadBack, Sink, Table};
pub use store::Store;
pub use template::{Template, Visitors};
pub use waiting::{Arrivals, Due, Run, Waiting};
