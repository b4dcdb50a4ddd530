//! F23: a second group on the same topic and tables.

use crate::course::{Course, is_at_work};
use crate::scene::Scene;
use crate::support::proxy::Mishap;
use rand::RngExt;
use std::time::Duration;

/// How far into its work a fault may come.
const INTO_WORK: Duration = Duration::from_secs(3);

/// It is refused, as long as it is not told to take over from the group that owns the tables. Then that one is fenced, at work as
/// it is: its members end, and are refused if they come back. The second one begins at the topic's beginning, and stores nothing twice.
pub fn second(course: &mut Course) {
    let mut setting = course.draw();
    setting.share_out();
    setting.keep_inserting();
    course.sets(&setting);
    let ground = setting.ground();
    let (mut scene, proxy) = Scene::behind_a_proxy(setting, &ground, &[]);
    for round in course.rounds(2) {
        let owner = scene.shop.group.clone();
        let next = format!("{}-{round}", scene.shop.topic);
        let mut other = scene.another();
        other.says("lease opened", 1);
        let flags = scene.setting.flags("next");
        let with = |more: &[&str]| scene.shop.ingest(&[&flags[..], &["--group", &next], more].concat());
        with(&[]).gives_up(&owner);
        with(&["--take-over", "some-other-group"]).gives_up(&owner);
        scene.recovers(course);
        assert!(other.is_running(), "the owner is not disturbed");

        course.moment(INTO_WORK);
        let late = Mishap::Late(Duration::from_millis(course.rng.random_range(1_000..6_000)));
        proxy.meets(vec![late; scene.setting.in_flight as usize]);
        let mut taker = with(&["--take-over", &owner]);
        taker.says("lease opened", 1);
        course.fault();
        proxy.forget();
        scene.ingester.gives_up(&next);
        other.gives_up(&next);
        scene.shop.ingest(&flags).gives_up(&next);
        scene.unwatched(|shop| _ = shop.change_group(&next));
        course.recovers(&scene.shop);
        taker.drains();
        // The owner needs no word to come back. Through the proxy again.
        scene.start_again();
        is_at_work(&scene.shop);
        scene.recovers(course);
    }
    proxy.holds_nothing();
    scene.closes(course);
}
