//! Whether the tables keep what they are given, and whether we see all of it: their engines, columns and row policies.

use super::lease_table::{self, DURABLE, Definition};
use super::questions::quoted;
use super::rows::{self, Column};
use super::table_fault::{TableFault, Unfit, unfit};
use super::{ClickHouse, erase, failure, leases, sorting_key, ttl, types};
use flows::{ErrorKind, Failure, Table};
use std::collections::{BTreeSet, HashMap};

/// The columns by which rows are found again.
const POSITION: [&str; 3] = ["_source", "_partition", "_offset"];

/// These columns and `ingested_at`, with their definitions, for a table of the user's own.
const PLACES: [(&str, &str); 4] = [
    ("_source", "LowCardinality(String)"),
    ("_partition", "Int32"),
    ("_offset", "Int64"),
    ("ingested_at", "DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC')"),
];

/// The index by which rows are found again in a table with another sorting key.
const INDEX: &str = "ADD INDEX position (_source, _partition, _offset) TYPE minmax GRANULARITY 1";

/// ClickHouse's codes UNKNOWN_TABLE and UNKNOWN_DATABASE.
const MISSING: [i32; 2] = [60, 81];

/// The action for an unsuitable table.
const REMEDY: &str = "alter it, or use another --database";

/// The tables that hold rows of the topic, or their positions.
pub const TABLES: [&str; 3] = [Table::Events.name(), Table::Rejected.name(), ERASED];

/// The table of positions that must not be stored again.
pub const ERASED: &str = "erased";

/// The table of leases, which holds no rows of the topic.
pub const LEASES: &str = "leases";

/// Settings of a table without which a power cut may take rows that it has stored.
const FSYNC: [&str; 2] = [DURABLE[0], DURABLE[1]];

/// An aspect of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// That it is there, and what it is.
    Engine,
    Partitioning,
    Columns,
    RowPolicy,
}

impl Look {
    const ALL: [Self; 4] = [Self::Engine, Self::Partitioning, Self::Columns, Self::RowPolicy];
}

impl ClickHouse {
    /// Checks that all tables exist and keep every value of an insert.
    ///
    /// # Errors
    /// The first fault, with the expectation and the finding.
    pub async fn check_tables(&self) -> Result<(), Failure> {
        for name in TABLES {
            for look in [Look::Engine, Look::Partitioning, Look::Columns] {
                self.look_at(name, look).await?;
            }
        }
        self.check_own_table().await
    }

    /// The faults of a table; of one that is missing, or is something else, only that. A policy is seen by a question for its columns, so
    /// it is looked for where these fit.
    pub async fn table_faults(&self, name: &str) -> Vec<TableFault> {
        let mut faults = Vec::new();
        for look in Look::ALL {
            let fault = self.look_at(name, look).await.err();
            let hides_others = fault.is_some() && look != Look::Partitioning;
            faults.extend(fault);
            if hides_others {
                break;
            }
        }
        faults
    }

    async fn look_at(&self, name: &str, look: Look) -> Result<(), TableFault> {
        match look {
            Look::Engine if name == LEASES => self.check_lease_engine().await,
            Look::Engine => self.check_engine(name).await,
            Look::Partitioning if [ERASED, LEASES].contains(&name) => Ok(()),
            Look::Partitioning => self.check_partitioning(name).await,
            Look::Columns if self.is_own(name) => {
                self.check_positions().await?;
                self.check_columns(name, &rows::POSITION).await
            }
            Look::Columns => self.check_columns(name, columns(name)).await,
            Look::RowPolicy if name == LEASES => self.check_row_policy(name, leases::COLUMNS[0].0).await,
            Look::RowPolicy => self.check_row_policy(name, "_offset").await,
        }
    }

    /// Checks that the user's own table exists and keeps each row.
    ///
    /// # Errors
    /// When it is missing, or its engine breaks a promise.
    pub(super) async fn check_own_engine(&self) -> Result<(), Failure> {
        Ok(self.look_at(Table::Events.name(), Look::Engine).await?)
    }

    /// Checks that the table of leases exists and keeps the newest ones. Writers of rows need it.
    ///
    /// # Errors
    /// The first fault, with the expectation and the finding.
    pub async fn check_leases(&self) -> Result<(), Failure> {
        self.look_at(LEASES, Look::Engine).await?;
        Ok(self.look_at(LEASES, Look::Columns).await?)
    }

