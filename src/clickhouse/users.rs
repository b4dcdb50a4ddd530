//! Who may do what in a ClickHouse that is set up by us: its users file, for the demo and for compose.

use sha2::{Digest, Sha256};

/// A user with a password.
pub struct Account {
    pub name: &'static str,
    profile: &'static str,
    grants: &'static [&'static str],
}

/// Makes the tables, and can change nothing in them.
pub const OWNER: Account = Account {
    name: "owner",
    profile: "default",
    grants: &[
        "SHOW ON clickstream.*",
        "CREATE DATABASE, CREATE TABLE, CREATE VIEW ON clickstream.*",
        "TABLE ENGINE ON ReplacingMergeTree",
        // ClickHouse asks this of who makes the view.
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
        "SELECT ON system.processes",
    ],
};

/// Erases: it may delete rows, and write none but the record of what it deletes.
pub const ERASER: Account = Account {
    name: "eraser",
    profile: "default",
    grants: &[
        "SHOW ON clickstream.*",
        "SELECT, ALTER DELETE ON clickstream.events",
        "SELECT, ALTER DELETE ON clickstream.rejected",
        "SELECT, INSERT ON clickstream.erased",
        // Whether ClickHouse has done it, and what is still on its disk.
        "SELECT ON system.mutations",
        "SELECT ON system.parts",
    ],
};

/// Draws the dashboards.
pub const READER: Account =
    Account { name: "reader", profile: "reader", grants: &["SELECT ON clickstream.*", "SELECT ON system.parts"] };

/// All that have a password.
pub const ACCOUNTS: [Account; 4] = [OWNER, WRITER, ERASER, READER];

/// What the user `default` is there for. It has no password, and is let in from the machine itself only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// For whoever looks after the server, from inside its container: it may do everything.
    Administrator,
    /// For libchdb, which runs its queries as `default`: it may do nothing but that.
    Library,
}

/// From where the users with a password are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Anywhere,
    Loopback,
}

const LOOPBACK: &str = "<ip>127.0.0.1</ip><ip>::1</ip>";

/// The users file, with hashes in the place of the `passwords`, which are in the order of [`ACCOUNTS`].
///
/// The format is that of <https://clickhouse.com/docs/operations/settings/settings-users>. It stands alone: whoever points
/// `user_directories` at it needs no other one.
pub fn file(passwords: &[String; ACCOUNTS.len()], from: From, default: Default) -> String {
    let users: String =
        ACCOUNTS.iter().zip(passwords).map(|(account, password)| user(account, password, from)).collect();
    let library: &[&str] = match default {
        Default::Administrator => &[],
        Default::Library => &["SYSTEM LISTEN ON *.*", "SELECT ON system.numbers"],
    };
    format!(
        "<clickhouse>
  <users>
    <default>
      <password></password>
      <networks>{LOOPBACK}</networks>
      <profile>default</profile>
      <quota>default</quota>{}
    </default>
{users}  </users>
  <profiles>
    <default/>
    <reader>
      <readonly>1</readonly>
      <max_execution_time>10</max_execution_time>
      <max_memory_usage>1000000000</max_memory_usage>
      <!-- Grafana's client sets it with each query -->
      <constraints><max_execution_time><changeable_in_readonly/></max_execution_time></constraints>
    </reader>
  </profiles>
  <quotas><default/></quotas>
</clickhouse>
",
        grants(library)
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
