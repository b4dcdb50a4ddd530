//! Every event that costs data or stops the flow is visible: in the log, in /metrics, in /readyz, and in an audit
//! afterwards.

use crate::http::{free_address, get, status};
use crate::raw;
use crate::support::process::Program;
use crate::support::proxy::{Proxy, ProxyFault};
use crate::support::stack::OwnKafka;
use crate::support::test_env::{Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use serde_json::Value;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// Two seconds by the documents, and some more for a machine that other tests keep busy.
pub const SAID_WITHIN: Duration = Duration::from_secs(6);

const GOOD: &str = r#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"u","product_id":"p","price":1,"timestamp":"2024-01-15T14:30:00Z"}"#;

fn messages(payload: &str, count: usize) -> Vec<raw::Raw> {
    vec![(Some(b"u".to_vec()), Some(payload.into())); count]
}

/// An ingester with an address for its metrics.
pub struct Observed {
    pub program: Program,
    address: SocketAddr,
}

impl Observed {
    pub fn start(env: &TestEnv, more: &[&str]) -> Self {
        Self::start_with(env, "300ms", more)
    }

    /// With batches that leave after this time.
    pub fn start_with(env: &TestEnv, batch_timeout: &str, more: &[&str]) -> Self {
        let address = free_address();
        let listen = ["--batch-timeout", batch_timeout, "--metrics", &address.to_string()].map(str::to_owned);
        let args: Vec<_> = listen.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let mut program = env.ingest(&args);
        program.says("metrics at", 1);
        Self { program, address }
    }

    pub fn metric(&self, name: &str) -> f64 {
        self.metric_if_any(name).unwrap_or_else(|| panic!("/metrics has no {name}"))
    }

    fn metric_if_any(&self, name: &str) -> Option<f64> {
        let page = String::from_utf8_lossy(&get(self.address, "/metrics")).into_owned();
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("clickstream_{name} ")));
        line?.trim().parse().ok()
    }

    /// Waits until a metric is so.
    #[track_caller]
    pub fn shows(&self, name: &str, so: impl Fn(f64) -> bool) {
        eventually(WAIT_TIMEOUT, name, || {
            let value = self.metric_if_any(name);
            is(value.is_some_and(&so), value)
        });
    }

    /// Waits until it is not ready, and says so with this.
    #[track_caller]
    pub fn is_not_ready(&self, why: &str) {
        eventually(WAIT_TIMEOUT, &format!("it is not ready: {why}"), || {
            let answer = get(self.address, "/readyz");
            let said = String::from_utf8_lossy(&answer).into_owned();
            is(status(&answer) == Some(503) && said.contains(why), said)
        });
    }

    #[track_caller]
    pub fn is_ready(&self) {
        eventually(WAIT_TIMEOUT, "it is ready", || {
            let answer = get(self.address, "/readyz");
            is(status(&answer) == Some(200), String::from_utf8_lossy(&answer).into_owned())
        });
    }
}

#[track_caller]
fn audit_fails(env: &TestEnv, said: &[&str]) {
    let mut audit = env.run("audit", &[]);
    assert_eq!(audit.exit_code(WAIT_TIMEOUT), Some(1), "{}{}", audit.stdout(), audit.stderr());
    let all = audit.stdout() + &audit.stderr();
    assert!(said.iter().all(|said| all.contains(said)), "{said:?} in {all}");
}

