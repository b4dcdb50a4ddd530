//! F2: at each step of the work, by name: it dies, stalls, or fails.

use crate::scenario_run::{Members, ScenarioRun, is_at_work};
use crate::support::WAIT_TIMEOUT;
use crate::support::sampler::Sampler;
use crate::support::test_env::TestEnv;
use rand::RngExt;

pub const VARIABLE: &str = "CLICKSTREAM_FAILPOINTS";

/// Steps that come again and again.
const WORK: [&str; 5] = ["before_insert", "in_insert", "after_insert", "before_commit", "after_commit"];

pub fn die_1(run: &mut ScenarioRun) {
    die(run, 1);
}

pub fn die_3(run: &mut ScenarioRun) {
    die(run, 3);
}

pub fn die_12(run: &mut ScenarioRun) {
    die(run, 12);
}

fn die(run: &mut ScenarioRun, partitions: i32) {
    let mut setting = run.draw();
    // Static, so that the next one works at once; several inserts at once, so that it dies in the middle of the others.
    (setting.partitions, setting.members, setting.in_flight) = (partitions, Members::Static, 8);
    run.sets(&setting);
    let env = TestEnv::open_in(&setting.services());
    let flags = setting.flags("one");
    let sampler = Sampler::start(&env);
    let load = env.produce(&setting.load());
    for _ in run.rounds(1) {
        for step in WORK {
            let nth = run.rng.random_range(1..10);
            let mut ingester = env.run_with("ingest", &flags, &[(VARIABLE, &format!("{step}=die@{nth}"))]);
            assert_eq!(ingester.exit_code(WAIT_TIMEOUT), None, "killed at {step}");
            run.fault();
        }
        for step in ["on_assign", "on_revoke"] {
            let mut ingester = env.run_with("ingest", &flags, &[(VARIABLE, &format!("{step}=die"))]);
            if step == "on_revoke" {
                ingester.says("lease opened", 1);
                ingester.term();
            }
            assert_eq!(ingester.exit_code(WAIT_TIMEOUT), None, "killed at {step}");
            run.fault();
        }
    }
    let mut last = env.ingest(&flags);
    run.recovers(&env);
    let manifest = load.stop();
    env.drained();
    last.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}

/// Stalls are shorter and longer than the timeouts that matter: that of an insert, and the session.
pub fn stall_and_fail(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    setting.end_sessions_soon();
    run.sets(&setting);
    let env = TestEnv::open_in(&setting.services());
    let flags = setting.flags("one");
    let sampler = Sampler::start(&env);
    let load = env.produce(&setting.load());
    for _ in run.rounds(1) {
        let mut points: Vec<_> = WORK.iter().map(|step| format!("{step}=fail%15")).collect();
        points.extend(WORK[..3].iter().map(|step| format!("{step}=stall:7s@{}", run.rng.random_range(2..9))));
        points.extend(["on_assign=stall:1s", "on_revoke=stall:1s"].map(str::to_owned));
        let mut ingester = env.run_with("ingest", &flags, &[(VARIABLE, &points.join(","))]);
        ingester.says("lease opened", 1);
        is_at_work(&env);
        env.drained();
        ingester.drains();
        assert!(ingester.closing().retries > 0, "the failures met something");
        run.fault();
    }
    let mut last = env.ingest(&flags);
    run.recovers(&env);
    let manifest = load.stop();
    env.drained();
    last.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}
