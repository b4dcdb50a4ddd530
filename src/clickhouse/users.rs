//! The users file of a ClickHouse that we set up, for the demo and for Compose: users and their rights.

use sha2::{Digest, Sha256};

/// A user with a password.
pub struct Account {
    pub name: &'static str,
    profile: &'static str,
    grants: &'static [&'static str],
}

/// Makes the tables, adds columns that `rejected` of an earlier version lacks, and can change nothing else in them.
pub const OWNER: Account = Account {
    name: "owner",
    profile: "default",
    grants: &[
        "SHOW ON clickstream.*",
        "CREATE DATABASE, CREATE TABLE, CREATE VIEW ON clickstream.*",
        "ALTER ADD COLUMN ON clickstream.rejected",
        "TABLE ENGINE ON ReplacingMergeTree",
        "TABLE ENGINE ON AggregatingMergeTree",
        // ClickHouse requires this of the creator of the view.
        "SELECT ON clickstream.events",
    ],
};

/// Ingests, and audits. It may end its own inserts, as every user may, and so has to see which ones run.
pub const WRITER: Account = Account {
    name: "writer",
    profile: "default",
    grants: &[
        "SHOW ON clickstream.*",
        "SELECT, INSERT ON clickstream.events",
        "SELECT, INSERT ON clickstream.rejected",
        "SELECT ON clickstream.erased",
        "SELECT, INSERT ON clickstream.leases",
        "SELECT ON system.processes",
    ],
};

/// The eraser may delete rows, and write only the records of deleted ones.
pub const ERASER: Account = Account {
    name: "eraser",
    profile: "default",
    grants: &[
        "SHOW ON clickstream.*",
        "SELECT, ALTER DELETE ON clickstream.events",
        "SELECT, ALTER DELETE ON clickstream.rejected",
        "SELECT, INSERT ON clickstream.erased",
        // For the progress of mutations, and for old parts on the disk.
        "SELECT ON system.mutations",
        "SELECT ON system.parts",
    ],
};

/// Draws the dashboards.
pub const READER: Account =
    Account { name: "reader", profile: "reader", grants: &["SELECT ON clickstream.*", "SELECT ON system.parts"] };

/// The limits of the reader's queries. Its profile is `readonly`, so it can change only the time limit, within
/// [`SECONDS`].
///
/// Everybody who reaches the page of a Grafana can send any SQL as this user. So the limits protect others: memory,
/// disk and time are left for the inserts. docs/deploy.md has the same list, for a ClickHouse of your own.
pub const READER_LIMITS: [(&str, u64); 11] = [
    ("readonly", 1),
    ("max_execution_time", 10),
    ("max_memory_usage", 1_000_000_000),
    // All of its queries together: half of what Compose gives to ClickHouse.
    ("max_memory_usage_for_user", 2_000_000_000),
    // Large sorts and groupings use the disk of the tables.
    ("max_temporary_data_on_disk_size_for_query", 2_000_000_000),
    ("max_temporary_data_on_disk_size_for_user", 4_000_000_000),
    // A month at 100 events a second is 260 million rows: of each, panels read 42 bytes at most, and some panels read it twice.
    ("max_rows_to_read", 1_000_000_000),
    ("max_bytes_to_read", 50_000_000_000),
    ("max_result_rows", 100_000),
    ("max_result_bytes", 100_000_000),
    // As many as Grafana's ClickHouse plugin has connections.
    ("max_concurrent_queries_for_user", 50),
];

/// The least and the most that a reader may set `max_execution_time` to. 0 would be no limit. Grafana's client sets it with each query,
/// to its own timeout and 5 s more: 64 for its default of a minute.
pub const SECONDS: (u64, u64) = (1, 65);

/// All that have a password.
pub const ACCOUNTS: [Account; 4] = [OWNER, WRITER, ERASER, READER];

