//! F6, F7: connections that are cut, and answers that do not say *stored*.

use crate::scenario_run::{ScenarioRun, Setting, stayed};
use crate::scene::Scene;
use crate::support::proxy::{Proxy, ProxyFault};
use crate::support::sampler::Sampler;
use crate::support::test_env::{Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rand::RngExt;
use rand::seq::SliceRandom;

/// Codes that pass: TIMEOUT_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
/// MEMORY_LIMIT_EXCEEDED, TABLE_IS_READ_ONLY, NOT_ENOUGH_SPACE, TOO_MANY_PARTS. Further codes are in no list: they say
/// nothing about a row while they do not stay.
const PASSING: [u16; 10] = [159, 202, 216, 241, 242, 243, 252, 153, 36, 9_999];

/// The page of a load balancer that has lost its servers for a moment.
const PAGE: &str = "<html><head><title>Not Found</title></head><body><h1>Code: 60.</h1></body></html>";

/// The server's text beside its code.
fn exception(code: u16) -> String {
    format!("Code: {code}. DB::Exception: as told. (version 26.7)\n")
}

pub fn cut(run: &mut ScenarioRun) {
    let cuts = |run: &mut ScenarioRun| {
        vec![
            ProxyFault::CutInRequest(0),
            ProxyFault::CutInRequest(run.rng.random_range(1..100)),
            ProxyFault::CutInRequest(run.rng.random_range(1..100)),
            ProxyFault::CutAfterRequest,
            ProxyFault::CutAfterRequest,
            ProxyFault::CutBeforeAnswer,
            ProxyFault::CutBeforeAnswer,
            ProxyFault::CutInAnswer,
        ]
    };
    survives(run, cuts);
}

pub fn transient(run: &mut ScenarioRun) {
    let answers = |run: &mut ScenarioRun| {
        let mut told = vec![
            ProxyFault::Silence,
            // With an exception in the body: it is at a later point that the server found out.
            ProxyFault::Instead(200, None, exception(241)),
            ProxyFault::Though(200, None, exception(241)),
            ProxyFault::Instead(200, Some(241), String::new()),
            // Answers of a proxy, which does not know the outcome.
            ProxyFault::Instead(500, None, String::new()),
            ProxyFault::Though(500, None, String::new()),
            ProxyFault::Instead(503, None, "<html>no server</html>".into()),
            ProxyFault::Though(503, None, "<html>no server</html>".into()),
            ProxyFault::Though(429, None, String::new()),
            ProxyFault::Instead(401, None, String::new()),
            ProxyFault::Instead(404, None, PAGE.into()),
            ProxyFault::Though(403, None, PAGE.into()),
            ProxyFault::Instead(413, None, PAGE.into()),
            ProxyFault::Instead(200, None, PAGE.into()),
            // A success that names no number of rows.
            ProxyFault::Instead(200, None, String::new()),
            ProxyFault::Though(200, None, String::new()),
        ];
        for code in PASSING {
            told.push(ProxyFault::Instead(500, Some(code), exception(code)));
            told.push(ProxyFault::Though(500, Some(code), exception(code)));
        }
        told.shuffle(&mut run.rng);
        told
    };
    survives(run, answers);
}

/// Each fault meets an insert, and the ingester continues.
fn survives(run: &mut ScenarioRun, mishaps: fn(&mut ScenarioRun) -> Vec<ProxyFault>) {
    let setting = run.draw();
    let services = setting.services();
    let (scene, proxy) = Scene::behind_a_proxy(setting, &services, &[]);
    for _ in run.rounds(1) {
        let mishaps = mishaps(run);
        mishaps.iter().for_each(|_| run.fault());
        proxy.plan(mishaps);
        eventually(WAIT_TIMEOUT, "all of it has happened", || is(proxy.left() == 0, proxy.left()));
        scene.recovers(run);
    }
    stayed(&scene.ingester);
    scene.closes(run);
}

/// The ingester stops at once, gives the reason in one line, and has committed nothing of that batch.
pub fn permanent(run: &mut ScenarioRun) {
    let setting = run.draw();
    let (proxy, env) = behind_a_proxy(&setting);
    let load = env.produce(&setting.load());
    let (flags, url) = (setting.flags("one"), proxy.url());
    let flags = [&flags[..], &["--clickhouse-url", &url]].concat();
    let sampler = Sampler::start(&env);
    for _ in run.rounds(1) {
        for told in
            [ProxyFault::Instead(404, Some(60), exception(60)), ProxyFault::Though(403, Some(516), exception(516))]
        {
            let mut ingester = env.ingester_at_work(&flags);
            proxy.plan([told]);
            ingester.gives_up("nothing of the current batches is committed");
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

/// A shop that looks at ClickHouse itself, and a proxy for its ingester.
pub fn behind_a_proxy(setting: &Setting) -> (Proxy, TestEnv) {
    let services: Services = setting.services();
    let proxy = Proxy::start(&services.clickhouse);
    (proxy, TestEnv::open_in(&services))
}
