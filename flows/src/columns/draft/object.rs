//! Whether a JSON column takes an object. ClickHouse is stricter there than JSON is, and reads the text only when it inserts the row.

use super::super::fill::fill;
use super::super::json::{self, Text, fields};
use super::super::kind::Kind;
use super::scalar::{is_float, is_integer_text};
use std::collections::HashSet;
use std::ops::ControlFlow::{self, Break, Continue};

/// Deeper objects are left to a String: reading them takes a step of the stack for each level.
const DEPTH: usize = 64;

/// Whether a JSON column takes this object without changing a number in it.
pub fn is_for_json(object: Text<'_>) -> bool {
    object.starts_with('{') && takes(object, DEPTH, &mut Paths::default()).is_continue()
}

/// The paths of one object, `a.b` for the field `b` of `a`: none may stand there twice.
#[derive(Default)]
struct Paths {
    known: HashSet<String>,
    within: String,
}

fn takes(value: Text<'_>, depth: usize, paths: &mut Paths) -> ControlFlow<()> {
    let Some(depth) = depth.checked_sub(1) else { return Break(()) };
    let is_taken = match value.as_bytes().first() {
        Some(b'{') => {
            return each(fields(value), |(name, value)| field(&name, value, depth, paths));
        }
        // Each object in an array has paths of its own.
        Some(b'[') => {
            return each(json::elements(value), |element| takes(element, depth, &mut Paths::default()));
        }
        Some(b'"') => json::string(value).is_some(),
        Some(b't' | b'f' | b'n') => true,
        _ if is_integer_text(value) => {
            let fits = |is_signed| fill(&Kind::Integer { bytes: 8, is_signed }, value, &mut Vec::new()).is_ok();
            fits(true) || fits(false)
        }
        _ => is_float(value),
    };
    if is_taken { Continue(()) } else { Break(()) }
}

fn field(name: &str, value: Text<'_>, depth: usize, paths: &mut Paths) -> ControlFlow<()> {
    let outer = paths.within.len();
    paths.within.push_str(name);
    if !paths.known.insert(paths.within.clone()) {
        return Break(());
    }
    paths.within.push('.');
    let taken = takes(value, depth, paths);
    paths.within.truncate(outer);
    taken
}

fn each<T>(
    mut items: impl Iterator<Item = Result<T, json::Broken>>,
    mut takes: impl FnMut(T) -> ControlFlow<()>,
) -> ControlFlow<()> {
    items.try_for_each(|item| item.map_or(Break(()), &mut takes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ClickHouse 26.7 took the first ones, and refused the others or changed a number in them.
    #[test]
    fn an_object_is_for_json_if_clickhouse_reads_it() {
        for object in [
            "{}",
            r#"{"a":1,"a.b":2}"#,
            r#"{"":{"":1},"a b":null,"\u0000":[],"..":{}}"#,
            r#"{"a":[1,"x",{"b":1},[2],null,true],"c":[{"b":1},{"b":"x"}]}"#,
            r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":1e300,"d":12.50}"#,
        ] {
            assert!(is_for_json(object), "{object}");
        }
        let deep = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
        for object in [
            "[]",
            "1",
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1},"a.b":2}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"\ud800":1}"#,
            r#"{"a":1e999}"#,
            r#"{"a":18446744073709551616}"#,
            r#"{"a":-9223372036854775809}"#,
            r#"{"a":[0.12345678901234567890]}"#,
            &deep,
        ] {
            assert!(!is_for_json(object), "{object}");
        }
    }
}
