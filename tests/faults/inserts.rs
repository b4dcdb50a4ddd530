//! F25: an insert comes late, twice, or its answer does not come.

use crate::scenario_run::{ScenarioRun, Setting, stayed};
use crate::scene::Scene;
use crate::support::proxy::{Proxy, ProxyFault};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::{Duration, Instant};

/// The longest time that an ingester works before the fault comes.
const WARM_UP: Duration = Duration::from_secs(3);

/// The longest delay that a lost answer may cause, beyond the answer's own timeout.
const ANSWER_LOSS_COST: Duration = Duration::from_secs(1);

fn open(run: &mut ScenarioRun, change: fn(&mut Setting)) -> (Scene, Proxy) {
    let mut setting = run.draw();
    setting.keep_inserting();
    change(&mut setting);
    run.sets(&setting);
    let services = setting.services();
    Scene::behind_a_proxy(setting, &services, &[])
}

/// For longer than any session, and than anybody waits: its sender is killed meanwhile, frozen past its session, or lives.
pub fn held_back(run: &mut ScenarioRun) {
    let (mut scene, proxy) = open(run, Setting::end_sessions_soon);
    let time = Duration::from_secs(if run.is_long() { 60 } else { 12 });
    for round in run.rounds(3) {
        run.moment(WARM_UP);
        proxy.meets([ProxyFault::Late(time)]);
        run.fault();
        match round % 3 {
            0 => {
                scene.ingester.kill();
                scene.start_again();
            }
            1 => {
                scene.ingester.freeze();
                let mut other = scene.another();
                run.recovers(&scene.env);
                scene.ingester.wake();
                run.recovers(&scene.env);
                other.drains();
                if scene.ingester.has_ended() {
                    scene.start_again();
                }
            }
            _ => {}
        }
        scene.recovers(run);
    }
    proxy.holds_nothing();
    scene.closes(run);
}

/// A proxy sends every third request once more, at any time within three seconds, while the ingester is killed again and again.
pub fn repeated(run: &mut ScenarioRun) {
    let (mut scene, proxy) = open(run, |_| {});
    let mut rng = StdRng::from_rng(&mut run.rng);
    proxy.draw(move || {
        rng.random_bool(1.0 / 3.0).then(|| ProxyFault::Repeated(Duration::from_millis(rng.random_range(0..3_000))))
    });
    for _ in run.rounds(4) {
        let happened = proxy.happened();
        eventually(WAIT_TIMEOUT, "an insert is to be repeated", || is(proxy.happened() > happened, happened));
        run.moment(WARM_UP);
        scene.ingester.kill();
        run.fault();
        scene.start_again();
        scene.recovers(run);
    }
    proxy.forget();
    proxy.holds_nothing();
    scene.closes(run);
}

/// Every second one: the request has gone to the server as a whole. It stays in its group, and each costs next to nothing.
pub fn answers_lost(run: &mut ScenarioRun) {
    let (scene, proxy) = open(run, |_| {});
    for _ in run.rounds(1) {
        let (happened, mut second) = (proxy.happened(), false);
        proxy.draw(move || {
            second = !second;
            second.then_some(ProxyFault::CutAfterRequest)
        });
        eventually(WAIT_TIMEOUT, "20 answers are lost", || is(proxy.happened() >= happened + 20, proxy.happened()));
        run.fault();
        run.goes_on(&scene.env);
        proxy.forget();
        scene.recovers(run);
        let (usual, lost) = (
            time(&scene, &proxy, || ProxyFault::Late(Duration::ZERO)),
            time(&scene, &proxy, || ProxyFault::CutAfterRequest),
        );
        eprintln!("committed after {usual:?}, and after {lost:?} where an answer is lost");
        assert!(lost < usual + ANSWER_LOSS_COST, "a lost answer costs too much: {lost:?} in place of {usual:?}");
    }
    stayed(&scene.ingester);
    scene.closes(run);
}

/// From such an insert until all that stood in the topic by then is committed: the median of five.
fn time(scene: &Scene, proxy: &Proxy, fault: fn() -> ProxyFault) -> Duration {
    let mut times = [Duration::ZERO; 5];
    for time in &mut times {
        proxy.meets([fault()]);
        let began = Instant::now();
        scene.env.drained();
        *time = began.elapsed();
    }
    times.sort();
    times[2]
}