    async fn check_lease_engine(&self) -> Result<(), TableFault> {
        let (database, table) = (&self.database, self.definition(LEASES).await?);
        if lease_table::unfit(&table, &BTreeSet::new()).is_some()
            && let Some(Unfit { why, remedy }) = lease_table::unfit(&table, &self.durable_defaults().await?)
        {
            return Err(unfit(format!("table {database}.{LEASES} {why}"), remedy));
        }
        Ok(())
    }

    /// The settings that a table lacks to keep its rows in a power cut. That is the user's choice, so it is not refused.
    ///
    /// # Errors
    /// When the table cannot be asked.
    pub async fn power_cut_risk(&self, name: &str) -> Result<Option<Unfit>, Failure> {
        let engine = self.definition(name).await?.engine_full;
        if lease_table::lacking(&FSYNC, &engine, &BTreeSet::new()).is_empty() {
            return Ok(None);
        }
        let lacking = lease_table::lacking(&FSYNC, &engine, &self.durable_defaults().await?);
        Ok((!lacking.is_empty()).then(|| Unfit {
            why: format!(
                "table {} lacks {}: a power cut may take its last rows after their offsets are committed",
                self.shown(name),
                lacking.join(", ")
            ),
            remedy: format!("ALTER TABLE {} MODIFY SETTING {} = 1", self.table(name), lacking.join(" = 1, ")),
        }))
    }

    /// Those settings of [`DURABLE`] that the server sets for all tables; none where this user may not ask.
    async fn durable_defaults(&self) -> Result<BTreeSet<String>, Failure> {
        let names = DURABLE.map(quoted).join(", ");
        let sql =
            format!("SELECT name FROM system.merge_tree_settings WHERE name IN ({names}) AND value IN ('1', 'true')");
        match self.all::<(String,)>(&sql).await {
            Err(failure) if failure.kind == ErrorKind::Permanent => Ok(BTreeSet::new()),
            found => Ok(found?.into_iter().map(|(name,)| name).collect()),
        }
    }

    /// Checks that no row policy hides leases from this user.
    ///
    /// # Errors
    /// When one does; or when the user may not read the table.
    pub async fn check_lease_policy(&self) -> Result<(), Failure> {
        Ok(self.look_at(LEASES, Look::RowPolicy).await?)
    }

    /// Checks that no row policy hides rows of the tables from this user.
    ///
    /// # Errors
    /// When one does; or when the user may not read the tables.
    pub async fn check_row_policies(&self) -> Result<(), Failure> {
        for name in TABLES {
            self.look_at(name, Look::RowPolicy).await?;
        }
        Ok(())
    }

    async fn check_engine(&self, name: &str) -> Result<(), TableFault> {
        let (database, shown) = (&self.database, self.name_of(name));
        let Definition { engine, sorting_key, create, .. } = self.definition(name).await?;
        if let Some(why) = unfit_engine(&engine, &sorting_key) {
            return Err(unfit(format!("table {database}.{shown} has the engine {engine}: {why}"), REMEDY));
        }
        if name == ERASED && ttl::mentions(&create, " TTL ") {
            return Err(unfit(
                format!(
                    "table {database}.{name} has a TTL, which deletes the record of what was erased: it could be stored again"
                ),
                "take it away with ALTER TABLE … REMOVE TTL",
            ));
        }
        Ok(())
    }

    /// The definition of one of our tables.
    pub(super) async fn definition(&self, name: &str) -> Result<Definition, TableFault> {
        let database = &self.database;
        let sql = format!(
            "SELECT engine, sorting_key, engine_full, create_table_query FROM system.tables WHERE database = {} AND name = {}",
            quoted(database),
            quoted(self.name_of(name))
        );
        let found = self.all::<(String, String, String, String)>(&sql).await?.pop();
        let Some((engine, sorting_key, engine_full, create)) = found else {
            // A user sees only tables that it has a right to.
            self.run(&format!("SELECT 1 FROM {} LIMIT 0", self.table(name))).await.map_err(|failure| {
                if !failure::code_in(&failure.message).is_some_and(|code| MISSING.contains(&code)) {
                    return failure.into();
                }
                let (at, shown) = (self.address(), self.name_of(name));
                let with = match self.is_own(name) {
                    true => "create it first: `clickstream schema` drafts it from the topic, see docs/your-events.md",
                    false => "create it with `clickstream setup`",
                };
                unfit(format!("table {database}.{shown} is missing at {at}"), with)
            })?;
            let why = format!("table {database}.{name} is there, and not to be seen in system.tables");
            return Err(unfit(why, format!("GRANT SHOW ON {database}.* TO this user")));
        };
        Ok(Definition { engine, sorting_key, engine_full, create })
    }

