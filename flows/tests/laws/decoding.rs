//! Whatever bytes come, each message becomes one row: judged by a reading of the contract that shares no code with the decoder.

use flows::{Event, Payload, Reason};
use proptest::prelude::*;
use serde_json::{Map, Value};

/// A detail that is kept is a sentence, not a copy.
const DETAIL_BYTES: usize = 1_000;

/// Asserts the laws of every message.
fn decode(key: Option<&[u8]>, payload: Option<&[u8]>) -> Result<Event, Reason> {
    match Event::decode(key, payload) {
        Payload::Event(event) => {
            assert!((0..=Event::MAX_CENTS).contains(&event.cents), "{event:?}");
            assert!((-2_208_988_800_000..10_413_792_000_000).contains(&event.timestamp_ms), "{event:?}");
            Ok(event)
        }
        Payload::Rejected(reject) => {
            assert_eq!(reject.key, key.unwrap_or_default(), "bytes as they came");
            assert_eq!(reject.payload, payload.unwrap_or_default(), "bytes as they came");
            assert!(reject.detail.capacity() <= DETAIL_BYTES, "{} bytes of detail", reject.detail.capacity());
            assert!(!reject.detail.is_empty());
            Err(reject.reason)
        }
        Payload::Row(_) | Payload::AlreadyStored => panic!("an event of the shop, or a reject"),
    }
}

/// JSON of any shape, some levels deep.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A field's value, and whether the contract takes it.
fn field(
    good: impl Strategy<Value = Value> + 'static,
    bad: impl Strategy<Value = Value> + 'static,
) -> BoxedStrategy<Option<(Value, bool)>> {
    prop_oneof![
        12 => good.prop_map(|value| Some((value, true))),
        1 => bad.prop_map(|value| Some((value, false))),
        1 => Just(None),
    ]
    .boxed()
}

fn not_text() -> impl Strategy<Value = Value> {
    json().prop_filter("text", |value| !value.is_string())
}

fn id() -> BoxedStrategy<Option<(Value, bool)>> {
    let good = any::<u128>().prop_map(|id| Value::from(uuid::Uuid::from_u128(id).to_string()));
    field(good, prop_oneof![not_text(), "[0-9a-fg-]{0,35}".prop_map(Value::from)])
}

fn kind() -> BoxedStrategy<Option<(Value, bool)>> {
    let good = prop::sample::select(vec!["page_view", "add_to_cart", "purchase"]).prop_map(Value::from);
    field(good, prop_oneof![not_text(), "[A-Z_ ]{0,12}".prop_map(Value::from), Just("purchase ".into())])
}

fn text() -> BoxedStrategy<Option<(Value, bool)>> {
    field(any::<String>().prop_map(Value::from), not_text())
}

fn price() -> BoxedStrategy<Option<(Value, bool)>> {
    let good = prop_oneof![(0.0..99_999_999.99).prop_map(Value::from), (0..=99_999_999u64).prop_map(Value::from)];
    let out_of_range = prop_oneof![
        (100_000_000.0..f64::MAX).prop_map(Value::from),
        (f64::MIN..-1e-300).prop_map(Value::from),
        (i64::MIN..0).prop_map(Value::from),
        (100_000_000..u64::MAX).prop_map(Value::from),
    ];
    field(good, prop_oneof![json().prop_filter("a number", |value| !value.is_number()), out_of_range])
}

fn time() -> BoxedStrategy<Option<(Value, bool)>> {
    let good = (1900..2300, 1..13, 1..29, 0..24, 0..60, 0..60, "(\\.[0-9]{1,12})?").prop_map(
        |(y, mo, d, h, mi, s, fraction)| Value::from(format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}{fraction}Z")),
    );
    let year = prop_oneof![0..1900, 2300..10_000].prop_map(|year| Value::from(format!("{year:04}-06-01T00:00:00Z")));
    field(good, prop_oneof![not_text(), year, "[0-9TZ:+-]{0,19}".prop_map(Value::from)])
}

