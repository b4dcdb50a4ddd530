//! The promises, on a real Kafka and a real ClickHouse.
//!
//! `./ci/test` starts the two services and runs this. Rules for a test here:
//!
//! - It is named after the law that it proves, and begins with `TestEnv::open()`: a topic, a consumer group and a database of its
//!   own, so that tests run side by side. One that stops, freezes or kills ClickHouse has an `OwnClickHouse`; one whose law
//!   is about time begins with `TestEnv::open_alone()`, and nothing else runs beside it.
//! - It fails where a service does not answer. It never skips.
//! - It judges by what other clients than the program's own find in Kafka and ClickHouse (`oracle`), and by exit codes. The
//!   program's log is read only to know when it has come so far that a fault would hurt.
//! - It never sleeps to wait for something: `eventually` polls for it, with a deadline. A pause stands only where the time that
//!   passes is the fault itself (frozen for 8 s) or a random moment is wanted.
//! - Whatever it starts is owned by a value whose `Drop` ends it, by its own process id. What a program wrote is printed when
//!   the test fails, and its files are kept.
//! - Sessions are as short as Kafka allows (`SHORT_SESSION`), where the law is not about the default.

mod alarms;
mod audits;
mod basics;
mod demo;
mod deploy;
mod erasure;
mod errors;
mod expiry;
mod foreign_logs;
mod hostile;
mod http;
mod latency;
mod neighbours;
mod options;
mod origins;
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
mod reviewed;
mod secured;
mod settings;
mod sieges;
mod signals;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod tables;
mod until_end;
