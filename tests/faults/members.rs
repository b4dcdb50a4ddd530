//! F9, F10: members join and leave, or are cut off.

use crate::answers::behind_a_proxy;
use crate::course::{Course, is_at_work};
use crate::support::proxy::{Mishap, Proxy};
use crate::support::sampler::Sampler;
use crate::support::shop::{Ground, Shop};
use crate::support::stack::OwnKafka;
use crate::support::wire::HELD;
use crate::support::{PATIENCE, eventually, is};
use rand::RngExt;
use std::time::{Duration, Instant};

/// From one coming or going to the next.
const BEAT: Duration = Duration::from_secs(5);

pub fn cooperative(course: &mut Course) {
    join_and_leave(course, "cooperative-sticky");
}

pub fn eager(course: &mut Course) {
    join_and_leave(course, "range");
}

/// A second and a third one come and go every 5 s, each on its own; a few are killed in place of being stopped.
fn join_and_leave(course: &mut Course, strategy: &'static str) {
    let mut setting = course.draw();
    (setting.strategy, setting.partitions) = (strategy, setting.partitions.max(3));
    // Those that are killed stay away for longer than that.
    setting.end_sessions_soon();
    course.sets(&setting);
    let shop = Shop::open_in(&setting.ground());
    let load = shop.produce(&setting.load());
    let mut stays = shop.ingester_at_work(&setting.flags("stays"));
    let sampler = Sampler::start(&shop);
    is_at_work(&shop);
    let mut guests = [None, None];
    for round in course.rounds(6) {
        let next = Instant::now() + BEAT;
        let nth = round as usize % 2;
        match guests[nth].take() {
            None => guests[nth] = Some(shop.ingest(&setting.flags(&format!("guest-{nth}")))),
            Some(mut guest) if course.rng.random_bool(0.2) => guest.kill(),
            Some(mut guest) => guest.drains(),
        }
        course.fault();
        // Nobody's partitions are stuck.
        course.recovers(&shop);
        course.weigh(&stays);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    for mut guest in guests.into_iter().flatten() {
        guest.drains();
    }
    let manifest = load.stop();
    shop.drained();
    stays.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}

/// A member that has to hand its partitions on gives up draining, because one of its inserts comes to ClickHouse late: after
/// the next owner could have asked what is stored. That next owner may be itself, when the other one leaves.
pub fn handed_on_with_an_insert_on_its_way(course: &mut Course) {
    let mut setting = course.draw();
    setting.partitions = setting.partitions.max(3);
    setting.keep_inserting();
    course.sets(&setting);
    let (proxy, shop) = behind_a_proxy(&setting);
    let (flags, url) = (setting.flags("stays"), proxy.url());
    let flags = [&flags[..], &["--clickhouse-url", &url, "--drain-timeout=200ms"]].concat();
    let load = shop.produce(&setting.load());
    let mut stays = shop.ingester_at_work(&flags);
    let sampler = Sampler::start(&shop);
    is_at_work(&shop);
    for _ in course.rounds(3) {
        proxy.meets([Mishap::Late(Duration::from_millis(course.rng.random_range(2_500..3_500)))]);
        course.fault();
        let mut guest = shop.ingest(&setting.flags("guest"));
        course.recovers(&shop);
        course.weigh(&stays);
        // The first of a name waits for a while before it joins.
        guest.says("lease opened", 1);
        // And what it keeps, when it is given more, it begins anew: some time after the other one is told to leave.
        let late = Mishap::Late(Duration::from_millis(course.rng.random_range(2_500..3_500)));
        proxy.meets(vec![late; setting.in_flight as usize]);
        course.fault();
        guest.drains();
        course.recovers(&shop);
    }
    let manifest = load.stop();
    shop.drained();
    stays.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}

/// The network to Kafka holds everything back that one member sends and is sent, and lets it go on with ClickHouse. It does not
/// learn that its session is over, and has rows left to write, since its inserts come late: another member writes them meanwhile.
pub fn cut_off(course: &mut Course) {
    let mut setting = course.draw();
    (setting.in_flight, setting.rows) = (1, 200);
    setting.have_no_names();
    setting.keep_inserting();
    course.sets(&setting);
    let (_kafka, wire) = OwnKafka::start_behind_a_wire();
    let ground = Ground { brokers: wire.address(), ..setting.ground() };
    let (proxy, shop) = (Proxy::start(&ground.clickhouse), Shop::open_in(&ground));
    let load = shop.produce(&setting.load());
    let (flags, url, id) = (setting.flags(""), proxy.url(), format!("--kafka=client.id={HELD}"));
    let mut loner = shop.ingester_at_work(&[&flags[..], &["--clickhouse-url", &url, &id]].concat());
    let sampler = Sampler::start(&shop);
    is_at_work(&shop);
    for _ in course.rounds(1) {
        // The next one is named some three seconds into the silence. Asking Kafka for the topic's id takes another two in vain; and
        // it comes to ClickHouse just before it may not begin any more, when the session of whoever sent it is over.
        let (happened, mut late) = (proxy.happened(), |ms| Duration::from_millis(course.rng.random_range(ms)));
        proxy.plan([Mishap::Late(late(3_000..3_400)), Mishap::Late(late(1_600..1_800))]);
        eventually(PATIENCE, "an insert is on its way", || is(proxy.happened() > happened, proxy.left()));
        let lost = loner.said("lost=true");
        wire.hold();
        course.fault();
        let mut other = shop.ingester_at_work(&flags);
        course.recovers(&shop);
        wire.release();
        loner.says("lost=true", lost + 1);
        course.recovers(&shop);
        course.weigh(&loner);
        other.drains();
        shop.drained();
    }
    let manifest = load.stop();
    shop.drained();
    loner.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}
