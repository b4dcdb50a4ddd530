//! The name of an insert: what ClickHouse has as its `query_id`, so that others can see whose it is and what it touches.

use sha2::{Digest, Sha256};
use std::fmt;
use uuid::Uuid;

/// Whose inserts they are: of one topic, into one database, on behalf of one consumer group.
///
/// The three are hashed, since a group's name may hold any character: a name is compared, and never read back out of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(String);

/// Enough of the hash to be unique.
const SCOPE_BYTES: usize = 12;

impl Scope {
    /// The scope of inserts of the topic with the id `source` into `database`, by members of `group`.
    pub fn new(database: &str, source: &str, group: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [database, source, group] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(super::users::hex(&hash.finalize()[..SCOPE_BYTES]))
    }

    /// What the names of all inserts of this scope begin with.
    pub fn prefix(&self) -> String {
        format!("clickstream/{}/", self.0)
    }
}

/// The name of one insert, unique for all time.
#[derive(Clone, Debug)]
pub struct InsertId {
    scope: Scope,
    partitions: Vec<i32>,
    /// Until when it may begin, by the server's clock: milliseconds since the Unix epoch.
    pub expires_ms: i64,
    nonce: Uuid,
}

impl InsertId {
    /// A new name.
    pub fn new(scope: &Scope, partitions: Vec<i32>, expires_ms: i64) -> Self {
        Self { scope: scope.clone(), partitions, expires_ms, nonce: Uuid::new_v4() }
    }
}

/// The `query_id`: `clickstream/SCOPE/PARTITION,PARTITION,…/NONCE`. [`ClickHouse::evict`](super::ClickHouse::evict) looks for
/// partitions in the third part.
impl fmt::Display for InsertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scope.prefix())?;
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
    fn no_two_groups_topics_or_databases_share_a_scope() {
        let scopes =
            [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("a", "b", "c/d"), ("a", "b/c", "d"), ("a", "b", "C")];
        for (nth, one) in scopes.iter().enumerate() {
            for other in &scopes[nth + 1..] {
                assert_ne!(Scope::new(one.0, one.1, one.2), Scope::new(other.0, other.1, other.2));
            }
        }
    }

    #[test]
    fn a_name_holds_nothing_that_could_be_read_as_sql() {
        let scope = Scope::new("shop", "Xz9hvwy5QoOjQVYvwoGRQw", "it's \"a\" group/with, \\ and \n");
        let id = InsertId::new(&scope, vec![0, 12], 5).to_string();
        assert!(id.starts_with(&scope.prefix()) && id.contains("/0,12/"), "{id}");
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || "/,-".contains(c)), "{id}");
    }
}
