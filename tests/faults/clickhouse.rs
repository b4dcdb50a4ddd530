//! F4, F5, F14: ClickHouse is killed, frozen, or refuses for a while.

use crate::course::{Course, is_at_work, stayed};
use crate::support::sampler::Sampler;
use crate::support::shop::{Ground, Shop};
use crate::support::stack::OwnClickHouse;
use rand::RngExt;
use std::time::Duration;

/// How long after the last fault the next one comes, at most; and how long ClickHouse is away.
const MOMENT: Duration = Duration::from_secs(3);

pub fn killed(course: &mut Course) {
    let clickhouse = OwnClickHouse::start();
    let setting = course.draw();
    let shop = Shop::open_in(&Ground { clickhouse: clickhouse.url(), ..setting.ground() });
    let load = shop.produce(&setting.load());
    let mut ingester = shop.ingester_at_work(&setting.flags("one"));
    let sampler = Sampler::start(&shop);
    is_at_work(&shop);
    for _ in course.rounds(3) {
        course.moment(MOMENT);
        clickhouse.kill();
        course.fault();
        course.moment(MOMENT);
        clickhouse.up();
        course.recovers(&shop);
        course.weigh(&ingester);
    }
    let manifest = load.stop();
    shop.drained();
    stayed(&ingester);
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}

/// For 15 s, and in long runs for any time up to a minute: longer than the session, and than an insert is waited for.
pub fn frozen(course: &mut Course) {
    let clickhouse = OwnClickHouse::start();
    let setting = course.draw();
    let shop = Shop::open_in(&Ground { clickhouse: clickhouse.url(), ..setting.ground() });
    let load = shop.produce(&setting.load());
    let mut ingester = shop.ingester_at_work(&setting.flags("one"));
    is_at_work(&shop);
    let members = shop.kafka.members(&shop.group);
    assert_eq!(members.len(), 1);
    let sampler = Sampler::start(&shop);
    for round in course.rounds(1) {
        course.moment(MOMENT);
        clickhouse.freeze();
        course.fault();
        let time = if round == 0 { 15 } else { course.rng.random_range(2..60) };
        std::thread::sleep(Duration::from_secs(time));
        assert_eq!(shop.kafka.members(&shop.group), members, "while it is frozen");
        clickhouse.wake();
        course.recovers(&shop);
        course.weigh(&ingester);
    }
    let manifest = load.stop();
    shop.drained();
    assert_eq!(shop.kafka.members(&shop.group), members, "the same member all the time");
    stayed(&ingester);
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}

/// The refusals are ClickHouse's own, brought about by settings of the table.
pub fn refuses(course: &mut Course) {
    let setting = course.draw();
    let shop = Shop::open_in(&setting.ground());
    let load = shop.produce(&setting.load());
    let mut ingester = shop.ingester_at_work(&setting.flags("one"));
    let sampler = Sampler::start(&shop);
    is_at_work(&shop);
    // A reservation that is larger than any disk; a table that may have no second part; one that takes no write.
    let refusals = [
        ("min_free_disk_bytes_to_perform_insert", "1000000000000000000", "Code: 243"),
        ("parts_to_throw_insert", "1", "Code: 252"),
        ("table_readonly", "1", "Code: 774"),
    ];
    for _ in course.rounds(1) {
        for (name, value, code) in refusals {
            let said = ingester.said(code);
            shop.sql(&format!("ALTER TABLE db.events MODIFY SETTING {name} = {value}"));
            course.fault();
            ingester.says(code, said + 1);
            course.moment(MOMENT);
            let back = if name == "parts_to_throw_insert" {
                "MODIFY SETTING parts_to_throw_insert = 100000"
            } else {
                &format!("RESET SETTING {name}")
            };
            shop.sql(&format!("ALTER TABLE db.events {back}"));
            course.recovers(&shop);
        }
        course.weigh(&ingester);
    }
    let manifest = load.stop();
    shop.drained();
    stayed(&ingester);
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}
