//! The dashboards: the files that Grafana reads, and their queries.

use super::macros::{Range, expand, interval_ms};
use serde::Deserialize;
use std::sync::LazyLock;

/// The least width of a bucket where a panel names none, in milliseconds.
const LEAST_MS: i64 = 1_000;

/// A dashboard, as it is and as far as it is understood here.
pub struct Board {
    pub json: &'static str,
    pub about: About,
}

#[derive(Deserialize)]
pub struct About {
    pub uid: String,
    pub title: String,
    pub panels: Vec<Panel>,
    templating: Templating,
}

#[derive(Deserialize)]
struct Templating {
    list: Vec<Variable>,
}

/// The choice of a topic.
#[derive(Deserialize)]
struct Variable {
    name: String,
    query: String,
}

#[derive(Deserialize)]
pub struct Panel {
    pub id: u32,
    #[serde(default)]
    interval: Option<String>,
    pub targets: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub ref_id: String,
    query_type: String,
    raw_sql: String,
}

/// All of them; the first is the home.
pub static BOARDS: LazyLock<Vec<Board>> = LazyLock::new(|| {
    [include_str!("../../dashboards/clickstream.json"), include_str!("../../dashboards/pipeline.json")]
        .into_iter()
        .map(|json| Board { json, about: serde_json::from_str(json).expect("a file that a test has read before") })
        .collect()
});

/// The dashboard with this uid.
pub fn board(uid: &str) -> Option<&'static Board> {
    BOARDS.iter().find(|board| board.about.uid == uid)
}

impl About {
    /// The statement that lists the topics of a range.
    ///
    /// # Errors
    /// See [`expand`].
    pub fn topics(&self, range: Range<'_>) -> Result<String, String> {
        let variable = self.templating.list.iter().find(|variable| variable.name == "topic");
        expand(&variable.ok_or("this dashboard has no choice of topics")?.query, range)
    }
}

impl Panel {
    /// The times and the buckets that it is drawn with, `width` pixels wide.
    pub fn range<'a>(&self, from_ms: i64, to_ms: i64, width: i64, topic: Option<&'a str>) -> Range<'a> {
        let least = self.interval.as_deref().and_then(|text| humantime::parse_duration(text).ok());
        let least_ms = least.map_or(LEAST_MS, |least| i64::try_from(least.as_millis()).unwrap_or(LEAST_MS));
        Range { from_ms, to_ms, interval_ms: interval_ms(to_ms - from_ms, width, least_ms), topic }
    }
}

impl Target {
    /// The statement to run. Times come as milliseconds since the Unix epoch, whatever the server's time zone, in the order of
    /// the panel's own SQL.
    ///
    /// # Errors
    /// See [`expand`].
    pub fn sql(&self, range: Range<'_>) -> Result<String, String> {
        let sql = expand(&self.raw_sql, range)?;
        Ok(if self.query_type == "timeseries" {
            format!("SELECT * REPLACE (toUnixTimestamp(time) * 1000 AS time) FROM (\n{sql}\n)")
        } else {
            sql
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::macros::MACROS;
    use super::*;
    use serde_json::Value;

    /// The list of this name in `app.js`.
    fn drawn(what: &str) -> Vec<String> {
        let script = include_str!("page/app.js");
        let list = script.split(&format!("{what}: [")).nth(1).expect("a list in DRAWN").split(']').next().unwrap();
        list.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect()
    }

    fn each(value: &Value, key: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if name == key {
                        found.extend(value.as_str().map(str::to_owned));
                    }
                    each(value, key, found);
                }
                if fields.get("id").and_then(Value::as_str) == Some(key) {
                    found.extend(fields.get("value").and_then(Value::as_str).map(str::to_owned));
                }
            }
            Value::Array(items) => items.iter().for_each(|item| each(item, key, found)),
            _ => {}
        }
    }

    #[test]
    fn every_panel_type_and_unit_is_one_that_the_page_draws() {
        let (types, units) = (drawn("types"), drawn("units"));
        for board in &*BOARDS {
            let json: Value = serde_json::from_str(board.json).unwrap();
            let mut found = Vec::new();
            for panel in json["panels"].as_array().unwrap() {
                let kind = panel["type"].as_str().unwrap().to_owned();
                assert!(types.contains(&kind), "{kind} is not drawn");
                each(&panel["fieldConfig"], "unit", &mut found);
            }
            assert!(!found.is_empty());
            assert!(found.iter().all(|unit| units.contains(unit)), "{found:?} of {units:?}");
        }
    }

    #[test]
    fn every_macro_is_one_that_is_expanded() {
        let range = Range { from_ms: 0, to_ms: 1, interval_ms: 1_000, topic: Some("t") };
        for target in BOARDS.iter().flat_map(|board| &board.about.panels).flat_map(|panel| &panel.targets) {
            let sql = target.sql(range).unwrap();
            assert!(!sql.contains("$__"), "{sql}");
            // A query of rows can be limited to a topic, and is bounded in time, or by the present state.
            let bounds = [&MACROS[..], &["now64(3)", "system."]].concat();
            assert!(bounds.iter().any(|bound| target.raw_sql.contains(bound)), "{}", target.raw_sql);
            let reads = target.raw_sql.matches("FROM events").count() + target.raw_sql.matches("FROM rejected").count();
            let exempt = target.raw_sql.matches("SELECT count() FROM").count(); // whether there is any row
            assert_eq!(sql.matches("_source IN ('t')").count(), reads - exempt, "{sql}");
        }
        assert!(BOARDS.iter().all(|board| !board.about.topics(range).unwrap().contains('$')));
    }

    #[test]
    fn ids_and_places_are_each_used_once() {
        for board in &*BOARDS {
            let json: Value = serde_json::from_str(board.json).unwrap();
            let mut taken = std::collections::HashSet::new();
            for panel in json["panels"].as_array().unwrap() {
                assert!(taken.insert(panel["id"].to_string()), "{}", panel["id"]);
                assert!(taken.insert(panel["gridPos"].to_string()), "{}", panel["gridPos"]);
            }
        }
    }
}
