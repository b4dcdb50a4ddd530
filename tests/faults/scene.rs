//! A pipeline under load, watched from outside, for a scenario to attack.

use crate::scenario_run::{ScenarioRun, Setting, is_at_work};
use crate::support::process::Program;
use crate::support::proxy::Proxy;
use crate::support::sampler::Sampler;
use crate::support::test_env::{Production, Services, TestEnv};

/// One ingester at work on a topic that is produced into.
pub struct Scene {
    pub env: TestEnv,
    pub setting: Setting,
    pub ingester: Program,
    /// Those of the ingester.
    flags: Vec<String>,
    load: Production,
    sampler: Sampler,
}

impl Scene {
    /// Opens it with a setting that is drawn, on services that all share, unless `services` puts others in their place; the
    /// ingester has some more flags.
    pub fn open(run: &mut ScenarioRun, services: impl FnOnce(Services) -> Services, more: &[&str]) -> Self {
        let setting = run.draw();
        let services = services(setting.services());
        Self::set(setting, &services, more)
    }

    /// Opens it with this setting, on these services.
    pub fn set(setting: Setting, services: &Services, more: &[&str]) -> Self {
        let env = TestEnv::open_in(services);
        let load = env.produce(&setting.load());
        let flags = [&setting.flags("one")[..], more].concat();
        let ingester = env.ingester_at_work(&flags);
        let sampler = Sampler::start(&env);
        is_at_work(&env);
        Self { env, setting, ingester, flags: flags.into_iter().map(str::to_owned).collect(), load, sampler }
    }

    /// Opens it with this setting, on these services, and a proxy between the ingester and ClickHouse.
    pub fn behind_a_proxy(setting: Setting, services: &Services, more: &[&str]) -> (Self, Proxy) {
        let proxy = Proxy::start(&services.clickhouse);
        (Self::set(setting, services, &[&["--clickhouse-url", &proxy.url()], more].concat()), proxy)
    }

    /// Starts the ingester again, which has ended.
    pub fn start_again(&mut self) {
        let flags: Vec<_> = self.flags.iter().map(String::as_str).collect();
        self.ingester = self.env.ingest(&flags);
    }

    /// Starts another ingester, with the name of another member, and without a proxy.
    pub fn another(&self) -> Program {
        self.env.ingest(&self.setting.flags("another"))
    }

    /// The witness pauses meanwhile, because committed offsets may go back.
    #[track_caller]
    pub fn unwatched(&mut self, act: impl FnOnce(&mut TestEnv)) {
        self.sampler.ends();
        act(&mut self.env);
        self.sampler = Sampler::start(&self.env);
    }

    /// A fault is over.
    #[track_caller]
    pub fn recovers(&self, run: &mut ScenarioRun) {
        run.recovers(&self.env);
        run.weigh(&self.ingester);
    }

    /// The load ends, everything is drained, and the oracle judges.
    #[track_caller]
    pub fn closes(mut self, run: &mut ScenarioRun) {
        let manifest = self.load.stop();
        self.env.drained();
        self.ingester.drains();
        self.sampler.saw_only_stored_offsets_committed();
        run.judge(&self.env, &manifest);
    }
}
