//! Members that come and go.

use crate::support::SHORT_SESSION;
use crate::support::oracle;
use crate::support::sampler::Sampler;
use crate::support::shop::Shop;
use std::time::Duration;

fn one_joins_and_leaves(strategy: &[&str]) {
    let shop = Shop::open();
    let flags = [strategy, &SHORT_SESSION, &["--batch-rows", "200", "--batch-timeout", "1s"]].concat();
    let faults = ["--faults", "bad=0.01,dup=0.01,late=0.01"];
    let load = shop.produce(&[&["--rate", "4000"], &faults[..]].concat());
    let mut stays = shop.ingester_at_work(&flags);
    let sampler = Sampler::start(&shop);
    for _ in 0..2 {
        let mut guest = shop.ingester_at_work(&flags);
        // Both work: what is there by now is committed, whoever owns it.
        shop.drained();
        guest.drains();
        assert!(guest.closing().events > 0, "the guest had partitions, and they were not stuck");
        shop.drained();
    }
    let manifest = load.stop();
    shop.drained();
    stays.drains();
    sampler.saw_only_stored_offsets_committed();
    oracle::exactly_once(&shop, &manifest);
}

#[test]
fn one_that_joins_and_leaves_costs_nothing_with_cooperative_sticky() {
    one_joins_and_leaves(&[]);
}

#[test]
fn one_that_joins_and_leaves_costs_nothing_with_range() {
    one_joins_and_leaves(&["--kafka", "partition.assignment.strategy=range"]);
}

#[test]
fn a_killed_members_partitions_are_taken_over_within_fifteen_seconds() {
    let shop = Shop::open_alone();
    let load = shop.produce(&["--rate", "3000"]);
    let mut survivor = shop.ingester_at_work(&[]);
    let mut victim = shop.ingester_at_work(&[]);
    shop.drained();
    victim.kill();
    // Behind what was there at the kill there is new work in each partition: past this offset somebody else went on.
    let ends = shop.ends().into_iter().map(|(partition, end)| (partition, end + 1)).collect();
    shop.drained_to(&ends, Duration::from_secs(15));
    let manifest = load.stop();
    shop.drained();
    survivor.drains();
    oracle::exactly_once(&shop, &manifest);
}
