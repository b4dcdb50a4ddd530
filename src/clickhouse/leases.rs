//! The table `leases`: the owner of a partition's rows, and the check with which an insert finds that it lost them.

use super::insert_id::{PARTITIONS, Process, Scope};
use super::questions::quoted;
use super::{ClickHouse, failure, rows};
use clickhouse::query::Query;
use flows::{ErrorKind, Failure, Newest};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use uuid::Uuid;

/// The columns of `leases`. `newest` is a tuple whose greatest value counts: of the largest epoch, and of those the largest token.
pub const COLUMNS: [rows::Column; 4] = [
    ("source", "LowCardinality(String)"),
    ("role", "LowCardinality(String)"),
    ("partition", "Int32"),
    (
        "newest",
        "SimpleAggregateFunction(max, Tuple(epoch UInt64, token UUID, group String, owner String, opened_at DateTime64(3, 'UTC')))",
    ),
];

/// How often running inserts are looked at while they are waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The purpose of a lease. The inserts of ingesters and healers exclude each other by the tokens that they carry, not
/// by their leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Rows from the committed offset on.
    Ingest,
    /// Rows below it, which were lost.
    Heal,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingest => "ingest",
            Self::Heal => "heal",
        })
    }
}

/// The assertion of an insert about a lease: that this is the newest token, or, if it is nil, that there is no lease.
pub type Carried = (Role, i32, Uuid);

/// The newest leases, and the server that has said so.
pub struct Leases {
    pub server: String,
    pub newest: BTreeMap<i32, Newest>,
}

/// The holder of the newest leases of some partitions, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseHolder {
    /// Its purpose, as [`Role`] has it.
    pub role: String,
    /// Its consumer group.
    pub group: String,
    /// Its host and process.
    pub owner: String,
    /// When it opened the last of them: a time in UTC.
    pub since: String,
    pub partitions: Vec<i32>,
}

impl ClickHouse {
    /// The holders of the newest leases of a topic's partitions.
    ///
    /// # Errors
    /// When ClickHouse does not answer.
    pub async fn lease_holders(&self, source: &str) -> Result<Vec<LeaseHolder>, Failure> {
        let sql = format!(
            "SELECT CAST(of_role, 'String'), tupleElement(last, 3) AS of_group, tupleElement(last, 4) AS of_owner, \
             toString(max(tupleElement(last, 5))), arraySort(groupArray(at)) FROM \
             (SELECT role AS of_role, partition AS at, max(newest) AS last FROM {} WHERE source = {{source:String}} GROUP BY of_role, at) \
             GROUP BY of_role, of_group, of_owner ORDER BY of_role DESC, min(at)",
            self.table("leases")
        );
        let found = self.fetch_all(self.of(source, &sql)).await?;
        let holder = |(role, group, owner, since, partitions)| LeaseHolder { role, group, owner, since, partitions };
        Ok(found.into_iter().map(holder).collect())
    }

    /// The newest lease of each of these partitions that has one.
    pub async fn leases(&self, source: &str, role: Role, partitions: &[i32]) -> Result<Leases, Failure> {
        let sql = format!(
            "SELECT toString(serverUUID()), groupArray(at), groupArray(tupleElement(last, 1)), \
             groupArray(toString(tupleElement(last, 2))), groupArray(tupleElement(last, 3)) FROM \
             (SELECT partition AS at, max(newest) AS last FROM {} \
             WHERE source = {{source:String}} AND role = '{role}' AND has({{partitions:Array(Int32)}}, partition) GROUP BY at)",
            self.table("leases")
        );
        type Found = (String, Vec<i32>, Vec<u64>, Vec<String>, Vec<String>);
        let question = self.of(source, &sql).param("partitions", partitions);
        let (server, at, epochs, tokens, groups): Found = self.fetch_one(question).await?;
        let mut newest = BTreeMap::new();
        for (((at, epoch), token), group) in at.into_iter().zip(epochs).zip(tokens).zip(groups) {
            let token = token.parse().map_err(|_| failure::misunderstood("a token was asked for"))?;
            newest.insert(at, Newest { epoch, token, group });
        }
        Ok(Leases { server, newest })
    }

