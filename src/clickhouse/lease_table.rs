//! Whether the table of leases keeps the newest token of each partition: an insert under an older one is refused only as long as it does.

use super::table_fault::Unfit;
use super::{sorting_key, ttl};
use std::collections::BTreeSet;

/// Settings of the table without which a power cut may leave an older token as the newest one.
pub const DURABLE: [&str; 3] = ["fsync_after_insert", "fsync_part_directory", "min_rows_to_fsync_after_merge"];

/// The definition of a table, as ClickHouse gives it.
pub struct Definition {
    pub engine: String,
    pub sorting_key: String,
    /// The engine with all that follows it: keys, TTL, settings.
    pub engine_full: String,
    /// The whole statement that would make it, columns included.
    pub create: String,
}

/// Says why the table does not keep the newest tokens, and the remedy. `defaults` are those of [`DURABLE`] that the server sets for all
/// tables.
pub fn unfit(table: &Definition, defaults: &BTreeSet<String>) -> Option<Unfit> {
    let unfit = |why: String, remedy: String| Some(Unfit { why, remedy });
    let Definition { engine, sorting_key, engine_full, create } = table;
    if engine != "AggregatingMergeTree" || sorting_key::expressions(sorting_key) != ["source", "role", "partition"] {
        return unfit(
            format!(
                "has the engine {engine}, sorted by ({sorting_key}), expected AggregatingMergeTree, sorted by (source, role, partition): \
                 an insert under an older lease might not be refused"
            ),
            "stop all ingesters, drop the table, and run `clickstream setup`".into(),
        );
    }
    if ttl::mentions(create, " TTL ") {
        return unfit(
            "has a TTL, which deletes leases: an insert under an older one would not be refused".into(),
            "take it away with ALTER TABLE … REMOVE TTL".into(),
        );
    }
    if ttl::mentions(create, " PROJECTION ") {
        return unfit(
            "has a projection, from which an older lease could be read as the newest one".into(),
            "take it away with ALTER TABLE … DROP PROJECTION".into(),
        );
    }
    let missing = lacking(&DURABLE, engine_full, defaults).into_iter().next()?;
    unfit(
        format!(
            "lacks the setting {missing} = 1: after a power cut an older lease could be the newest one, and its inserts would not be refused"
        ),
        format!("ALTER TABLE … MODIFY SETTING {missing} = 1"),
    )
}

/// Those of these settings that are off in a table with this definition, where the server sets `defaults` for all tables.
pub fn lacking<'s>(settings: &[&'s str], engine_full: &str, defaults: &BTreeSet<String>) -> Vec<&'s str> {
    let own = ttl::settings(engine_full);
    let is_on = |name: &&&str| match own.get(**name) {
        Some(value) => ["1", "true"].contains(value),
        None => defaults.contains(**name),
    };
    settings.iter().filter(|name| !is_on(name)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "fsync_after_insert = 1, fsync_part_directory = true, min_rows_to_fsync_after_merge = 1, index_granularity = 8192";

    fn table(columns: &str, rest: &str) -> Definition {
        let engine_full = format!("AggregatingMergeTree ORDER BY (source, role, partition){rest}");
        Definition {
            engine: "AggregatingMergeTree".into(),
            sorting_key: "source, role, partition".into(),
            create: format!("CREATE TABLE db.leases (`source` LowCardinality(String){columns}) ENGINE = {engine_full}"),
            engine_full,
        }
    }

    fn said(table: &Definition, defaults: &[&str]) -> String {
        unfit(table, &defaults.iter().map(|name| (*name).to_owned()).collect())
            .map_or_else(String::new, |unfit| unfit.to_string())
    }

    #[test]
    fn a_table_that_forgets_a_token_is_refused_by_what_makes_it_forget() {
        let settings = format!(" SETTINGS {SETTINGS}");
        for (columns, rest, why) in [
            ("", format!(" TTL toDateTime(tupleElement(newest, 5)) + toIntervalDay(1) SETTINGS {SETTINGS}"), "a TTL"),
            (", `newest` UInt8 TTL toDateTime(source)", settings.clone(), "a TTL"),
            (", PROJECTION p (SELECT source ORDER BY partition)", settings.clone(), "a projection"),
        ] {
            let said = said(&table(columns, &rest), &[]);
            assert!(said.contains(why), "{columns} {rest}: {said}");
        }
        for (engine, key) in [
            ("ReplicatedAggregatingMergeTree", "source, role, partition"),
            ("MergeTree", "source, role, partition"),
            ("ReplacingMergeTree", "source, role, partition"),
            ("Buffer", ""),
            ("Distributed", ""),
            ("Null", ""),
            ("Memory", ""),
            ("AggregatingMergeTree", "source, partition"),
            ("AggregatingMergeTree", "source, role, partition, newest"),
        ] {
            let table = Definition { engine: engine.into(), sorting_key: key.into(), ..table("", &settings) };
            assert!(said(&table, &[]).contains("expected AggregatingMergeTree"), "{engine} {key}");
        }
    }

    #[test]
    fn a_table_that_forgets_with_the_power_is_refused_unless_the_server_says_otherwise_for_all() {
        assert_eq!(said(&table("", &format!(" SETTINGS {SETTINGS}")), &[]), "");
        assert_eq!(said(&table("", ""), &DURABLE), "");
        for missing in DURABLE {
            let others: Vec<_> = DURABLE.into_iter().filter(|name| *name != missing).collect();
            assert!(said(&table("", ""), &others).contains(missing));
            // The table's own setting counts.
            for off in ["0", "false"] {
                assert!(said(&table("", &format!(" SETTINGS {missing} = {off}")), &DURABLE).contains(missing));
            }
        }
    }

    #[test]
    fn words_in_names_and_comments_mean_nothing() {
        let columns = ", ` TTL ` UInt8 COMMENT 'no TTL here, and no PROJECTION p'";
        let rest = format!(" SETTINGS {SETTINGS} COMMENT 'it\\'s TTL x SETTINGS fsync_after_insert = 0'");
        assert_eq!(said(&table(columns, &rest), &[]), "");
    }
}
