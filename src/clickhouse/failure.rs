//! The kinds of failures: the one place that classes errors of ClickHouse, and of proxies before it.

use crate::printable::printable;
use flows::{ErrorKind, Failure};
use hyper::HeaderMap;

/// Codes of bad rows. The names are those of ClickHouse's `ErrorCodes.cpp`.
const DATA: &[i32] = &[
    6,   // CANNOT_PARSE_TEXT
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    33,  // CANNOT_READ_ALL_DATA
    38,  // CANNOT_PARSE_DATE
    41,  // CANNOT_PARSE_DATETIME
    69,  // ARGUMENT_OUT_OF_BOUND
    70,  // CANNOT_CONVERT_TYPE
    72,  // CANNOT_PARSE_NUMBER
    117, // INCORRECT_DATA
    131, // TOO_LARGE_STRING_SIZE
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    190, // SIZES_OF_ARRAYS_DONT_MATCH
    349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    407, // DECIMAL_OVERFLOW
    469, // VIOLATED_CONSTRAINT
    691, // UNKNOWN_ELEMENT_OF_ENUM
];

/// Codes of a statement that cannot run at all, whatever its rows: it will not pass by itself.
const PERMANENT: &[i32] = &[
    8,   // THERE_IS_NO_COLUMN
    16,  // NO_SUCH_COLUMN_IN_TABLE
    20,  // NUMBER_OF_COLUMNS_DOESNT_MATCH
    46,  // UNKNOWN_FUNCTION
    47,  // UNKNOWN_IDENTIFIER
    60,  // UNKNOWN_TABLE
    62,  // SYNTAX_ERROR
    73,  // UNKNOWN_FORMAT
    81,  // UNKNOWN_DATABASE
    115, // UNKNOWN_SETTING
    164, // READONLY
    192, // UNKNOWN_USER
    193, // WRONG_PASSWORD
    194, // REQUIRED_PASSWORD
    195, // IP_ADDRESS_NOT_ALLOWED
    291, // DATABASE_ACCESS_DENIED
    452, // SETTING_CONSTRAINT_VIOLATION
    497, // ACCESS_DENIED
    511, // UNKNOWN_ROLE
    516, // AUTHENTICATION_FAILED
];

/// Codes of too much data at once. Time limits are among them: a view may be slow for many rows.
const TOO_LARGE: &[i32] = &[
    158, // TOO_MANY_ROWS
    159, // TIMEOUT_EXCEEDED
    160, // TOO_SLOW
    173, // CANNOT_ALLOCATE_MEMORY
    241, // MEMORY_LIMIT_EXCEEDED
    307, // TOO_MANY_BYTES
    396, // TOO_MANY_ROWS_OR_BYTES
];

/// Codes of a server that is busy, ill or on its way down: about no row in particular.
const TRANSIENT: &[i32] = &[
    74,   // CANNOT_READ_FROM_FILE_DESCRIPTOR
    75,   // CANNOT_WRITE_TO_FILE_DESCRIPTOR
    76,   // CANNOT_OPEN_FILE
    77,   // CANNOT_CLOSE_FILE
    198,  // DNS_ERROR
    201,  // QUOTA_EXCEEDED
    202,  // TOO_MANY_SIMULTANEOUS_QUERIES
    203,  // NO_FREE_CONNECTION
    204,  // CANNOT_FSYNC
    209,  // SOCKET_TIMEOUT
    210,  // NETWORK_ERROR
    216,  // QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING
    218,  // TABLE_IS_DROPPED
    225,  // NO_ZOOKEEPER
    236,  // ABORTED
    242,  // TABLE_IS_READ_ONLY
    243,  // NOT_ENOUGH_SPACE
    252,  // TOO_MANY_PARTS
    279,  // ALL_CONNECTION_TRIES_FAILED
    285,  // TOO_FEW_LIVE_REPLICAS
    286,  // UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
    290,  // LIMIT_EXCEEDED
    319,  // UNKNOWN_STATUS_OF_INSERT
    335,  // BARRIER_TIMEOUT
    373,  // SESSION_IS_LOCKED
    394,  // QUERY_WAS_CANCELLED
    425,  // SYSTEM_ERROR
    439,  // CANNOT_SCHEDULE_TASK
    473,  // DEADLOCK_AVOIDED
    499,  // S3_ERROR
    692,  // TOO_MANY_MUTATIONS
    722,  // ASYNC_LOAD_WAIT_FAILED
    733,  // TABLE_IS_BEING_RESTARTED
    735,  // QUERY_WAS_CANCELLED_BY_CLIENT
    745,  // SERVER_OVERLOADED
    999,  // KEEPER_EXCEPTION
    1000, // POCO_EXCEPTION
];

