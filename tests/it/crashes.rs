//! Killed, frozen, stopped: the ingester, or ClickHouse under it.

use crate::support::oracle;
use crate::support::process::Program;
use crate::support::sampler::Sampler;
use crate::support::shop::Shop;
use crate::support::stack::OwnClickHouse;
use crate::support::{PATIENCE, SHORT_SESSION, eventually, is};
use std::time::Duration;

/// Small batches make many inserts, so that a fault meets one of them half done.
const SMALL_BATCHES: [&str; 4] = ["--batch-rows", "200", "--batch-timeout", "1s"];
const FAULTS: [&str; 2] = ["--faults", "bad=0.01,dup=0.01,late=0.01"];
const BURST: [&str; 4] = ["--count", "100000", "--rate", "max"];

/// Lets a random time of up to a second pass, under load: so each fault meets another moment of the work.
fn at_a_random_moment() {
    std::thread::sleep(Duration::from_millis(rand::random_range(0..1_000)));
}

fn args<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

#[test]
fn killed_five_times_among_two_under_load_nothing_is_lost_or_doubled() {
    let shop = Shop::open();
    let flags = args(&[&SMALL_BATCHES, &SHORT_SESSION]);
    let mut other = shop.ingester_at_work(&flags);
    let mut victim = shop.ingester_at_work(&flags);
    let sampler = Sampler::start(&shop);
    let burst = shop.produce(&args(&[&BURST, &FAULTS]));
    let steady = shop.produce(&args(&[&["--rate", "2000"], &FAULTS]));
    for _ in 0..5 {
        at_a_random_moment();
        victim.kill();
        victim = shop.ingester_at_work(&flags);
    }
    let mut manifest = burst.finish();
    manifest.extend(steady.stop());
    shop.drained();
    other.drains();
    victim.drains();
    sampler.saw_only_stored_offsets_committed();
    oracle::exactly_once(&shop, &manifest);
}

#[test]
fn a_static_member_killed_eight_times_loses_and_doubles_nothing() {
    let shop = Shop::open();
    let flags = args(&[&SMALL_BATCHES, &SHORT_SESSION, &["--instance-id", "one"]]);
    let mut ingester = shop.ingester_at_work(&flags);
    let sampler = Sampler::start(&shop);
    let burst = shop.produce(&args(&[&BURST, &FAULTS]));
    let steady = shop.produce(&args(&[&["--rate", "2000"], &FAULTS]));
    for _ in 0..8 {
        at_a_random_moment();
        ingester.kill();
        ingester = shop.ingester_at_work(&flags);
    }
    let mut manifest = burst.finish();
    manifest.extend(steady.stop());
    shop.drained();
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    oracle::exactly_once(&shop, &manifest);
}

#[test]
fn a_stop_under_load_drains() {
    let shop = Shop::open();
    let load = shop.produce(&args(&[&["--rate", "5000"], &FAULTS]));
    for _ in 0..3 {
        let mut ingester = shop.ingester_at_work(&SMALL_BATCHES);
        at_a_random_moment();
        ingester.drains();
        let closing = ingester.closing();
        assert_eq!(closing.before, 0, "what one stored it has committed too: the next one finds nothing of it ahead");
    }
    let manifest = load.stop();
    shop.run("ingest", &["--until-end"]).succeeds();
    oracle::exactly_once(&shop, &manifest);
}

#[test]
fn a_stop_without_clickhouse_says_so_and_loses_nothing() {
    let clickhouse = OwnClickHouse::start();
    let shop = Shop::open_on(&clickhouse);
    let load = shop.produce(&args(&[&["--rate", "5000"], &FAULTS]));
    let mut ingester = shop.ingester_at_work(&args(&[&SMALL_BATCHES, &["--drain-timeout", "2s"]]));
    is_at_work(&shop);
    clickhouse.kill();
    // Enough that some of it waits in the ingester, whatever it had stored before the kill.
    let before: i64 = shop.ends().values().sum();
    eventually(PATIENCE, "10,000 more events wait", || {
        let more = shop.ends().values().sum::<i64>() - before;
        is(more > 10_000, more)
    });
    ingester.term();
    // What the drain may take, and to leave the group.
    assert_eq!(ingester.exit_code(Duration::from_secs(15)), Some(1));
    assert_eq!(last_words(&ingester).len(), 1, "one clear line");
    assert!(last_words(&ingester)[0].contains("--drain-timeout"), "{:?}", last_words(&ingester));

    clickhouse.up();
    let mut next = shop.ingester_at_work(&SMALL_BATCHES);
    let manifest = load.stop();
    shop.drained();
    next.drains();
    oracle::exactly_once(&shop, &manifest);
}

