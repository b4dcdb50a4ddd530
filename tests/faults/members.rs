//! F9, F10: members join and leave, or are cut off.

use crate::answers::behind_a_proxy;
use crate::scenario_run::{ScenarioRun, is_at_work};
use crate::support::proxy::{Proxy, ProxyFault};
use crate::support::sampler::Sampler;
use crate::support::stack::OwnKafka;
use crate::support::test_env::{Services, TestEnv};
use crate::support::wire::HELD;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rand::RngExt;
use std::time::{Duration, Instant};

/// The time from one join or leave to the next.
const JOIN_INTERVAL: Duration = Duration::from_secs(5);

pub fn cooperative(run: &mut ScenarioRun) {
    join_and_leave(run, "cooperative-sticky");
}

pub fn eager(run: &mut ScenarioRun) {
    join_and_leave(run, "range");
}

/// A second and a third member join and leave every 5 s, each on its own; a few are killed instead of stopped.
fn join_and_leave(run: &mut ScenarioRun, strategy: &'static str) {
    let mut setting = run.draw();
    (setting.strategy, setting.partitions) = (strategy, setting.partitions.max(3));
    // Those that are killed stay away for longer than that.
    setting.end_sessions_soon();
    run.sets(&setting);
    let env = TestEnv::open_in(&setting.services());
    let load = env.produce(&setting.load());
    let mut stays = env.ingester_at_work(&setting.flags("stays"));
    let sampler = Sampler::start(&env);
    is_at_work(&env);
    let mut guests = [None, None];
    for round in run.rounds(6) {
        let next = Instant::now() + JOIN_INTERVAL;
        let nth = round as usize % 2;
        match guests[nth].take() {
            None => guests[nth] = Some(env.ingest(&setting.flags(&format!("guest-{nth}")))),
            Some(mut guest) if run.rng.random_bool(0.2) => guest.kill(),
            Some(mut guest) => guest.drains(),
        }
        run.fault();
        // Nobody's partitions are stuck.
        run.recovers(&env);
        run.weigh(&stays);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    for mut guest in guests.into_iter().flatten() {
        guest.drains();
    }
    let manifest = load.stop();
    env.drained();
    stays.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}

/// A member that has to hand over its partitions gives up draining, because one of its inserts reaches ClickHouse late.
/// By then the next owner could have asked which offsets are stored. That owner may be the same member, when the other
/// one leaves.
pub fn handed_on_with_an_insert_on_its_way(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    setting.partitions = setting.partitions.max(3);
    setting.keep_inserting();
    run.sets(&setting);
    let (proxy, env) = behind_a_proxy(&setting);
    let (flags, url) = (setting.flags("stays"), proxy.url());
    let flags = [&flags[..], &["--clickhouse-url", &url, "--drain-timeout=200ms"]].concat();
    let load = env.produce(&setting.load());
    let mut stays = env.ingester_at_work(&flags);
    let sampler = Sampler::start(&env);
    is_at_work(&env);
    for _ in run.rounds(3) {
        proxy.meets([ProxyFault::Late(Duration::from_millis(run.rng.random_range(2_500..3_500)))]);
        run.fault();
        let mut guest = env.ingest(&setting.flags("guest"));
        run.recovers(&env);
        run.weigh(&stays);
        // The first of a name waits for a while before it joins.
        guest.says("lease opened", 1);
        // When the member is assigned more partitions, it opens new leases of the ones that it keeps, some time after
        // the other one was told to leave.
        let late = ProxyFault::Late(Duration::from_millis(run.rng.random_range(2_500..3_500)));
        proxy.meets(vec![late; setting.in_flight as usize]);
        run.fault();
        guest.drains();
        run.recovers(&env);
    }
    let manifest = load.stop();
    env.drained();
    stays.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}

/// The network to Kafka holds everything back that one member sends and is sent, and lets it go on with ClickHouse. It does not
/// learn that its session is over, and has rows left to write, since its inserts come late: another member writes them meanwhile.
pub fn cut_off(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    (setting.in_flight, setting.rows) = (1, 200);
    setting.have_no_names();
    setting.keep_inserting();
    run.sets(&setting);
    let (_kafka, wire) = OwnKafka::start_behind_a_wire();
    let services = Services { brokers: wire.address(), ..setting.services() };
    let (proxy, env) = (Proxy::start(&services.clickhouse), TestEnv::open_in(&services));
    let load = env.produce(&setting.load());
    let (flags, url, id) = (setting.flags(""), proxy.url(), format!("--kafka=client.id={HELD}"));
    let mut loner = env.ingester_at_work(&[&flags[..], &["--clickhouse-url", &url, &id]].concat());
    let sampler = Sampler::start(&env);
    is_at_work(&env);
    for _ in run.rounds(1) {
        // The next owner is assigned about three seconds into the silence. Its request for the topic's id fails after
        // another two. So it asks ClickHouse just before the late insert, when the session of that insert's sender is
        // over.
        let (happened, mut late) = (proxy.happened(), |ms| Duration::from_millis(run.rng.random_range(ms)));
        proxy.plan([ProxyFault::Late(late(3_000..3_400)), ProxyFault::Late(late(1_600..1_800))]);
        eventually(WAIT_TIMEOUT, "an insert is on its way", || is(proxy.happened() > happened, proxy.left()));
        let lost = loner.said("lost=true");
        wire.hold();
        run.fault();
        let mut other = env.ingester_at_work(&flags);
        run.recovers(&env);
        wire.release();
        loner.says("lost=true", lost + 1);
        run.recovers(&env);
        run.weigh(&loner);
        other.drains();
        env.drained();
    }
    let manifest = load.stop();
    env.drained();
    loner.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}