/// The purpose of the user `default`, which has no password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// For the administrator, from inside the server's container only: it may do everything.
    Administrator,
    /// For libchdb, which runs its queries as `default`. That user may do nothing else, and nobody can log in: it may
    /// have one session, which the library itself opens before any port. (That session has the same address as those of
    /// other local users, and cannot have a password. ClickHouse ends when it refuses a session over its own protocol,
    /// so there is no port for that.)
    Library,
    /// There is none.
    Nobody,
}

/// The networks from which users with a password may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Anywhere,
    Loopback,
}

const LOOPBACK: &str = "<ip>127.0.0.1</ip><ip>::1</ip>";

/// The users file, with hashes instead of the `passwords`, which are in the order of [`ACCOUNTS`].
///
/// The format is that of <https://clickhouse.com/docs/operations/settings/settings-users>. The file is complete: a
/// server whose `user_directories` names it needs no other one.
pub fn file(passwords: &[String; ACCOUNTS.len()], from: From, default: Default) -> String {
    let users: String =
        ACCOUNTS.iter().zip(passwords).map(|(account, password)| user(account, password, from)).collect();
    let limits: String =
        READER_LIMITS.iter().map(|(name, value)| format!("      <{name}>{value}</{name}>\n")).collect();
    let (least, most) = SECONDS;
    format!(
        "<clickhouse>
  <users>
{}{users}  </users>
  <profiles>
    <default/>
    <library><max_sessions_for_user>1</max_sessions_for_user></library>
    <reader>
{limits}      <!-- Grafana's client sets it with each query; 0 would be no limit -->
      <constraints>
        <max_execution_time><min>{least}</min><max>{most}</max><changeable_in_readonly/></max_execution_time>
      </constraints>
    </reader>
  </profiles>
  <quotas><default/></quotas>
</clickhouse>
",
        default_user(default)
    )
}

fn default_user(default: Default) -> String {
    let (profile, of): (_, &[&str]) = match default {
        Default::Administrator => ("default", &[]),
        Default::Library => ("library", &["SYSTEM LISTEN ON *.*", "SELECT ON system.numbers"]),
        Default::Nobody => return String::new(),
    };
    format!(
        "    <default>
      <password></password>
      <networks>{LOOPBACK}</networks>
      <profile>{profile}</profile>
      <quota>default</quota>{}
    </default>
",
        grants(of)
    )
}

fn user(account: &Account, password: &str, from: From) -> String {
    let Account { name, profile, grants: of } = account;
    let networks = match from {
        From::Anywhere => "<ip>::/0</ip>",
        From::Loopback => LOOPBACK,
    };
    format!(
        "    <{name}>
      <password_sha256_hex>{}</password_sha256_hex>
      <networks>{networks}</networks>
      <profile>{profile}</profile>
      <quota>default</quota>{}
    </{name}>
",
        hex(&Sha256::digest(password)),
        grants(of)
    )
}

/// None at all would mean every right.
fn grants(grants: &[&str]) -> String {
    if grants.is_empty() {
        return String::new();
    }
    let queries: String = grants.iter().map(|grant| format!("\n        <query>GRANT {grant}</query>")).collect();
    format!("\n      <grants>{queries}\n      </grants>")
}

/// Two lower-case digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_server_of_the_demo_has_no_user_without_a_password() {
        let users = |default| file(&[const { String::new() }; ACCOUNTS.len()], From::Loopback, default);
        assert!(!users(Default::Nobody).contains("<default>"), "{}", users(Default::Nobody));
        assert!(users(Default::Library).contains("<profile>library</profile>"));
    }

    #[test]
    fn the_documentation_has_the_limits_of_the_reader_as_they_are() {
        let docs = include_str!("../../docs/deploy.md");
        let documented = docs.split("CREATE SETTINGS PROFILE").nth(1).and_then(|text| text.split("```").next());
        let documented = documented.expect("a profile in docs/deploy.md");
        for (name, value) in READER_LIMITS {
            assert!(documented.contains(&format!("{name} = {value}")), "{name} = {value}");
        }
        let (least, most) = SECONDS;
        assert!(documented.contains(&format!("MIN {least} MAX {most} CHANGEABLE_IN_READONLY")));
    }
}
