//! F21: everything at random, for a long time.

use crate::course::{Course, Members, Setting, is_at_work};
use crate::steps::VARIABLE;
use crate::support::process::Program;
use crate::support::proxy::{Mishap, Proxy};
use crate::support::sampler::Sampler;
use crate::support::shop::{Ground, Shop};
use crate::support::stack::{OwnClickHouse, OwnKafka};
use crate::support::{PATIENCE, eventually, is};
use rand::RngExt;
use std::time::Duration;

/// How long a fault lasts, at most.
const LASTS: Duration = Duration::from_secs(20);

/// A world of its own, which is attacked from all sides.
struct World {
    kafka: OwnKafka,
    clickhouse: OwnClickHouse,
    proxy: Proxy,
    shop: Shop,
    setting: Setting,
    members: Vec<Program>,
    started: u32,
}

pub fn soak(course: &mut Course) {
    let (kafka, clickhouse) = (OwnKafka::start(1), OwnClickHouse::start());
    let mut setting = course.draw();
    setting.members = Members::Static;
    course.sets(&setting);
    let proxy = Proxy::start(&clickhouse.url());
    let ground = Ground { brokers: kafka.brokers(), clickhouse: clickhouse.url(), ..setting.ground() };
    let shop = Shop::open_in(&ground);
    let load = shop.produce(&setting.load());
    let sampler = Sampler::start(&shop);
    let mut world = World { kafka, clickhouse, proxy, shop, setting, members: Vec::new(), started: 0 };
    world.join();
    is_at_work(&world.shop);
    for _ in course.rounds(4) {
        world.strike(course);
        course.fault();
        course.recovers(&world.shop);
        world.members.iter().for_each(|member| course.weigh(member));
    }
    let manifest = load.stop();
    world.shop.drained();
    world.proxy.holds_nothing();
    world.members.iter_mut().for_each(Program::drains);
    sampler.saw_only_stored_offsets_committed();
    course.judge(&world.shop, &manifest);
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
        self.members.push(self.shop.run_with("ingest", &flags, &[(VARIABLE, failing)]));
    }

    /// One fault, from its beginning to its end.
    fn strike(&mut self, course: &mut Course) {
        match course.rng.random_range(0..10) {
            0 | 1 => {
                let nth = course.rng.random_range(0..self.members.len());
                self.members.swap_remove(nth).kill();
                self.join();
            }
            2 => {
                self.clickhouse.kill();
                course.moment(LASTS / 4);
                self.clickhouse.up();
            }
            3 => {
                self.clickhouse.freeze();
                course.moment(LASTS);
                self.clickhouse.wake();
            }
            4 => {
                self.kafka.kill(1);
                course.moment(LASTS / 4);
                self.kafka.up(1);
            }
            5 => {
                self.kafka.freeze(1);
                course.moment(LASTS);
                self.kafka.wake(1);
            }
            6 if self.members.len() < 3 => self.join(),
            6 => self.members.swap_remove(0).drains(),
            7 => {
                let nth = course.rng.random_range(0..self.members.len());
                self.members[nth].freeze();
                course.moment(LASTS / 4);
                self.members[nth].wake();
            }
            8 => {
                // None, while Kafka shares partitions out.
                let members = self.shop.kafka.members(&self.shop.group);
                members.iter().take(1).for_each(|member| self.shop.kafka.remove_member(&self.shop.group, member));
            }
            _ => {
                self.proxy.plan([
                    Mishap::Repeated(LASTS / 10),
                    Mishap::Late(LASTS / 2),
                    Mishap::CutInRequest(50),
                    Mishap::CutBeforeAnswer,
                    Mishap::Though(500, Some(159), "Code: 159. DB::Exception: as told".into()),
                    Mishap::CutAfterRequest,
                ]);
                // One after the other, if there is one insert at a time.
                eventually(PATIENCE, "all of it has happened", || is(self.proxy.left() == 0, self.proxy.left()));
            }
        }
    }
}
