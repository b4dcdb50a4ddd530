//! ClickHouse's side: the server, the user's profile and rights, the tables, and the clock.

use super::CheckConfig;
use super::messages::Decoder;
use super::report::{Answer, Outcome, Report, Verdict};
use crate::clickhouse::{ClickHouse, LEASES, TABLES, TableFault, Unfit};
use crate::connect;
use crate::numbers::grouped;
use flows::{Failure, Table, now};
use std::sync::Arc;

/// A larger difference between two clocks than this is told.
const CLOCK_DIFFERENCE_MS: i64 = 1_000;

/// The things that other checks build on.
pub struct Store {
    /// A server with a table of leases that does.
    pub leases: Outcome<Arc<ClickHouse>>,
    pub decoder: Outcome<Decoder>,
}

/// Checks ClickHouse's side.
pub async fn checks(config: &CheckConfig) -> (Report, Store) {
    let mut report = Report::default();
    let options = report.check("clickhouse options", async { options(config) }).await;
    let server = report.check_with("server", options.found(), async |server| reached(config, server).await).await;
    report.check_with("profile", server.found(), async |server| profile(config, server).await).await;
    let [events, others @ ..] = TABLES;
    let name = format!("table {}", config.clickhouse.table.as_deref().unwrap_or(events));
    let decoder = report.check_with(name, server.found(), async |server| rows(config, server).await).await;
    for name in others {
        report.check_with(format!("table {name}"), server.found(), async |server| table(server, name).await).await;
    }
    let leases = report.check_with("table leases", server.found(), async |server| table(server, LEASES).await).await;
    report.check_with("rights", server.found(), async |server| rights(server).await).await;
    report.check_with("clock", server.found(), async |server| clock(server).await).await;
    (report, Store { leases, decoder })
}

fn options(config: &CheckConfig) -> Answer<Arc<ClickHouse>> {
    let clickhouse = ClickHouse::new(&config.clickhouse).map_err(|error| {
        Verdict::fail(format!("{error:#}: `ingest` would not start"), "correct --clickhouse-password-file")
    })?;
    let (at, user, database) = (clickhouse.address(), &config.clickhouse.user, &config.clickhouse.database);
    Ok((Verdict::ok(format!("{at}, user {user}, database {database}")), Arc::new(clickhouse)))
}

async fn reached(config: &CheckConfig, clickhouse: &Arc<ClickHouse>) -> Answer<Arc<ClickHouse>> {
    let asked = async {
        connect::clickhouse(clickhouse, config.connect_timeout).await?;
        connect::checked(clickhouse, config.connect_timeout, async || clickhouse.version().await).await
    };
    let version = asked.await.map_err(|error| {
        Verdict::fail(
            format!("{error:#}: nothing would be stored, and messages wait in Kafka"),
            "correct --clickhouse-url, --clickhouse-user or --clickhouse-password-file, or start ClickHouse",
        )
    })?;
    Ok((Verdict::ok(format!("ClickHouse {version}")), clickhouse.clone()))
}

async fn profile(config: &CheckConfig, clickhouse: &Arc<ClickHouse>) -> Answer<()> {
    let asked = connect::checked(clickhouse, config.connect_timeout, async || clickhouse.may_insert().await).await;
    asked.map_err(|error| {
        let remedy = "change the user's settings profile, or use another --clickhouse-user";
        Verdict::fail(format!("{error:#}: nothing would be stored"), remedy)
    })?;
    Ok((Verdict::ok("it lets inserts and questions bring the settings that keep rows whole"), ()))
}

