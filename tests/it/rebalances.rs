//! How long a dead member's partitions are without an owner. (Members that come, go and die under load: `tests/faults`.)

use crate::support::oracle;
use crate::support::shop::Shop;
use std::time::Duration;

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
