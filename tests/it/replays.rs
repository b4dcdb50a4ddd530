//! Rejected messages can be listed, traced, and re-published once.

use crate::errors::fails_and_names;
use crate::raw::{self, Given, Raw};
use crate::support::WAIT_TIMEOUT;
use crate::support::test_env::TestEnv;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn reject(key: Option<&[u8]>, payload: Option<&[u8]>) -> Raw {
    (key.map(<[u8]>::to_vec), payload.map(<[u8]>::to_vec))
}

/// Messages that are rejected, of several reasons, some of them not even text.
fn bad() -> Vec<Raw> {
    let price = br#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"u","product_id":"p","price":-1,"timestamp":"2024-01-15T14:30:00Z"}"#;
    vec![
        reject(Some(b"k1"), Some(price)),
        reject(Some(b"k2"), Some(b"\x1b[2Jno\r\n\0json")),
        reject(Some(b"\xff\x00\xfe"), Some(b"\xff\xfe\x00")),
        reject(None, Some(b"")),
        reject(Some(b"tombstone"), None),
        reject(None, Some(b"[]")),
    ]
}

/// A replayed message: the original's position, and the message.
fn replays(env: &TestEnv) -> BTreeMap<String, Vec<Given>> {
    let mut found: BTreeMap<String, Vec<Given>> = BTreeMap::new();
    for message in raw::read(env) {
        if let Some(origin) = message.replay_of.clone() {
            found.entry(origin).or_default().push(message);
        }
    }
    found
}

fn source(env: &TestEnv) -> String {
    env.rows("SELECT DISTINCT _source FROM db.rejected").remove(0).remove(0)
}

#[test]
fn rejects_are_listed_by_reason_and_never_reach_the_terminal_raw() {
    let env = TestEnv::open();
    raw::send(&env, 1, &bad());
    env.ingest(&["--until-end"]).succeeds();
    let mut list = env.run("rejects", &[]);
    list.succeeds();
    let out = list.stdout();
    assert!(out.contains(": 6 rejects\n"), "{out}");
    for (reason, rejects) in [("not_json", 4), ("bad_price", 1), ("null_payload", 1)] {
        assert!(out.contains(&format!("\n{reason:<14} {rejects:>11}  20")), "{reason} in {out}");
    }
    let said = "price: found a number, -1, expected a number from 0 to 99999999.99";
    assert!(out.contains(&format!("  {}/1/0: {said}", env.topic)), "{out}");
    assert!(out.contains(r#"Z, headers h\u001b="\xff\u0000", none=null, h\u001b="again""#), "{out}");
    assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");

    let mut json = env
        .run("rejects", &["--format", "json", "--reason", "not_json", "--at", "1:1", "--at", "1:2", "--since", "1h"]);
    json.succeeds();
    let rows: Vec<Value> = json.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["offset"], &rows[0]["payload"], &rows[0]["key"]),
        (&1.into(), &"\u{1b}[2Jno\r\n\0json".into(), &"k2".into())
    );
    assert_eq!((&rows[1]["payload_base64"], &rows[1]["key_base64"]), (&"//4A".into(), &"/wD+".into()));
    let headers = json!([{"name": "h\u{1b}", "value_base64": "/wA="}, {"name": "none", "value": null}, {"name": "h\u{1b}", "value": "again"}]);
    assert_eq!((&rows[0]["headers"], rows[0]["timestamp"].is_string()), (&headers, true));
    let mut none = env.run("rejects", &["--until", "1h"]);
    none.succeeds();
    assert!(none.stdout().contains(": 0 rejects\n"));
    assert_eq!(env.run("rejects", &["--reason", "ugly"]).exit_code(WAIT_TIMEOUT), Some(2));
    assert_eq!(env.run("rejects", &["--yes"]).exit_code(WAIT_TIMEOUT), Some(2), "--yes alone sends nothing");
}

