//! F1, F3, F10: the ingester itself is killed, stopped, frozen.

use crate::answers::behind_a_proxy;
use crate::scenario_run::{Members, ScenarioRun, is_at_work};
use crate::steps::VARIABLE;
use crate::support::process::Program;
use crate::support::proxy::ProxyFault;
use crate::support::sampler::Sampler;
use crate::support::stack::OwnClickHouse;
use crate::support::test_env::{Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rand::RngExt;
use std::time::Duration;

/// The longest time that an ingester works before the kill comes.
const WARM_UP: Duration = Duration::from_secs(3);

/// SIGKILL at any moment: while it starts, while it joins, while it works.
pub fn killed(run: &mut ScenarioRun) {
    let setting = run.draw();
    let env = TestEnv::open_in(&setting.services());
    let flags = setting.flags("one");
    let mut ingester = env.ingester_at_work(&flags);
    let sampler = Sampler::start(&env);
    let load = env.produce(&setting.load());
    is_at_work(&env);
    for _ in run.rounds(6) {
        run.moment(WARM_UP);
        run.weigh(&ingester);
        ingester.kill();
        run.fault();
        ingester = env.ingest(&flags);
        // If a moment is that short, every third ingester is killed before it has started to work.
        if run.rng.random_bool(0.7) {
            run.recovers(&env);
        }
    }
    env.drained();
    let manifest = load.stop();
    env.drained();
    run.weigh(&ingester);
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}

/// The killed ingester's insert reaches ClickHouse late. Its successor gets the partitions at once, and could have
/// asked by then which offsets are stored. In every second round the successor shares them at once with another member.
pub fn killed_with_an_insert_on_its_way(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    (setting.members, setting.partitions) = (Members::Static, setting.partitions.max(3));
    setting.keep_inserting();
    run.sets(&setting);
    let (proxy, env) = behind_a_proxy(&setting);
    let (flags, url) = (setting.flags("one"), proxy.url());
    let flags = [&flags[..], &["--clickhouse-url", &url]].concat();
    let mut ingester = env.ingester_at_work(&flags);
    let sampler = Sampler::start(&env);
    let load = env.produce(&setting.load());
    is_at_work(&env);
    for round in run.rounds(4) {
        run.moment(WARM_UP);
        // Shorter than an insert's timeout: it will begin, even though its sender is dead.
        proxy.meets([ProxyFault::Late(Duration::from_millis(run.rng.random_range(2_500..3_500)))]);
        ingester.kill();
        run.fault();
        ingester = env.ingest(&flags);
        let another = (round % 2 == 1).then(|| env.ingest(&flags));
        run.recovers(&env);
        run.weigh(&ingester);
        another.into_iter().for_each(|mut another| another.drains());
    }
    let manifest = load.stop();
    env.drained();
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}

/// The other member continues, and owns the partitions of the dead one meanwhile.
pub fn one_of_two_killed(run: &mut ScenarioRun) {
    let setting = run.draw();
    let env = TestEnv::open_in(&setting.services());
    let mut other = env.ingester_at_work(&setting.flags("other"));
    let mut victim = env.ingest(&setting.flags("victim"));
    let sampler = Sampler::start(&env);
    let load = env.produce(&setting.load());
    is_at_work(&env);
    for _ in run.rounds(3) {
        run.moment(WARM_UP);
        victim.kill();
        run.fault();
        victim = env.ingest(&setting.flags("victim"));
        run.recovers(&env);
    }
    let manifest = load.stop();
    env.drained();
    run.weigh(&other);
    other.drains();
    victim.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}

/// The rows stored by then were committed, too: the next ingester finds none of them beyond the committed offset.
pub fn stopped(run: &mut ScenarioRun) {
    let setting = run.draw();
    let env = TestEnv::open_in(&setting.services());
    let load = env.produce(&setting.load());
    for round in run.rounds(3) {
        let mut ingester = env.ingester_at_work(&setting.flags(&format!("{round}")));
        run.moment(WARM_UP);
        ingester.drains();
        run.fault();
        assert_eq!(ingester.closing().before, 0, "the next one finds nothing ahead of what was committed");
    }
    let manifest = load.stop();
    let mut last = env.ingest(&["--until-end"]);
    last.succeeds();
    assert_eq!(last.closing().before, 0);
    run.judge(&env, &manifest);
}

/// The ingester says in one line that it could not drain within its deadline.
pub fn stopped_without_clickhouse(run: &mut ScenarioRun) {
    let clickhouse = OwnClickHouse::start();
    let setting = run.draw();
    let env = TestEnv::open_in(&Services { clickhouse: clickhouse.url(), ..setting.services() });
    let load = env.produce(&setting.load());
    let flags = setting.flags("one");
    let mut ingester = env.ingester_at_work(&[&flags[..], &["--drain-timeout=2s"]].concat());
    is_at_work(&env);
    clickhouse.kill();
    run.fault();
    // Enough that some of it waits in the ingester, whatever it had stored before the kill.
    let before: i64 = env.ends().values().sum();
    eventually(WAIT_TIMEOUT, "2,000 more events wait", || {
        let more = env.ends().values().sum::<i64>() - before;
        is(more > 2_000, more)
    });
    ingester.term();
    // The longest time for the drain, and for leaving the group.
    assert_eq!(ingester.exit_code(Duration::from_secs(15)), Some(1));
    ingester.gives_up("--drain-timeout");

    clickhouse.up();
    let mut next = env.ingest(&flags);
    run.recovers(&env);
    let manifest = load.stop();
    env.drained();
    next.drains();
    run.judge(&env, &manifest);
}

/// A stop waits for longer than the session timeout, if the drain timeout is longer: nothing is left to the next one.
pub fn stopped_while_clickhouse_is_slow(run: &mut ScenarioRun) {
    let clickhouse = OwnClickHouse::start();
    let mut setting = run.draw();
    setting.end_sessions_soon();
    run.sets(&setting);
    let env = TestEnv::open_in(&Services { clickhouse: clickhouse.url(), ..setting.services() });
    let load = env.produce(&setting.load());
    let flags = setting.flags("one");
    let mut ingester = env.ingester_at_work(&flags);
    is_at_work(&env);

    clickhouse.freeze();
    run.fault();
    ingester.term();
    ingester.says("stopping", 1);
    // Longer than the session timeout, and shorter than the drain timeout: the time is the fault.
    std::thread::sleep(Duration::from_secs(10));
    clickhouse.wake();
    assert_eq!(ingester.exit_code(Duration::from_secs(25)), Some(0), "drained, not given up");

    let manifest = load.stop();
    let mut next = env.ingest(&flags);
    run.recovers(&env);
    next.drains();
    assert_eq!(next.closing().before, 0, "what was stored was committed too");
    run.judge(&env, &manifest);
}

/// Another member has its partitions meanwhile. Its unsent rows may arrive late: one batch at most.
pub fn frozen(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    setting.end_sessions_soon();
    run.sets(&setting);
    let env = TestEnv::open_in(&setting.services());
    let load = env.produce(&setting.load());
    let mut members = [env.ingester_at_work(&setting.flags("0")), env.ingest(&setting.flags("1"))];
    is_at_work(&env);
    let sampler = Sampler::start(&env);
    for round in run.rounds(1) {
        let sleeper = round as usize % 2;
        run.moment(WARM_UP);
        members[sleeper].freeze();
        run.fault();
        // Twice the session timeout: the time is the fault.
        std::thread::sleep(Duration::from_secs(12));
        run.recovers(&env);
        members[sleeper].wake();
        run.recovers(&env);
        members.iter().for_each(|member| run.weigh(member));
        if members[sleeper].has_ended() {
            // A static member whose instance id another member has taken is evicted for good.
            members[sleeper] = env.ingest(&setting.flags(&sleeper.to_string()));
        }
    }
    let manifest = load.stop();
    env.drained();
    members.iter_mut().for_each(Program::drains);
    sampler.saw_only_stored_offsets_committed();
    let batch = setting.rows as usize;
    run.judge_but(&env, &manifest, batch);
}

/// Frozen between naming an insert and sending it, past its session: when it wakes up, it sends, before it can know better.
/// By then another one has stored those rows, and ClickHouse refuses the insert because it is too old.
pub fn frozen_before_sending(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    // Several inserts at once, so that some are always at that step.
    (setting.in_flight, setting.rows) = (8, 200);
    setting.have_no_names();
    setting.keep_inserting();
    run.sets(&setting);
    let env = TestEnv::open_in(&setting.services());
    let load = env.produce(&setting.load());
    let flags = setting.flags("");
    let mut sleeper = env.run_with("ingest", &flags, &[(VARIABLE, "before_insert=stall:1s")]);
    is_at_work(&env);
    let sampler = Sampler::start(&env);
    for _ in run.rounds(1) {
        sleeper.says("lease opened", 1);
        run.moment(WARM_UP);
        sleeper.freeze();
        run.fault();
        let mut other = env.ingester_at_work(&flags);
        run.recovers(&env);
        sleeper.wake();
        sleeper.says("partitions revoked", 1);
        run.recovers(&env);
        other.drains();
        sleeper.kill();
        sleeper = env.run_with("ingest", &flags, &[(VARIABLE, "before_insert=stall:1s")]);
    }
    env.drained();
    let manifest = load.stop();
    env.drained();
    sleeper.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}

/// The member is frozen past its session while it drains. When it wakes up it is not a member, and may send no more of
/// its rows. So it drops them and joins again at once, without waiting for the end of the drain, which would never
/// come.
pub fn frozen_in_a_drain(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    // Each insert takes a second, and more messages wait meanwhile.
    (setting.in_flight, setting.rows) = (4, 200);
    setting.end_sessions_soon();
    setting.keep_inserting();
    // Some of them are handed on, also in a cooperative group.
    setting.partitions = setting.partitions.max(3);
    run.sets(&setting);
    let env = TestEnv::open_in(&setting.services());
    let load = env.produce(&setting.load());
    // For longer than this test waits for anything.
    let patient = [&setting.flags("0")[..], &["--drain-timeout=5m"]].concat();
    let slow = || env.run_with("ingest", &patient, &[(VARIABLE, "before_insert=stall:1s")]);
    let mut sleeper = slow();
    is_at_work(&env);
    let sampler = Sampler::start(&env);
    for round in run.rounds(2) {
        sleeper.says("lease opened", 1);
        run.moment(WARM_UP);
        let mut other = env.ingest(&setting.flags(&format!("other-{round}")));
        sleeper.says("partitions revoked", 1);
        sleeper.freeze();
        run.fault();
        other.says("lease opened", 1);
        run.recovers(&env);
        sleeper.wake();
        // The other member stays, or leaves at once, while librdkafka may still use the sleeper's old state.
        sleeper.says(["partitions assigned", "lease opened"][round as usize % 2], 2);
        run.recovers(&env);
        other.drains();
        sleeper.kill();
        sleeper = slow();
    }
    let manifest = load.stop();
    env.drained();
    sleeper.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}
