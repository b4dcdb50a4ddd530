//! F11: commits fail again and again.

use crate::scenario_run::{ScenarioRun, is_at_work, stayed};
use crate::steps::VARIABLE;
use crate::support::sampler::Sampler;
use crate::support::test_env::TestEnv;
use std::time::Duration;

/// Most commits do not reach the coordinator, or their answers are lost. Rows are still stored, and in the end all
/// offsets are committed.
pub fn fail(run: &mut ScenarioRun) {
    let setting = run.draw();
    let env = TestEnv::open_in(&setting.services());
    let load = env.produce(&setting.load());
    let failing = [(VARIABLE, "before_commit=fail%50,after_commit=fail%80")];
    let mut ingester = env.run_with("ingest", &setting.flags("one"), &failing);
    ingester.says("lease opened", 1);
    let sampler = Sampler::start(&env);
    is_at_work(&env);
    for _ in run.rounds(3) {
        run.moment(Duration::from_secs(5));
        run.fault();
        run.recovers(&env);
        // After a kill with pending commits, the next ingester finds the rows.
        run.weigh(&ingester);
        stayed(&ingester);
        ingester.kill();
        ingester = env.run_with("ingest", &setting.flags("one"), &failing);
        ingester.says("lease opened", 1);
    }
    let manifest = load.stop();
    env.drained();
    assert!(ingester.said("offsets not committed yet") > 0, "the failures met something");
    ingester.drains();
    sampler.saw_only_stored_offsets_committed();
    run.judge(&env, &manifest);
}
