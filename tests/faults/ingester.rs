//! F1, F3, F10: the ingester itself is killed, stopped, frozen.

use crate::answers::behind_a_proxy;
use crate::course::{Course, Members, is_at_work};
use crate::steps::VARIABLE;
use crate::support::process::Program;
use crate::support::proxy::Mishap;
use crate::support::sampler::Sampler;
use crate::support::shop::{Ground, Shop};
use crate::support::stack::OwnClickHouse;
use crate::support::{PATIENCE, eventually, is};
use rand::RngExt;
use std::time::Duration;

/// How far into its work a kill may come.
const INTO_WORK: Duration = Duration::from_secs(3);

/// SIGKILL at any moment: while it starts, while it joins, while it works.
pub fn killed(course: &mut Course) {
    let setting = course.draw();
    let shop = Shop::open_in(&setting.ground());
    let flags = setting.flags("one");
    let mut ingester = shop.ingester_at_work(&flags);
    let sampler = Sampler::start(&shop);
    let load = shop.produce(&setting.load());
    is_at_work(&shop);
    for _ in course.rounds(6) {
        course.moment(INTO_WORK);
        course.weigh(&ingester);
        ingester.kill();
        course.fault();
        ingester = shop.ingest(&flags);
        // Every third is killed before it has come to work, if a moment is that short.
        if course.rng.random_bool(0.7) {
            course.recovers(&shop);
        }
    }
    shop.drained();
    let manifest = load.stop();
    shop.drained();
    course.weigh(&ingester);
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}

/// What it had sent comes to ClickHouse only after the next one, which has its partitions back at once, could have asked what
/// is stored. In every second round the next one has to share them at once with another.
pub fn killed_with_an_insert_on_its_way(course: &mut Course) {
    let mut setting = course.draw();
    (setting.members, setting.partitions) = (Members::Static, setting.partitions.max(3));
    setting.keep_inserting();
    course.sets(&setting);
    let (proxy, shop) = behind_a_proxy(&setting);
    let (flags, url) = (setting.flags("one"), proxy.url());
    let flags = [&flags[..], &["--clickhouse-url", &url]].concat();
    let mut ingester = shop.ingester_at_work(&flags);
    let sampler = Sampler::start(&shop);
    let load = shop.produce(&setting.load());
    is_at_work(&shop);
    for round in course.rounds(4) {
        course.moment(INTO_WORK);
        // Less than an insert lives: it will begin, whatever has become of who sent it.
        proxy.meets([Mishap::Late(Duration::from_millis(course.rng.random_range(2_500..3_500)))]);
        ingester.kill();
        course.fault();
        ingester = shop.ingest(&flags);
        let another = (round % 2 == 1).then(|| shop.ingest(&flags));
        course.recovers(&shop);
        course.weigh(&ingester);
        another.into_iter().for_each(|mut another| another.drains());
    }
    let manifest = load.stop();
    shop.drained();
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}

/// The other one goes on, and has the partitions of the dead one meanwhile.
pub fn one_of_two_killed(course: &mut Course) {
    let setting = course.draw();
    let shop = Shop::open_in(&setting.ground());
    let mut other = shop.ingester_at_work(&setting.flags("other"));
    let mut victim = shop.ingest(&setting.flags("victim"));
    let sampler = Sampler::start(&shop);
    let load = shop.produce(&setting.load());
    is_at_work(&shop);
    for _ in course.rounds(3) {
        course.moment(INTO_WORK);
        victim.kill();
        course.fault();
        victim = shop.ingest(&setting.flags("victim"));
        course.recovers(&shop);
    }
    let manifest = load.stop();
    shop.drained();
    course.weigh(&other);
    other.drains();
    victim.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}

/// What was stored by then was committed too: the next one finds nothing of it ahead.
pub fn stopped(course: &mut Course) {
    let setting = course.draw();
    let shop = Shop::open_in(&setting.ground());
    let load = shop.produce(&setting.load());
    for round in course.rounds(3) {
        let mut ingester = shop.ingester_at_work(&setting.flags(&format!("{round}")));
        course.moment(INTO_WORK);
        ingester.drains();
        course.fault();
        assert_eq!(ingester.closing().before, 0, "the next one finds nothing ahead of what was committed");
    }
    let manifest = load.stop();
    let mut last = shop.ingest(&["--until-end"]);
    last.succeeds();
    assert_eq!(last.closing().before, 0);
    course.judge(&shop, &manifest);
}

/// It says that it could not drain, within its deadline, in one line.
pub fn stopped_without_clickhouse(course: &mut Course) {
    let clickhouse = OwnClickHouse::start();
    let setting = course.draw();
    let shop = Shop::open_in(&Ground { clickhouse: clickhouse.url(), ..setting.ground() });
    let load = shop.produce(&setting.load());
    let flags = setting.flags("one");
    let mut ingester = shop.ingester_at_work(&[&flags[..], &["--drain-timeout=2s"]].concat());
    is_at_work(&shop);
    clickhouse.kill();
    course.fault();
    // Enough that some of it waits in the ingester, whatever it had stored before the kill.
    let before: i64 = shop.ends().values().sum();
    eventually(PATIENCE, "2,000 more events wait", || {
        let more = shop.ends().values().sum::<i64>() - before;
        is(more > 2_000, more)
    });
    ingester.term();
    // What the drain may take, and to leave the group.
    assert_eq!(ingester.exit_code(Duration::from_secs(15)), Some(1));
    ingester.gives_up("--drain-timeout");

    clickhouse.up();
    let mut next = shop.ingest(&flags);
    course.recovers(&shop);
    let manifest = load.stop();
    shop.drained();
    next.drains();
    course.judge(&shop, &manifest);
}

