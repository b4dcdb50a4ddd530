//! The promises, on a real Kafka and a real ClickHouse.
//!
//! `./ci/test` starts the two services and runs this. Rules for a test here:
//!
//! - Its name is the law that it proves, and it begins with `TestEnv::open()`: a topic, a consumer group and a database
//!   of its own, so that tests run side by side. A test that stops, freezes or kills ClickHouse has an `OwnClickHouse`.
//!   A law about time begins with `TestEnv::open_alone()`, and no other test runs beside it.
//! - It fails if a service does not answer. It never skips itself.
//! - It judges by exit codes, and by the answers of Kafka and ClickHouse to other clients than the program's own
//!   (`oracle`). It reads the program's log only to find the moment at which a fault would hurt.
//! - It never sleeps to wait for a condition: `eventually` polls for it, with a deadline. A test pauses only if the
//!   passing time is the fault itself (frozen for 8 s), or for a random moment.
//! - A value owns each process that the test started, and its `Drop` ends it by its own id. If the test fails, the
//!   programs' output is printed, and their files are kept.
//! - Sessions are as short as Kafka allows (`SHORT_SESSION`), unless the law is about the default.

mod alarms;
mod audits;
mod basics;
mod bench;
mod check;
mod demo;
mod deploy;
mod erasure;
mod errors;
mod evolve;
mod expiry;
mod foreign_logs;
mod hostile;
mod http;
mod latency;
mod leases;
mod live;
mod neighbours;
mod options;
mod origins;
mod own_table;
mod page;
mod percentiles;
#[path = "../../src/clickhouse/pins.rs"]
#[allow(dead_code, reason = "the program says what a setting would do, the tests do not")]
mod pins;
mod pipes;
mod raw;
mod rebalances;
mod refusals;
mod rejects;
mod replays;
mod reports;
mod reviewed;
mod schema_draft;
mod secured;
mod service_manager;
mod settings;
mod sieges;
mod signals;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod tables;
mod topics;
mod twins;
mod until_end;
