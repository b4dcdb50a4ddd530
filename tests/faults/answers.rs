//! F6, F7: connections that are cut, and answers that do not say *stored*.

use crate::course::{Course, Setting, stayed};
use crate::scene::Scene;
use crate::support::proxy::{Mishap, Proxy};
use crate::support::sampler::Sampler;
use crate::support::shop::{Ground, Shop};
use crate::support::{PATIENCE, eventually, is};
use rand::RngExt;
use rand::seq::SliceRandom;

/// Codes that pass: TIMEOUT_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
/// MEMORY_LIMIT_EXCEEDED, TABLE_IS_READ_ONLY, NOT_ENOUGH_SPACE, TOO_MANY_PARTS; and some that nobody has in a list, which say
/// nothing about a row as long as they do not stay.
const PASSING: [u16; 10] = [159, 202, 216, 241, 242, 243, 252, 153, 36, 9_999];

/// The page of a load balancer that has lost its servers for a moment.
const PAGE: &str = "<html><head><title>Not Found</title></head><body><h1>Code: 60.</h1></body></html>";

/// What a server says in the body beside its code.
fn exception(code: u16) -> String {
    format!("Code: {code}. DB::Exception: as told. (version 26.7)\n")
}

pub fn cut(course: &mut Course) {
    let cuts = |course: &mut Course| {
        vec![
            Mishap::CutInRequest(0),
            Mishap::CutInRequest(course.rng.random_range(1..100)),
            Mishap::CutInRequest(course.rng.random_range(1..100)),
            Mishap::CutAfterRequest,
            Mishap::CutAfterRequest,
            Mishap::CutBeforeAnswer,
            Mishap::CutBeforeAnswer,
            Mishap::CutInAnswer,
        ]
    };
    survives(course, cuts);
}

pub fn transient(course: &mut Course) {
    let answers = |course: &mut Course| {
        let mut told = vec![
            Mishap::Silence,
            // With an exception in the body: it is at a later point that the server found out.
            Mishap::Instead(200, None, exception(241)),
            Mishap::Though(200, None, exception(241)),
            Mishap::Instead(200, Some(241), String::new()),
            // Of somebody in between, who does not know what became of it.
            Mishap::Instead(500, None, String::new()),
            Mishap::Though(500, None, String::new()),
            Mishap::Instead(503, None, "<html>no server</html>".into()),
            Mishap::Though(503, None, "<html>no server</html>".into()),
            Mishap::Though(429, None, String::new()),
            Mishap::Instead(401, None, String::new()),
            Mishap::Instead(404, None, PAGE.into()),
            Mishap::Though(403, None, PAGE.into()),
            Mishap::Instead(413, None, PAGE.into()),
            Mishap::Instead(200, None, PAGE.into()),
            // A success that names no number of rows.
            Mishap::Instead(200, None, String::new()),
            Mishap::Though(200, None, String::new()),
        ];
        for code in PASSING {
            told.push(Mishap::Instead(500, Some(code), exception(code)));
            told.push(Mishap::Though(500, Some(code), exception(code)));
        }
        told.shuffle(&mut course.rng);
        told
    };
    survives(course, answers);
}

/// Each mishap meets an insert, and the ingester goes on as if nothing had been.
fn survives(course: &mut Course, mishaps: fn(&mut Course) -> Vec<Mishap>) {
    let setting = course.draw();
    let ground = setting.ground();
    let (scene, proxy) = Scene::behind_a_proxy(setting, &ground, &[]);
    for _ in course.rounds(1) {
        let mishaps = mishaps(course);
        mishaps.iter().for_each(|_| course.fault());
        proxy.plan(mishaps);
        eventually(PATIENCE, "all of it has happened", || is(proxy.left() == 0, proxy.left()));
        scene.recovers(course);
    }
    stayed(&scene.ingester);
    scene.closes(course);
}

/// It stops at once, says why in one line, and has committed nothing of it.
pub fn permanent(course: &mut Course) {
    let setting = course.draw();
    let (proxy, shop) = behind_a_proxy(&setting);
    let load = shop.produce(&setting.load());
    let (flags, url) = (setting.flags("one"), proxy.url());
    let flags = [&flags[..], &["--clickhouse-url", &url]].concat();
    let sampler = Sampler::start(&shop);
    for _ in course.rounds(1) {
        for told in [Mishap::Instead(404, Some(60), exception(60)), Mishap::Though(403, Some(516), exception(516))] {
            let mut ingester = shop.ingester_at_work(&flags);
            proxy.plan([told]);
            ingester.gives_up("nothing of the current batches is committed");
            course.fault();
        }
    }
    let mut last = shop.ingest(&flags);
    course.recovers(&shop);
    let manifest = load.stop();
    shop.drained();
    last.drains();
    sampler.saw_only_stored_offsets_committed();
    course.judge(&shop, &manifest);
}

/// A shop that looks at ClickHouse itself, and a proxy for its ingester.
pub fn behind_a_proxy(setting: &Setting) -> (Proxy, Shop) {
    let ground: Ground = setting.ground();
    let proxy = Proxy::start(&ground.clickhouse);
    (proxy, Shop::open_in(&ground))
}
