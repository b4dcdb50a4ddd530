use super::super::mock::{Answer, Mock, exception};
use super::*;
use std::fs;

const BODY: &[u8] = b"\x01\x00rows";

fn inserter(mock: &Mock) -> Inserter {
    Inserter::new(Endpoint::new(&mock.config()).unwrap(), Arc::new(Settings::new("writer")))
}

async fn send(mock: &Mock) -> Result<u64, Failure> {
    inserter(mock).send("clickstream/x/1/0/n", "INSERT INTO t", Bytes::from_static(BODY)).await
}

#[tokio::test]
async fn an_insert_is_one_request_of_a_known_length_under_its_own_name() {
    let mock = Mock::start().await;
    mock.expect("INSERT INTO t", Answer::Written(7));
    assert_eq!(send(&mock).await, Ok(7));
    let asked = mock.last();
    assert_eq!((&asked.method, &asked.body[..]), (&Method::POST, BODY));
    assert_eq!(asked.headers["content-length"], BODY.len().to_string(), "a body that is cut short is not a whole one");
    assert!(!asked.headers.contains_key("transfer-encoding"));
    assert_eq!(asked.setting("query_id"), "clickstream/x/1/0/n");
    for (setting, value) in Settings::new("writer").inserts() {
        assert_eq!(asked.setting(setting), value);
    }
}

/// Everything that is not a 200 with an empty body is a failure; it is a doubt where the rows may be stored, now or later.
#[tokio::test]
async fn only_an_empty_200_says_that_rows_are_stored() {
    let mock = Mock::start().await;
    let other = |status, body: &str| Answer::Other(status, vec![], body.into());
    let coded =
        |status, code: &str| Answer::Other(status, vec![("X-ClickHouse-Exception-Code", code.into())], "".into());
    for (answer, kind, ended) in [
        (exception(469, "Constraint is violated"), ErrorKind::Data, true),
        (exception(241, "Memory limit exceeded"), ErrorKind::TooLarge, true),
        (exception(252, "Too many parts"), ErrorKind::Transient, true),
        (exception(60, "Table x.y does not exist"), ErrorKind::Permanent, true),
        (exception(153, "Division by zero"), ErrorKind::Unexplained, true),
        (exception(216, "Query with id = x is already running"), ErrorKind::Transient, false),
        (exception(319, "Unknown status of insert"), ErrorKind::Transient, false),
        // The status goes out before the insert ends, where a server is told to.
        (coded(200, "241"), ErrorKind::TooLarge, true),
        (other(200, "Code: 241. DB::Exception: Memory limit"), ErrorKind::TooLarge, true),
        (other(200, "hello"), ErrorKind::Transient, false),
        (other(204, ""), ErrorKind::Transient, false),
        (other(502, "<title>Bad Gateway</title>"), ErrorKind::Transient, false),
        (other(404, "no such page"), ErrorKind::Transient, false),
        (other(413, ""), ErrorKind::TooLarge, true),
        (Answer::HangUp, ErrorKind::Transient, false),
        (Answer::CutOff, ErrorKind::Transient, false),
    ] {
        mock.expect("INSERT INTO t", answer.clone());
        let failure = send(&mock).await.expect_err("no promise");
        assert_eq!((failure.kind, failure.ended), (kind, ended), "{answer:?}: {failure}");
    }
}

#[tokio::test]
async fn an_answer_without_a_number_confirms_no_row() {
    let mock = Mock::start().await;
    let summary = |json: &str| Answer::Other(200, vec![("X-ClickHouse-Summary", json.into())], "".into());
    for (answer, rows) in [
        (Answer::Other(200, vec![], "".into()), 0),
        (summary("{}"), 0),
        (summary(r#"{"written_rows":"x"}"#), 0),
        (summary("not JSON"), 0),
        (summary(r#"{"read_rows":"9","written_rows":"12"}"#), 12),
    ] {
        mock.expect("INSERT INTO t", answer);
        assert_eq!(send(&mock).await, Ok(rows));
    }
}

#[tokio::test]
async fn an_insert_whose_connection_ends_is_not_sent_again_unasked() {
    let mock = Mock::start().await;
    let inserter = inserter(&mock);
    let send = || inserter.send("id", "INSERT INTO t", Bytes::from_static(BODY));
    mock.expect("INSERT INTO t", Answer::Written(1)).expect("INSERT INTO t", Answer::HangUp);
    assert_eq!(send().await, Ok(1));
    assert!(!send().await.unwrap_err().ended);
    assert_eq!(mock.asked().len(), 2, "on the connection of the first one");
}

#[tokio::test]
async fn an_insert_that_found_nobody_has_ended() {
    let mock = Mock::start().await;
    let inserter = inserter(&mock);
    drop(mock);
    let failure = inserter.send("id", "INSERT INTO t", Bytes::new()).await.unwrap_err();
    assert_eq!((failure.kind, failure.ended), (ErrorKind::Transient, true), "{failure}");
}

#[tokio::test]
async fn a_password_that_the_answer_repeats_is_not_passed_on() {
    let (mock, file) = (Mock::start().await, tempfile::NamedTempFile::new().unwrap());
    fs::write(file.path(), "s3cr3t-99\n").unwrap();
    let mut config = mock.config();
    config.password_file = Some(file.path().to_owned());
    mock.expect_with("INSERT INTO t", |asked| {
        exception(516, &format!("key={}", asked.headers["X-ClickHouse-Key"].to_str().unwrap()))
    });
    let inserter = Inserter::new(Endpoint::new(&config).unwrap(), Arc::new(Settings::new("writer")));
    let failure = inserter.send("id", "INSERT INTO t", Bytes::new()).await.unwrap_err();
    assert!(failure.message.contains("key=…") && !failure.message.contains("s3cr3t"), "{failure}");
}
