//! A pipeline under load, watched from outside, for a scenario to attack.

use crate::course::{Course, Setting, is_at_work};
use crate::support::process::Program;
use crate::support::sampler::Sampler;
use crate::support::shop::{Ground, Production, Shop};

/// One ingester at work on a topic that is produced into.
pub struct Scene {
    pub shop: Shop,
    pub setting: Setting,
    pub ingester: Program,
    load: Production,
    sampler: Sampler,
}

impl Scene {
    /// Opens it with a setting that is drawn, on services that all share, unless `ground` puts others in their place; the
    /// ingester has some more flags.
    pub fn open(course: &mut Course, ground: impl FnOnce(Ground) -> Ground, more: &[&str]) -> Self {
        let setting = course.draw();
        let shop = Shop::open_in(&ground(setting.ground()));
        let load = shop.produce(&setting.load());
        let ingester = shop.ingester_at_work(&[&setting.flags("one")[..], more].concat());
        let sampler = Sampler::start(&shop);
        is_at_work(&shop);
        Self { shop, setting, ingester, load, sampler }
    }

    /// A fault is over.
    #[track_caller]
    pub fn recovers(&self, course: &mut Course) {
        course.recovers(&self.shop);
        course.weigh(&self.ingester);
    }

    /// The load ends, everything is drained, and the oracle judges.
    #[track_caller]
    pub fn closes(mut self, course: &mut Course) {
        let manifest = self.load.stop();
        self.shop.drained();
        self.ingester.drains();
        self.sampler.saw_only_stored_offsets_committed();
        course.judge(&self.shop, &manifest);
    }
}