#[test]
fn unread_messages_that_retention_deletes_are_counted_and_found_by_an_audit() {
    let env = TestEnv::open();
    raw::send(&env, 2, &messages(GOOD, 100));
    env.ingest(&["--until-end"]).succeeds();
    raw::send(&env, 2, &messages(GOOD, 100));
    // Nothing was ever stored of this partition.
    raw::send(&env, 0, &messages(GOOD, 30));
    raw::delete_before(&env, 2, 150);
    raw::delete_before(&env, 0, 10);
    audit_fails(&env, &["deleted from the topic before it was read: 100..=149", "60 are lost"]);

    let mut ingester = Observed::start(&env, &[]);
    env.drained();
    ingester.shows("messages_lost_total{cause=\"expired\"}", |lost| lost == 60.0);
    assert_eq!(ingester.metric("messages_lost_total{cause=\"reset\"}"), 0.0);
    assert_eq!(ingester.program.said("50 messages were deleted from the topic before they were read"), 1);
    ingester.is_ready();
    // While it runs, and stands at the end.
    ingester.program.freeze();
    // A request that the broker holds open is answered with what comes first.
    raw::send(&env, 2, &messages(GOOD, 1));
    raw::send(&env, 2, &messages(GOOD, 40));
    raw::delete_before(&env, 2, 225);
    ingester.program.wake();
    ingester.shows("messages_lost_total{cause=\"expired\"}", |lost| lost > 60.0);
    env.drained();
    let lost = ingester.metric("messages_lost_total{cause=\"expired\"}");
    ingester.program.drains();
    assert!(lost == 60.0 + 225.0 - 200.0 || lost == 60.0 + 225.0 - 201.0, "{lost}");
    let summary = format!("{lost} messages were lost before they were read");
    assert!(ingester.program.stdout().contains(&summary), "{}", ingester.program.stdout());

    // Afterwards it is found, partition by partition, by what the group has noted.
    let said = format!("{lost} are lost");
    let noted = format!("{} messages, as the group has noted", lost - 10.0);
    audit_fails(&env, &["10 messages, as the group has noted", &noted, "..=224", &said]);
    let mut json = env.run("audit", &["--format", "json"]);
    assert_eq!(json.exit_code(WAIT_TIMEOUT), Some(1));
    let found: Value = serde_json::from_str(&json.stdout()).expect("one JSON document");
    assert_eq!(found["whole"], false);
    assert_eq!(found["partitions"][2]["expired"]["passed"]["messages"], lost as u64 - 10);
    // Those that come later do not hide it.
    raw::send(&env, 2, &messages(GOOD, 5));
    env.ingest(&["--until-end"]).succeeds();
    audit_fails(&env, &[&said]);
}

#[test]
fn leftovers_of_transactions_are_not_taken_for_a_loss() {
    let env = TestEnv::open();
    raw::send(&env, 0, &messages(GOOD, 5));
    raw::transact(&env, 0, &messages(GOOD, 10), true);
    raw::transact(&env, 0, &messages(GOOD, 10), false);
    raw::transact(&env, 0, &messages(GOOD, 1), true);
    raw::transact(&env, 1, &messages(GOOD, 10), true);
    raw::transact(&env, 1, &messages(GOOD, 10), false);
    let mut ingester = Observed::start(&env, &[]);
    eventually(WAIT_TIMEOUT, "all are stored", || is(env.stored() == 26, env.stored()));
    // Behind the last message stands a marker: nothing waits.
    ingester.shows("lag_messages", |lag| lag == 0.0);
    // An idle member says how far it has read with its next commit.
    let ends = env.ends();
    eventually(WAIT_TIMEOUT, "the group knows that only markers are left", || {
        let noted = raw::committed_metadata(&env, 1);
        is(noted.contains(&format!(";read={}", ends[&1])), noted)
    });
    ingester.program.drains();
    raw::delete_before(&env, 0, 20);
    let mut audit = env.run("audit", &[]);
    audit.succeeds();
    assert!(audit.stdout().contains("as far as can be told"), "{}", audit.stdout());
    // All of it was read, and all is deleted.
    for (&partition, &end) in &ends {
        raw::delete_before(&env, partition, end);
    }
    env.run("audit", &[]).succeeds();
    let mut again = Observed::start(&env, &[]);
    again.program.says("lease opened", 1);
    raw::send(&env, 0, &messages(GOOD, 1));
    eventually(WAIT_TIMEOUT, "it goes on", || is(env.stored() == 27, env.stored()));
    again.program.drains();
    assert_eq!(again.program.said("were deleted"), 0, "{}", again.program.stderr());
}

