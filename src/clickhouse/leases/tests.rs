use super::super::mock::{Mock, exception, rows};
use super::*;

const SERVER: &str = "11111111-1111-1111-1111-111111111111";
const TOKEN: &str = "5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10";

fn running(server: &str, ids: &[&str]) -> super::super::mock::Answer {
    super::super::mock::Answer::Rows(serde_json::json!([server, ids]).to_string())
}

#[tokio::test]
async fn the_newest_lease_of_each_partition_comes_with_the_server_that_says_so() {
    let mock = Mock::start().await;
    let answer = format!(r#"["{SERVER}",[0,7],[3,18446744073709551615],["{TOKEN}","{TOKEN}"],["a","b"]]"#);
    mock.expect("max(newest)", rows(&answer));
    let found = mock.clickhouse().leases("topic", Role::Heal, &[0, 1, 7]).await.unwrap();
    assert_eq!(found.server, SERVER);
    let leases: Vec<_> = found.newest.into_iter().map(|(at, lease)| (at, lease.epoch, lease.group)).collect();
    assert_eq!(leases, [(0, 3, "a".to_owned()), (7, u64::MAX, "b".to_owned())]);
    let asked = mock.last();
    assert_eq!((asked.parameter("source"), asked.parameter("partitions")), ("topic", "[0,1,7]"));
    assert!(asked.sql.contains("role = 'heal'"), "{}", asked.sql);
}

#[tokio::test]
async fn a_token_that_cannot_be_read_is_no_token() {
    let mock = Mock::start().await;
    mock.expect("max(newest)", rows(&format!(r#"["{SERVER}",[0],[3],["nonsense"],["a"]]"#)));
    let failure = mock.clickhouse().leases("topic", Role::Ingest, &[0]).await.err().expect("an error");
    assert_eq!(failure.kind, ErrorKind::Transient, "{failure}");
}

/// A repeated or late write must not become the newest, so the epoch is in it.
#[tokio::test]
async fn a_lease_is_written_with_its_epoch_and_durably() {
    let mock = Mock::start().await;
    mock.expect("INSERT INTO `shop`.`leases`", rows(""));
    let (group, owner) = ("it's", "host 1");
    let clickhouse = mock.clickhouse();
    let written = clickhouse.write_leases(
        "topic",
        Role::Ingest,
        (group, owner),
        TOKEN.parse().unwrap(),
        &[(0, 4), (2, u64::MAX)],
    );
    written.await.unwrap();
    let asked = mock.last();
    assert_eq!((asked.parameter("partitions"), asked.parameter("epochs")), ("[0,2]", "[4,18446744073709551615]"));
    assert_eq!((asked.parameter("group"), asked.parameter("owner")), (r"it\'s", "host 1"));
    assert!(asked.sql.contains(TOKEN) && !asked.sql.contains("it's"), "{}", asked.sql);
    assert_eq!((asked.setting("async_insert"), asked.setting("insert_deduplicate")), ("0", "0"));
}

#[tokio::test]
async fn a_lease_that_may_be_written_is_not_said_to_be() {
    let mock = Mock::start().await;
    mock.expect("INSERT INTO", super::super::mock::Answer::HangUp);
    let written =
        mock.clickhouse().write_leases("topic", Role::Ingest, ("g", "o"), TOKEN.parse().unwrap(), &[(0, 1)]).await;
    assert!(!written.unwrap_err().ended);
}

#[tokio::test]
async fn inserts_that_run_are_waited_for_those_of_others_are_killed_and_later_ones_are_not_looked_at() {
    let (mock, scope, mine) = (Mock::start().await, Scope::new("shop", "topic"), Process::new());
    let ours = format!("{}0/a", scope.prefix_of(mine));
    let theirs = format!("{}0/b", scope.prefix_of(Process::new()));
    let later = format!("{}0/c", scope.prefix_of(Process::new()));
    mock.expect("system.processes", running(SERVER, &[&ours, &theirs]));
    // This user may not. It ends by itself.
    mock.expect("KILL QUERY", exception(497, "Not enough privileges"));
    mock.expect("system.processes", running(SERVER, &[&ours, &later]));
    mock.expect("system.processes", running(SERVER, &[&later]));
    mock.clickhouse().quiesce(&scope, mine, SERVER, &[0, 3]).await.unwrap();
    let asked = mock.asked();
    assert_eq!(asked[1].parameter("name"), theirs.replace('\'', "\\'"));
    assert_eq!((asked[0].parameter("scope"), asked[0].parameter("partitions")), (&*scope.prefix(), "[0,3]"));
}

#[tokio::test]
async fn another_server_cannot_say_that_nothing_runs() {
    let (mock, scope) = (Mock::start().await, Scope::new("shop", "topic"));
    for (answer, words) in [
        (running("22222222-2222-2222-2222-222222222222", &[]), "another ClickHouse server"),
        (exception(202, "Too many simultaneous queries"), "Too many"),
        (exception(497, "Not enough privileges"), "privileges"),
    ] {
        mock.expect("system.processes", answer);
        let failure = mock.clickhouse().quiesce(&scope, Process::new(), SERVER, &[0]).await.unwrap_err();
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[tokio::test]
async fn a_condition_counts_the_leases_that_are_carried_and_those_that_must_not_be_there() {
    let mock = Mock::start().await;
    let (clickhouse, token) = (mock.clickhouse(), TOKEN.parse().unwrap());
    let holds = clickhouse.holds("it's", &[(Role::Heal, 0, token), (Role::Ingest, 0, Uuid::nil())]);
    for part in [
        "[('heal', 0, toUUID('5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10'))] IN (SELECT arraySort(groupArray(lease))",
        "role IN ('heal', 'ingest') AND partition IN (0)",
        r"source = 'it\'s'",
    ] {
        assert!(holds.contains(part), "{part}: {holds}");
    }
    let none = clickhouse.holds("topic", &[(Role::Ingest, 0, Uuid::nil())]);
    assert!(none.starts_with("[] IN (SELECT"), "{none}");
}
