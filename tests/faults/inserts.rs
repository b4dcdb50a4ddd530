//! F25: an insert comes late, twice, or its answer does not come.

use crate::course::{Course, Setting, stayed};
use crate::scene::Scene;
use crate::support::proxy::{Mishap, Proxy};
use crate::support::{PATIENCE, eventually, is};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::{Duration, Instant};

/// How far into its work a fault may come.
const INTO_WORK: Duration = Duration::from_secs(3);

/// What a lost answer may cost, beyond what takes its time anyway.
const COST: Duration = Duration::from_secs(1);

fn open(course: &mut Course, change: fn(&mut Setting)) -> (Scene, Proxy) {
    let mut setting = course.draw();
    setting.keep_inserting();
    change(&mut setting);
    course.sets(&setting);
    let ground = setting.ground();
    Scene::behind_a_proxy(setting, &ground, &[])
}

/// For longer than any session, and than anybody waits: its sender is killed meanwhile, frozen past its session, or lives.
pub fn held_back(course: &mut Course) {
    let (mut scene, proxy) = open(course, Setting::end_sessions_soon);
    let time = Duration::from_secs(if course.is_long() { 60 } else { 12 });
    for round in course.rounds(3) {
        course.moment(INTO_WORK);
        proxy.meets([Mishap::Late(time)]);
        course.fault();
        match round % 3 {
            0 => {
                scene.ingester.kill();
                scene.start_again();
            }
            1 => {
                scene.ingester.freeze();
                let mut other = scene.another();
                course.recovers(&scene.shop);
                scene.ingester.wake();
                course.recovers(&scene.shop);
                other.drains();
                if scene.ingester.has_ended() {
                    scene.start_again();
                }
            }
            _ => {}
        }
        scene.recovers(course);
    }
    proxy.holds_nothing();
    scene.closes(course);
}

/// A proxy sends every third request once more, at any time within three seconds, while the ingester is killed again and again.
pub fn repeated(course: &mut Course) {
    let (mut scene, proxy) = open(course, |_| {});
    let mut rng = StdRng::from_rng(&mut course.rng);
    proxy.draw(move || {
        rng.random_bool(1.0 / 3.0).then(|| Mishap::Repeated(Duration::from_millis(rng.random_range(0..3_000))))
    });
    for _ in course.rounds(4) {
        let happened = proxy.happened();
        eventually(PATIENCE, "an insert is to be repeated", || is(proxy.happened() > happened, happened));
        course.moment(INTO_WORK);
        scene.ingester.kill();
        course.fault();
        scene.start_again();
        scene.recovers(course);
    }
    proxy.forget();
    proxy.holds_nothing();
    scene.closes(course);
}

/// Every second one: the request has gone to the server as a whole. It stays in its group, and each costs next to nothing.
pub fn answers_lost(course: &mut Course) {
    let (scene, proxy) = open(course, |_| {});
    for _ in course.rounds(1) {
        let (happened, mut second) = (proxy.happened(), false);
        proxy.draw(move || {
            second = !second;
            second.then_some(Mishap::CutAfterRequest)
        });
        eventually(PATIENCE, "20 answers are lost", || is(proxy.happened() >= happened + 20, proxy.happened()));
        course.fault();
        course.goes_on(&scene.shop);
        proxy.forget();
        scene.recovers(course);
        let (usual, lost) =
            (time(&scene, &proxy, || Mishap::Late(Duration::ZERO)), time(&scene, &proxy, || Mishap::CutAfterRequest));
        eprintln!("committed after {usual:?}, and after {lost:?} where an answer is lost");
        assert!(lost < usual + COST, "a lost answer costs too much: {lost:?} in place of {usual:?}");
    }
    stayed(&scene.ingester);
    scene.closes(course);
}

/// From such an insert until all that stood in the topic by then is committed: the median of five.
fn time(scene: &Scene, proxy: &Proxy, mishap: fn() -> Mishap) -> Duration {
    let mut times = [Duration::ZERO; 5];
    for time in &mut times {
        proxy.meets([mishap()]);
        let began = Instant::now();
        scene.shop.drained();
        *time = began.elapsed();
    }
    times.sort();
    times[2]
}