/// Checks the table of good rows, and returns what decodes messages for it, also where the table has other faults.
async fn rows(config: &CheckConfig, clickhouse: &ClickHouse) -> Answer<Decoder> {
    let name = Table::Events.name();
    let learned = clickhouse.learn_table(&config.kafka.topic, config.time.as_deref()).await;
    let mut faults = clickhouse.table_faults(name).await;
    // A table that is missing says so in both answers.
    let is_new =
        |failure: &&Failure| faults.iter().all(|fault| Failure::from(fault.clone()).message != failure.message);
    let new = learned.as_ref().err().filter(is_new).cloned();
    faults.extend(new.map(TableFault::from));
    let own = clickhouse.own_table();
    let fits = own.as_ref().map_or_else(
        || "takes the shop's events".into(),
        |own| match own.time() {
            Some(time) => format!("{} columns are filled, and {time} is the event's time", own.filled()),
            None => format!("{} columns are filled; Kafka's timestamp counts as the event's time", own.filled()),
        },
    );
    let verdict = judge(clickhouse, name, faults, &fits).await;
    match learned {
        Ok(()) => {
            let own = own.map(|own| own.decoder.clone());
            Ok((verdict, Decoder { decode: clickhouse.decoder(), own }))
        }
        Err(_) => Err(verdict),
    }
}

/// Checks one of the program's own tables.
async fn table(clickhouse: &Arc<ClickHouse>, name: &str) -> Answer<Arc<ClickHouse>> {
    let faults = clickhouse.table_faults(name).await;
    let has_faults = !faults.is_empty();
    let verdict = judge(clickhouse, name, faults, "there, and keeps what is brought into it").await;
    if has_faults { Err(verdict) } else { Ok((verdict, clickhouse.clone())) }
}

async fn judge(clickhouse: &ClickHouse, name: &str, faults: Vec<TableFault>, fits: &str) -> Verdict {
    let is_fault = !faults.is_empty();
    let mut found: Vec<_> = faults.into_iter().map(told).collect();
    // That of the leases is a fault of theirs.
    if name != LEASES {
        found.extend(clickhouse.power_cut_risk(name).await.ok().flatten());
    }
    let mut remedies: Vec<String> = Vec::new();
    for Unfit { remedy, .. } in &found {
        if !remedies.contains(remedy) {
            remedies.push(remedy.clone());
        }
    }
    let why: Vec<_> = found.iter().map(|unfit| unfit.why.as_str()).collect();
    match (is_fault, found.is_empty()) {
        (true, _) => Verdict::fail(format!("nothing would be stored: {}", why.join("; ")), remedies.join("\n")),
        (false, true) => Verdict::ok(fits),
        (false, false) => Verdict::warn(format!("{fits}; {}", why.join("; ")), remedies.join("\n")),
    }
}

fn told(fault: TableFault) -> Unfit {
    match fault {
        TableFault::Unfit(unfit) => unfit,
        TableFault::Failure(failure) => Unfit {
            why: failure.message,
            remedy: "see docs/deploy.md for the rights, and docs/your-events.md for the columns".into(),
        },
    }
}

async fn rights(clickhouse: &ClickHouse) -> Answer<()> {
    let missing = clickhouse.missing_grants().await;
    let missing = missing.map_err(|failure| {
        Verdict::warn(format!("ClickHouse does not say which rights this user has: {failure}"), "see docs/deploy.md")
    })?;
    if !missing.is_empty() {
        let text = "this user may not do all that an ingester does: its inserts would be refused, and nothing stored";
        return Err(Verdict::fail(text, missing.join("\n")));
    }
    Ok((Verdict::ok("SELECT and INSERT where an ingester needs them"), ()))
}

async fn clock(clickhouse: &ClickHouse) -> Answer<()> {
    let before = now();
    let answered = clickhouse.server_time_ms().await;
    let there = answered
        .map_err(|failure| Verdict::warn(format!("ClickHouse does not tell its time: {failure}"), "run this again"))?;
    let here = (before / 2 + now() / 2) / 1_000_000;
    let difference = grouped((there - here).unsigned_abs());
    let text = format!(
        "ClickHouse's clock is {difference} ms {} of this host's",
        if there < here { "behind" } else { "ahead" }
    );
    if (there - here).abs() <= CLOCK_DIFFERENCE_MS {
        return Ok((Verdict::ok(text), ()));
    }
    let text =
        format!("{text}: ingested_at, TTLs and the dashboard's ages go by that clock. No row is lost or doubled by it");
    Ok((Verdict::warn(text, "set both clocks by NTP"), ()))
}
