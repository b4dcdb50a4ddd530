//! The broker's side of a consumer group: its members, its generation, and the offsets that it keeps.

use super::{FakeClickHouse, ms};
use flows::{Commit, Outcome};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// How long a client waits for a coordinator that it cannot reach.
const UNREACHABLE: Duration = Duration::from_secs(5);

/// A coordinator that panics if it takes a commit of offsets that are not stored, or one that goes backwards.
pub struct Coordinator {
    clickhouse: Arc<FakeClickHouse>,
    book: Mutex<Book>,
}

struct Book {
    committed: BTreeMap<i32, i64>,
    members: BTreeSet<String>,
    joined: u64,
    /// A commit of an older generation is refused.
    generation: u64,
    /// Positions of the records that were delivered.
    delivered: BTreeSet<(i32, i64)>,
    commits: u64,
    rng: StdRng,
}

impl Coordinator {
    pub fn new(clickhouse: Arc<FakeClickHouse>, partitions: i32, seed: u64) -> Arc<Self> {
        let book = Book {
            committed: (0..partitions).map(|partition| (partition, 0)).collect(),
            members: BTreeSet::new(),
            joined: 0,
            generation: 0,
            delivered: BTreeSet::new(),
            commits: 0,
            rng: StdRng::seed_from_u64(seed),
        };
        Arc::new(Self { clickhouse, book: Mutex::new(book) })
    }

    /// A new member's id.
    pub fn join(&self) -> String {
        let mut book = self.book();
        book.joined += 1;
        let id = format!("member-{}", book.joined);
        book.members.insert(id.clone());
        id
    }

    /// Ends a membership: the member has left, its session is over, or it was removed by hand.
    pub fn remove(&self, id: &str) {
        self.book().members.remove(id);
    }

    /// All members have joined again: commits that are on their way are of the generation before.
    pub fn next_generation(&self) {
        self.book().generation += 1;
    }

    pub fn has_members(&self) -> bool {
        !self.book().members.is_empty()
    }

    pub fn committed(&self) -> BTreeMap<i32, i64> {
        self.book().committed.clone()
    }

    /// Sets all offsets back by this number. Kafka allows that only if a group has no members.
    pub fn set_back(&self, by: i64) {
        if !self.has_members() {
            self.book().committed.values_mut().for_each(|offset| *offset = (*offset - by).max(0));
        }
    }

    pub fn delivered(&self, partition: i32, offset: i64) {
        self.book().delivered.insert((partition, offset));
    }

    /// How many commits came.
    pub fn commits(&self) -> u64 {
        self.book().commits
    }

    /// A commit comes, and is answered, after some time.
    pub async fn commit(&self, commit: &Commit, is_reachable: bool) -> Outcome {
        if !is_reachable {
            sleep(UNREACHABLE).await;
            return Outcome::Failed;
        }
        let (generation, takes, fate) = {
            let mut book = self.book();
            let takes = book.rng.random_range(0..50);
            (book.generation, ms(takes), book.rng.random_range(0..5))
        };
        sleep(takes).await;
        self.book().commits += 1;
        if !self.book().members.contains(&commit.member) {
            return Outcome::Evicted;
        }
        if self.book().generation != generation || fate == 0 {
            return Outcome::Failed;
        }
        for &(partition, offset, _) in &commit.offsets {
            let before = self.book().committed[&partition];
            assert!(before <= offset, "partition {partition}: {offset} is committed after {before}");
            let unstored = self.unstored(partition, before, offset);
            assert_eq!(unstored, [0; 0], "partition {partition}: {offset} is committed before these are stored");
            self.book().committed.insert(partition, offset);
        }
        // In some cases the answer is lost.
        if fate == 1 { Outcome::Failed } else { Outcome::Taken }
    }

    fn unstored(&self, partition: i32, from: i64, to: i64) -> Vec<i64> {
        let book = self.book();
        let below = book.delivered.range((partition, from)..(partition, to)).map(|&(_, offset)| offset);
        below.filter(|&offset| !self.clickhouse.holds(partition, offset)).collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Tests that fail on purpose look at it afterwards.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