/// Codes of a user or a password that is not the right one.
const CREDENTIALS: &[i32] = &[
    192, // UNKNOWN_USER
    193, // WRONG_PASSWORD
    194, // REQUIRED_PASSWORD
    516, // AUTHENTICATION_FAILED
];

/// Codes of a table or a database that is missing, and how ClickHouse's texts name ours.
const UNKNOWN_TABLE: i32 = 60;
const UNKNOWN_DATABASE: i32 = 81;
const TABLES: [&str; 4] = [".events", ".rejected", ".erased", ".leases"];

/// Codes of an answer to an insert that may still take effect, or runs already.
const NOT_ENDED: &[i32] = &[
    216, // QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: an attempt before, or a copy of it, runs
    319, // UNKNOWN_STATUS_OF_INSERT
];

/// The length limit of foreign texts, and that of our own messages, which quote such texts.
const QUOTED_BYTES: usize = 300;
const OURS_BYTES: usize = 1_000;

/// The status of a proxy that takes no body of this size. Each body's size is announced, so it has passed nothing on.
const PAYLOAD_TOO_LARGE: u16 = 413;

/// The kind of an exception's code. The lists only save time: a code in none of them is judged by what happens next.
fn kind(code: i32) -> ErrorKind {
    let lists = [
        (DATA, ErrorKind::Data),
        (PERMANENT, ErrorKind::Permanent),
        (TOO_LARGE, ErrorKind::TooLarge),
        (TRANSIENT, ErrorKind::Transient),
    ];
    let listed = lists.into_iter().find(|(list, _)| list.contains(&code));
    listed.map_or(ErrorKind::Unexplained, |(_, kind)| kind)
}

/// The code of an exception, out of the header of an answer.
pub fn exception_code(headers: &HeaderMap) -> Option<i32> {
    headers.get("X-ClickHouse-Exception-Code")?.to_str().ok()?.parse().ok()
}

/// The meaning of a failed answer to an insert or a question. `status` is 0 if it is unknown, and `code` is that of
/// ClickHouse's header.
pub fn answered(status: u16, code: Option<i32>, body: &str) -> Failure {
    match code.or_else(|| code_in(body)) {
        Some(code) => {
            let what = first_line(body);
            let message = if what.is_empty() { format!("Code: {code}") } else { what };
            let message = message + hint(code, body);
            // An exception of ClickHouse means that the statement has ended, with a few exceptions.
            Failure { kind: kind(code), ended: !NOT_ENDED.contains(&code), message }
        }
        // A proxy before ClickHouse, or another server, answered. It says nothing about ClickHouse, and is mostly gone
        // in a moment.
        None => {
            let is_too_large = status == PAYLOAD_TOO_LARGE;
            let kind = if is_too_large { ErrorKind::TooLarge } else { ErrorKind::Transient };
            Failure { kind, ended: is_too_large, message: foreign(status, body) }
        }
    }
}

/// The remedy for an exception, where there is one.
fn hint(code: i32, said: &str) -> &'static str {
    let is_of_ours = || TABLES.iter().any(|table| said.contains(table));
    match code {
        UNKNOWN_DATABASE => ": create it with `clickstream setup`",
        UNKNOWN_TABLE if is_of_ours() => ": create it with `clickstream setup`",
        _ if CREDENTIALS.contains(&code) => ": see --clickhouse-user and --clickhouse-password-file",
        _ => "",
    }
}

/// An answer of something that is not ClickHouse, in one line.
fn foreign(status: u16, body: &str) -> String {
    let status = if status == 0 { String::new() } else { format!(" with HTTP status {status}") };
    let said = match title(body) {
        Some(title) => format!(", a page titled \"{}\"", printable(clip(title.trim()))),
        None if body.trim().is_empty() => String::new(),
        None if body.trim_start().starts_with('<') => ", a page of HTML".into(),
        None => format!(": {}", without_queries(&first_line(body))),
    };
    format!("answered{status} by something that is not ClickHouse, like a proxy{said}")
}