#[test]
fn unread_messages_of_a_topic_that_is_made_again_are_counted() {
    let env = TestEnv::open();
    let proxy = Proxy::start(&env.clickhouse.url);
    let mut ingester = Observed::start(&env, &["--clickhouse-url", &proxy.url()]);
    raw::send(&env, 0, &messages(GOOD, 100));
    env.drained();
    proxy.plan(vec![no_space(); 10_000]);
    raw::send(&env, 0, &messages(GOOD, 30));
    ingester.shows("lag_messages", |lag| lag == 30.0);
    env.kafka.delete(&env.topic);
    ingester.program.says("is gone; waiting for it to come back", 1);
    proxy.forget();
    eventually(WAIT_TIMEOUT, "the topic can be made again", || {
        let mut setup = env.run("setup", &[]);
        setup.succeeds();
        is(setup.stdout().contains("created, 3 partitions"), setup.stdout())
    });
    raw::send(&env, 0, &messages(GOOD, 10));
    eventually(WAIT_TIMEOUT, "the new ones are stored", || is(env.stored() == 110, env.stored()));
    assert_eq!(ingester.metric("topic_resets_total"), 3.0, "each partition is another one");
    assert_eq!(ingester.metric("messages_lost_total{cause=\"reset\"}"), 30.0);
    assert_eq!(ingester.program.said("at least 30 messages of the old one were not read"), 1);
    assert_eq!(ingester.program.said("the topic was deleted, and made again"), 3);
    ingester.program.drains();
}

fn no_space() -> ProxyFault {
    ProxyFault::Instead(500, Some(243), "Code: 243. DB::Exception: Cannot reserve 1.00 MiB".into())
}

#[test]
fn a_lease_that_cannot_be_opened_is_counted_warned_of_and_not_ready() {
    let env = TestEnv::open();
    let proxy = Proxy::start(&env.clickhouse.url);
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    // The question which offsets are stored fails; all others are answered.
    proxy.refuse_questions("at_offset", 500, 202, "Code: 202. DB::Exception: Too many simultaneous queries");
    let mut ingester = Observed::start(&env, &["--clickhouse-url", &proxy.url()]);
    ingester.shows("partitions_without_lease", |partitions| partitions == 3.0);
    ingester.shows("lag_messages", |lag| lag == 100.0);
    ingester.shows("oldest_unfinished_seconds", |seconds| seconds > 0.0);
    ingester.shows("lease_failures_total", |failures| failures >= 3.0);
    ingester.shows("failures_total{class=\"transient\"}", |failures| failures >= 3.0);
    ingester.program.says("WARN no lease could be opened", 1);
    ingester.is_not_ready("no lease could be opened");
    ingester.is_not_ready("Too many simultaneous queries");
    let (stuck, oldest) =
        (ingester.metric("stuck_seconds{at=\"lease\"}"), ingester.metric("oldest_unfinished_seconds"));
    assert!(stuck > 0.0 && oldest > 0.3, "stuck for {stuck} s, and messages have waited for {oldest} s");
    proxy.answer_questions();
    ingester.is_ready();
    env.drained();
    ingester.shows("lag_messages", |lag| lag == 0.0);
    assert_eq!(ingester.metric("stuck_seconds{at=\"lease\"}"), 0.0);
    assert_eq!(ingester.metric("partitions_without_lease"), 0.0);
    ingester.program.drains();
    assert_eq!(env.stored(), 100);
}

#[test]
fn messages_that_wait_while_no_insert_works_make_it_unready() {
    let env = TestEnv::open();
    let proxy = Proxy::start(&env.clickhouse.url);
    let mut ingester = Observed::start(&env, &["--clickhouse-url", &proxy.url()]);
    ingester.program.says("lease opened", 1);
    ingester.is_ready();
    proxy.plan(vec![no_space(); 10_000]);
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    ingester.shows("lag_messages", |lag| lag == 100.0);
    ingester.is_not_ready("messages wait and none is stored");
    assert!(ingester.metric("stuck_seconds{at=\"delivery\"}") >= 30.0);
    assert!(ingester.program.said("Cannot reserve") > 0, "the log says why");
    proxy.forget();
    ingester.is_ready();
    ingester.program.drains();
    assert_eq!(env.stored(), 100);
}

