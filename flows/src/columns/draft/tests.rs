//! Drafts of samples, and the law that a draft takes what it was drafted from.

use super::super::super::{ColumnDefinition, Columns};
use super::*;
use crate::Consumed;
use proptest::prelude::*;

fn sample<T: AsRef<str>>(payloads: &[T]) -> Sample {
    let mut sample = Sample::default();
    payloads.iter().for_each(|payload| sample.add(Some(payload.as_ref().as_bytes())));
    sample
}

/// The columns of a draft, as name, type and DEFAULT.
fn columns(draft: &Draft) -> Vec<String> {
    let shown = |column: &Column| {
        let default = column.default.map_or_else(String::new, |default| format!(" DEFAULT {default}"));
        format!("{} {}{default}", column.name, column.kind)
    };
    draft.columns.iter().map(shown).collect()
}

fn drafted<T: AsRef<str>>(payloads: &[T]) -> Vec<String> {
    columns(&sample(payloads).draft())
}

/// The messages that a table of the draft rejects, with the reason.
fn rejects<T: AsRef<str>>(draft: &Draft, payloads: &[T]) -> Vec<String> {
    let definition =
        |name: &str, kind: &str, has_default| ColumnDefinition { name: name.into(), kind: kind.into(), has_default };
    let own = draft.columns.iter().map(|column| definition(&column.name, &column.kind, column.default.is_some()));
    let all: Vec<_> = own.chain([definition("_unknown", draft.unknown, false)]).collect();
    let table = Columns::new(&all, draft.time()).unwrap();
    let rejected = |payload: &T| {
        let payload = payload.as_ref();
        let message = Consumed { key: None, payload: Some(payload.as_bytes()), timestamp_ms: None, headers: &[] };
        let filled = table.fill("web", &message, payload.as_bytes(), &mut |_| (), &mut Vec::new());
        filled.err().map(|why| format!("{payload}: {why:?}"))
    };
    payloads.iter().filter_map(rejected).collect()
}

