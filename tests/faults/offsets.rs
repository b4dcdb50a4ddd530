//! F27: committed offsets are set by hand, or by another client.

use crate::scenario_run::ScenarioRun;
use crate::scene::Scene;
use crate::support::WAIT_TIMEOUT;
use crate::support::proxy::ProxyFault;
use rand::RngExt;
use std::time::Duration;

/// The longest time that an ingester works before the fault comes.
const WARM_UP: Duration = Duration::from_secs(3);

/// Offsets are set back to the beginning, or anywhere; committed where they are, with another client's metadata and
/// without any; deleted. The ingester starts again there, and stores only rows that are not stored.
pub fn set_by_hand(run: &mut ScenarioRun) {
    let mut scene = Scene::open(run, |services| services, &[]);
    for round in run.rounds(5) {
        run.moment(WARM_UP);
        scene.ingester.drains();
        run.fault();
        let rng = &mut run.rng;
        scene.unwatched(|env| {
            let mut offsets = env.committed();
            match round % 5 {
                0 => env.kafka.commit(&env.topic, &offsets, ""),
                1 => env.kafka.commit(&env.topic, &offsets, "another client's own words"),
                2 => env.kafka.set_back(&env.topic),
                3 => {
                    offsets.values_mut().for_each(|offset| *offset = rng.random_range(0..*offset));
                    env.kafka.commit(&env.topic, &offsets, "");
                }
                _ => env.kafka.delete_group(&env.group),
            }
        });
        scene.start_again();
        scene.recovers(run);
        assert_eq!(scene.ingester.said("deleted"), 0, "the topic is the one that it was");
    }
    scene.closes(run);
}

/// An audit has inserts on their way that heal, below the committed offsets; these are set back, and an ingester starts there.
pub fn set_back_while_healing(run: &mut ScenarioRun) {
    let setting = run.draw();
    let services = setting.services();
    let (mut scene, proxy) = Scene::behind_a_proxy(setting, &services, &[]);
    let url = proxy.url();
    for _ in run.rounds(2) {
        run.moment(WARM_UP);
        scene.ingester.drains();
        let late = ProxyFault::Late(Duration::from_millis(run.rng.random_range(2_000..6_000)));
        let mut healer = None;
        scene.unwatched(|env| {
            env.lose("cityHash64(_partition, _offset) % 3 > 0");
            healer = Some(env.run("audit", &["--heal", "--clickhouse-url", &url]));
            proxy.meets([late]);
            env.kafka.set_back(&env.topic);
        });
        run.fault();
        scene.start_again();
        // It has healed, or it says that it was in the way.
        let code = healer.expect("it was started").exit_code(WAIT_TIMEOUT);
        assert!(matches!(code, Some(0 | 1)), "{code:?}");
        proxy.holds_nothing();
        scene.recovers(run);
        scene.env.run("audit", &["--heal"]).succeeds();
    }
    scene.closes(run);
}
