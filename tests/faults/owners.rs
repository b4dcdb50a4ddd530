//! F24: another process owns the partitions of a living member that has inserts on their way.

use crate::scenario_run::{Members, ScenarioRun, is_at_work};
use crate::scene::Scene;
use crate::support::process::Program;
use crate::support::proxy::{Proxy, ProxyFault};
use crate::support::sampler::Sampler;
use crate::support::stack::OwnClickHouse;
use crate::support::test_env::{Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually};
use rand::RngExt;
use std::ops::Range;
use std::time::Duration;

/// The longest time that an ingester works before the fault comes.
const WARM_UP: Duration = Duration::from_secs(3);

/// Longer than a held insert and a session together, and shorter than the step of the clock.
const CLOCK_RECOVERY: Duration = Duration::from_secs(45);

/// The delay of an insert: by then the next owner has asked which offsets are stored, and works.
const LATE: Range<u64> = 2_500..3_700;

fn late(run: &mut ScenarioRun, ms: Range<u64>) -> ProxyFault {
    ProxyFault::Late(Duration::from_millis(run.rng.random_range(ms)))
}

/// Kafka gives its partitions to another one at once, whatever it has on its way. It joins again.
pub fn removed_by_hand(run: &mut ScenarioRun) {
    const VICTIM: &str = "victim";
    let mut setting = run.draw();
    setting.share_out();
    setting.keep_inserting();
    run.sets(&setting);
    let (services, client) = (setting.services(), format!("--kafka=client.id={VICTIM}"));
    let (mut scene, proxy) = Scene::behind_a_proxy(setting, &services, &[&client]);
    let mut other = scene.another();
    other.says("lease opened", 1);
    for _ in run.rounds(3) {
        run.moment(WARM_UP);
        let leases = scene.ingester.said("lease opened");
        proxy.meets(vec![late(run, LATE); scene.setting.in_flight as usize]);
        let (kafka, group) = (&scene.env.kafka, &scene.env.group);
        let victim = eventually(WAIT_TIMEOUT, "it is a member", || {
            kafka.member_of(group, VICTIM).ok_or_else(|| kafka.members(group))
        });
        kafka.remove_member(group, &victim);
        run.fault();
        proxy.forget();
        scene.ingester.says("lease opened", leases + 1);
        scene.recovers(run);
    }
    proxy.holds_nothing();
    other.drains();
    scene.closes(run);
}

/// Two processes, on two machines as it were, have one instance id. Both live; one is frozen or has inserts on their way when the
/// other takes over, and they are frozen in turn. In the end one of them gives up, and says why.
pub fn instance_id_twice(run: &mut ScenarioRun) {
    const MACHINES: [&str; 2] = ["left", "right"];
    let mut setting = run.draw();
    setting.members = Members::Named;
    setting.keep_inserting();
    run.sets(&setting);
    let services = setting.services();
    let (proxy, env) = (Proxy::start(&services.clickhouse), TestEnv::open_in(&services));
    let (flags, url) = (setting.flags("twin"), proxy.url());
    let flags = [&flags[..], &["--clickhouse-url", &url]].concat();
    let load = env.produce(&setting.load());
    let (mut here, mut one) = (0, env.ingest_on(MACHINES[0], &flags));
    let sampler = Sampler::start(&env);
    is_at_work(&env);
    for round in run.rounds(3) {
        run.moment(WARM_UP);
        proxy.meets(vec![late(run, LATE); setting.in_flight as usize]);
        if round % 2 == 0 {
            one.freeze();
        }
        run.fault();
        let two = env.ingest_on(MACHINES[1 - here], &flags);
        proxy.forget();
        run.recovers(&env);
        one.wake();
        run.moment(WARM_UP);
        two.freeze();
        run.moment(WARM_UP);
        two.wake();
        let mut twins = [one, two];
        let stays = survivor(&mut twins);
        here = (here + stays) % 2;
        one = twins.into_iter().nth(stays).expect("one of two");
        run.recovers(&env);
        run.weigh(&one);
    }
    proxy.holds_nothing();
    let manifest = load.stop();
    env.drained();
    one.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}

/// Waits until one of them has given up, with one line that names the shared id. Returns the one that is left.
#[track_caller]
fn survivor(twins: &mut [Program; 2]) -> usize {
    let ended = eventually(WAIT_TIMEOUT, "one of the two gives up", || {
        twins.iter_mut().position(Program::has_ended).ok_or("both are running")
    });
    twins[ended].gives_up("instance");
    1 - ended
}

/// ClickHouse's clock is set back by a minute while an insert is on its way, whose sender is killed, or lives.
pub fn clock_set_back(run: &mut ScenarioRun) {
    let clickhouse = OwnClickHouse::start_with_clock();
    let mut setting = run.draw();
    setting.keep_inserting();
    run.sets(&setting);
    let services = Services { clickhouse: clickhouse.url(), ..setting.services() };
    let (mut scene, proxy) = Scene::behind_a_proxy(setting, &services, &[]);
    for round in run.rounds(2) {
        run.moment(WARM_UP);
        // Longer than a restart takes, and than the last inserts of a dead member can be late.
        proxy.meets([late(run, 5_500..8_000)]);
        let before = scene.env.number("SELECT toUnixTimestamp(now())");
        clickhouse.set_clock_back(60 * i64::from(round + 1));
        assert!(scene.env.number("SELECT toUnixTimestamp(now())") < before, "the clock was set back");
        run.fault();
        if round % 2 == 0 {
            scene.ingester.kill();
            scene.start_again();
        }
        // Nothing waits until the clock has caught up again.
        scene.env.drained_to(&scene.env.ends(), CLOCK_RECOVERY);
        scene.recovers(run);
        proxy.holds_nothing();
    }
    scene.closes(run);
}

/// An administrator empties the table of leases, under two members with inserts on their way. They continue by
/// themselves, and so does a member that joins just then.
pub fn leases_emptied(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    setting.share_out();
    setting.keep_inserting();
    run.sets(&setting);
    let services = setting.services();
    let (mut scene, proxy) = Scene::behind_a_proxy(setting, &services, &[]);
    let mut other = scene.another();
    other.says("lease opened", 1);
    for round in run.rounds(4) {
        run.moment(WARM_UP);
        proxy.meets([late(run, LATE)]);
        scene.env.sql("TRUNCATE TABLE db.leases");
        run.fault();
        let guest = (round % 2 == 1).then(|| scene.env.ingest(&scene.setting.flags("guest")));
        scene.recovers(run);
        assert!(scene.ingester.is_running() && other.is_running(), "they go on by themselves");
        guest.into_iter().for_each(|mut guest| guest.drains());
    }
    proxy.holds_nothing();
    other.drains();
    scene.closes(run);
}