#[test]
fn columns_have_the_types_of_their_fields_and_null_only_where_it_was_seen() {
    let first = r#"{"id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","n":1,"price":12.5,"ok":true,"at":"2024-01-15T14:30:00Z","tags":["a"],"kind":"click","x":null,"y":"q"}"#;
    let mut payloads = vec![first.to_owned(); 15];
    payloads.push(r#"{"id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a11","n":-2,"price":7,"at":"2024-01-15T14:30:00.5Z","tags":null,"kind":"view","z":[[1],[]],"w":[]}"#.into());
    assert_eq!(
        drafted(&payloads),
        [
            "id UUID",
            "n Int64",
            "price Decimal(18, 4)",
            "ok Nullable(Bool)",
            "at DateTime64(3, 'UTC')",
            "tags Array(LowCardinality(String)) DEFAULT []",
            "kind String",
            "x Nullable(String)",
            "y LowCardinality(Nullable(String))",
            "z Array(Array(Int64)) DEFAULT []",
            "w Array(String) DEFAULT []",
        ]
    );
}

#[test]
fn objects_with_the_same_fields_are_columns_and_others_are_json() {
    let payloads = [
        r#"{"geo":{"country":"de","pos":{"lat":1.5}},"props":{"a":1},"dup":{"a":1,"a":2},"list":[{"a":1}],"big":{"n":123456789012345678901},"with":{"list":[1]}}"#,
        r#"{"geo":{"country":"fr","pos":{"lat":2}},"props":{"b":2},"dup":{},"list":[],"big":{"n":1},"with":{"list":[]}}"#,
        r#"{"geo":null,"props":{"c":{}},"dup":{},"list":[{"b":[]},{}],"big":{},"with":{}}"#,
    ];
    assert_eq!(
        drafted(&payloads),
        [
            "geo.country Nullable(String)",
            "geo.pos.lat Nullable(Float64)",
            "props JSON",
            "dup String",
            "list Array(JSON)",
            "big String",
            "with JSON",
        ]
    );
}

#[test]
fn names_that_are_values_are_json_in_an_object_and_unknown_at_the_top() {
    let ids: Vec<_> = (0..1_500).map(|id| format!(r#"{{"a":1,"by_id":{{"id{id}":1}},"id{id}":{id}}}"#)).collect();
    let sample = sample(&ids);
    let draft = sample.draft();
    assert_eq!(columns(&draft), ["a Int64", "by_id JSON"]);
    assert_eq!(draft.left[0].why, "rare: in < 0.1 % of the messages");
    assert_eq!(rejects(&draft, &ids), [""; 0]);
    let sql = draft.create_table("web");
    assert!(sql.contains("    --   id19: rare") && sql.contains("    --   and 978 more\n"), "{sql}");
}

#[test]
fn the_most_common_fields_are_columns() {
    let fields = |count: usize| (0..count).map(|nth| format!("\"f{nth}\":1")).collect::<Vec<_>>().join(",");
    let payloads =
        [format!("{{{}}}", fields(250)), format!("{{{},\"last\":1}}", fields(150)), "{\"last\":2}".to_owned()];
    let draft = sample(&payloads).draft();
    assert_eq!(draft.columns(), 200);
    assert_eq!(draft.columns.last().unwrap().name, "last");
    assert_eq!((draft.left.len(), draft.left[0].name.as_str()), (51, "f199"));
}

#[test]
fn a_field_that_no_column_takes_is_left_to_unknown_with_the_reason() {
    let payloads = [
        r#"{"_offset":1,"":2,"a.b":3,"a":{"b":4},"t":1,"u":"\ud800","ok":"\ud800","ok2":["\ud800"]}"#,
        r#"{"t":1,"t":2,"ok":1,"c.d":[1],"c.e":[1,2]}"#,
    ];
    let draft = sample(&payloads).draft();
    assert_eq!(
        columns(&draft),
        ["a JSON DEFAULT '{}'::JSON", "ok2 Nullable(String)", "c.d Nullable(String)", "c.e Nullable(String)"]
    );
    let left: Vec<_> = draft.left.iter().map(|left| format!("{}: {}", left.name, left.why)).collect();
    assert_eq!(
        left,
        [
            "_offset: a column of this name holds something else",
            ": the empty name",
            "a.b: the name could also mean a part of another field",
            "t: twice in 1 message, which a column (Int64) rejects",
            "u: not Unicode in 1 message, which a column rejects",
            "ok: not Unicode in 1 message, which a column rejects",
        ]
    );
    assert_eq!(draft.unknown, "String");
    assert_eq!(rejects(&draft, &payloads), [""; 0]);
}

#[test]
fn the_statement_says_how_common_each_field_is() {
    let mut payloads = vec![r#"{"timestamp":1705329000,"user id":"u","e":"a"}"#; 999];
    payloads.push(r#"{"timestamp":1705329001,"user id":7,"naive":"2024-01-15 14:30:00"}"#);
    let draft = sample(&payloads).draft();
    let sql = draft.create_table("shop.web");
    for line in [
        "CREATE TABLE IF NOT EXISTS shop.web\n(\n    timestamp DateTime64(3, 'UTC'),     -- 100 % of 1,000 messages, 2 distinct values\n",
        "    `user id` String,                   -- 100 % of 1,000 messages, 2 distinct values, numbers, strings: what is not a string is its JSON\n",
        "    e LowCardinality(Nullable(String)), -- 99.9 % of 1,000 messages, 1 distinct value\n",
        "-- 0.1 % of 1,000 messages, 1 distinct value, times without a zone: DateTime64(3, 'UTC') would take them as UTC\n",
        "    INDEX times timestamp TYPE minmax GRANULARITY 1\n)\nENGINE = ReplacingMergeTree\n",
    ] {
        assert!(sql.contains(line), "{line}\n{sql}");
    }
    assert_eq!(draft.time(), Some("timestamp"));
}

#[test]
fn a_type_that_a_few_faulty_values_do_not_fit_is_named() {
    let mut payloads: Vec<_> = (0..100).map(|nth| format!(r#"{{"at":"2024-01-15T14:30:00Z","n":{nth}}}"#)).collect();
    payloads.extend([r#"{"at":"yesterday","n":{}}"#.to_owned(), r#"{"at":null,"n":"x"}"#.to_owned()]);
    let sql = sample(&payloads).draft().create_table("web");
    assert!(sql.contains("DateTime64(3, 'UTC') would take all but 1\n"), "{sql}");
    assert!(sql.contains("Int64 would take all but 2\n"), "{sql}");
}

#[test]
fn an_object_whose_own_name_has_a_dot_is_one_column() {
    let payloads = [r#"{"a.b":{"a":0}}"#];
    let draft = sample(&payloads).draft();
    assert_eq!(columns(&draft), ["a.b JSON"]);
    assert_eq!(rejects(&draft, &payloads), Vec::<String>::new());
}

#[test]
fn messages_that_are_no_object_are_counted_and_change_nothing() {
    let mut sample = sample(&[r#"{"a":1}"#, "", "[]", "null", r#"{"b":1"#, r#"{"b":1} {}"#, r#"{"\ud800":1}"#]);
    sample.add(None);
    sample.add(Some(b"{\"b\":\"\xff\"}"));
    sample.add(Some(b"\xef\xbb\xbf {\"a\":2}"));
    assert_eq!((sample.messages(), sample.no_objects()), (10, 8));
    assert_eq!(columns(&sample.draft()), ["a Int64"]);
    assert_eq!(Sample::default().draft().columns(), 0);
}

/// JSON that is legal, with values that ClickHouse and this program look at closely.
fn value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i8>().prop_map(|value| value.to_string()),
        any::<i128>().prop_map(|value| value.to_string()),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        Just("1705329000123".to_owned()),
        "[a-c ]{0,2}".prop_map(|text| format!("\"{text}\"")),
        prop_oneof![
            Just("\"2024-01-15\""),
            Just("\"2024-01-15T14:30:00Z\""),
            Just("\"1850-01-15T14:30:00.1234567Z\""),
            Just("\"2024-01-15 14:30:00\""),
            Just("\"127.0.0.1\""),
            Just("\"::1\""),
            Just("\"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10\""),
            Just("\"\\ud800\""),
            Just("\"1705329000\""),
            Just("[]"),
            Just("{}"),
        ]
        .prop_map(ToOwned::to_owned),
    ];
    scalar.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            object(inner),
        ]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => "[ab]",
        1 => prop_oneof![Just("at"), Just("price"), Just("ip"), Just("a.b"), Just("a.a.b"), Just(""), Just("_key"), Just("`"), Just("\\\\")]
            .prop_map(ToOwned::to_owned),
    ];
    let field = (name, value).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    proptest::collection::vec(field, 0..5).prop_map(|fields| format!("{{{}}}", fields.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_draft_takes_each_message_that_it_was_drafted_from(payloads in proptest::collection::vec(object(value()), 1..12)) {
        let draft = sample(&payloads).draft();
        let none: Vec<String> = Vec::new();
        prop_assert_eq!(rejects(&draft, &payloads), none, "{}", draft.create_table("t"));
    }
}