    /// Checks that the user's own table has the columns by which rows are found again.
    async fn check_positions(&self) -> Result<(), TableFault> {
        let sql = format!(
            "SELECT name FROM system.columns WHERE database = {} AND table = {}",
            quoted(&self.database),
            quoted(&self.events)
        );
        let there: BTreeSet<String> = self.all::<(String,)>(&sql).await?.into_iter().map(|(name,)| name).collect();
        let mut adds: Vec<_> = PLACES
            .iter()
            .filter(|(name, _)| !there.contains(*name))
            .map(|(name, kind)| format!("ADD COLUMN {name} {kind}"))
            .collect();
        if adds.is_empty() {
            return Ok(());
        }
        // Each insert asks whether its first row is stored: in a table that is sorted by something else, an index answers that.
        let sorting_key = self.definition(Table::Events.name()).await?.sorting_key;
        let is_sorted = POSITION.iter().all(|column| sorting_key::expressions(&sorting_key).contains(column));
        adds.extend((!is_sorted).then(|| INDEX.to_owned()));
        let why = format!(
            "table {}.{} lacks columns by which its rows are found again, without which none may be stored",
            self.database, self.events
        );
        Err(unfit(why, format!("ALTER TABLE {} {}", self.table(Table::Events.name()), adds.join(", "))))
    }

    /// An insert has to be one part: of several, ClickHouse can store some and fail.
    async fn check_partitioning(&self, name: &str) -> Result<(), TableFault> {
        let sql = format!(
            "SELECT (SELECT partition_key FROM system.tables WHERE name = {1} AND database = {0}), name FROM system.columns \
             WHERE is_in_partition_key AND database = {0} AND table = {1}",
            quoted(&self.database),
            quoted(self.name_of(name))
        );
        for (key, column) in self.all::<(String, String)>(&sql).await? {
            // The one of `schema.sql` sets rows apart that no ingester stores.
            let is_one = ["_source", "ingested_at"].contains(&column.as_str())
                || column == "_offset" && !ttl::mentions(&key.replace("_offset < 0", ""), "_offset");
            if !is_one {
                let why = format!(
                    "table {}.{} is partitioned by {column} ({key}): an insert would be several parts, of which ClickHouse can store some \
                     and fail, and rows would be stored twice",
                    self.database,
                    self.name_of(name)
                );
                return Err(unfit(why, "partition by ingested_at or _source, or not at all"));
            }
        }
        Ok(())
    }

    async fn check_columns(&self, name: &str, brought: &[Column]) -> Result<(), TableFault> {
        let sql = format!(
            "SELECT name, type, default_kind FROM system.columns WHERE database = {} AND table = {}",
            quoted(&self.database),
            quoted(self.name_of(name))
        );
        let found: Vec<(String, String, String)> = self.all(&sql).await?;
        let found: HashMap<_, _> = found.into_iter().map(|(column, kind, default)| (column, (kind, default))).collect();
        let unfit = |what: String, remedy: &str| {
            unfit(format!("table {}.{}: column {what}", self.database, self.name_of(name)), remedy)
        };
        for &(column, expected) in brought {
            let Some((kind, default)) = found.get(column) else {
                let action = match name == Table::Rejected.name() {
                    true => "`clickstream setup` adds it, run by a user who may alter the table",
                    false => "add it, or use another --database",
                };
                return Err(unfit(format!("{column} ({expected}) is missing"), action));
            };
            // A column with a DEFAULT takes inserted values. These three kinds refuse or drop them.
            if ["MATERIALIZED", "ALIAS", "EPHEMERAL"].contains(&default.as_str()) {
                return Err(unfit(format!("{column} is {default}, so it keeps nothing that is inserted"), REMEDY));
            }
            if kind == expected {
                continue;
            }
            // Nothing else than these merges into the newest lease.
            if name == LEASES {
                return Err(unfit(format!("{column} is {kind}, expected {expected}"), REMEDY));
            }
            if let Some(why) = self.loses(column, expected, kind).await? {
                return Err(unfit(
                    format!("{column} is {kind}, expected {expected} or what keeps all of it; {why}"),
                    REMEDY,
                ));
            }
        }
        Ok(())
    }

