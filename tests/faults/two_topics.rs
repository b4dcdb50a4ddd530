//! F1 with two topics in one table: the processes are killed, each of which has a member of the group for each topic.

use crate::scenario_run::{ScenarioRun, is_at_work};
use crate::support::sampler::Sampler;
use crate::support::test_env::TestEnv;
use std::time::Duration;

/// The longest time between a start and its fault.
const WARM_UP: Duration = Duration::from_secs(3);

/// One of two processes dies. The other one takes over its partitions of both topics, and gives them back.
pub fn killed(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    setting.share_out();
    run.sets(&setting);
    let (one, two) = TestEnv::open_in(&setting.services()).with_second_topic();
    let mut other = one.ingester_at_work(&setting.flags("other"));
    let mut victim = one.ingest_on("elsewhere", &setting.flags("victim"));
    let samplers = [&one, &two].map(Sampler::start);
    let loads = [&one, &two].map(|env| env.produce(&setting.load()));
    [&one, &two].into_iter().for_each(is_at_work);
    for _ in run.rounds(3) {
        run.moment(WARM_UP);
        victim.kill();
        run.fault();
        victim = one.ingest_on("elsewhere", &setting.flags("victim"));
        run.recovers(&one);
        run.recovers(&two);
        run.weigh(&other);
    }
    let manifests = loads.map(|load| load.stop());
    [&one, &two].into_iter().for_each(TestEnv::drained);
    other.drains();
    victim.drains();
    samplers.into_iter().for_each(Sampler::saw_only_stored_offsets_committed);
    for (env, manifest) in [&one, &two].into_iter().zip(&manifests) {
        run.judge(env, manifest);
    }
}
