//! A consumer group: the offsets that it keeps, and the lease that it gives.

use super::{FakeClickHouse, FakeSink};
use flows::{CommitFailed, Failure, LeaseLost, Offsets, Ownership, Proof, Record, renew_lease};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The outcome of a commit that is not confirmed.
#[derive(Clone, Copy, Debug)]
enum Unconfirmed {
    Kept,
    Dropped,
}

/// The broker's side of a consumer group, which compares each commit, confirmed or not, with the stored offsets.
pub struct Group {
    opened: Instant,
    clickhouse: Arc<FakeClickHouse>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    committed: BTreeMap<i32, i64>,
    /// The member that each partition was given to last, by its number.
    owners: BTreeMap<i32, u64>,
    members: u64,
    /// Positions of the records that were delivered.
    seen: BTreeSet<(i32, i64)>,
    tries: Vec<(Duration, Vec<(i32, i64)>)>,
    failing: VecDeque<Unconfirmed>,
    random_faults: Option<StdRng>,
    takes: Duration,
}

impl Group {
    pub fn new(clickhouse: Arc<FakeClickHouse>, partitions: i32) -> Self {
        let committed = (0..partitions).map(|partition| (partition, 0)).collect();
        Self { opened: Instant::now(), clickhouse, book: Mutex::new(Book { committed, ..Book::default() }) }
    }

    /// Each commit takes this long from now on.
    pub fn taking(&self, takes: Duration) {
        self.book().takes = takes;
    }

    /// Confirms none of the next commits, and keeps none of them.
    pub fn failing(&self, commits: usize) {
        self.book().failing = vec![Unconfirmed::Dropped; commits].into();
    }

    /// Commits take a while and some are not confirmed from now on.
    pub fn with_random_faults(&self, seed: u64) {
        self.book().random_faults = Some(StdRng::seed_from_u64(seed));
    }

    /// The offset at which a new owner resumes.
    pub fn committed(&self) -> BTreeMap<i32, i64> {
        self.book().committed.clone()
    }

    /// Sets the offsets of all partitions back by this number.
    pub fn set_back(&self, by: i64) {
        let mut book = self.book();
        book.committed.values_mut().for_each(|mark| *mark = (*mark - by).max(0));
        if by > 0 {
            // Later commits come from another member.
            book.owners.values_mut().for_each(|owner| *owner = 0);
        }
    }

    /// All commits that were tried: when (since the group was opened), and the marks.
    pub fn tries(&self) -> Vec<(Duration, Vec<(i32, i64)>)> {
        self.book().tries.clone()
    }

    /// The marks of one partition, one for each commit that was tried.
    pub fn marks(&self, partition: i32) -> Vec<i64> {
        self.tries().iter().flat_map(|(_, marks)| marks).filter(|mark| mark.0 == partition).map(|mark| mark.1).collect()
    }

    /// Takes note of a record that was delivered.
    pub fn saw(&self, record: &Record) {
        self.book().seen.insert((record.partition, record.offset()));
    }

    /// A new member that owns all partitions.
    pub fn member(self: &Arc<Self>) -> Commits {
        self.member_of(&self.committed().into_keys().collect::<Vec<_>>())
    }