    /// The values of the expected type that a column of the type `found` would lose, if any. The server itself converts
    /// each critical value to the column's type and back.
    async fn loses(&self, column: &str, expected: &str, found: &str) -> Result<Option<String>, Failure> {
        if found.contains("FixedString(") {
            return Ok(Some("it fills values up with zero bytes".into()));
        }
        // Whether it is the type's fault, or ClickHouse's that has no memory at the moment: then the question fails for any type.
        for _ in 0..2 {
            match self.all::<(String,)>(&types::round_trip(column, expected, found)).await {
                Ok(lost) => return Ok(lost.first().map(|(value,)| format!("it does not keep {value:?}"))),
                Err(failure) if failure.message.contains("DB::Exception") => {
                    self.all::<(String,)>(&types::round_trip(column, expected, expected)).await?;
                    let said = failure.message;
                    tracing::debug!("column {column} is {found}: {said}");
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(Some("it does not take every value".into()))
    }

    /// A row policy hides rows from our questions, and no setting of a statement can prevent that. A user who may not
    /// see policies can still see their effect in the plan of a query. In an empty table there is nothing to hide, so
    /// the plan shows none.
    async fn check_row_policy(&self, name: &str, column: &str) -> Result<(), TableFault> {
        let plan = format!("EXPLAIN actions = 1 SELECT {column} FROM {}", self.table(name));
        let plan: Vec<(String,)> = self.all(&plan).await?;
        let filters = |line: &&String| {
            let line = line.to_lowercase();
            line.contains("row level filter") || line.contains("row-level security")
        };
        let Some(line) = plan.iter().map(|(line,)| line).rfind(filters) else { return Ok(()) };
        let (database, user) = (&self.database, self.settings.user());
        let filter = line.split_once(':').map_or("", |(_, filter)| filter.trim());
        let why = format!(
            "a row policy hides rows of {database}.{name} from user {user} ({filter}): they would be taken for missing and stored twice"
        );
        Err(unfit(why, "exempt that user from it, or use another --clickhouse-user"))
    }
}

/// The columns that are brought into one of our tables.
fn columns(name: &str) -> &'static [Column] {
    match name {
        ERASED => &erase::COLUMNS,
        LEASES => &leases::COLUMNS,
        _ if name == Table::Rejected.name() => rows::columns(Table::Rejected),
        _ => rows::columns(Table::Events),
    }
}

/// Why a table of this engine breaks a promise, if it does.
fn unfit_engine(engine: &str, sorting_key: &str) -> Option<String> {
    if !engine.ends_with("MergeTree") || ["Replicated", "Shared"].iter().any(|several| engine.starts_with(several)) {
        let why = match engine {
            _ if engine.ends_with("MergeTree") => {
                "what is stored is asked of one server, and this engine stores on several: rows could be lost or doubled"
            }
            "Distributed" => "it passes rows on to other servers, and says that they are stored before they are",
            "Buffer" | "Memory" | "Set" | "Join" => "it keeps rows in memory, and a restart of the server loses them",
            "Null" => "it keeps no rows",
            _ => "only tables of the MergeTree family store an insert whole or not at all",
        };
        return Some(why.into());
    }
    if !["MergeTree", "ReplacingMergeTree", "AggregatingMergeTree", "CoalescingMergeTree"].contains(&engine) {
        return Some("its merges leave out rows, whatever they are sorted by".into());
    }
    let sorted_by = |column: &&str| sorting_key::expressions(sorting_key).contains(column);
    let lacking: Vec<_> = POSITION.iter().copied().filter(|column| !sorted_by(column)).collect();
    if engine == "MergeTree" || lacking.is_empty() {
        return None;
    }
    Some(format!("its merges make one row of those with the same sorting key, which lacks {}", lacking.join(", ")))
}

pub(super) fn misfit(message: String) -> Failure {
    Failure { kind: ErrorKind::Permanent, ended: true, message }
}

#[cfg(test)]
mod tests {
    use super::super::mock::{Mock, exception, rows};
    use super::*;

    const EVENTS: &str = "FROM system.tables WHERE database = 'shop' AND name = 'events'";

    async fn said(mock: &Mock) -> Failure {
        mock.clickhouse().check_to_write().await.unwrap_err()
    }

    async fn mock() -> Mock {
        let mock = Mock::start().await;
        mock.has_tables().always("FROM system.settings", rows("[\"\"]"));
        mock
    }

    #[tokio::test]
    async fn tables_of_the_schema_fit() {
        mock().await.clickhouse().check_to_write().await.unwrap();
    }

    #[tokio::test]
    async fn a_table_that_is_not_listed_is_missing_hidden_or_not_allowed() {
        let mock = mock().await;
        mock.always(EVENTS, rows(""));
        for (answer, kind, words) in [
            (
                exception(60, "Table shop.events does not exist"),
                ErrorKind::Permanent,
                "shop.events is missing at http://",
            ),
            (exception(81, "Database shop does not exist"), ErrorKind::Permanent, "`clickstream setup`"),
            (exception(497, "Not enough privileges"), ErrorKind::Permanent, "privileges"),
            (exception(202, "Too many simultaneous queries"), ErrorKind::Transient, "Too many"),
            (rows(""), ErrorKind::Permanent, "is there, and not to be seen"),
        ] {
            mock.expect("SELECT 1 FROM `shop`.`events` LIMIT 0", answer);
            let failure = said(&mock).await;
            assert!(failure.kind == kind && failure.message.contains(words), "{words}: {failure}");
        }
    }

    #[tokio::test]
    async fn a_record_of_erasures_that_expires_is_refused() {
        let mock = mock().await;
        let key = "_source, _partition, _offset";
        let full = "ReplacingMergeTree ORDER BY x TTL toDateTime(erased_at) + toIntervalYear(1)";
        let definition =
            serde_json::json!(["ReplacingMergeTree", key, full, format!("CREATE TABLE x ENGINE = {full}")]);
        mock.always("name = 'erased'", rows(&definition.to_string()));
        assert!(said(&mock).await.message.starts_with("table shop.erased has a TTL"));
    }

    #[tokio::test]
    async fn a_table_whose_insert_could_be_several_parts_is_refused() {
        for (key, column, fits) in [
            ("toYYYYMM(ingested_at) + (_offset < 0)", "ingested_at", true),
            ("toYYYYMM(ingested_at) + (_offset < 0)", "_offset", true),
            ("_source", "_source", true),
            ("intDiv(_offset, 1000)", "_offset", false),
            ("toDate(timestamp)", "timestamp", false),
            ("(_source, _partition)", "_partition", false),
        ] {
            let mock = mock().await;
            mock.expect("WHERE is_in_partition_key", rows(&serde_json::json!([key, column]).to_string()));
            let checked = mock.clickhouse().check_tables().await;
            assert_eq!(checked.is_ok(), fits, "{key} {column}: {checked:?}");
        }
    }

    #[tokio::test]
    async fn a_table_of_rejects_from_an_earlier_version_is_brought_up_to_date_by_setup() {
        let mock = mock().await;
        let before = ["key", "payload"].map(|name| serde_json::json!([name, "String", ""]).to_string());
        mock.always("WHERE database = 'shop' AND table = 'rejected'", rows(&before.join("\n")));
        let failure = said(&mock).await;
        assert_eq!(failure.kind, ErrorKind::Permanent);
        let words = "table shop.rejected: column headers (Array(Tuple(name String, value Nullable(String)))) is missing: `clickstream setup` adds it";
        assert!(failure.message.starts_with(words), "{failure}");
    }

    #[tokio::test]
    async fn a_column_that_keeps_nothing_or_is_not_there_is_named() {
        for (column, words) in [
            (r#"["x","Int64",""]"#, "column event_id (UUID) is missing"),
            (r#"["event_id","UUID","ALIAS"]"#, "column event_id is ALIAS, so it keeps nothing"),
            (r#"["event_id","UUID","MATERIALIZED"]"#, "is MATERIALIZED"),
            (r#"["event_id","FixedString(16)",""]"#, "it fills values up with zero bytes"),
        ] {
            let mock = mock().await;
            mock.always("FROM system.columns WHERE database = 'shop' AND table = 'events'", rows(column));
            assert!(said(&mock).await.message.contains(words), "{column}");
        }
    }

    /// Another type is tried with values. Where that fails for our own type as well, it is not the type's fault.
    #[tokio::test]
    async fn a_type_is_refused_for_a_value_that_it_loses_and_not_for_a_server_that_is_busy() {
        let mock = mock().await;
        let events = rows::columns(Table::Events).iter().map(|(name, kind)| {
            serde_json::json!([name, if *name == "price" { "Float32" } else { kind }, ""]).to_string()
        });
        mock.always("WHERE database = 'shop' AND table = 'events'", rows(&events.collect::<Vec<_>>().join("\n")));
        let (theirs, ours) = ("'Float32'", "CAST(value, 'Decimal(10, 2)')");
        mock.expect(theirs, rows(""));
        mock.clickhouse().check_tables().await.unwrap();
        mock.expect(theirs, rows("[\"0.29\"]"));
        assert!(said(&mock).await.message.contains("it does not keep \"0.29\""));
        mock.expect(theirs, exception(241, "Memory limit")).expect(ours, exception(241, "Memory limit"));
        assert_eq!(said(&mock).await.kind, ErrorKind::TooLarge);
        for _ in 0..2 {
            mock.expect(theirs, exception(70, "Cannot convert")).expect(ours, rows(""));
        }
        assert!(said(&mock).await.message.contains("it does not take every value"));
    }

    #[tokio::test]
    async fn a_row_policy_is_seen_at_work() {
        let mock = mock().await;
        mock.expect("EXPLAIN", rows("[\"Expression\"]\n[\"  Row level filter column: equals(user_id, 'u')\"]"));
        let failure = said(&mock).await;
        assert!(
            failure.message.contains("hides rows of shop.events from user writer (equals(user_id, 'u'))"),
            "{failure}"
        );
        assert_eq!(failure.kind, ErrorKind::Permanent);
    }

    #[tokio::test]
    async fn a_table_of_leases_without_its_own_fsync_is_as_durable_as_the_server_says() {
        let mock = mock().await;
        let (engine, key) = ("AggregatingMergeTree", "source, role, partition");
        let definition = serde_json::json!([engine, key, format!("{engine} ORDER BY ({key})"), "CREATE TABLE x"]);
        mock.always("name = 'leases'", rows(&definition.to_string()));
        mock.expect("system.merge_tree_settings", rows(&DURABLE.map(|name| format!("[\"{name}\"]")).join("\n")));
        mock.clickhouse().check_leases().await.unwrap();
        mock.expect("system.merge_tree_settings", rows("[\"fsync_after_insert\"]"));
        assert!(said(&mock).await.message.contains("lacks the setting fsync_part_directory"));
        mock.expect("system.merge_tree_settings", exception(497, "writer may not ask that"));
        assert!(said(&mock).await.message.contains("lacks the setting fsync_after_insert"));
        mock.expect("system.merge_tree_settings", exception(202, "Too many simultaneous queries"));
        assert_eq!(said(&mock).await.kind, ErrorKind::Transient);
    }

    #[test]
    fn an_engine_fits_if_it_keeps_each_row() {
        let ours = "event_type, timestamp, event_id, _source, _partition, _offset";
        for engine in ["MergeTree", "ReplacingMergeTree"] {
            assert_eq!(unfit_engine(engine, ours), None, "{engine}");
        }
        assert_eq!(unfit_engine("MergeTree", "event_id"), None, "it merges parts, never rows");
        for engine in ["ReplicatedMergeTree", "ReplicatedReplacingMergeTree", "SharedMergeTree"] {
            assert!(unfit_engine(engine, ours).is_some_and(|why| why.contains("of one server")), "{engine}");
        }
        for engine in ["Distributed", "Buffer", "Null", "Memory", "Log", "TinyLog", "View", "MaterializedView", "Kafka"]
        {
            assert!(unfit_engine(engine, ours).is_some(), "{engine}");
        }
        for key in ["event_id, _source", "cityHash64(1, _source, _partition, _offset, 1) % 4, _source"] {
            for engine in ["ReplacingMergeTree", "AggregatingMergeTree"] {
                let why = unfit_engine(engine, key).unwrap_or_default();
                assert!(why.ends_with("lacks _partition, _offset"), "{engine}: {why}");
            }
        }
        for engine in ["SummingMergeTree", "CollapsingMergeTree", "VersionedCollapsingMergeTree", "GraphiteMergeTree"] {
            assert!(unfit_engine(engine, ours).is_some_and(|why| why.contains("leave out rows")), "{engine}");
        }
    }
}
