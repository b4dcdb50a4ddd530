//! A pipeline under load, watched from outside, for a scenario to attack.

use crate::course::{Course, Setting, is_at_work};
use crate::support::process::Program;
use crate::support::proxy::Proxy;
use crate::support::sampler::Sampler;
use crate::support::shop::{Ground, Production, Shop};

/// One ingester at work on a topic that is produced into.
pub struct Scene {
    pub shop: Shop,
    pub setting: Setting,
    pub ingester: Program,
    /// Those of the ingester.
    flags: Vec<String>,
    load: Production,
    sampler: Sampler,
}

impl Scene {
    /// Opens it with a setting that is drawn, on services that all share, unless `ground` puts others in their place; the
    /// ingester has some more flags.
    pub fn open(course: &mut Course, ground: impl FnOnce(Ground) -> Ground, more: &[&str]) -> Self {
        let setting = course.draw();
        let ground = ground(setting.ground());
        Self::set(setting, &ground, more)
    }

    /// Opens it with this setting, on these services.
    pub fn set(setting: Setting, ground: &Ground, more: &[&str]) -> Self {
        let shop = Shop::open_in(ground);
        let load = shop.produce(&setting.load());
        let flags = [&setting.flags("one")[..], more].concat();
        let ingester = shop.ingester_at_work(&flags);
        let sampler = Sampler::start(&shop);
        is_at_work(&shop);
        Self { shop, setting, ingester, flags: flags.into_iter().map(str::to_owned).collect(), load, sampler }
    }

    /// Opens it with this setting, on these services, and a proxy between the ingester and ClickHouse.
    pub fn behind_a_proxy(setting: Setting, ground: &Ground, more: &[&str]) -> (Self, Proxy) {
        let proxy = Proxy::start(&ground.clickhouse);
        (Self::set(setting, ground, &[&["--clickhouse-url", &proxy.url()], more].concat()), proxy)
    }

    /// Starts the ingester again, which has ended.
    pub fn start_again(&mut self) {
        let flags: Vec<_> = self.flags.iter().map(String::as_str).collect();
        self.ingester = self.shop.ingest(&flags);
    }

    /// Starts another ingester, with the name of another member, and without a proxy.
    pub fn another(&self) -> Program {
        self.shop.ingest(&self.setting.flags("another"))
    }

    /// The one who watches looks away while this is done: what is committed may go back.
    #[track_caller]
    pub fn unwatched(&mut self, act: impl FnOnce(&mut Shop)) {
        self.sampler.ends();
        act(&mut self.shop);
        self.sampler = Sampler::start(&self.shop);
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
