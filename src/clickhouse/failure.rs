//! What a failure means: the one place where errors of ClickHouse are classed.

use flows::{Class, Failure};

/// Codes that say: these rows are not to the server's liking. Names as in ClickHouse's `ErrorCodes.cpp`.
const DATA: &[u16] = &[
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
    349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    407, // DECIMAL_OVERFLOW
    469, // VIOLATED_CONSTRAINT
    691, // UNKNOWN_ELEMENT_OF_ENUM
];

/// Codes that say: this will not pass by itself.
const PERMANENT: &[u16] = &[
    8,   // THERE_IS_NO_COLUMN
    10,  // NOT_FOUND_COLUMN_IN_BLOCK
    16,  // NO_SUCH_COLUMN_IN_TABLE
    20,  // NUMBER_OF_COLUMNS_DOESNT_MATCH
    36,  // BAD_ARGUMENTS
    43,  // ILLEGAL_TYPE_OF_ARGUMENT
    44,  // ILLEGAL_COLUMN
    46,  // UNKNOWN_FUNCTION
    47,  // UNKNOWN_IDENTIFIER
    48,  // NOT_IMPLEMENTED
    50,  // UNKNOWN_TYPE
    53,  // TYPE_MISMATCH
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
    516, // AUTHENTICATION_FAILED
];

/// The class of an exception's code. Whatever is in neither list (network, memory, overload, read only, disk full, and all
/// that later versions come up with) is taken to pass: trying again loses nothing, skipping would.
fn class(code: u16) -> Class {
    if DATA.contains(&code) {
        Class::Data
    } else if PERMANENT.contains(&code) {
        Class::Permanent
    } else {
        Class::Transient
    }
}

/// What an answer means that is not the one hoped for.
pub fn answered(status: u16, code: Option<u16>, body: &str) -> Failure {
    let code = code.or_else(|| code_in(body));
    let class = match code {
        Some(code) => class(code),
        // No exception of ClickHouse: something in front of it, or another server altogether.
        None if matches!(status, 400..=499) && !matches!(status, 408 | 425 | 429) => Class::Permanent,
        None => Class::Transient,
    };
    let what = first_line(body);
    let message = if what.is_empty() { format!("HTTP status {status}") } else { what };
    // A proxy that gives up says nothing about the insert behind it; an exception of ClickHouse ends it.
    Failure { class, ended: code.is_some(), message }
}

/// What an error of the client library means, of a question.
pub fn asked(error: &clickhouse::error::Error) -> Failure {
    use clickhouse::error::Error;
    let message = describe(error);
    let class = match error {
        Error::BadResponse(body) => match code_in(body) {
            Some(code) => class(code),
            None => match body.get(..3).and_then(|status| status.parse().ok()) {
                Some(status) => answered(status, None, body).class,
                None => Class::Transient,
            },
        },
        Error::Network(_) | Error::TimedOut | Error::Other(_) => Class::Transient,
        _ => Class::Permanent,
    };
    Failure { class, ended: false, message }
}

/// An error in one line, causes included, without ClickHouse's version and stack.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = first_line(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = first_line(&cause.to_string());
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// `Code: 241. DB::Exception: …` → 241
fn code_in(body: &str) -> Option<u16> {
    let (_, rest) = body.split_once("Code: ")?;
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

/// The first line, clipped, without the version at its end.
fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let line = line.split_once(" (version ").map_or(line, |(line, _)| line);
    line[..line.floor_char_boundary(300)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_class() {
        for (status, body, expected) in [
            (500, "Code: 241. DB::Exception: Memory limit exceeded", Class::Transient),
            (500, "Code: 252. DB::Exception: Too many parts", Class::Transient),
            (500, "Code: 202. DB::Exception: Too many simultaneous queries", Class::Transient),
            (500, "Code: 159. DB::Exception: Timeout exceeded", Class::Transient),
            (500, "Code: 242. DB::Exception: Table is in readonly mode", Class::Transient),
            (500, "Code: 243. DB::Exception: Not enough space", Class::Transient),
            (500, "Code: 9999. DB::Exception: of a later version", Class::Transient),
            (500, "", Class::Transient),
            (503, "Service Unavailable", Class::Transient),
            (429, "slow down", Class::Transient),
            (400, "Code: 469. DB::Exception: Constraint is violated", Class::Data),
            (404, "Code: 60. DB::Exception: Table does not exist", Class::Permanent),
            (403, "Code: 516. DB::Exception: Authentication failed", Class::Permanent),
            (401, "", Class::Permanent),
            (404, "not found", Class::Permanent),
            (200, "Code: 241. DB::Exception: in a body", Class::Transient),
        ] {
            assert_eq!(answered(status, None, body).class, expected, "{status} {body}");
        }
        assert_eq!(answered(500, Some(60), "").class, Class::Permanent, "the header's code counts");
    }

    #[test]
    fn messages_are_one_line_without_the_version() {
        let failure =
            answered(500, None, "Code: 60. DB::Exception: No table. (UNKNOWN_TABLE) (version 26.7.2.1)\nStack");
        assert_eq!(failure.message, "Code: 60. DB::Exception: No table. (UNKNOWN_TABLE)");
    }
}
