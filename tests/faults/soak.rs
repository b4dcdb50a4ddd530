//! F21: everything at random, for a long time.

use crate::scenario_run::{Members, ScenarioRun, Setting, is_at_work};
use crate::steps::VARIABLE;
use crate::support::process::Program;
use crate::support::proxy::{Proxy, ProxyFault};
use crate::support::sampler::Sampler;
use crate::support::stack::{OwnClickHouse, OwnKafka};
use crate::support::test_env::{Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rand::RngExt;
use std::time::Duration;

/// The longest duration of a fault.
const FAULT_DURATION: Duration = Duration::from_secs(20);

/// A world of its own, which is attacked from all sides.
struct World {
    kafka: OwnKafka,
    clickhouse: OwnClickHouse,
    proxy: Proxy,
    env: TestEnv,
    setting: Setting,
    members: Vec<Program>,
    started: u32,
}

pub fn soak(run: &mut ScenarioRun) {
    let (kafka, clickhouse) = (OwnKafka::start(1), OwnClickHouse::start());
    let mut setting = run.draw();
    setting.members = Members::Static;
    run.sets(&setting);
    let proxy = Proxy::start(&clickhouse.url());
    let services = Services { brokers: kafka.brokers(), clickhouse: clickhouse.url(), ..setting.services() };
    let env = TestEnv::open_in(&services);
    let load = env.produce(&setting.load());
    let sampler = Sampler::start(&env);
    let mut world = World { kafka, clickhouse, proxy, env, setting, members: Vec::new(), started: 0 };
    world.join();
    is_at_work(&world.env);
    for _ in run.rounds(4) {
        world.strike(run);
        run.fault();
        run.recovers(&world.env);
        world.members.iter().for_each(|member| run.weigh(member));
    }
    let manifest = load.stop();
    world.env.drained();
    world.proxy.holds_nothing();
    world.members.iter_mut().for_each(Program::drains);
    sampler.saw_only_stored_offsets_committed();
    run.judge(&world.env, &manifest);
}

impl World {
    fn join(&mut self) {
        self.started += 1;
        let (flags, url) = (self.setting.flags(&self.started.to_string()), self.proxy.url());
        let flags = [&flags[..], &["--clickhouse-url", &url]].concat();
        let failing = if self.started.is_multiple_of(3) {
            "before_commit=fail%20,after_insert=fail%5,in_insert=fail%5"
        } else {
            ""
        };
        self.members.push(self.env.run_with("ingest", &flags, &[(VARIABLE, failing)]));
    }

    /// One fault, from its beginning to its end.
    fn strike(&mut self, run: &mut ScenarioRun) {
        match run.rng.random_range(0..10) {
            0 | 1 => {
                let nth = run.rng.random_range(0..self.members.len());
                self.members.swap_remove(nth).kill();
                self.join();
            }
            2 => {
                self.clickhouse.kill();
                run.moment(FAULT_DURATION / 4);
                self.clickhouse.up();
            }
            3 => {
                self.clickhouse.freeze();
                run.moment(FAULT_DURATION);
                self.clickhouse.wake();
            }
            4 => {
                self.kafka.kill(1);
                run.moment(FAULT_DURATION / 4);
                self.kafka.up(1);
            }
            5 => {
                self.kafka.freeze(1);
                run.moment(FAULT_DURATION);
                self.kafka.wake(1);
            }
            6 if self.members.len() < 3 => self.join(),
            6 => self.members.swap_remove(0).drains(),
            7 => {
                let nth = run.rng.random_range(0..self.members.len());
                self.members[nth].freeze();
                run.moment(FAULT_DURATION / 4);
                self.members[nth].wake();
            }
            8 => {
                // None, while Kafka shares partitions out.
                let members = self.env.kafka.members(&self.env.group);
                members.iter().take(1).for_each(|member| self.env.kafka.remove_member(&self.env.group, member));
            }
            _ => {
                self.proxy.plan([
                    ProxyFault::Repeated(FAULT_DURATION / 10),
                    ProxyFault::Late(FAULT_DURATION / 2),
                    ProxyFault::CutInRequest(50),
                    ProxyFault::CutBeforeAnswer,
                    ProxyFault::Though(500, Some(159), "Code: 159. DB::Exception: as told".into()),
                    ProxyFault::CutAfterRequest,
                ]);
                // One after the other, if there is one insert at a time.
                eventually(WAIT_TIMEOUT, "all of it has happened", || is(self.proxy.left() == 0, self.proxy.left()));
            }
        }
    }
}
