use super::super::mock::{Answer as Reply, Asked, Mock, exception, rows};
use super::*;
use flows::{Event, now};

const SERVER: &str = "11111111-1111-1111-1111-111111111111";
const JSON: &[u8] = br#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"u","product_id":"p","price":1,"timestamp":"2024-01-15T14:30:00Z"}"#;

fn record(partition: i32, offset: i64) -> Record {
    let range = OffsetRange::new(offset, offset + 1);
    Record { partition, range, received: now(), payload: Event::decode(None, Some(JSON)), permit: None }
}

/// A sink with a lease of partitions 0 and 1.
fn sink(mock: &Mock) -> ClickHouseSink {
    let sink = ClickHouseSink::new(
        mock.clickhouse(),
        "clicks",
        "topic",
        Writer::new(Role::Ingest, "group"),
        CancellationToken::new(),
    );
    let token = sink.tokens().new_token();
    sink.tokens().hold([0, 1], token);
    *sink.server() = SERVER.into();
    sink
}

async fn insert(sink: &ClickHouseSink, partition: i32) -> Result<Answer, Failure> {
    let record = record(partition, 5);
    let id = sink.name(&[(partition, record.range)]);
    sink.insert(&id, Table::Events, &[&record]).await
}

/// An exception of an insert that refuses itself as this `throwIf` has it, the whole condition behind it as ClickHouse quotes it.
fn refuses(what: &'static str) -> impl FnOnce(&Asked) -> Reply {
    move |asked: &Asked| {
        let (_, from) = asked.sql.split_once(&format!("'{what} ")).expect("a text that it throws");
        let nonce = from.split('\'').next().expect("its end");
        exception(395, &format!("{what} {nonce}: while executing 'FUNCTION throwIf(…)' {}", asked.sql))
    }
}

#[tokio::test]
async fn an_insert_carries_what_it_asserts() {
    let mock = Mock::start().await;
    let sink = sink(&mock);
    mock.expect("INSERT INTO `shop`.`events`", Reply::Written(1));
    assert!(matches!(insert(&sink, 1).await, Ok(Answer::Written(1))));
    let asked = mock.last();
    let (_, token) = sink.tokens().of(&[1])[0];
    for part in [
        format!("toString(serverUUID()) != '{SERVER}'"),
        format!("('ingest', 1, toUUID('{token}'))"),
        "FROM `shop`.`events` WHERE _source = 'topic' AND _partition = 1 AND _offset = 5".into(),
        "FROM `shop`.`erased` WHERE _source = 'topic' AND _partition = 1 AND _offset = 5".into(),
    ] {
        assert!(asked.sql.contains(&part), "{part}: {}", asked.sql);
    }
    assert_eq!(asked.body, rows::encode(Table::Events, ("clicks", "topic"), &[&record(1, 5)]));
    assert!(asked.setting("query_id").starts_with(&sink.scope.prefix()));
}

#[tokio::test]
async fn each_refusal_has_its_meaning() {
    let mock = Mock::start().await;
    let sink = sink(&mock);
    mock.expect_with("INSERT", refuses("stored"));
    assert!(matches!(insert(&sink, 0).await, Ok(Answer::AlreadyStored)));
    mock.expect_with("INSERT", refuses("fenced"));
    assert!(matches!(insert(&sink, 0).await, Ok(Answer::Fenced)));
    mock.expect_with("INSERT", refuses("elsewhere"));
    assert!(matches!(insert(&sink, 0).await, Ok(Answer::Fenced)), "another server answers");
    mock.expect("INSERT", exception(216, "Query with id = x is already running."));
    assert!(matches!(insert(&sink, 0).await, Ok(Answer::Running)));
}

#[tokio::test]
async fn an_insert_that_a_lease_of_our_own_has_overtaken_is_told_from_a_lost_lease() {
    let mock = Mock::start().await;
    let sink = Arc::new(sink(&mock));
    let renewing = sink.clone();
    mock.expect_with("INSERT", move |asked| {
        let token = renewing.tokens().new_token();
        renewing.tokens().hold([0], token);
        refuses("fenced")(asked)
    });
    assert!(matches!(insert(&sink, 0).await, Ok(Answer::Superseded)));
}

