//! F4, F5, F14: ClickHouse is killed, frozen, or refuses for a while.

use crate::course::{Course, stayed};
use crate::scene::Scene;
use crate::support::shop::Ground;
use crate::support::stack::OwnClickHouse;
use rand::RngExt;
use std::time::Duration;

/// How long after the last fault the next one comes, at most; and how long ClickHouse is away.
const MOMENT: Duration = Duration::from_secs(3);

pub fn killed(course: &mut Course) {
    let clickhouse = OwnClickHouse::start();
    let scene = Scene::open(course, |ground| Ground { clickhouse: clickhouse.url(), ..ground }, &[]);
    for _ in course.rounds(3) {
        course.moment(MOMENT);
        clickhouse.kill();
        course.fault();
        course.moment(MOMENT);
        clickhouse.up();
        scene.recovers(course);
    }
    stayed(&scene.ingester);
    scene.closes(course);
}

/// For 15 s, and in long runs for any time up to a minute: longer than the session, and than an insert is waited for.
pub fn frozen(course: &mut Course) {
    let clickhouse = OwnClickHouse::start();
    let mut setting = course.draw();
    setting.end_sessions_soon();
    course.sets(&setting);
    let ground = Ground { clickhouse: clickhouse.url(), ..setting.ground() };
    let scene = Scene::set(setting, &ground, &[]);
    let members = || scene.shop.kafka.members(&scene.shop.group);
    let before = members();
    assert_eq!(before.len(), 1);
    for round in course.rounds(1) {
        course.moment(MOMENT);
        clickhouse.freeze();
        course.fault();
        let time = if round == 0 { 15 } else { course.rng.random_range(2..60) };
        std::thread::sleep(Duration::from_secs(time));
        assert_eq!(members(), before, "while it is frozen");
        clickhouse.wake();
        scene.recovers(course);
    }
    assert_eq!(members(), before, "the same member all the time");
    stayed(&scene.ingester);
    scene.closes(course);
}

/// The refusals are ClickHouse's own, brought about by settings of the table.
pub fn refuses(course: &mut Course) {
    let mut scene = Scene::open(course, |ground| ground, &[]);
    // A reservation that is larger than any disk; a table that may have no second part; one that takes no write.
    let refusals = [
        ("min_free_disk_bytes_to_perform_insert", "1000000000000000000", "Code: 243"),
        ("parts_to_throw_insert", "1", "Code: 252"),
        ("table_readonly", "1", "Code: 774"),
    ];
    for _ in course.rounds(1) {
        for (name, value, code) in refusals {
            let said = scene.ingester.said(code);
            scene.shop.sql(&format!("ALTER TABLE db.events MODIFY SETTING {name} = {value}"));
            course.fault();
            scene.ingester.says(code, said + 1);
            course.moment(MOMENT);
            let back = if name == "parts_to_throw_insert" {
                "MODIFY SETTING parts_to_throw_insert = 100000"
            } else {
                &format!("RESET SETTING {name}")
            };
            scene.shop.sql(&format!("ALTER TABLE db.events {back}"));
            scene.recovers(course);
        }
    }
    stayed(&scene.ingester);
    scene.closes(course);
}
