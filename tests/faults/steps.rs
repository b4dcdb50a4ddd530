//! F2: at each step of the work, by name: it dies, stalls, or fails.

use crate::course::{Course, Members, is_at_work};
use crate::support::PATIENCE;
use crate::support::sampler::Sampler;
use crate::support::shop::Shop;
use rand::RngExt;

pub const VARIABLE: &str = "CLICKSTREAM_FAILPOINTS";

/// Steps that come again and again.
const WORK: [&str; 5] = ["before_insert", "in_insert", "after_insert", "before_commit", "after_commit"];

pub fn die_1(course: &mut Course) {
    die(course, 1);
}

pub fn die_3(course: &mut Course) {
    die(course, 3);
}

pub fn die_12(course: &mut Course) {
    die(course, 12);
}

fn die(course: &mut Course, partitions: i32) {
    let mut setting = course.draw();
    // Static, so that the next one works at once; several inserts at once, so that it dies in the middle of the others.
    (setting.partitions, setting.members, setting.in_flight) = (partitions, Members::Static, 8);
    course.sets(&setting);
    let shop = Shop::open_in(&setting.ground());
    let flags = setting.flags("one");
    let sampler = Sampler::start(&shop);
    let load = shop.produce(&setting.load());
    for _ in course.rounds(1) {
        for step in WORK {
            let nth = course.rng.random_range(1..10);
            let mut ingester = shop.run_with("ingest", &flags, &[(VARIABLE, &format!("{step}=die@{nth}"))]);
            assert_eq!(ingester.exit_code(PATIENCE), None, "killed at {step}");
            course.fault();
        }
        for step in ["on_assign", "on_revoke"] {
            let mut ingester = shop.run_with("ingest", &flags, &[(VARIABLE, &format!("{step}=die"))]);
            if step == "on_revoke" {
                ingester.says("lease opened", 1);
                ingester.term();
            }
            assert_eq!(ingester.exit_code(PATIENCE), None, "killed at {step}");
            course.fault();
        }
    }
    let mut last = shop.ingest(&flags);
    course.recovers(&shop);
    let manifest = load.stop();
    shop.drained();
    last.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}

/// Stalls are shorter and longer than what is waited for: an insert's time to begin, a session.
pub fn stall_and_fail(course: &mut Course) {
    let mut setting = course.draw();
    setting.end_sessions_soon();
    course.sets(&setting);
    let shop = Shop::open_in(&setting.ground());
    let flags = setting.flags("one");
    let sampler = Sampler::start(&shop);
    let load = shop.produce(&setting.load());
    for _ in course.rounds(1) {
        let mut points: Vec<_> = WORK.iter().map(|step| format!("{step}=fail%15")).collect();
        points.extend(WORK[..3].iter().map(|step| format!("{step}=stall:7s@{}", course.rng.random_range(2..9))));
        points.extend(["on_assign=stall:1s", "on_revoke=stall:1s"].map(str::to_owned));
        let mut ingester = shop.run_with("ingest", &flags, &[(VARIABLE, &points.join(","))]);
        ingester.says("lease opened", 1);
        is_at_work(&shop);
        shop.drained();
        ingester.drains();
        assert!(ingester.closing().retries > 0, "the failures met something");
        course.fault();
    }
    let mut last = shop.ingest(&flags);
    course.recovers(&shop);
    let manifest = load.stop();
    shop.drained();
    last.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}