#[tokio::test]
async fn a_text_that_only_looks_like_a_refusal_is_a_failure_of_the_table() {
    let mock = Mock::start().await;
    mock.has_tables();
    let sink = sink(&mock);
    let quoted = |asked: &Asked| {
        let condition = asked.sql.clone();
        exception(395, &format!("thrown by a view: while executing {condition}"))
    };
    mock.expect_with("INSERT", quoted);
    assert_eq!(insert(&sink, 0).await.unwrap_err().kind, ErrorKind::Unexplained);
    // Without this insert's own number; and with it, under another code.
    mock.expect("INSERT", exception(395, "fenced 00000000000000000000000000000000: while executing"));
    assert_eq!(insert(&sink, 0).await.unwrap_err().kind, ErrorKind::Unexplained);
    mock.expect_with("INSERT", |asked| {
        let Reply::Exception(_, text) = refuses("stored")(asked) else { unreachable!("it is an exception") };
        exception(469, &text)
    });
    assert_eq!(insert(&sink, 0).await.unwrap_err().kind, ErrorKind::Data);
}

#[tokio::test]
async fn nothing_is_sent_without_a_lease_after_its_end_or_into_tables_that_do_not_fit() {
    let mock = Mock::start().await;
    let sink = sink(&mock);
    assert!(matches!(insert(&sink, 2).await, Ok(Answer::Fenced)), "it holds no lease of that partition");
    *sink.clickhouse.misfit() = Some(Failure { kind: ErrorKind::Permanent, ended: true, message: "no".into() });
    assert_eq!(insert(&sink, 0).await.unwrap_err().message, "no");
    *sink.clickhouse.misfit() = None;
    sink.closed.cancel();
    let failure = insert(&sink, 0).await.unwrap_err();
    assert!(failure.ended && failure.kind == ErrorKind::Transient, "{failure}");
    assert!(mock.asked().is_empty());
}

/// A row is to blame only if the table is the one of the schema.
#[tokio::test]
async fn rows_are_not_blamed_for_a_table_that_was_altered() {
    let mock = Mock::start().await;
    let sink = sink(&mock);
    mock.has_tables().always("FROM system.columns WHERE database = 'shop' AND table = 'events'", rows(""));
    mock.expect("INSERT", exception(6, "Cannot parse"));
    let failure = insert(&sink, 0).await.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Permanent);
    assert!(failure.message.contains("column event_id (UUID) is missing"), "{failure}");
}

#[tokio::test]
async fn a_lease_is_of_the_server_that_was_asked_last() {
    let mock = Mock::start().await;
    let sink = sink(&mock);
    let other = "22222222-2222-2222-2222-222222222222";
    mock.expect("max(newest)", rows(&format!(r#"["{other}",[],[],[],[]]"#)));
    assert!(sink.newest(&[0]).await.unwrap().is_empty());
    mock.expect(&format!("!= '{other}'"), Reply::Written(1));
    insert(&sink, 0).await.unwrap();
    mock.expect("system.processes", rows(&format!(r#"["{SERVER}",[]]"#)));
    assert!(sink.quiesce(&[0]).await.unwrap_err().message.contains("another ClickHouse server"));
}

#[tokio::test]
async fn a_healer_carries_the_leases_of_ingesters_as_they_were() {
    let mock = Mock::start().await;
    let besides = vec![(Role::Ingest, 0, Uuid::from_u128(7)), (Role::Ingest, 9, Uuid::from_u128(8))];
    let writer = Writer { besides, ..Writer::new(Role::Heal, "group") };
    let sink = ClickHouseSink::new(mock.clickhouse(), "clicks", "topic", writer, CancellationToken::new());
    sink.tokens().hold([0], Uuid::from_u128(1));
    mock.expect("INSERT", Reply::Written(1));
    insert(&sink, 0).await.unwrap();
    let sql = mock.last().sql;
    let own = "[('heal', 0, toUUID('00000000-0000-0000-0000-000000000001')), ('ingest', 0, toUUID('00000000-0000-0000-0000-000000000007'))] IN";
    assert!(sql.contains(own), "in the order in which ClickHouse sorts them: {sql}");
    assert!(!sql.contains("'ingest', 9"), "only of the partitions that it touches: {sql}");
}
