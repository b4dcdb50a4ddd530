//! F23: a second group on the same topic and tables.

use crate::scenario_run::{ScenarioRun, is_at_work};
use crate::scene::Scene;
use crate::support::proxy::ProxyFault;
use rand::RngExt;
use std::time::Duration;

/// The longest time that an ingester works before the fault comes.
const WARM_UP: Duration = Duration::from_secs(3);

/// A second group is refused until it is told to take over from the group that owns the tables. Then the first group is
/// fenced while it works: its members end, and are refused if they return. The second group begins at the topic's
/// beginning, and stores nothing twice.
pub fn second(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    setting.share_out();
    setting.keep_inserting();
    run.sets(&setting);
    let services = setting.services();
    let (mut scene, proxy) = Scene::behind_a_proxy(setting, &services, &[]);
    for round in run.rounds(2) {
        let owner = scene.env.group.clone();
        let next = format!("{}-{round}", scene.env.topic);
        let mut other = scene.another();
        other.says("lease opened", 1);
        let flags = scene.setting.flags("next");
        let with = |more: &[&str]| scene.env.ingest(&[&flags[..], &["--group", &next], more].concat());
        with(&[]).gives_up(&owner);
        with(&["--take-over", "some-other-group"]).gives_up(&owner);
        scene.recovers(run);
        assert!(other.is_running(), "the owner is not disturbed");

        run.moment(WARM_UP);
        let late = ProxyFault::Late(Duration::from_millis(run.rng.random_range(1_000..6_000)));
        proxy.meets(vec![late; scene.setting.in_flight as usize]);
        let mut taker = with(&["--take-over", &owner]);
        taker.says("lease opened", 1);
        run.fault();
        proxy.forget();
        scene.ingester.gives_up(&next);
        other.gives_up(&next);
        scene.env.ingest(&flags).gives_up(&next);
        scene.unwatched(|env| _ = env.change_group(&next));
        run.recovers(&scene.env);
        taker.drains();
        // The owner needs no word to come back. Through the proxy again.
        scene.start_again();
        is_at_work(&scene.env);
        scene.recovers(run);
    }
    proxy.holds_nothing();
    scene.closes(run);
}
