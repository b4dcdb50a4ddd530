//! F11: commits fail again and again.

use crate::course::{Course, is_at_work, stayed};
use crate::steps::VARIABLE;
use crate::support::sampler::Sampler;
use crate::support::shop::Shop;
use std::time::Duration;

/// Most do not reach the coordinator, or their answer is lost; rows go in all the same, and in the end all is committed.
pub fn fail(course: &mut Course) {
    let setting = course.draw();
    let shop = Shop::open_in(&setting.ground());
    let load = shop.produce(&setting.load());
    let failing = [(VARIABLE, "before_commit=fail%50,after_commit=fail%80")];
    let mut ingester = shop.run_with("ingest", &setting.flags("one"), &failing);
    ingester.says("lease opened", 1);
    let sampler = Sampler::start(&shop);
    is_at_work(&shop);
    for _ in course.rounds(3) {
        course.moment(Duration::from_secs(5));
        course.fault();
        course.recovers(&shop);
        // Killed with commits owed, the next one finds the rows.
        course.weigh(&ingester);
        stayed(&ingester);
        ingester.kill();
        ingester = shop.run_with("ingest", &setting.flags("one"), &failing);
        ingester.says("lease opened", 1);
    }
    let manifest = load.stop();
    shop.drained();
    assert!(ingester.said("offsets not committed yet") > 0, "the failures met something");
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}
