//! The name of an insert: its `query_id` in ClickHouse, by which other members see the partitions that it touches.

use sha2::{Digest, Sha256};
use std::fmt;
use uuid::Uuid;

/// Whose inserts they are: of one topic, into one database.
///
/// Both are hashed, since a name of them may hold any character: a name is compared, and never read back out of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(String);

/// Enough of the hash to be unique.
const SCOPE_BYTES: usize = 12;

impl Scope {
    /// The scope of inserts of the topic with the id `source` into `database`.
    pub fn new(database: &str, source: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [database, source] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(super::users::hex(&hash.finalize()[..SCOPE_BYTES]))
    }

    /// The beginning of the names of all inserts of this scope.
    pub fn prefix(&self) -> String {
        format!("clickstream/{}/", self.0)
    }

    /// The beginning of the names of one process's inserts.
    pub fn prefix_of(&self, process: Process) -> String {
        format!("{}{process}/", self.prefix())
    }
}

/// A process that sends inserts, or a part of one that does so on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(u64);

impl Process {
    /// A new random number.
    pub fn new() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The name of one insert, unique for all time. It is sent again under the same name, until its outcome is known.
#[derive(Clone, Debug)]
pub struct InsertId {
    scope: Scope,
    process: Process,
    partitions: Vec<i32>,
    nonce: Uuid,
}

impl InsertId {
    /// A new name.
    pub fn new(scope: &Scope, process: Process, partitions: Vec<i32>) -> Self {
        Self { scope: scope.clone(), process, partitions, nonce: Uuid::new_v4() }
    }

    /// The partitions that it touches.
    pub fn partitions(&self) -> &[i32] {
        &self.partitions
    }
}

/// The place of the partitions in a name that is split at each `/`.
pub const PARTITIONS: usize = 4;

/// The `query_id`: `clickstream/SCOPE/PROCESS/PARTITION,PARTITION,…/NONCE`.
impl fmt::Display for InsertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scope.prefix_of(self.process))?;
        for (nth, partition) in self.partitions.iter().enumerate() {
            write!(f, "{}{partition}", if nth == 0 { "" } else { "," })?;
        }
        write!(f, "/{}", self.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_topics_or_databases_share_a_scope() {
        let scopes = [("a", "b"), ("ab", ""), ("", "ab"), ("a", "b/c"), ("a/b", "c"), ("a", "B")];
        for (nth, one) in scopes.iter().enumerate() {
            for other in &scopes[nth + 1..] {
                assert_ne!(Scope::new(one.0, one.1), Scope::new(other.0, other.1));
            }
        }
    }

    #[test]
    fn a_name_holds_nothing_that_could_be_read_as_sql() {
        let scope = Scope::new("it's \"a\" shop/with, \\ and \n", "Xz9hvwy5QoOjQVYvwoGRQw");
        let id = InsertId::new(&scope, Process::new(), vec![0, 12]).to_string();
        assert!(id.starts_with(&scope.prefix()), "{id}");
        assert_eq!(id.split('/').nth(PARTITIONS - 1), Some("0,12"), "ClickHouse counts from 1: {id}");
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || "/,-".contains(c)), "{id}");
    }
}