fn written(pairs: &[(String, Value)]) -> Vec<u8> {
    let fields = pairs.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(",")).into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_become_one_row(key in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
                                payload in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(key.as_deref(), Some(&payload));
    }

    #[test]
    fn any_json_becomes_one_row(value in json()) {
        prop_assert!(decode(None, Some(value.to_string().as_bytes())).is_err());
    }

    #[test]
    fn an_event_is_what_has_all_six_fields_as_they_should_be(
        fields in (id(), kind(), text(), text(), price(), time()),
        others in prop::collection::vec(("[a-d]{1,2}", json()), 0..4),
        order in any::<u64>(),
    ) {
        let (id, kind, user, product, price, time) = fields;
        let six = [("event_id", id), ("event_type", kind), ("user_id", user), ("product_id", product), ("price", price), ("timestamp", time)];
        let complete = six.iter().all(|(_, field)| field.is_some());
        let good = six.iter().all(|(_, field)| matches!(field, Some((_, true))));
        let mut pairs: Vec<_> = six.into_iter().filter_map(|(name, field)| Some((name.to_owned(), field?.0))).collect();
        pairs.extend(others);
        let by = order as usize % pairs.len().max(1);
        pairs.rotate_left(by);
        let outcome = decode(Some(b"k"), Some(&written(&pairs)));
        prop_assert_eq!(outcome.is_ok(), good, "{:?}", outcome);
        let read: Map<String, Value> = pairs.into_iter().collect();
        if let Ok(event) = outcome {
            prop_assert_eq!((read["user_id"].as_str(), read["product_id"].as_str()), (Some(&*event.user), Some(&*event.product)));
            let cents = read["price"].as_f64().unwrap() * 100.0;
            prop_assert!((event.cents as f64 - cents).abs() <= 0.5 + cents * 1e-15, "{} cents of {cents}", event.cents);
        } else if !complete {
            prop_assert!(matches!(outcome, Err(Reason::MissingField | Reason::WrongType)));
        }
    }

    #[test]
    fn a_cut_or_damaged_event_becomes_one_row(cut in 0usize..230, flips in prop::collection::vec((0usize..230, any::<u8>()), 0..4)) {
        let mut bytes = br#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"user_0042","product_id":"prod_123","price":29.99,"timestamp":"2024-01-15T14:30:00.123Z","more":{"a":[1,"\u00e9"]}}"#.to_vec();
        for (at, byte) in flips {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(1));
        let _ = decode(None, Some(&bytes));
    }

    #[test]
    fn a_message_with_a_field_twice_is_not_an_event(which in 0usize..6, value in json()) {
        let names = ["event_id", "event_type", "user_id", "product_id", "price", "timestamp"];
        let good = br#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"u","product_id":"p","price":1,"timestamp":"2024-01-15T14:30:00Z"}"#;
        let twice = String::from_utf8_lossy(good).replacen('}', &format!(",\"{}\":{value}}}", names[which]), 1);
        prop_assert_eq!(decode(None, Some(twice.as_bytes())), Err(Reason::WrongType));
    }
}

#[test]
fn a_megabyte_in_the_wrong_place_is_not_quoted_back() {
    let huge = "é".repeat(500_000);
    for json in [
        format!(r#"{{"price":"{huge}"}}"#),
        format!(r#"{{"event_id":["{huge}"]}}"#),
        format!(r#"{{"{huge}":1}}"#),
        huge,
    ] {
        assert!(decode(None, Some(json.as_bytes())).is_err());
    }
}

#[test]
fn a_hundred_thousand_levels_overflow_no_stack() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        assert!(decode(None, Some(deep.as_bytes())).is_err());
        assert!(decode(None, Some(format!(r#"{{"price":{deep}}}"#).as_bytes())).is_err());
        assert_eq!(decode(None, Some(format!(r#"{{"deep":{deep}}}"#).as_bytes())), Err(Reason::MissingField));
    }
}