#[test]
fn a_reject_is_replayed_byte_for_byte_once_and_only_when_it_is_meant() {
    let env = TestEnv::open();
    raw::send(&env, 1, &bad());
    env.ingest(&["--until-end"]).succeeds();
    let before = raw::read(&env);
    let mut dry = env.run("rejects", &["--replay"]);
    dry.succeeds();
    assert!(dry.stdout().contains("6 would be sent") && dry.stdout().contains("--yes"), "{}", dry.stdout());
    assert_eq!(raw::read(&env), before, "nothing was sent");

    let mut some = env.run("rejects", &["--replay", "--yes", "--at", "1:0", "--at", "1:4"]);
    some.succeeds();
    assert!(some.stdout().contains("2 sent to topic"), "{}", some.stdout());
    let mut all = env.run("rejects", &["--replay", "--yes"]);
    all.succeeds();
    assert!(
        all.stdout().contains("4 sent to topic") && all.stdout().contains("2 were replayed before"),
        "{}",
        all.stdout()
    );
    let mut again = env.run("rejects", &["--replay", "--yes"]);
    again.succeeds();
    assert!(again.stdout().contains("0 sent to topic") && again.stdout().contains("6 were"), "{}", again.stdout());

    let (source, replays) = (source(&env), replays(&env));
    assert_eq!(replays.len(), 6);
    for original in &before {
        let origin = format!("{source}/{}/{}", original.partition, original.offset);
        let [replay] = &replays[&origin][..] else { panic!("{origin}: {:?}", replays[&origin]) };
        // A key that was empty cannot be told from one that was not there.
        assert_eq!((&replay.key, &replay.payload), (&original.key, &original.payload), "{origin}");
        assert_eq!((&replay.headers, replay.timestamp_ms), (&original.headers, original.timestamp_ms), "{origin}");
    }
    // When ingested, they are rejected again, at positions of their own, and the audit still passes.
    env.ingest(&["--until-end"]).succeeds();
    assert_eq!(env.stored(), 12);
    env.run("audit", &[]).succeeds();
    // Headers do not pile up from one replay to the next.
    let again = env.number("SELECT max(_offset) FROM db.rejected WHERE reason = 'bad_price'");
    let partition = env.number("SELECT argMax(_partition, _offset) FROM db.rejected WHERE reason = 'bad_price'");
    env.run("rejects", &["--replay", "--yes", "--at", &format!("{partition}:{again}")]).succeeds();
    let replayed = &self::replays(&env)[&format!("{source}/{partition}/{again}")];
    assert_eq!((replayed.len(), &replayed[0].headers), (1, &before[0].headers));
}

