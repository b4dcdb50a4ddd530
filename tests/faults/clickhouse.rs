//! F4, F5, F14: ClickHouse is killed, frozen, or refuses for a while.

use crate::scenario_run::{ScenarioRun, stayed};
use crate::scene::Scene;
use crate::support::stack::OwnClickHouse;
use crate::support::test_env::Services;
use rand::RngExt;
use std::time::Duration;

/// The longest time from one fault to the next, and the time that ClickHouse is away.
const FAULT_INTERVAL: Duration = Duration::from_secs(3);

pub fn killed(run: &mut ScenarioRun) {
    let clickhouse = OwnClickHouse::start();
    let scene = Scene::open(run, |services| Services { clickhouse: clickhouse.url(), ..services }, &[]);
    for _ in run.rounds(3) {
        run.moment(FAULT_INTERVAL);
        clickhouse.kill();
        run.fault();
        run.moment(FAULT_INTERVAL);
        clickhouse.up();
        scene.recovers(run);
    }
    stayed(&scene.ingester);
    scene.closes(run);
}

/// For 15 s, and in long runs for any time up to a minute: longer than the session, and than an insert is waited for.
pub fn frozen(run: &mut ScenarioRun) {
    let clickhouse = OwnClickHouse::start();
    let mut setting = run.draw();
    setting.end_sessions_soon();
    run.sets(&setting);
    let services = Services { clickhouse: clickhouse.url(), ..setting.services() };
    let scene = Scene::set(setting, &services, &[]);
    let members = || scene.env.kafka.members(&scene.env.group);
    let before = members();
    assert_eq!(before.len(), 1);
    for round in run.rounds(1) {
        run.moment(FAULT_INTERVAL);
        clickhouse.freeze();
        run.fault();
        let time = if round == 0 { 15 } else { run.rng.random_range(2..60) };
        std::thread::sleep(Duration::from_secs(time));
        assert_eq!(members(), before, "while it is frozen");
        clickhouse.wake();
        scene.recovers(run);
    }
    assert_eq!(members(), before, "the same member all the time");
    stayed(&scene.ingester);
    scene.closes(run);
}

/// The refusals are ClickHouse's own, brought about by settings of the table.
pub fn refuses(run: &mut ScenarioRun) {
    let mut scene = Scene::open(run, |services| services, &[]);
    // A reservation that is larger than any disk; a table that may have no second part; one that takes no write.
    let refusals = [
        ("min_free_disk_bytes_to_perform_insert", "1000000000000000000", "Code: 243"),
        ("parts_to_throw_insert", "1", "Code: 252"),
        ("table_readonly", "1", "Code: 774"),
    ];
    for _ in run.rounds(1) {
        for (name, value, code) in refusals {
            let said = scene.ingester.said(code);
            scene.env.sql(&format!("ALTER TABLE db.events MODIFY SETTING {name} = {value}"));
            run.fault();
            scene.ingester.says(code, said + 1);
            run.moment(FAULT_INTERVAL);
            let back = if name == "parts_to_throw_insert" {
                "MODIFY SETTING parts_to_throw_insert = 100000"
            } else {
                &format!("RESET SETTING {name}")
            };
            scene.env.sql(&format!("ALTER TABLE db.events {back}"));
            scene.recovers(run);
        }
    }
    stayed(&scene.ingester);
    scene.closes(run);
}