/// The text without the query of any address in it, which may hold a token: servers repeat the address that they do not know.
fn without_queries(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.split_once('?') {
        Some((address, query)) if !query.is_empty() => format!("{address}?…"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The title of an HTML page.
fn title(body: &str) -> Option<&str> {
    let lower = body.to_ascii_lowercase();
    let from = lower.find("<title>")? + "<title>".len();
    let to = lower[from..].find("</title>")?;
    body.get(from..from + to).filter(|title| !title.trim().is_empty())
}

/// The meaning of the client library's error for a question.
pub fn asked(error: &clickhouse::error::Error) -> Failure {
    use clickhouse::error::Error;
    match error {
        Error::BadResponse(body) => answered(status_in(body), None, body),
        Error::Network(_) | Error::TimedOut | Error::Other(_) => {
            Failure { kind: ErrorKind::Transient, ended: false, message: describe(error) }
        }
        Error::InvalidParams(_) => Failure { kind: ErrorKind::Permanent, ended: false, message: describe(error) },
        _ => misunderstood(&describe(error)),
    }
}

/// The meaning of a 200 that is not the answer to the question.
pub fn misunderstood(why: &str) -> Failure {
    let message = format!("an answer that does not fit the question: {}", printable(clip(why)));
    Failure { kind: ErrorKind::Transient, ended: false, message }
}

/// `502 Bad Gateway`, as the client library says it of an answer without a body.
fn status_in(body: &str) -> u16 {
    let status = body.get(..4).and_then(|head| head.strip_suffix(' ')).and_then(|status| status.parse().ok());
    status.filter(|status| (100..=599).contains(status)).unwrap_or(0)
}

/// An error in one line, with its causes, without ClickHouse's version and stack. Our own errors end with the action,
/// after the quoted text.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let said = error.to_string();
    // hyper's name for a step of its own, such as `client error (SendRequest)`.
    if let (true, Some(cause)) = (said.starts_with("client error ("), error.source()) {
        return describe(cause);
    }
    let mut text = first_of(&said, OURS_BYTES);
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = first_of(&cause.to_string(), OURS_BYTES);
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// `Code: 241. DB::Exception: …` → 241, where it begins a line: a page that quotes one is not one. `throwIf` takes any code, also one
/// below zero.
pub fn code_in(body: &str) -> Option<i32> {
    let rest = body.lines().find_map(|line| line.trim_start().strip_prefix("Code: "))?;
    let digits = |c: char| c.is_ascii_digit() || c == '-';
    rest[..rest.find(|c| !digits(c)).unwrap_or(rest.len())].parse().ok()
}

/// The first line, printable and clipped, without the version at its end.
pub fn first_line(text: &str) -> String {
    first_of(text, QUOTED_BYTES)
}

fn first_of(text: &str, bytes: usize) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let line = line.split_once(" (version ").map_or(line, |(line, _)| line);
    printable(&line[..line.floor_char_boundary(bytes)]).into_owned()
}

fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(QUOTED_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_class() {
        for (status, body, expected) in [
            (500, "Code: 241. DB::Exception: Memory limit exceeded", ErrorKind::TooLarge),
            (500, "Code: 252. DB::Exception: Too many parts", ErrorKind::Transient),
            (500, "Code: 202. DB::Exception: Too many simultaneous queries", ErrorKind::Transient),
            (500, "Code: 159. DB::Exception: Timeout exceeded", ErrorKind::TooLarge),
            (500, "Code: 242. DB::Exception: Table is in readonly mode", ErrorKind::Transient),
            (500, "Code: 243. DB::Exception: Not enough space", ErrorKind::Transient),
            (500, "Code: 153. DB::Exception: Division by zero", ErrorKind::Unexplained),
            (500, "Code: 36. DB::Exception: Bad arguments", ErrorKind::Unexplained),
            (500, "Code: 9999. DB::Exception: of a later version", ErrorKind::Unexplained),
            (500, "Code: 70000. DB::Exception: thrown by an expression", ErrorKind::Unexplained),
            (500, "Code: -5. DB::Exception: thrown by an expression", ErrorKind::Unexplained),
            (400, "Code: 469. DB::Exception: Constraint is violated", ErrorKind::Data),
            (404, "Code: 60. DB::Exception: Table does not exist", ErrorKind::Permanent),
            (403, "Code: 516. DB::Exception: Authentication failed", ErrorKind::Permanent),
            (200, "Code: 241. DB::Exception: in a body", ErrorKind::TooLarge),
        ] {
            let failure = answered(status, None, body);
            assert_eq!((failure.kind, failure.ended), (expected, true), "{status} {body}");
        }
        assert_eq!(answered(500, Some(60), "").kind, ErrorKind::Permanent, "the header's code counts");
    }

    #[test]
    fn answers_of_other_servers_are_never_final() {
        let page = "<html><head><title>404 Not Found</title></head><body>Code: 60. is what they say</body></html>";
        for (status, body, said) in [
            (404, page, "HTTP status 404"),
            (403, page, "\"404 Not Found\""),
            (401, "", "HTTP status 401"),
            (502, "<html>\nCode", "a page of HTML"),
            (200, "hello", "hello"),
            (503, "Service Unavailable", "Service Unavailable"),
        ] {
            let failure = answered(status, None, body);
            assert_eq!((failure.kind, failure.ended), (ErrorKind::Transient, false), "{status} {body}");
            assert!(failure.message.contains(said) && !failure.message.contains('<'), "{}", failure.message);
        }
        assert_eq!(answered(413, None, page).kind, ErrorKind::TooLarge);
        let echo = answered(404, None, "There is no handle /x?token=secret&query=y here. Why?").message;
        assert!(echo.ends_with("There is no handle /x?… here. Why?"), "{echo}");
    }

    #[test]
    fn a_question_and_an_insert_are_classed_alike() {
        use clickhouse::error::Error;
        for body in
            ["404 Not Found", "<html><title>x</title></html>", "Code: 241. DB::Exception: y", "Code: 60. DB::Exception"]
        {
            let (question, insert) = (asked(&Error::BadResponse(body.into())), answered(404, None, body));
            assert_eq!((question.kind, question.ended), (insert.kind, insert.ended), "{body}");
        }
        assert!(asked(&Error::BadResponse("502 Bad Gateway".into())).message.contains("502"));
        assert_eq!(asked(&Error::RowNotFound).kind, ErrorKind::Transient);
    }

    #[test]
    fn a_query_id_that_is_in_use_is_of_an_insert_that_runs() {
        let failure = answered(500, None, "Code: 216. DB::Exception: Query with id = x is already running");
        assert_eq!((failure.kind, failure.ended), (ErrorKind::Transient, false));
        assert!(!answered(500, Some(319), "").ended);
    }

    #[test]
    fn a_table_of_ours_that_is_gone_is_said_with_what_makes_it_again() {
        for (body, is_ours) in [
            (
                "Code: 60. DB::Exception: Unknown table expression identifier 'db.leases' in scope (SELECT 1). (UNKNOWN_TABLE)",
                true,
            ),
            ("Code: 60. DB::Exception: Table db.events does not exist. (UNKNOWN_TABLE)", true),
            ("Code: 81. DB::Exception: Database db does not exist. (UNKNOWN_DATABASE)", true),
            // A foreign view needs this table.
            ("Code: 60. DB::Exception: Table other.daily does not exist. (UNKNOWN_TABLE)", false),
        ] {
            let failure = answered(404, None, &body.replace("(SELECT 1)", &"(SELECT 1)".repeat(100)));
            let message = describe(&failure);
            assert_eq!(message.ends_with(": create it with `clickstream setup`"), is_ours, "{message}");
        }
    }

    #[test]
    fn messages_are_one_printable_line_without_the_version() {
        let failure = answered(
            500,
            None,
            "Code: 60. DB::Exception: No \u{1b}[2Jtable. (UNKNOWN_TABLE) (version 26.7.2.1)\nStack",
        );
        assert_eq!(failure.message, r"Code: 60. DB::Exception: No \u001b[2Jtable. (UNKNOWN_TABLE)");
    }
}
