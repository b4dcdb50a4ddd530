//! While a service is away, each figure says so, and grows with what waits.

use crate::alarms::{Observed, SAID_WITHIN};
use crate::support::stack::OwnClickHouse;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use std::time::{Duration, Instant};

/// The time by which figures may be behind: they are updated twice a second, on a machine that other tests keep busy.
const BEHIND: Duration = Duration::from_secs(3);

#[test]
fn a_frozen_clickhouse_makes_the_figures_grow_before_it_answers_again() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    let mut ingester = Observed::start(&env, &[]);
    let production = env.produce(&["--rate", "100"]);
    eventually(WAIT_TIMEOUT, "rows are stored", || is(env.stored() > 100, env.stored()));
    ingester.is_ready();
    assert_eq!(ingester.metric("promise_seconds"), 0.3);
    ingester.shows("oldest_unfinished_seconds", |seconds| seconds < 1.0);
    ingester.shows("latency_seconds{stage=\"e2e\",quantile=\"0.99\"}", |seconds| seconds > 0.0);

    own.freeze();
    let frozen = Instant::now();
    ingester.program.says("WARN ClickHouse has not answered for ", 1);
    assert!(frozen.elapsed() < SAID_WITHIN, "said after {:?}", frozen.elapsed());
    ingester.is_not_ready("ClickHouse has not answered for ");
    // Messages since then are not stored: a hundred messages a second, the oldest of them as old as the freeze.
    for second in 3..=8_u64 {
        let age = Duration::from_secs(second);
        let grown = |name: &str, least: f64| {
            ingester.shows(name, |value| value >= least);
            assert!(frozen.elapsed() < age + BEHIND, "{name} is behind: {:?}", frozen.elapsed());
        };
        grown("oldest_unfinished_seconds", age.as_secs_f64());
        grown("lag_messages", 80.0 * (second - 1) as f64);
        grown("latency_seconds{stage=\"e2e\",quantile=\"0.99\"}", (age - Duration::from_secs(1)).as_secs_f64() * 0.8);
    }
    let late = ingester.metric("e2e_seconds_count") - ingester.metric("e2e_seconds_bucket{le=\"6\"}");
    assert_eq!(late, 0.0, "a counter counts what is stored");
    // The line that comes every ten seconds.
    ingester.program.says("INFO ClickHouse has not answered for ", 1);
    let log = ingester.program.stderr();
    let line = log.lines().find(|line| line.contains("INFO ClickHouse has not answered for ")).unwrap_or_default();
    for part in ["Kafka keeps them", "lag ", "e2e p50 ", "promise of 300 ms broken for "] {
        assert!(line.contains(part), "{part}: {line}");
    }
    own.wake();
    ingester.program.says("INFO ClickHouse answers again after ", 1);
    ingester.is_ready();
    ingester.shows("oldest_unfinished_seconds", |seconds| seconds < 1.0);
    let sent = production.stop().len();
    env.drained();
    assert!(ingester.metric("latency_seconds{stage=\"e2e\",quantile=\"0.999\"}") >= 8.0, "it took that long");
    ingester.program.drains();
    assert_eq!(env.stored(), sent as i64);
    for once in ["WARN ClickHouse has not answered", "INFO ClickHouse answers again"] {
        assert_eq!(ingester.program.said(once), 1, "{once}: {}", ingester.program.stderr());
    }
}