#[test]
fn brokers_that_are_away_make_it_unready() {
    let kafka = OwnKafka::start(1);
    let env = TestEnv::open_in(&Services { brokers: kafka.brokers(), ..Services::default() });
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    let mut ingester = Observed::start(&env, &[]);
    env.drained();
    ingester.is_ready();
    let mut producer = env.run("produce", &["--rate", "50"]);
    producer.says("producing into", 1);
    kafka.freeze(1);
    let frozen = Instant::now();
    ingester.program.says("WARN Kafka has not answered for ", 1);
    producer.says("WARN messages wait for Kafka and none is acknowledged for ", 1);
    assert!(frozen.elapsed() < SAID_WITHIN, "said after {:?}", frozen.elapsed());
    ingester.is_not_ready("not ready: Kafka has not answered for ");
    for said in ["trying again, and nothing is lost: Kafka keeps the messages", "Kafka answers again after "] {
        assert_eq!(ingester.program.said(said), usize::from(said.starts_with("trying")), "{said}");
    }
    kafka.wake(1);
    ingester.program.says("INFO Kafka answers again after ", 1);
    producer.says("INFO Kafka acknowledges messages again after ", 1);
    ingester.is_ready();
    producer.drains();
    env.drained();
    for at in ["kafka", "topic", "group", "commit"] {
        ingester.shows(&format!("stuck_seconds{{at=\"{at}\"}}"), |seconds| seconds == 0.0);
    }
    ingester.program.drains();
}

#[test]
fn a_producer_with_another_format_is_warned_of_and_counted_by_reason() {
    let env = TestEnv::open();
    raw::send(&env, 0, &messages(&GOOD.replace("\"price\":1", r#""price":"29.99""#), 990));
    raw::send(&env, 0, &messages("\u{0}\u{0}\u{0}\u{0}\u{7}{}", 10));
    let mut ingester = Observed::start(&env, &[]);
    env.drained();
    let of = |reason: &str| ingester.metric(&format!("rejects_total{{reason=\"{reason}\"}}"));
    assert_eq!(["wrong_type", "not_json", "bad_uuid"].map(of), [990.0, 10.0, 0.0]);
    // Headers count as they are kept: with a byte for their number, each length, and whether there is a value.
    let bytes = env.number(
        "SELECT sum(length(key) + length(payload) + 1 + arraySum(h -> length(h.1) + 2 + ifNull(length(h.2) + 1, 0), headers)) \
         FROM db.rejected",
    );
    assert_eq!(ingester.metric("rejected_bytes_total"), bytes as f64);
    ingester.program.says("were rejected", 1);
    for said in [
        "WARN 1,000 of 1,000 messages",
        "(100 %), 990 of them as wrong_type: partition 0, offset 0: price: found the string \"29.99\", expected a number",
        "clickstream rejects --reason wrong_type",
    ] {
        assert_eq!(ingester.program.said(said), 1, "{said}");
    }
    ingester.is_ready();
    ingester.program.drains();
    // A run that is over sooner says so at its end.
    raw::send(&env, 0, &messages("[]", 3));
    let mut short = env.ingest(&["--until-end"]);
    short.succeeds();
    assert_eq!(short.said("3 of 3 messages"), 1, "{}", short.stderr());
}

#[test]
fn a_state_directory_that_others_may_write_is_warned_of_and_not_used() {
    let env = TestEnv::open();
    let place = env.dir.join(format!("clickstream-{}", rustix::process::geteuid().as_raw()));
    std::fs::create_dir_all(&place).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777)).unwrap();
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    let mut ingester = env.ingest(&["--until-end"]);
    ingester.succeeds();
    let said = ingester.stderr();
    let line = said.lines().find(|line| line.contains(place.to_str().unwrap())).expect("a line about it");
    for part in ["WARN", "other users may write in", "Nothing is lost", "--state-dir"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!((env.stored(), std::fs::read_dir(&place).unwrap().count()), (100, 0));
}
