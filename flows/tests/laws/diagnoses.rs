//! A reject names the field, the value found and the value expected, and nothing of the person.

use flows::{Event, Payload, Reason, Reject};
use proptest::prelude::*;

const GOOD: &str = r#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"user_0001","product_id":"prod_1","price":29.99,"timestamp":"2024-01-15T14:30:00Z"}"#;
const FIELDS: [&str; 6] = ["event_id", "event_type", "user_id", "product_id", "price", "timestamp"];

#[track_caller]
fn reject(payload: impl AsRef<[u8]>) -> Reject {
    let payload = payload.as_ref();
    match Event::decode(Some(b"user_0001"), Some(payload)) {
        Payload::Rejected(reject) => *reject,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(payload)),
    }
}

/// The good event, with `this` replaced by `that`.
#[track_caller]
fn with(from: &str, to: &str) -> Reject {
    assert!(GOOD.contains(from));
    reject(GOOD.replacen(from, to, 1))
}

#[test]
fn a_field_of_the_wrong_type_is_named_with_what_was_found_and_expected() {
    const PRICE: &str = "expected a number from 0 to 99999999.99";
    for (from, to, field, detail) in [
        ("29.99", r#""29.99""#, "price", format!(r#"price: found the string "29.99", {PRICE}"#)),
        ("29.99", "null", "price", format!("price: found null, {PRICE}")),
        ("29.99", "true", "price", format!("price: found a boolean, true, {PRICE}")),
        ("29.99", r#"{"amount":29.99,"buyer":"user_0001"}"#, "price", format!("price: found an object, {PRICE}")),
        ("29.99", r#"["user_0001"]"#, "price", format!("price: found an array, {PRICE}")),
        (r#""user_0001""#, "12345", "user_id", "user_id: found a number, expected a string".into()),
        (r#""prod_1""#, "[1,2]", "product_id", "product_id: found an array, expected a string".into()),
        (
            r#""page_view""#,
            "7",
            "event_type",
            "event_type: found a number, 7, expected the string page_view, add_to_cart or purchase".into(),
        ),
    ] {
        let reject = with(from, to);
        assert_eq!(
            (reject.reason, reject.field.as_deref(), reject.detail),
            (Reason::WrongType, Some(field), detail),
            "{to}"
        );
    }
    let reject = with(r#""2024-01-15T14:30:00Z""#, "1705329000123");
    assert_eq!((reject.reason, reject.field.as_deref()), (Reason::WrongType, Some("timestamp")));
    assert!(reject.detail.contains("found a number, 1705329000123 (milliseconds since 1970?)"), "{}", reject.detail);
}

#[test]
fn a_text_has_1024_bytes_at_most_and_a_longer_one_is_named_with_its_length_and_the_limit() {
    let longest = Event::MAX_TEXT_BYTES;
    for (usual, field, is_free) in [
        ("5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10", "event_id", false),
        ("page_view", "event_type", false),
        ("user_0001", "user_id", true),
        ("prod_1", "product_id", true),
        ("2024-01-15T14:30:00Z", "timestamp", false),
    ] {
        for text in ["x".repeat(longest + 1), "é".repeat(longest / 2 + 1), "x".repeat(900_000)] {
            let reject = with(usual, &text);
            let detail = format!("{field}: found a string of {} bytes, expected 1024 at most", text.len());
            assert_eq!((reject.reason, reject.field.as_deref(), reject.detail), (Reason::TooLong, Some(field), detail));
        }
        for text in ["x".repeat(longest), "é".repeat(longest / 2)] {
            let read = Event::decode(None, Some(GOOD.replacen(usual, &text, 1).as_bytes()));
            match read {
                Payload::Event(_) => assert!(is_free, "{field}"),
                Payload::Rejected(reject) => {
                    assert!(!is_free && reject.reason != Reason::TooLong, "{field}: {reject:?}")
                }
                Payload::Row(_) | Payload::AlreadyStored => panic!("an event of the shop, or a reject"),
            }
        }
    }
}

#[test]
fn a_value_that_the_contract_does_not_have_is_named_with_what_was_found_and_expected() {
    for (from, to, reason, field, found) in [
        ("29.99", "-0.01", Reason::BadPrice, "price", "found a number, -0.01, expected a number from 0 to 99999999.99"),
        ("29.99", "1e400", Reason::BadPrice, "price", "found a number, 1e400, expected"),
        ("29.99", "1e300", Reason::BadPrice, "price", "found a number, 1e300, expected"),
        (
            "page_view",
            "refund",
            Reason::UnknownType,
            "event_type",
            "found the string \"refund\", expected the string page_view",
        ),
        (
            "8f63-4b3f",
            "8f63-4b3",
            Reason::BadUuid,
            "event_id",
            "found the string \"5b0e4d5e-8f63-4b3-9b39-6f4f1f2b7a10\", expected a UUID",
        ),
        (
            "2024-01-15T14:30:00Z",
            "2024-01-15 14:30",
            Reason::BadTimestamp,
            "timestamp",
            "found the string \"2024-01-15 14:30\", expected",
        ),
        (
            "2024-01-15T14:30:00Z",
            "1705329000",
            Reason::BadTimestamp,
            "timestamp",
            "\"1705329000\" (seconds since 1970?), expected",
        ),
        (
            "2024-01-15T14:30:00Z",
            "1066-10-14T09:00:00Z",
            Reason::BadTimestamp,
            "timestamp",
            "of the years 1900 to 2299",
        ),
    ] {
        let reject = with(from, to);
        assert_eq!((reject.reason, reject.field.as_deref()), (reason, Some(field)), "{to}: {}", reject.detail);
        assert!(reject.detail.starts_with(&format!("{field}: found ")), "{}", reject.detail);
        assert!(reject.detail.contains(found), "{}", reject.detail);
    }
}

#[test]
fn missing_fields_are_all_named_with_what_stands_in_their_place() {
    for (payload, field, detail) in [
        (GOOD.replace(r#""price":29.99,"#, ""), "price", "price: missing"),
        (GOOD.replace("event_id", "eventId"), "event_id", "event_id: missing; found \"eventId\""),
        (
            GOOD.replace("event_id", "EVENT-ID").replace("user_id", "userId"),
            "event_id",
            "event_id, user_id: missing; found \"EVENT-ID\"; found \"userId\"",
        ),
        (
            format!(r#"{{"schema":{{"type":"struct"}},"payload":{GOOD}}}"#),
            "event_id",
            "event_id, event_type, user_id, product_id, price, timestamp: missing; all six are inside of the field payload",
        ),
        (
            r#"{"user_0001":{"payload":1}}"#.into(),
            "event_id",
            "event_id, event_type, user_id, product_id, price, timestamp: missing",
        ),
    ] {
        let reject = reject(&payload);
        assert_eq!(
            (reject.reason, reject.field.as_deref(), &*reject.detail),
            (Reason::MissingField, Some(field), detail)
        );
    }
}

#[test]
fn a_payload_that_is_not_one_json_object_is_shown_by_its_first_bytes() {
    let registry = [b"\0\0\0\0\x07", GOOD.as_bytes()].concat();
    for (payload, detail) in [
        (
            registry,
            r#"expected one JSON object, found a schema registry's prefix (schema id 7) before JSON; first bytes 00 00 00 00 07 7b 22 65 ".....{\"e""#,
        ),
        (
            vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab],
            r#"expected one JSON object, found gzip; first bytes 1f 8b 08 00 00 00 00 00 "........""#,
        ),
        (format!("{GOOD}\n{GOOD}").into_bytes(), "expected one JSON object, found 2 in one message"),
        (format!("{GOOD}{GOOD}\n{GOOD}\n").into_bytes(), "expected one JSON object, found 3 in one message"),
        (
            format!("{GOOD}\0\0\0").into_bytes(),
            r#"expected one JSON object, found 3 bytes behind it; first bytes 00 00 00 "...""#,
        ),
        (
            format!("[{GOOD},{GOOD}]").into_bytes(),
            r#"expected one JSON object, found a JSON array of 2 values; first bytes 5b 7b 22 65 "[{\"e""#,
        ),
        (
            serde_json::to_vec(GOOD).unwrap(),
            r#"expected one JSON object, found a JSON string that holds JSON, so it was encoded twice; first bytes 22 7b 5c 22 "\"{\\\"""#,
        ),
        (Vec::new(), "expected one JSON object, found nothing (a payload of 0 bytes)"),
        (b" \r\n".to_vec(), "expected one JSON object, found 3 bytes of white space"),
        (
            b"id,event_type,user".to_vec(),
            r#"expected one JSON object, found something that is not JSON; first bytes 69 64 2c 65 "id,e""#,
        ),
        (
            GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            r#"expected JSON in UTF-8, found UTF-16; first bytes 7b 00 22 00 65 00 76 00 "{.\".e.v.""#,
        ),
        (GOOD.replace('"', "'").into_bytes(), "expected double quotes, found single ones, as Python prints them"),
    ] {
        let reject = reject(&payload);
        assert_eq!((reject.reason, reject.field.as_deref(), &*reject.detail), (Reason::NotJson, None, detail));
    }
}

#[test]
fn broken_json_is_told_by_its_place() {
    for (payload, field, detail) in [
        (
            GOOD.replace("29.99", "NaN"),
            Some("price"),
            "price: found NaN, which is not JSON, expected a number from 0 to 99999999.99",
        ),
        (
            GOOD.replace("29.99", "-Infinity"),
            Some("price"),
            "price: found -Infinity, which is not JSON, expected a number from 0 to 99999999.99",
        ),
        (GOOD[..130].into(), Some("price"), "the JSON object breaks off after 130 bytes, in or behind price"),
        (
            GOOD.replace("\"price\"", "price"),
            Some("product_id"),
            "the JSON is broken near byte 121, in or behind product_id: key must be a string",
        ),
        (
            GOOD.replace("user_0001", r"\ud83d"),
            Some("user_id"),
            "the JSON is broken near byte 94, in or behind user_id: unexpected end of hex escape",
        ),
        (
            GOOD.replace("29.99", "29.99,\"more\":\"\n\""),
            None,
            "the JSON is broken near byte 142, in or behind a field that is none of the six: control character (\\u0000-\\u001F) found while parsing a string",
        ),
    ] {
        let reject = reject(&payload);
        assert_eq!(
            (reject.reason, reject.field.as_deref(), &*reject.detail),
            (Reason::NotJson, field, detail),
            "{payload}"
        );
    }
}

#[test]
fn what_stands_twice_is_said_to() {
    let reject = with("29.99", r#"1,"price":2"#);
    assert_eq!((reject.reason, reject.field.as_deref()), (Reason::WrongType, Some("price")));
    assert_eq!(reject.detail, "price: found twice, expected once");
}

proptest! {
    #[test]
    fn no_reject_quotes_the_user_or_the_product(
        which in prop::collection::vec((0usize..6, 0usize..7), 1..4), cut in 0usize..260, keep in any::<bool>(),
    ) {
        let mut values = [
            "\"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10\"", "\"page_view\"", "\"SECRETU\"", "\"SECRETP\"", "29.99",
            "\"2024-01-15T14:30:00Z\"",
        ];
        for (field, kind) in which {
            let secret = matches!(field, 2 | 3);
            values[field] = match kind {
                0 if secret => "[\"SECRETU\"]",
                1 if secret => "{\"SECRETP\":\"SECRETU\"}",
                2 if secret => "\"SECRETU\\ud800\"",
                3 => "null",
                4 => "false",
                5 => "7",
                _ => "\"\"",
            };
        }
        let fields: Vec<_> = FIELDS.iter().zip(values).map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let mut json = format!("{{{}}}", fields.join(","));
        if !keep {
            json.truncate(cut);
        }
        if let Payload::Rejected(reject) = Event::decode(Some(b"SECRETU"), Some(json.as_bytes())) {
            prop_assert!(!reject.detail.contains("SECRET"), "{}", reject.detail);
        }
    }

    #[test]
    fn first_bytes_hold_nothing_of_the_key(before in "[a-z,;\t]{0,9}", user in "[A-Z]{1,12}[0-9]{1,4}", after in "[,;|\t].{0,20}") {
        let payload = format!("{before}{user}{after}");
        if let Payload::Rejected(reject) = Event::decode(Some(user.as_bytes()), Some(payload.as_bytes())) {
            let shown = reject.detail.rsplit('"').nth(1).unwrap_or_default();
            prop_assert!(!shown.chars().any(|c| c.is_ascii_uppercase()), "{}", reject.detail);
        }
    }
}