#[test]
fn clickhouse_killed_three_times_during_inserts_loses_and_doubles_nothing() {
    let clickhouse = OwnClickHouse::start();
    let shop = Shop::open_on(&clickhouse);
    let load = shop.produce(&args(&[&["--rate", "5000"], &FAULTS]));
    let mut ingester = shop.ingester_at_work(&SMALL_BATCHES);
    let sampler = Sampler::start(&shop);
    for _ in 0..3 {
        is_at_work(&shop);
        at_a_random_moment();
        clickhouse.kill();
        at_a_random_moment();
        clickhouse.up();
    }
    let manifest = load.stop();
    shop.drained();
    stayed(&ingester);
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    oracle::exactly_once(&shop, &manifest);
    assert!(ingester.closing().retries > 0, "the kills met something");
}

#[test]
fn clickhouse_frozen_for_longer_than_the_session_costs_no_membership_and_no_memory() {
    let clickhouse = OwnClickHouse::start();
    let shop = Shop::open_on(&clickhouse);
    let load = shop.produce(&args(&[&["--rate", "5000"], &FAULTS]));
    let mut ingester = shop.ingester_at_work(&args(&[&SMALL_BATCHES, &SHORT_SESSION]));
    is_at_work(&shop);
    let members = shop.kafka.members(&shop.group);
    assert_eq!(members.len(), 1);
    let sampler = Sampler::start(&shop);

    clickhouse.freeze();
    // Twice the session timeout: the time is the fault.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(shop.kafka.members(&shop.group), members, "while it is frozen");
    clickhouse.wake();

    let manifest = load.stop();
    shop.drained();
    assert_eq!(shop.kafka.members(&shop.group), members, "the same member all the time");
    stayed(&ingester);
    assert!(ingester.peak_memory_mb() < 256, "{} MB", ingester.peak_memory_mb());
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    oracle::exactly_once(&shop, &manifest);
}

#[test]
fn a_stop_waits_for_a_clickhouse_that_is_slow_for_longer_than_the_session() {
    let clickhouse = OwnClickHouse::start();
    let shop = Shop::open_on(&clickhouse);
    let load = shop.produce(&args(&[&["--rate", "5000"], &FAULTS]));
    let mut ingester = shop.ingester_at_work(&args(&[&SMALL_BATCHES, &SHORT_SESSION]));
    is_at_work(&shop);

    clickhouse.freeze();
    ingester.term();
    ingester.says("stopping", 1);
    // Longer than the session timeout, and shorter than the drain timeout: the time is the fault.
    std::thread::sleep(Duration::from_secs(8));
    clickhouse.wake();
    assert_eq!(ingester.exit_code(Duration::from_secs(25)), Some(0), "drained, not given up");

    let manifest = load.stop();
    let mut next = shop.ingester_at_work(&SMALL_BATCHES);
    shop.drained();
    next.drains();
    assert_eq!(next.closing().before, 0, "what was stored was committed too");
    oracle::exactly_once(&shop, &manifest);
}

#[test]
fn frozen_past_its_session_an_ingester_wakes_up_to_no_harm() {
    let shop = Shop::open();
    let flags = args(&[&SMALL_BATCHES, &SHORT_SESSION]);
    let load = shop.produce(&args(&[&["--rate", "5000"], &FAULTS]));
    let mut sleeper = shop.ingester_at_work(&flags);
    is_at_work(&shop);
    let sampler = Sampler::start(&shop);

    sleeper.freeze();
    let mut successor = shop.ingester_at_work(&flags);
    // It has taken over once it commits what was produced meanwhile.
    shop.drained();
    sleeper.wake();
    sleeper.says("partitions assigned", 2);

    let manifest = load.stop();
    shop.drained();
    sleeper.drains();
    successor.drains();
    sampler.saw_only_stored_offsets_committed();
    oracle::exactly_once(&shop, &manifest);
}

/// Waits until rows come in.
#[track_caller]
fn is_at_work(shop: &Shop) {
    let before = shop.stored();
    eventually(PATIENCE, "rows come in", || {
        let now = shop.stored();
        is(now > before, now)
    });
}

/// Asserts that it kept its partitions from its start until now.
#[track_caller]
fn stayed(ingester: &Program) {
    let counts = (ingester.said("partitions assigned"), ingester.said("partitions revoked"));
    assert_eq!(counts, (1, 0), "assignments and revocations");
}

/// The lines that it ended with.
fn last_words(program: &Program) -> Vec<String> {
    program.stderr().lines().filter(|line| line.starts_with("clickstream: ")).map(str::to_owned).collect()
}