    /// Writes a lease for each of these partitions and epochs.
    pub async fn write_leases(
        &self,
        source: &str,
        role: Role,
        (group, owner): (&str, &str),
        token: Uuid,
        epochs: &[(i32, u64)],
    ) -> Result<(), Failure> {
        let (partitions, epochs): (Vec<_>, Vec<_>) = epochs.iter().copied().unzip();
        let sql = format!(
            "INSERT INTO {} (source, role, partition, newest) SELECT {{source:String}}, '{role}', lease.1, \
             (lease.2, toUUID('{token}'), {{group:String}}, {{owner:String}}, now64(3)) \
             FROM (SELECT arrayJoin(arrayZip({{partitions:Array(Int32)}}, {{epochs:Array(UInt64)}})) AS lease)",
            self.table("leases")
        );
        let settings = self.settings.inserts().into_iter();
        let statement = settings.fold(self.of(source, &sql), |query, (name, value)| query.with_setting(name, value));
        let statement = statement.param("group", group).param("owner", owner);
        self.execute(statement.param("partitions", partitions).param("epochs", epochs)).await
    }

    /// Returns when each insert of this scope has ended that touches one of these partitions and runs as this begins. Those of other
    /// processes are killed, as far as ClickHouse kills them; all are waited for.
    pub async fn quiesce(&self, scope: &Scope, mine: Process, server: &str, partitions: &[i32]) -> Result<(), Failure> {
        let mine = scope.prefix_of(mine);
        let mut awaited: Option<BTreeSet<String>> = None;
        loop {
            let running: BTreeSet<_> = self.running(scope, server, partitions).await?.into_iter().collect();
            let left = match awaited {
                None => running,
                // Later inserts carry newer tokens, or will be refused.
                Some(awaited) => awaited.intersection(&running).cloned().collect(),
            };
            if left.is_empty() {
                return Ok(());
            }
            for query_id in left.iter().filter(|query_id| !query_id.starts_with(&mine)) {
                let kill = self.query("KILL QUERY WHERE query_id = {name:String} ASYNC").param("name", query_id);
                // A user who may not kill the insert still waits for its end.
                if let Err(failure) = self.execute(kill).await {
                    tracing::debug!(%query_id, %failure, "cannot kill an insert of a former owner");
                }
            }
            awaited = Some(left);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The inserts of a scope that run and touch one of these partitions.
    async fn running(&self, scope: &Scope, server: &str, partitions: &[i32]) -> Result<Vec<String>, Failure> {
        let sql = format!(
            "SELECT toString(serverUUID()), groupArray(query_id) FROM system.processes \
             WHERE startsWith(query_id, {{scope:String}}) AND hasAny({{partitions:Array(Int32)}}, \
             arrayMap(number -> toInt32OrZero(number), splitByChar(',', splitByChar('/', query_id)[{PARTITIONS}])))"
        );
        let question: Query = self.query(&sql).param("scope", scope.prefix()).param("partitions", partitions);
        let (answers, running): (String, Vec<String>) = self.fetch_one(question).await?;
        if answers != server {
            return Err(Failure { kind: ErrorKind::Transient, ended: true, message: another_server() });
        }
        Ok(running)
    }

    /// The condition that an insert asserts: the newest leases of its partitions are those that it carries, all of them and no other.
    ///
    /// Nothing is found where it cannot be looked at, or a lease is missing that should be there: then it is false as well. A set costs
    /// the server less than a scalar subquery.
    pub(super) fn holds(&self, source: &str, carried: &[Carried]) -> String {
        let list = |items: BTreeSet<String>| items.into_iter().collect::<Vec<_>>().join(", ");
        let roles = list(carried.iter().map(|(role, _, _)| format!("'{role}'")).collect());
        let partitions = list(carried.iter().map(|(_, at, _)| at.to_string()).collect());
        // In the order in which ClickHouse sorts them.
        let there = carried.iter().filter(|(_, _, token)| !token.is_nil());
        let there: BTreeMap<_, _> = there.map(|(role, at, token)| ((role.to_string(), at), token)).collect();
        let there: Vec<_> =
            there.into_iter().map(|((role, at), token)| format!("('{role}', {at}, toUUID('{token}'))")).collect();
        format!(
            "[{}] IN (SELECT arraySort(groupArray(lease)) FROM (SELECT (role, partition, tupleElement(max(newest), 2)) AS lease \
             FROM {} WHERE source = {} AND role IN ({roles}) AND partition IN ({partitions}) GROUP BY role, partition))",
            there.join(", "),
            self.table("leases"),
            quoted(source)
        )
    }
}

/// The failure when another server answers than before.
pub fn another_server() -> String {
    "another ClickHouse server answers than before: what is stored is asked of one, see docs/guarantees.md".into()
}

#[cfg(test)]
mod tests;