/// A stop waits for longer than the session timeout, if the drain timeout is longer: nothing is left to the next one.
pub fn stopped_while_clickhouse_is_slow(course: &mut Course) {
    let clickhouse = OwnClickHouse::start();
    let mut setting = course.draw();
    setting.end_sessions_soon();
    course.sets(&setting);
    let shop = Shop::open_in(&Ground { clickhouse: clickhouse.url(), ..setting.ground() });
    let load = shop.produce(&setting.load());
    let flags = setting.flags("one");
    let mut ingester = shop.ingester_at_work(&flags);
    is_at_work(&shop);

    clickhouse.freeze();
    course.fault();
    ingester.term();
    ingester.says("stopping", 1);
    // Longer than the session timeout, and shorter than the drain timeout: the time is the fault.
    std::thread::sleep(Duration::from_secs(10));
    clickhouse.wake();
    assert_eq!(ingester.exit_code(Duration::from_secs(25)), Some(0), "drained, not given up");

    let manifest = load.stop();
    let mut next = shop.ingest(&flags);
    course.recovers(&shop);
    next.drains();
    assert_eq!(next.closing().before, 0, "what was stored was committed too");
    course.judge(&shop, &manifest);
}

/// Its partitions went to another one meanwhile. What it had sent and not stored may come late: one batch at most.
pub fn frozen(course: &mut Course) {
    let mut setting = course.draw();
    setting.end_sessions_soon();
    course.sets(&setting);
    let shop = Shop::open_in(&setting.ground());
    let load = shop.produce(&setting.load());
    let mut members = [shop.ingester_at_work(&setting.flags("0")), shop.ingest(&setting.flags("1"))];
    is_at_work(&shop);
    let sampler = Sampler::start(&shop);
    for round in course.rounds(1) {
        let sleeper = round as usize % 2;
        course.moment(INTO_WORK);
        members[sleeper].freeze();
        course.fault();
        // Twice the session timeout: the time is the fault.
        std::thread::sleep(Duration::from_secs(12));
        course.recovers(&shop);
        members[sleeper].wake();
        course.recovers(&shop);
        members.iter().for_each(|member| course.weigh(member));
        if members[sleeper].has_ended() {
            // A static member whose place was taken is put out of its group for good.
            members[sleeper] = shop.ingest(&setting.flags(&sleeper.to_string()));
        }
    }
    let manifest = load.stop();
    shop.drained();
    members.iter_mut().for_each(Program::drains);
    sampler.saw_only_stored_offsets_committed();
    let batch = setting.rows as usize;
    course.judge_but(&shop, &manifest, batch);
}

/// Frozen between naming an insert and sending it, past its session: when it wakes up, it sends, before it can know better.
/// By then another one has stored those rows, and ClickHouse refuses the insert because it is too old.
pub fn frozen_before_sending(course: &mut Course) {
    let mut setting = course.draw();
    // Several inserts at once, so that some are always at that step.
    (setting.in_flight, setting.rows) = (8, 200);
    setting.have_no_names();
    setting.keep_inserting();
    course.sets(&setting);
    let shop = Shop::open_in(&setting.ground());
    let load = shop.produce(&setting.load());
    let flags = setting.flags("");
    let mut sleeper = shop.run_with("ingest", &flags, &[(VARIABLE, "before_insert=stall:1s")]);
    is_at_work(&shop);
    let sampler = Sampler::start(&shop);
    for _ in course.rounds(1) {
        sleeper.says("lease opened", 1);
        course.moment(INTO_WORK);
        sleeper.freeze();
        course.fault();
        let mut other = shop.ingester_at_work(&flags);
        course.recovers(&shop);
        sleeper.wake();
        sleeper.says("partitions revoked", 1);
        course.recovers(&shop);
        other.drains();
        sleeper.kill();
        sleeper = shop.run_with("ingest", &flags, &[(VARIABLE, "before_insert=stall:1s")]);
    }
    shop.drained();
    let manifest = load.stop();
    shop.drained();
    sleeper.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}

/// Frozen while it drains, past its session: when it wakes up it is no member, and nothing of what is left may be sent. It lets go
/// of that and joins again, and does not wait for its drain to be over, which it never would be.
pub fn frozen_in_a_drain(course: &mut Course) {
    let mut setting = course.draw();
    // Each insert takes a second, and while it is on its way there is more.
    (setting.in_flight, setting.rows) = (4, 200);
    setting.end_sessions_soon();
    setting.keep_inserting();
    // Some of them are handed on, also in a cooperative group.
    setting.partitions = setting.partitions.max(3);
    course.sets(&setting);
    let shop = Shop::open_in(&setting.ground());
    let load = shop.produce(&setting.load());
    // For longer than this test waits for anything.
    let patient = [&setting.flags("0")[..], &["--drain-timeout=5m"]].concat();
    let slow = || shop.run_with("ingest", &patient, &[(VARIABLE, "before_insert=stall:1s")]);
    let mut sleeper = slow();
    is_at_work(&shop);
    let sampler = Sampler::start(&shop);
    for round in course.rounds(2) {
        sleeper.says("lease opened", 1);
        course.moment(INTO_WORK);
        let mut other = shop.ingest(&setting.flags(&format!("other-{round}")));
        sleeper.says("partitions revoked", 1);
        sleeper.freeze();
        course.fault();
        other.says("lease opened", 1);
        course.recovers(&shop);
        sleeper.wake();
        // The other one stays, or leaves at once, when librdkafka may still take for the sleeper's what was so before.
        sleeper.says(["partitions assigned", "lease opened"][round as usize % 2], 2);
        course.recovers(&shop);
        other.drains();
        sleeper.kill();
        sleeper = slow();
    }
    let manifest = load.stop();
    shop.drained();
    sleeper.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}
