//! F27: committed offsets are set by hand, or by another client.

use crate::course::Course;
use crate::scene::Scene;
use crate::support::PATIENCE;
use crate::support::proxy::Mishap;
use rand::RngExt;
use std::time::Duration;

/// How far into its work a fault may come.
const INTO_WORK: Duration = Duration::from_secs(3);

/// Back to the beginning, or to anywhere; to where they are, with metadata of another client and with none; deleted. It starts again
/// there, and stores what is not stored.
pub fn set_by_hand(course: &mut Course) {
    let mut scene = Scene::open(course, |ground| ground, &[]);
    for round in course.rounds(5) {
        course.moment(INTO_WORK);
        scene.ingester.drains();
        course.fault();
        let rng = &mut course.rng;
        scene.unwatched(|shop| {
            let mut offsets = shop.committed();
            match round % 5 {
                0 => shop.kafka.commit(&shop.topic, &offsets, ""),
                1 => shop.kafka.commit(&shop.topic, &offsets, "another client's own words"),
                2 => shop.kafka.set_back(&shop.topic),
                3 => {
                    offsets.values_mut().for_each(|offset| *offset = rng.random_range(0..*offset));
                    shop.kafka.commit(&shop.topic, &offsets, "");
                }
                _ => shop.kafka.delete_group(&shop.group),
            }
        });
        scene.start_again();
        scene.recovers(course);
        assert_eq!(scene.ingester.said("deleted"), 0, "the topic is the one that it was");
    }
    scene.closes(course);
}

/// An audit has inserts on their way that heal, below the committed offsets; these are set back, and an ingester starts there.
pub fn set_back_while_healing(course: &mut Course) {
    let setting = course.draw();
    let ground = setting.ground();
    let (mut scene, proxy) = Scene::behind_a_proxy(setting, &ground, &[]);
    let url = proxy.url();
    for _ in course.rounds(2) {
        course.moment(INTO_WORK);
        scene.ingester.drains();
        let late = Mishap::Late(Duration::from_millis(course.rng.random_range(2_000..6_000)));
        let mut healer = None;
        scene.unwatched(|shop| {
            shop.lose("cityHash64(_partition, _offset) % 3 > 0");
            healer = Some(shop.run("audit", &["--heal", "--clickhouse-url", &url]));
            proxy.meets([late]);
            shop.kafka.set_back(&shop.topic);
        });
        course.fault();
        scene.start_again();
        // It has healed, or it says that it was in the way.
        let code = healer.expect("it was started").exit_code(PATIENCE);
        assert!(matches!(code, Some(0 | 1)), "{code:?}");
        proxy.holds_nothing();
        scene.recovers(course);
        scene.shop.run("audit", &["--heal"]).succeeds();
    }
    scene.closes(course);
}
