//! `ingest --until-end`: it ends when everything is stored, and not before.

use crate::raw;
use crate::support::proxy::{Proxy, ProxyFault};
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is, oracle};
use rdkafka::producer::Producer;
use std::time::Duration;

const GOOD: &str = r#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"u","product_id":"p","price":1,"timestamp":"2024-01-15T14:30:00Z"}"#;

fn messages(count: usize) -> Vec<raw::Raw> {
    vec![(Some(b"u".to_vec()), Some(GOOD.into())); count]
}

#[test]
fn it_waits_until_everything_is_stored_and_a_signal_for_the_drain_timeout() {
    let env = TestEnv::open();
    let proxy = Proxy::start(&env.clickhouse.url);
    let manifest = env.produce(&["--count", "300", "--rate", "max"]).finish();
    let full = ProxyFault::Instead(500, Some(243), "Code: 243. DB::Exception: Cannot reserve 1.00 MiB".into());
    proxy.plan(vec![full; 10_000]);
    let options =
        ["--until-end", "--drain-timeout", "1s", "--batch-timeout", "500ms", "--clickhouse-url", &proxy.url()];
    let mut first = env.ingest(&options);
    // All is read within a second, and after ten more it still waits.
    first.says("WARN messages wait and none is stored", 1);
    assert_eq!(
        first.said("; Code: 243. DB::Exception: Cannot reserve 1.00 MiB; trying again"),
        1,
        "{}",
        first.stderr()
    );
    // While it waits, its group takes partitions back, and gives them out again.
    let mut second = env.ingest(&options[1..]);
    second.says("insert into events not confirmed", 1);
    first.says("lease opened", 2);
    second.term();
    assert_eq!(second.exit_code(Duration::from_secs(20)), Some(1), "{}", second.stderr());
    assert_eq!(second.said("--drain-timeout"), 2, "{}", second.stderr());
    first.says("lease opened", 3);
    assert!(first.is_running());
    proxy.forget();
    first.succeeds();
    oracle::exactly_once(&env, &manifest);
    assert_eq!(env.committed().values().sum::<i64>(), 300);
}

#[test]
fn messages_behind_an_open_transaction_are_named() {
    let env = TestEnv::open();
    raw::send(&env, 0, &messages(5));
    let open = raw::begin(&env, 0, &messages(1));
    raw::send(&env, 0, &messages(50));
    raw::send(&env, 1, &messages(7));
    let mut ingester = env.ingest(&["--until-end"]);
    ingester.succeeds();
    assert_eq!(
        ingester.said("WARN partition 0: 51 messages from offset 5 on are not read"),
        1,
        "{}",
        ingester.stderr()
    );
    assert_eq!(ingester.said("are not read"), 1, "{}", ingester.stderr());
    assert_eq!(env.stored(), 12);
    open.abort_transaction(WAIT_TIMEOUT).expect("the transaction ends");
    eventually(WAIT_TIMEOUT, "the rest is read", || {
        let mut ingester = env.ingest(&["--until-end"]);
        ingester.succeeds();
        assert_eq!(ingester.said("are not read"), 0, "{}", ingester.stderr());
        is(env.stored() == 62, env.stored())
    });
}
