//! The pipelines of `clickstream`, and the types they are made of.
//!
//! Two expressions are the whole of it. Everything else in this crate is a noun or a verb of theirs:
//!
//! | pipeline | where | reads as |
//! |---|---|---|
//! | [`produce()`] | `produce.rs` | due times → an event for each → handed to the topic → acknowledged, in order → tallied |
//! | [`ingest()`] | `ingest.rs` | deliveries → batches by rows or time → settled in the warehouse → committed, in order |
//!
//! **Why nothing is lost.** A [`Durable`] can be made only by [`settle()`], and [`Ledger::commit`] takes nothing else, by
//! value. So an offset can be committed only after its rows are stored, once, and in order.
//!
//! **Why nothing is doubled.** An insert refuses itself where somebody else owns its partitions by now, and where its first row is
//! stored. So an attempt without an answer is sent again as it was, and is stored once. A new owner opens a lease
//! ([`open_lease`]), which ends what others had on its way, and only then asks which offsets are stored ([`Warehouse::stored`]).
//!
//! This crate knows neither Kafka nor ClickHouse nor sockets: [`Warehouse`], [`LeaseTable`], [`Offsets`], [`Tenure`] and
//! [`Topic`] are the doors to the outside, and its tests put doubles behind them.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backoff;
mod batch;
mod contract;
mod culprits;
mod delivery;
mod diagnosis;
mod event;
mod formats;
mod ingest;
mod latency;
mod ledger;
mod meter;
mod ownership;
mod policy;
mod produce;
mod refusal;
mod rejects;
mod room;
mod schedule;
mod settle;
mod shoppers;
mod span;
mod stages;
mod warehouse;

pub use backoff::Backoff;
pub use batch::Batch;
pub use delivery::{Content, Delivery, Reason, Reject};
pub use event::{Event, EventType};
pub use ingest::{IngestError, ingest};
pub use latency::{Latencies, Outside, Stage, now};
pub use ledger::{CommitFailed, Ledger, Offsets};
pub use meter::Meter;
pub use ownership::{Claim, LeaseTable, Newest, OpenError, Tokens, open_lease, renew_lease};
pub use policy::Policy;
pub use produce::{Acked, Lost, Receipt, Tally, Topic, produce};
pub use rejects::{RejectKind, Rejects};
pub use schedule::{Rate, schedule};
pub use settle::{Durable, SettleError, settle};
pub use shoppers::{Fault, Faults, Message, Shoppers};
pub use span::{Islands, OutOfOrder, Span};
pub use warehouse::{Answer, Class, Failure, LeaseLost, ReadBack, Table, Tenure, Warehouse};