/// No column of the table takes a header.
#[test]
fn a_row_that_clickhouse_refuses_is_replayed_with_its_headers_and_its_timestamp() {
    let env = TestEnv::open();
    env.sql(
        "CREATE TABLE db.web (n UInt8, CONSTRAINT small CHECK n < 5, _source LowCardinality(String), _partition Int32, _offset Int64, \
         ingested_at DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC')) ENGINE = MergeTree ORDER BY (_source, _partition, _offset)",
    );
    let messages =
        [r#"{"n":7}"#, r#"{"n":1}"#, r#"{"n":"x"}"#].map(|payload| reject(Some(b"k"), Some(payload.as_bytes())));
    let sent_ms = flows::now() / 1_000_000 - 3_600_000;
    raw::send_at(&env, 1, &messages, sent_ms);
    let before = raw::read(&env);
    env.ingest(&["--table", "web", "--until-end"]).succeeds();
    let shown = env.rows(
        "SELECT _offset, reason, topic, toUnixTimestamp64Milli(timestamp), arrayMap(h -> (hex(h.1), hex(h.2)), headers) \
         FROM db.rejected ORDER BY _offset",
    );
    let headers = "[('681B','FF00'),('6E6F6E65',NULL),('681B','616761696E')]";
    let sent = sent_ms.to_string();
    let row = |offset, reason| [offset, reason, env.topic.as_str(), sent.as_str(), headers].map(ToOwned::to_owned);
    assert_eq!(shown, [row("0", "refused"), row("2", "wrong_type")]);
    // A restored reject is the same row.
    env.sql("TRUNCATE TABLE db.rejected");
    env.run("audit", &["--table", "web", "--heal"]).succeeds();
    let again = env.rows(
        "SELECT _offset, reason, topic, toUnixTimestamp64Milli(timestamp), arrayMap(h -> (hex(h.1), hex(h.2)), headers) \
         FROM db.rejected ORDER BY _offset",
    );
    assert_eq!(again, shown);
    env.run("rejects", &["--table", "web", "--replay", "--yes"]).succeeds();
    let replays = replays(&env);
    assert_eq!(replays.len(), 2);
    for (origin, replayed) in replays {
        let offset: usize = origin.rsplit('/').next().and_then(|offset| offset.parse().ok()).expect("a position");
        let original = &before[offset];
        let parts = |message: &Given| {
            (message.key.clone(), message.payload.clone(), message.headers.clone(), message.timestamp_ms)
        };
        assert_eq!(parts(&replayed[0]), parts(original), "{origin}");
    }
}

#[test]
fn a_table_of_rejects_from_an_earlier_version_is_refused_until_setup_has_added_its_columns() {
    let env = TestEnv::open();
    raw::send(&env, 1, &bad()[..1]);
    env.ingest(&["--until-end"]).succeeds();
    env.sql("SYSTEM START MERGES db.rejected");
    env.sql("ALTER TABLE db.rejected DROP COLUMN headers, DROP COLUMN timestamp, DROP COLUMN topic");
    fails_and_names(
        env.ingest(&["--until-end"]),
        &["rejected: column headers", "is missing", "`clickstream setup` adds it"],
    );
    let mut setup = env.run("setup", &[]);
    setup.succeeds();
    assert!(setup.stdout().contains("tables there, missing columns added"), "{}", setup.stdout());
    raw::send(&env, 1, &bad()[..1]);
    env.ingest(&["--until-end"]).succeeds();
    let rows = "SELECT topic, length(headers), isNull(timestamp) FROM db.rejected ORDER BY _offset";
    assert_eq!(env.rows(rows), [["", "0", "1"], [&env.topic, "3", "0"]]);
    // A reject from before is listed, and sent with what is known of it.
    let mut list = env.run("rejects", &[]);
    list.succeeds();
    assert!(list.stdout().contains(": 2 rejects\n"), "{}", list.stdout());
    env.run("rejects", &["--replay", "--yes", "--at", "1:0"]).succeeds();
    assert_eq!(replays(&env)[&format!("{}/1/0", source(&env))][0].headers, []);
    let mut setup = env.run("setup", &[]);
    setup.succeeds();
    assert!(setup.stdout().contains("tables there, columns as expected"), "{}", setup.stdout());
}

#[test]
fn after_the_fix_a_refused_row_is_an_event() {
    let env = TestEnv::open();
    env.sql("ALTER TABLE db.events ADD CONSTRAINT cheap CHECK price < 100");
    let json = r#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"purchase","user_id":"u","product_id":"p","price":250.5,"timestamp":"2024-01-15T14:30:00Z"}"#;
    raw::send(&env, 0, &[reject(Some(b"u"), Some(json.as_bytes()))]);
    env.ingest(&["--until-end"]).succeeds();
    assert_eq!(env.rows("SELECT reason FROM db.rejected"), [["refused"]]);
    env.sql("ALTER TABLE db.events DROP CONSTRAINT cheap");
    env.run("rejects", &["--replay", "--reason", "refused", "--yes"]).succeeds();
    env.ingest(&["--until-end"]).succeeds();
    assert_eq!(
        env.rows("SELECT event_id, toString(price) FROM db.events"),
        [["5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10", "250.5"]]
    );
}

#[test]
fn replayers_that_die_and_replayers_that_meet_send_nothing_twice() {
    let env = TestEnv::open();
    let messages: Vec<_> =
        (0..6_000).map(|nth| reject(Some(b"k"), Some(format!("no json {nth}").as_bytes()))).collect();
    raw::send(&env, 2, &messages);
    env.ingest(&["--until-end"]).succeeds();
    for _ in 0..3 {
        let mut replay = env.run("rejects", &["--replay", "--yes"]);
        // The random moment is the fault.
        std::thread::sleep(Duration::from_millis(rand::random_range(100..1_500)));
        replay.kill();
    }
    let mut both = [env.run("rejects", &["--replay", "--yes"]), env.run("rejects", &["--replay", "--yes"])];
    let codes = both.each_mut().map(|replay| replay.exit_code(WAIT_TIMEOUT));
    assert!(codes.iter().all(Option::is_some), "they ended by themselves");
    env.run("rejects", &["--replay", "--yes"]).succeeds();

    let replays = replays(&env);
    let payloads: BTreeSet<_> = replays.values().flatten().map(|message| message.payload.clone()).collect();
    assert_eq!((replays.len(), payloads.len()), (6_000, 6_000), "nothing is left out");
    assert!(replays.values().all(|sent| sent.len() == 1), "and nothing is sent twice");
    env.kafka.delete(&format!("{}.replayed", env.topic));
}