    /// A new member that owns these partitions. Their previous owner cannot commit them any more.
    pub fn member_of(self: &Arc<Self>, partitions: &[i32]) -> Commits {
        let mut book = self.book();
        book.members += 1;
        let number = book.members;
        book.owners.extend(partitions.iter().map(|&partition| (partition, number)));
        let tried = Mutex::new(book.committed.clone());
        drop(book);
        Commits { group: self.clone(), number, tried }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    fn unstored(&self, partition: i32, mark: i64) -> Vec<i64> {
        let book = self.book();
        if book.committed[&partition] >= mark {
            return Vec::new();
        }
        let below =
            book.seen.range((partition, book.committed[&partition])..(partition, mark)).map(|&(_, offset)| offset);
        below.filter(|&offset| !self.clickhouse.holds(partition, offset)).collect()
    }
}

/// One member's way to its group.
pub struct Commits {
    group: Arc<Group>,
    number: u64,
    tried: Mutex<BTreeMap<i32, i64>>,
}

impl Offsets for Commits {
    async fn commit(&self, marks: &[(i32, i64)]) -> Result<(), CommitFailed> {
        for &(partition, mark) in marks {
            let before = self.tried.lock().unwrap().insert(partition, mark);
            assert!(before.is_some_and(|before| before <= mark), "partition {partition}: {mark} after {before:?}");
            let unstored = self.group.unstored(partition, mark);
            assert_eq!(unstored, [0; 0], "partition {partition}: {mark} is committed before these are stored");
        }
        let (takes, fails) = {
            let mut book = self.group.book();
            book.tries.push((self.group.opened.elapsed(), marks.to_vec()));
            let scripted = (book.takes, book.failing.pop_front());
            match &mut book.random_faults {
                None => scripted,
                Some(rng) => {
                    let outcomes = [None, None, None, Some(Unconfirmed::Kept), Some(Unconfirmed::Dropped)];
                    (Duration::from_millis(rng.random_range(0..50)), outcomes[rng.random_range(0..5)])
                }
            }
        };
        sleep(takes).await;
        let mut book = self.group.book();
        if marks.iter().any(|(partition, _)| book.owners[partition] != self.number) {
            return Err(CommitFailed("the group has given the partition to another member".into()));
        }
        if !matches!(fails, Some(Unconfirmed::Dropped)) {
            book.committed.extend(marks.iter().copied());
        }
        drop(book);
        fails.map_or(Ok(()), |_| Err(CommitFailed("as scripted".into())))
    }
}

/// A lease that can be lost.
pub struct Lease {
    /// How often it will still be proved.
    left: AtomicU64,
    /// How long the next proofs take; all others take no time.
    takes: Mutex<VecDeque<Duration>>,
    random_faults: Mutex<Option<StdRng>>,
}

impl Default for Lease {
    fn default() -> Self {
        Self::lasting(u64::MAX)
    }
}

impl Lease {
    /// A lease that is lost after this many proofs.
    pub fn lasting(proofs: u64) -> Self {
        Self { left: AtomicU64::new(proofs), takes: Mutex::default(), random_faults: Mutex::default() }
    }

    /// The next proofs take this long.
    pub fn taking(self, takes: impl IntoIterator<Item = Duration>) -> Self {
        self.takes.lock().unwrap().extend(takes);
        self
    }

    /// Some proofs take seconds.
    pub fn with_random_faults(self, seed: u64) -> Self {
        *self.random_faults.lock().unwrap() = Some(StdRng::seed_from_u64(seed));
        self
    }

    pub fn lose(&self) {
        self.left.store(0, SeqCst);
    }

    fn takes(&self) -> Duration {
        let scripted = self.takes.lock().unwrap().pop_front();
        let mut random_faults = self.random_faults.lock().unwrap();
        let frozen =
            random_faults.as_mut().map(|rng| if rng.random_bool(0.1) { rng.random_range(0..10_000) } else { 0 });
        scripted.or(frozen.map(Duration::from_millis)).unwrap_or_default()
    }
}

/// A lease, and the sink by which it is renewed.
pub struct FakeOwnership {
    pub lease: Arc<Lease>,
    pub sink: Arc<FakeSink>,
}

impl Ownership for FakeOwnership {
    fn is_lost(&self) -> bool {
        self.lease.left.load(SeqCst) == 0
    }

    async fn prove(&self) -> Result<Proof, LeaseLost> {
        let takes = self.lease.takes();
        if !takes.is_zero() {
            sleep(takes).await;
        }
        self.lease
            .left
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .map(|_| Proof::Certain)
            .map_err(|_| LeaseLost)
    }

    async fn renew(&self, partitions: &[i32]) -> Result<Result<(), LeaseLost>, Failure> {
        renew_lease(&*self.sink, &self.sink.tokens, partitions).await
    }
}
